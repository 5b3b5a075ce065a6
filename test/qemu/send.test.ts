/**
 * `vmferry send`: captures of real QEMU, in several forms, as live migrations into a real QEMU that waits. RAM of the
 * target equals that of the source, block by block, and its guest continues. What the target does wrong, or the user ends, is
 * reported with where the guest is.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { TlsDirectories } from '../tls-directories.ts';
import type { Capture, CaptureOptions } from './capture.ts';
import { captureCache } from './capture-cache.ts';
import { CutProxy } from './cut-proxy.ts';
import { expectCounting } from './expect-counting.ts';
import { partOptions } from './expect-read.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { truthOf } from './load-set.ts';
import { type Machine, startDestination } from './machine.ts';
import type { Qemu, QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences } from './truth.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

const tls = new TlsDirectories();
afterAll(() => tls.remove());

const sources = {
  old: (version) => ({ version, ...old, route: 'exec' }),
  bare: (version) => ({ version, machine: 'bare', route: 'exec' }),
  none: (version) => ({ version, machine: 'none', route: 'exec' }),
  pc: (version) => ({ version, machine: 'pc', route: 'exec' }),
  uuid: (version) => ({
    ...{ version, machine: 'none', route: 'exec', args: ['-uuid', '01234567-89ab-cdef-0123-456789abcdef'] },
  }),
  xbzrle: (version) => ({ version, machine: 'bare', route: 'exec', workload: { passes: 3 }, capabilities: ['xbzrle'] }),
  'mapped-ram': (version) => ({ version, machine: 'bare', route: 'mapped-ram' }),
  multifd: (version) => ({ version, machine: 'bare', route: 'multifd', parameters: { 'multifd-compression': 'zstd' } }),
} satisfies Record<string, (version: QemuVersion) => CaptureOptions>;
type SourceName = keyof typeof sources;

const captured = captureCache(sources);

/** A machine like that of a capture. */
function machineOf(made: Capture): Machine {
  const { version, machine, args, type } = made.options;
  return { version, machine, ...(args === undefined ? {} : { args }), ...(type === undefined ? {} : { type }) };
}

interface Multifd {
  channels: number;
  compression: 'none' | 'zlib' | 'zstd';
}

/** Starts a destination that waits, and returns it with the URI for the source. */
async function startWaiting(
  machine: Machine,
  transport: 'tcp' | 'unix' = 'unix',
  multifd?: Multifd,
  prepare?: (qemu: Qemu) => Promise<void>,
) {
  const qemu = await startDestination(machine);
  await prepare?.(qemu);
  if (multifd !== undefined) {
    await qemu.setCapabilities(['multifd']);
    await qemu.setParameters({
      'multifd-channels': multifd.channels,
      'multifd-compression': multifd.compression,
    });
  }
  const path = join(qemu.dir, 'incoming');
  await qemu.execute('migrate-incoming', { uri: transport === 'unix' ? `unix:${path}` : 'tcp:127.0.0.1:0' });
  if (transport === 'unix') return { qemu, uri: `unix:${path}`, path };
  const { 'socket-address': addresses } = await qemu.queryMigrate();
  const [{ port }] = addresses as [{ port: string }];
  return { qemu, uri: `tcp:127.0.0.1:${port}`, path };
}

const multifdArgs = (multifd: Multifd | undefined) =>
  multifd === undefined
    ? []
    : ['--multifd-channels', String(multifd.channels), '--multifd-compression', multifd.compression];

const sendArgs = (made: Capture, uri: string, ...args: string[]) => [
  ...['send', made.file, uri, ...partOptions(made), '--json', ...args],
];

/** The error that a command printed. */
const errorOf = (stderr: string) => JSON.parse(stderr.trim().split('\n').at(-1) as string).error;

interface Case {
  source?: SourceName;
  version: QemuVersion;
  transport?: 'tcp' | 'unix';
  multifd?: Multifd;
  args?: string[];
  /** The target, if it is not like the source. */
  into?: Machine;
  essential?: boolean;
}

const cases: Record<string, Case> = {};
for (const version of ['7.2', '10.0'] as const) {
  const isNew = version === '10.0';
  const add = (name: string, of: Omit<Case, 'version'>) => {
    cases[`${name}, ${version}`] = { version, ...of };
  };
  add('plain over tcp', { transport: 'tcp', essential: true });
  add('plain over unix', { transport: 'unix' });
  add('machine none', { source: 'none', args: ['--compat', version], essential: !isNew });
  add('pc with ordinary firmware', { source: 'pc', essential: isNew });
  add('from xbzrle', { source: 'xbzrle', essential: isNew });
  add('from a multifd set, to another', {
    source: 'multifd',
    multifd: { channels: 3, compression: 'zlib' },
    essential: !isNew,
  });
  for (const channels of [1, 2, 8]) {
    for (const compression of ['none', 'zlib', 'zstd'] as const) {
      const essential = isNew
        ? ['1 zstd', '8 none'].includes(`${channels} ${compression}`)
        : ['1 none', '2 zlib', '8 zstd'].includes(`${channels} ${compression}`);
      add(`multifd ${channels} ${compression}`, { multifd: { channels, compression }, essential });
    }
  }
  add('multifd of machine none over tcp', {
    ...{ source: 'none', transport: 'tcp', args: ['--compat', version] },
    multifd: { channels: 2, compression: 'zstd' },
  });
  add('a UUID', {
    ...{ source: 'uuid', multifd: { channels: 2, compression: 'none' } },
    args: ['--compat', version, '--uuid', '01234567-89ab-cdef-0123-456789abcdef'],
    essential: isNew,
  });
  add('255 channels', { transport: 'tcp', multifd: { channels: 255, compression: 'none' }, essential: isNew });
}
cases['from mapped-ram, 10.0'] = { version: '10.0', source: 'mapped-ram', essential: true };
const old = { machine: 'bare', type: 'pc-i440fx-7.2' } as const;

const chosen = Object.entries(cases).filter(([, { essential }]) => isFull || essential === true);

describe.skipIf(lacksQemu('7.2', '10.0'))('a QEMU takes what vmferry sends', () => {
  test.each(chosen)('%s', async (_, { source = 'bare', version, transport, multifd, args = [] }) => {
    const made = await captured(source, version);
    const { qemu, uri } = await startWaiting(machineOf(made), transport, multifd);
    await using _qemu = qemu;
    await using command = new LiveCommand(sendArgs(made, uri, ...multifdArgs(multifd), ...args));
    const { code, stdout, stderr } = await command.ended;
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ source: made.file, target: uri, confirmed: true },
      compression: multifd?.compression ?? null,
      progress: { status: 'completed', ram: { remaining: 0 } },
    });
    expect(JSON.parse(stdout).channels).toHaveLength(multifd?.channels ?? 0);
    await qemu.waitForMigration();
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
    if (made.machine === 'none') return;
    const guest = await Guest.resume(qemu);
    await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
    await expectCounting(guest, 0);
    guest.close();
  });

  test('a newer one, too, which takes the machine type of the older', async () => {
    const made = await captured('old', '7.2');
    const multifd = { channels: 2, compression: 'zstd' } as const;
    const { qemu, uri } = await startWaiting({ version: '10.0', ...old }, 'unix', multifd);
    await using _ = qemu;
    await using command = new LiveCommand(sendArgs(made, uri, ...multifdArgs(multifd)));
    expect((await command.ended).code).toBe(0);
    await qemu.waitForMigration();
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('a line in one direction', () => {
  test('the target gets everything, and the command notes that it cannot know', async () => {
    const made = await captured('bare', '10.0');
    const qemu = await startDestination(machineOf(made));
    await using _ = qemu;
    const fifo = join(qemu.dir, 'fifo');
    await qemu.execute('migrate-incoming', { uri: `exec:mkfifo ${fifo}; cat ${fifo}` });
    await using command = new LiveCommand(['send', made.file, `exec:cat > ${fifo}`]);
    const { code, stdout, stderr } = await command.ended;
    expect(code).toBe(0);
    expect(stderr).toBe(
      'vmferry: note: everything was sent; it could not be confirmed that the target has the guest\n',
    );
    expect(stdout).toMatch(/: sent to exec:.*, not confirmed\n$/);
    await qemu.waitForMigration();
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('max-bandwidth', () => {
  test('holds, over all channels together', async () => {
    const made = await captured('none', '10.0');
    const multifd = { channels: 2, compression: 'none' } as const;
    const { qemu, uri } = await startWaiting(machineOf(made), 'unix', multifd);
    await using _ = qemu;
    const args = ['--max-bandwidth', '4M', '--compat', '10.0', ...multifdArgs(multifd)];
    await using command = new LiveCommand(sendArgs(made, uri, ...args));
    const { code, stdout, stderr } = await command.ended;
    expect([code, stderr]).toEqual([0, '']);
    const { ram, 'total-time': ms } = JSON.parse(stdout).progress;
    // The upper limit is for a busy machine; how exact the limit is, is tested with a clock that the test moves.
    const expected = (ram.transferred / (4 << 20)) * 1000;
    expect(ms).toBeGreaterThan(expected * 0.95);
    expect(ms).toBeLessThan(expected * 1.05 + 1000);
  });
});

interface Refusal {
  into: Machine;
  /** Of the command, which has more to say only if the return path is open. */
  message: string;
  says: RegExp;
  multifd?: Multifd;
}

const refusals: Record<string, Refusal> = {
  'another machine': {
    into: { version: '10.0', machine: 'q35' },
    message: 'the target hung up before it had the guest: Channel error: Input/output error',
    says: /Machine type received is 'pc-i440fx-10\.0' and local is 'pc-q35-10\.0'/,
  },
  'another size': {
    into: { version: '10.0', machine: 'bare', ramMiB: 4 },
    message: 'Sibling indicated error 1',
    says: /Size mismatch: pc\.ram: 0x200000 != 0x400000/,
  },
  'another size, over multifd channels': {
    into: { version: '10.0', machine: 'bare', ramMiB: 4 },
    message: 'Sibling indicated error 1',
    says: /Size mismatch: pc\.ram: 0x200000 != 0x400000/,
    multifd: { channels: 2, compression: 'none' },
  },
};

describe.skipIf(lacksQemu('7.2', '10.0'))('a target that does not take the guest', () => {
  test.each(Object.entries(refusals))('has %s', async (_, { into, message, says, multifd }) => {
    const made = await captured('bare', '10.0');
    const { qemu, uri } = await startWaiting(into, 'tcp', multifd);
    await using _qemu = qemu;
    await using command = new LiveCommand(sendArgs(made, uri, ...multifdArgs(multifd)));
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(3);
    expect(errorOf(stderr)).toMatchObject({ guest: 'source', message, exitCode: 3 });
    await expect(qemu.waitForMigration()).rejects.toThrow(says);
  });

  test('does not exist', async () => {
    const made = await captured('bare', '10.0');
    const nowhere = join(made.file, '../nowhere');
    await using command = new LiveCommand(sendArgs(made, `unix:${nowhere}`));
    const { code, stderr } = await command.ended;
    expect(code).toBe(3);
    expect(errorOf(stderr)).toMatchObject({
      ...{ guest: 'source', message: `Failed to connect to '${nowhere}': No such file or directory` },
    });
  });

  // Far less is between source and target than what is left to send, or everything was sent but for some of the description.
  test.each([0, 100, 0.1, 0.5, 0.9, -20])('is killed after %d', async (when) => {
    const made = await captured('none', '10.0');
    const { size } = statSync(made.file);
    const at = when < 0 ? size + when : when < 1 ? Math.floor(when * size) : when;
    const { qemu, path } = await startWaiting(machineOf(made));
    await using _ = qemu;
    using proxy = await CutProxy.start(join(qemu.dir, 'proxy'), path, at, () => qemu.child.kill('SIGKILL'));
    await using command = new LiveCommand(sendArgs(made, proxy.uri, '--compat', '10.0'));
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(3);
    expect(errorOf(stderr).guest).toBe(when < 0 ? 'either' : 'source');
  });

  test('is stalled', async () => {
    const made = await captured('none', '10.0');
    const { qemu, uri } = await startWaiting(machineOf(made));
    await using _ = qemu;
    qemu.child.kill('SIGSTOP');
    await using command = new LiveCommand(sendArgs(made, uri, '--idle-timeout', '0.5', '--compat', '10.0'));
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(3);
    expect(errorOf(stderr)).toMatchObject({ guest: 'source', message: 'the peer was silent for 0.5 s' });
  });
});

describe.skipIf(lacksQemu('10.0'))('a migration that the user ends', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('with %s', async (signal, expected) => {
    const made = await captured('bare', '10.0');
    const multifd = { channels: 2, compression: 'none' } as const;
    const { qemu, uri } = await startWaiting(machineOf(made), 'tcp', multifd);
    await using _ = qemu;
    await using command = new LiveCommand(sendArgs(made, uri, '--max-bandwidth', '50k', ...multifdArgs(multifd)));
    await qemu.waitForStatus('active');
    command.kill(signal);
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(expected);
    expect(errorOf(stderr)).toMatchObject({ guest: 'source' });
    await expect(qemu.waitForMigration()).rejects.toThrow();
  });
});

/** Starts a destination with the credentials of a server. `authz` is the only client that it allows. */
async function startSecured(
  made: Capture,
  credentials: object,
  transport: 'tcp' | 'unix',
  { multifd, authz }: { multifd?: Multifd; authz?: string } = {},
) {
  return startWaiting(machineOf(made), transport, multifd, async (waiting) => {
    await waiting.execute('object-add', { ...credentials, id: 'tls0', endpoint: 'server' });
    if (authz !== undefined) {
      await waiting.execute('object-add', { 'qom-type': 'authz-simple', id: 'who', identity: authz });
    }
    await waiting.setParameters({ 'tls-creds': 'tls0', ...(authz === undefined ? {} : { 'tls-authz': 'who' }) });
  });
}

const clientArgs = (type: string, dir: string, ...more: string[]) => [
  ...['--object', `${type},id=tls0,endpoint=client,dir=${dir}`, '--tls-creds', 'tls0', ...more],
];

const key = 'qemu:00112233445566778899aabbccddeeff\n';

interface Secured {
  /** The server's credentials. */
  server: () => object;
  args: () => string[];
  transport?: 'tcp' | 'unix';
  multifd?: Multifd;
  authz?: string;
  essential?: boolean;
}

const x509 = (dir: string) => ({ 'qom-type': 'tls-creds-x509', dir });
const psk = (keys: string) => ({ 'qom-type': 'tls-creds-psk', dir: tls.psk(keys) });
const pskArgs = (keys: string) => clientArgs('tls-creds-psk', tls.psk(keys));
const x509Args = (name?: string, ...more: string[]) => clientArgs('tls-creds-x509', tls.client(name), ...more);

const accepted: Record<string, Secured> = {
  'a shared key': { server: () => psk(key), args: () => pskArgs(key) },
  'a shared key and multifd channels': {
    ...{ server: () => psk(key), args: () => pskArgs(key), multifd: { channels: 3, compression: 'zstd' } },
    essential: true,
  },
  certificates: { server: () => x509(tls.server()), args: () => x509Args('client1') },
  'certificates, over a unix socket, which needs a name': {
    ...{ server: () => x509(tls.server()), args: () => x509Args('client1', '--tls-hostname', 'localhost') },
    ...{ transport: 'unix', essential: true },
  },
  'a client that the target allows': {
    ...{ server: () => x509(tls.server()), args: () => x509Args('client1'), authz: 'O=Org,CN=client1' },
    multifd: { channels: 2, compression: 'none' },
  },
};

const denied: Record<string, Secured & { message: RegExp }> = {
  'another key': {
    ...{
      server: () => psk(key),
      args: () => pskArgs('qemu:00\n'),
      message: /^TLS handshake failed: /,
      essential: true,
    },
  },
  'a name that the certificate does not have': {
    ...{ server: () => x509(tls.server()), args: () => x509Args('client1', '--tls-hostname', 'elsewhere.example') },
    ...{ message: /^Certificate does not match the hostname elsewhere\.example$/, essential: true },
  },
  'a certificate of the target for another name': {
    ...{ server: () => x509(tls.server('wrong-name')), args: () => x509Args('client1') },
    message: /^Certificate does not match the hostname 127\.0\.0\.1$/,
  },
  'a unix socket and no name': {
    ...{ server: () => x509(tls.server()), args: () => x509Args('client1'), transport: 'unix' },
    message: /^No hostname for certificate validation$/,
  },
  'an authority that the client does not know': {
    server: () => x509(tls.server()),
    args: () => clientArgs('tls-creds-x509', tls.client(undefined, { 'ca-cert.pem': 'other-ca-cert.pem' })),
    message: /certificate/i,
  },
  'no certificate of the client': {
    ...{ server: () => x509(tls.server()), args: () => x509Args(), message: /./, essential: true },
  },
  'a client that the target does not allow': {
    ...{ server: () => x509(tls.server()), args: () => x509Args('client1'), authz: 'O=Org,CN=client2', message: /./ },
  },
  'no TLS': {
    ...{ server: () => x509(tls.server()), args: () => [], message: /Unable to (read|write)|hung up/, essential: true },
  },
};

const chosenOf = <Of extends Secured>(all: Record<string, Of>) =>
  Object.entries(all).flatMap(([name, each]) =>
    (['7.2', '10.0'] as const)
      .filter((version) => isFull || (each.essential === true && version === '10.0'))
      .map((version) => [`${name}, ${version}`, version, each] as const),
  );

describe.skipIf(lacksQemu('7.2', '10.0'))('over TLS', () => {
  test.each(chosenOf(accepted))('with %s', async (_, version, { server, args, transport = 'tcp', multifd, authz }) => {
    const made = await captured('bare', version);
    const { qemu, uri } = await startSecured(made, server(), transport, {
      ...(multifd === undefined ? {} : { multifd }),
      ...(authz === undefined ? {} : { authz }),
    });
    await using _qemu = qemu;
    await using command = new LiveCommand(sendArgs(made, uri, ...multifdArgs(multifd), ...args()));
    const { code, stderr } = await command.ended;
    expect([code, stderr]).toEqual([0, '']);
    await qemu.waitForMigration();
    // What is read from it next is not secured.
    await qemu.setParameters({ 'tls-creds': '' });
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
  });

  test.each(chosenOf(denied))(
    'not with %s',
    async (_, version, { server, args, transport = 'tcp', authz, message }) => {
      const made = await captured('bare', version);
      const { qemu, uri } = await startSecured(made, server(), transport, authz === undefined ? {} : { authz });
      await using _qemu = qemu;
      await using command = new LiveCommand(sendArgs(made, uri, ...args()));
      const { code, stderr } = await command.ended;
      expect(code, stderr).toBe(3);
      expect(errorOf(stderr)).toMatchObject({ guest: 'source', message: expect.stringMatching(message) });
    },
  );
});
