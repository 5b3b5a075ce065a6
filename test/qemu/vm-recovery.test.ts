/**
 * Postcopy between `vmferry vm` and a real QEMU, each as source and as destination, through a proxy that cuts the lines at a random
 * byte of postcopy. `migrate-recover` and `migrate` with `resume` go on, as often as needed, and RAM is equal in the end.
 *
 * A cut or two with `npm run test:qemu`; VMFERRY_QEMU=full makes 10 of each.
 */
import { randomFillSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { VmProcess } from '../support/vm-process.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { seeded } from './live-end.ts';
import { HarmingProxy } from './proxy.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';
const tls = new TlsDirectories();
afterAll(() => tls.remove());

const memory = 16 << 20;
const keys = 'qemu:0123456789abcdef0123456789abcdef\n';
/** A quarter of RAM is zero, so that about 12 MiB are sent. */
const content = Buffer.alloc(memory);
for (let at = 0; at < memory; at += 1 << 20) if (at % (4 << 20) > 0) randomFillSync(content, at, 1 << 20);
/**
 * Where cuts may be, in bytes: behind the begin of postcopy, and so that the source still has something to send, because
 * otherwise it does not pause.
 */
const cuts = { first: 2 << 20, last: 9 << 20 };

/** A QEMU or a vmferry VM. */
interface Side {
  readonly dir: string;
  execute(command: string, given?: Record<string, unknown>): Promise<unknown>;
}

const statusOf = async (side: Side) => ((await side.execute('query-migrate')) as { status?: string }).status;

async function setUp(side: Side, endpoint: 'client' | 'server', { preempt, isSecure }: Mode): Promise<void> {
  const names = ['postcopy-ram', ...(preempt ? ['postcopy-preempt'] : [])];
  await side.execute('migrate-set-capabilities', {
    capabilities: names.map((capability) => ({ capability, state: true })),
  });
  if (!isSecure) return;
  await side.execute('object-add', { 'qom-type': 'tls-creds-psk', id: 'tls0', endpoint, dir: tls.psk(keys) });
  await side.execute('migrate-set-parameters', { 'tls-creds': 'tls0' });
}

async function memoryOf(side: Side): Promise<Buffer> {
  const filename = join(side.dir, `memory-${Math.random()}`);
  await side.execute('pmemsave', { val: 0, size: memory, filename });
  return readFileSync(filename);
}

async function uriOf(side: Side): Promise<string> {
  const { 'socket-address': addresses } = (await side.execute('query-migrate')) as { 'socket-address': object[] };
  const [address] = addresses as [{ host: string; port: string }];
  return `tcp:${address.host}:${address.port}`;
}

/** Migrates in postcopy through a proxy, which cuts the main line once. Resolves with how often it broke. */
async function migrate(source: Side, target: Side, cutAt: number, cut: 'end' | 'reset'): Promise<number> {
  await target.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  // Precopy sends little of it, and postcopy lasts for some windows.
  const slow = { 'max-bandwidth': 1 << 20, 'max-postcopy-bandwidth': 8 << 20 };
  await source.execute('migrate-set-parameters', slow);
  for (let breaks = 0; ; breaks++) {
    await using proxy = await HarmingProxy.open(await uriOf(target), (connection) =>
      breaks === 0 && connection === 0 ? { there: { cutAt, cut } } : {},
    );
    await source.execute('migrate', { uri: proxy.uri, ...(breaks > 0 ? { resume: true } : {}) });
    if (breaks === 0) {
      await waitUntil('the source is active', async () => (await statusOf(source)) === 'active');
      await source.execute('migrate-start-postcopy');
    } else {
      await waitUntil('the source goes on', async () => (await statusOf(source)) !== 'postcopy-paused');
    }
    let ends: (string | undefined)[] = [];
    await waitUntil('both sides have ended, or have paused', async () => {
      ends = [await statusOf(source), await statusOf(target)];
      return ends.every((end) => end === 'completed') || ends.every((end) => end === 'postcopy-paused');
    });
    if (ends[0] === 'completed') return breaks;
    await target.execute('migrate-recover', { uri: 'tcp:127.0.0.1:0' });
  }
}

interface Mode {
  version: QemuVersion;
  /** Whether the vmferry VM is the source. */
  isSource: boolean;
  preempt: boolean;
  isSecure: boolean;
}

const modes: (Mode & { essential: boolean })[] = [];
for (const version of ['7.2', '10.0'] as const)
  for (const isSource of [true, false])
    for (const preempt of [false, true])
      for (const isSecure of [false, true])
        modes.push({
          ...{ version, isSource, preempt, isSecure },
          essential: version === '10.0' ? preempt !== isSecure && preempt === isSource : !preempt && !isSecure,
        });

/** Starts both sides. RAM of the source is the content. */
async function startBoth(mode: Mode) {
  const { version, isSource } = mode;
  const dir = Qemu.makeDir();
  const ram = join(dir, 'ram');
  writeFileSync(ram, content);
  const own = isSource ? ['--memory', '16M', '--ram', ram] : ['--incoming', 'defer'];
  const backend = ['-object', `memory-backend-file,id=ram,mem-path=${ram},size=16M,share=on`];
  const [machine, ...more] = isSource ? ['none', '-incoming', 'defer'] : ['none,memory-backend=ram', ...backend];
  const vm = await VmProcess.start(...own, '--compat', version);
  const qemu = await Qemu.start({ version, dir, args: ['-M', machine, '-m', '16', '-nodefaults', ...more] });
  const [source, target]: [Side, Side] = isSource ? [vm, qemu] : [qemu, vm];
  await setUp(source, 'client', mode);
  await setUp(target, 'server', mode);
  return {
    ...{ source, target },
    async [Symbol.asyncDispose]() {
      await qemu[Symbol.asyncDispose]();
      await vm[Symbol.asyncDispose]();
    },
  };
}

const chosen = modes.filter(({ essential }) => isFull || essential);
const random = seeded(3);

describe.skipIf(lacksQemu('7.2', '10.0'))('postcopy of a vmferry VM goes on after a cut', () => {
  test.each(chosen)('$version, from the VM $isSource, preempt $preempt, TLS $isSecure', async (mode) => {
    for (let i = 0; i < (isFull ? 10 : 1); i++) {
      await using sides = await startBoth(mode);
      const { source, target } = sides;
      const cutAt = cuts.first + Math.floor(random() * (cuts.last - cuts.first));
      expect(await migrate(source, target, cutAt, i % 2 === 0 ? 'end' : 'reset')).toBe(1);
      expect((await memoryOf(target)).equals(content)).toBe(true);
    }
  });
});
