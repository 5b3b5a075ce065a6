/** TLS between `vmferry vm` and real QEMU, each as source and as destination: good credentials, and refused ones. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { VmProcess } from '../support/vm-process.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

const directories = new TlsDirectories();
afterAll(() => directories.remove());

const isFull = process.env.VMFERRY_QEMU === 'full';
const versions: QemuVersion[] = isFull ? ['7.2', '10.0'] : ['10.0'];
const memory = 16 << 20;
const workload = 'write:rate=8M,working-set=4M,pattern=random';
const bare = ['-M', 'none', '-m', '16', '-nodefaults'];

type Definition = Record<string, unknown>;
interface Credentials {
  server: Definition;
  client: Definition;
  /** A client's that are refused. */
  bad: Definition;
  /** What the source says then. */
  text: RegExp;
}

const x509 = (dir: string): Definition => ({ 'qom-type': 'tls-creds-x509', dir });
const psk = (keys: string): Definition => ({ 'qom-type': 'tls-creds-psk', dir: directories.psk(keys) });
const key = 'qemu:0123456789abcdef0123456789abcdef\n';

const kinds: Record<string, Credentials> = {
  certificates: {
    server: x509(directories.server()),
    client: x509(directories.client('client1')),
    bad: x509(directories.client()),
    // Which of the two directions breaks first is chance.
    text: /^(?:TLS handshake failed: |Unable to (?:write to|read from) socket: |Channel error: )/,
  },
  'shared keys': {
    server: psk(key),
    client: psk(key),
    bad: psk(key.replace('0123', '3210')),
    text: /^TLS handshake failed: /,
  },
};

type Monitored = { execute(command: string, given?: Definition): Promise<unknown> };

async function arm(vm: Monitored, endpoint: 'client' | 'server', definition: Definition, capabilities: string[]) {
  await vm.execute('object-add', { ...definition, id: 'tls0', endpoint });
  await vm.execute('migrate-set-parameters', { 'tls-creds': 'tls0' });
  await vm.execute('migrate-set-capabilities', {
    capabilities: ['events', 'return-path', ...capabilities].map((capability) => ({ capability, state: true })),
  });
}

async function statusOf(vm: Monitored) {
  return (await vm.execute('query-migrate')) as { status?: string; 'error-desc'?: string };
}

/** Waits until a migration has ended. */
async function outcome(vm: Monitored) {
  let info = await statusOf(vm);
  await expect
    .poll(async () => {
      info = await statusOf(vm);
      return info.status;
    })
    .toMatch(/^(?:completed|failed)$/);
  return info;
}

async function memoryOf(vm: Monitored & { dir: string }): Promise<Buffer> {
  const filename = join(vm.dir, 'memory');
  await vm.execute('pmemsave', { val: 0, size: memory, filename });
  return readFileSync(filename);
}

const modes: [string, string, string[]][] = [
  ['certificates', 'multifd', ['multifd']],
  ['shared keys', 'one line', []],
  ...(isFull
    ? ([
        ['certificates', 'one line', []],
        ['shared keys', 'multifd', ['multifd']],
      ] as [string, string, string[]][])
    : []),
];

describe.each(versions)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version)).each(modes)('%s, %s', (kind, _, capabilities) => {
    const { server, client, bad, text } = kinds[kind] as Credentials;

    /** A source is refused, gets better credentials, and is taken. */
    async function twice(from: Monitored, to: Monitored, uri: () => Promise<string>) {
      await arm(from, 'client', bad, capabilities);
      await from.execute('migrate', { uri: await uri() });
      expect((await outcome(from))['error-desc'] ?? '').toMatch(version === '7.2' ? /^/ : text);
      expect(['setup', undefined]).toContain((await statusOf(to)).status);
      await from.execute('object-del', { id: 'tls0' });
      await from.execute('object-add', { ...client, id: 'tls0', endpoint: 'client' });
      await from.execute('migrate', { uri: await uri() });
      expect(await outcome(from)).toMatchObject({ status: 'completed' });
      expect(await outcome(to)).toMatchObject({ status: 'completed' });
    }

    test.runIf(isFull || kind === 'certificates')('vmferry to QEMU', async () => {
      await using from = await VmProcess.start('--memory', '16M', '--workload', workload, '--compat', version);
      await using to = await Qemu.start({ version, args: [...bare, '-incoming', 'defer'] });
      await arm(to, 'server', server, capabilities);
      const uri = async () => {
        const { 'socket-address': addresses } = (await to.queryMigrate()) as { 'socket-address'?: { port: string }[] };
        return `tcp:127.0.0.1:${addresses?.[0]?.port}`;
      };
      await to.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
      await twice(from, to, uri);
      expect((await memoryOf(to)).equals(await memoryOf(from))).toBe(true);
    });

    test.runIf(isFull || kind === 'shared keys')('QEMU to vmferry', async () => {
      await using from = await Qemu.start({ version, args: bare });
      await using to = await VmProcess.start('--incoming', 'defer', '--compat', version);
      await arm(to, 'server', server, capabilities);
      await to.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
      await twice(from, to, () => to.incomingUri());
      expect((await memoryOf(to)).equals(await memoryOf(from))).toBe(true);
    });
  });
});
