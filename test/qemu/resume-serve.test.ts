/**
 * Postcopy from a file into a real QEMU: its guest runs before its RAM is there, and in the end RAM equals that of the source,
 * block by block. The server is killed, and another one, which knows nothing, goes on.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { TlsDirectories } from '../tls-directories.ts';
import { type Capture, type CaptureOptions, capture } from './capture.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { truthOf } from './load-set.ts';
import { type Machine, startDestination } from './machine.ts';
import type { Qemu, QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences } from './truth.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

/** Captures by name, each made once. */
const captures = new Map<string, Promise<Capture>>();
const tls = new TlsDirectories();
afterAll(async () => {
  tls.remove();
  for (const made of captures.values()) (await made).dispose();
});

const sources = {
  'mapped-ram': (version) => ({ version, machine: 'bare', ramMiB: 16, route: 'mapped-ram' }),
  stream: (version) => ({ version, machine: 'bare', ramMiB: 16, route: 'exec' }),
  xbzrle: (version) => ({ version, machine: 'bare', route: 'exec', workload: { passes: 3 }, capabilities: ['xbzrle'] }),
  pc: (version) => ({ version, machine: 'pc', route: 'exec' }),
  q35: (version) => ({ version, machine: 'q35', route: 'mapped-ram' }),
} satisfies Record<string, (version: QemuVersion) => CaptureOptions>;
type SourceName = keyof typeof sources;

function captured(source: SourceName, version: QemuVersion): Promise<Capture> {
  const name = `${source} ${version}`;
  const made = captures.get(name) ?? capture(sources[source](version));
  captures.set(name, made);
  return made;
}

/** A machine like that of a capture. */
function machineOf({ options: { version, machine, ramMiB } }: Capture): Machine {
  return { version, machine, ...(ramMiB === undefined ? {} : { ramMiB }) };
}

interface WaitingOptions {
  transport?: 'tcp' | 'unix';
  preempt?: boolean;
  /** Default: it stays paused. */
  runs?: boolean;
  prepare?: (qemu: Qemu) => Promise<void>;
}

/** Starts a QEMU that waits for postcopy, and returns it with the URI for the server. */
async function startWaiting(made: Capture, { transport = 'unix', preempt = false, runs, prepare }: WaitingOptions) {
  const qemu = await startDestination(machineOf(made), runs);
  await qemu.setCapabilities(['events', 'postcopy-ram', ...(preempt ? ['postcopy-preempt'] : [])]);
  await prepare?.(qemu);
  const path = join(qemu.dir, 'incoming');
  await qemu.execute('migrate-incoming', { uri: transport === 'unix' ? `unix:${path}` : 'tcp:127.0.0.1:0' });
  if (transport === 'unix') return { qemu, uri: `unix:${path}` };
  const { 'socket-address': addresses } = await qemu.queryMigrate();
  const [{ port }] = addresses as [{ port: string }];
  return { qemu, uri: `tcp:127.0.0.1:${port}` };
}

const sendArgs = (made: Capture, uri: string, preempt: boolean, ...args: string[]) => [
  ...['send', made.file, uri, '--postcopy', '--json', ...(preempt ? ['--postcopy-preempt'] : []), ...args],
];

interface Case extends WaitingOptions {
  source?: SourceName;
  version: QemuVersion;
  essential?: boolean;
}

const cases: Record<string, Case> = {};
for (const version of ['7.2', '10.0'] as const) {
  for (const transport of ['unix', 'tcp'] as const) {
    for (const preempt of [false, true]) {
      const essential = version === '10.0' ? transport === 'tcp' : (transport === 'unix') === preempt;
      const source = version === '10.0' ? 'mapped-ram' : 'stream';
      const name = `${source} over ${transport}, preempt ${preempt}, ${version}`;
      cases[name] = { version, source, transport, preempt, essential };
    }
  }
  cases[`xbzrle, ${version}`] = { version, source: 'xbzrle', essential: false };
  cases[`pc with devices, ${version}`] = { version, source: 'pc', preempt: true, essential: version === '10.0' };
}
cases['q35 with devices, 10.0'] = { version: '10.0', source: 'q35', preempt: true, essential: false };

const chosen = Object.entries(cases).filter(([, { essential }]) => isFull || essential === true);

describe.skipIf(lacksQemu('7.2', '10.0'))('send --postcopy', () => {
  test.each(chosen)('%s', async (_, { source = 'mapped-ram', version, preempt = false, ...how }) => {
    const made = await captured(source, version);
    const { qemu, uri } = await startWaiting(made, { ...how, preempt });
    await using _qemu = qemu;
    await using command = new LiveCommand(sendArgs(made, uri, preempt));
    const { code, stdout, stderr } = await command.ended;
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({ source: made.file, confirmed: true, progress: { status: 'completed' } });
    await qemu.waitForMigration();
    expect(qemu.events.map(({ data }) => data?.status)).toContain('postcopy-active');
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
    const guest = await Guest.resume(qemu);
    await guest.startDirtying({ first: 256, count: 16 }, 'few-bytes');
    await expectCounting(guest, 0);
    guest.close();
  });

  test.each([false, true])('the guest runs while its RAM is elsewhere, preempt %s', async (preempt) => {
    const made = await captured('mapped-ram', '10.0');
    const { qemu, uri } = await startWaiting(made, { preempt, runs: true, transport: 'tcp' });
    await using _qemu = qemu;
    // 16 MiB take more than a minute.
    await using command = new LiveCommand(sendArgs(made, uri, preempt, '--max-bandwidth', '100K'));
    await qemu.event('RESUME');
    const guest = await Guest.resume(qemu);
    await guest.startDirtying({ first: 1024, count: 64 }, 'few-bytes');
    await expectCounting(guest, 0);
    expect((await qemu.queryMigrate()).status).toBe('postcopy-active');
    expect(command.stdout).toBe('');
    guest.close();
  });
});
