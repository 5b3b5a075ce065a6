/**
 * Postcopy from a file into a real QEMU: its guest runs before its RAM is there, and in the end RAM equals that of the source,
 * block by block. The server is killed, and another one, which knows nothing, goes on.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { readFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectSecure } from 'node:tls';
import { afterAll, describe, expect, test } from 'vitest';
import { CountingServer } from '../io/counting-server.ts';
import { TlsDirectories } from '../tls-directories.ts';
import type { Capture, CaptureOptions } from './capture.ts';
import { captureCache } from './capture-cache.ts';
import { expectCounting } from './expect-counting.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { truthOf } from './load-set.ts';
import { fillStripes, type Machine, startDestination } from './machine.ts';
import type { Qemu, QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { differences } from './truth.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

const tls = new TlsDirectories();
afterAll(() => tls.remove());

const sources = {
  'mapped-ram': (version) => ({ version, machine: 'bare', ramMiB: 16, route: 'mapped-ram' }),
  stream: (version) => ({ version, machine: 'bare', ramMiB: 16, route: 'exec' }),
  xbzrle: (version) => ({ version, machine: 'bare', route: 'exec', workload: { passes: 3 }, capabilities: ['xbzrle'] }),
  pc: (version) => ({ version, machine: 'pc', route: 'exec' }),
  q35: (version) => ({ version, machine: 'q35', route: 'mapped-ram' }),
  // Its guest goes on to meet one zero page after another.
  meeting: (version) => ({
    ...{ version, machine: 'bare', ramMiB: 128, route: version === '10.0' ? 'mapped-ram' : 'exec' },
    fill: async ({ guest }) => {
      await guest?.fill({ first: 256, count: 4000 }, 'random');
      await guest?.startDirtying({ first: 6000, count: 26_000 }, 'touch');
    },
  }),
  paused: (version) => ({
    ...{ version, machine: 'bare', ramMiB: 16, route: 'mapped-ram' },
    fill: async (running, ours) => {
      await fillStripes(running, ours);
      await running.qemu.execute('stop');
    },
  }),
} satisfies Record<string, (version: QemuVersion) => CaptureOptions>;
type SourceName = keyof typeof sources;

const captured = captureCache(sources);

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

const serveArgs = (made: Capture, uri: string, preempt: boolean, ...args: string[]) => [
  ...['resume', made.file, '--serve', uri, ...(preempt ? ['--postcopy-preempt'] : []), ...args],
];

/** The lines of a command with --json. */
const linesOf = (stdout: string): Record<string, unknown>[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const lineCases: [QemuVersion, 'tcp' | 'unix', boolean][] = [];
for (const version of ['7.2', '10.0'] as const)
  for (const transport of ['unix', 'tcp'] as const)
    for (const preempt of [false, true]) lineCases.push([version, transport, preempt]);
const essentialLines: [QemuVersion, 'tcp' | 'unix', boolean][] = [
  ['7.2', 'unix', true],
  ['10.0', 'tcp', true],
  ['10.0', 'unix', false],
];

/** Serves a QEMU slowly, kills the server, and lets another one go on. Resolves with the lines of the second one. */
async function serveTwice(
  made: Capture,
  waiting: { qemu: Qemu; uri: string },
  preempt: boolean,
  { again = [], tls: more = [] }: { again?: string[]; tls?: string[] } = {},
) {
  const { qemu, uri } = waiting;
  await using first = new LiveCommand(
    serveArgs(made, uri, preempt, '--json', '--max-postcopy-bandwidth', '2M', ...more),
  );
  await first.prints(/"event":"running"/);
  first.kill();
  await first.ended;
  await qemu.waitForStatus('postcopy-paused');
  const isTcp = uri.startsWith('tcp');
  const path = join(qemu.dir, `again-${Math.random().toString(36).slice(2)}`);
  await qemu.execute('migrate-recover', { uri: isTcp ? 'tcp:127.0.0.1:0' : `unix:${path}` });
  const second = isTcp ? await tcpUri(qemu) : `unix:${path}`;
  await using command = new LiveCommand(serveArgs(made, second, preempt, '--json', '--recover', ...again, ...more));
  const { code, stdout, stderr } = await command.ended;
  expect([code, stderr]).toEqual([0, '']);
  return linesOf(stdout);
}

async function tcpUri(qemu: Qemu): Promise<string> {
  const { 'socket-address': addresses } = await qemu.queryMigrate();
  const [{ port }] = addresses as [{ port: string }];
  return `tcp:127.0.0.1:${port}`;
}

describe.skipIf(lacksQemu('7.2', '10.0'))('a guest that meets zero pages until all others are there', () => {
  const rounds = isFull ? 10 : 2;
  test.each(isFull ? lineCases : essentialLines)('misses none of them: %s over %s, preempt %s', async (...line) => {
    const [version, transport, preempt] = line;
    const made = await captured('meeting', version);
    for (let round = 0; round < rounds; round++) {
      const { qemu, uri } = await startWaiting(made, { transport, preempt, runs: true });
      await using _qemu = qemu;
      await using command = new LiveCommand(serveArgs(made, uri, preempt, '--json'));
      const { code, stdout, stderr } = await command.ended;
      expect([code, stderr]).toEqual([0, '']);
      expect(linesOf(stdout).at(-1)?.faults).toBeGreaterThan(10);
      await qemu.waitForMigration();
      const guest = await Guest.resume(qemu);
      await guest.stop();
      guest.close();
    }
  });
});

describe.skipIf(lacksQemu('7.2', '10.0'))('a page server that is killed', () => {
  test.each(isFull ? lineCases : essentialLines)(
    'is replaced by one that knows nothing: %s over %s, preempt %s',
    async (version, transport, preempt) => {
      const made = await captured(version === '10.0' ? 'mapped-ram' : 'stream', version);
      const waiting = await startWaiting(made, { transport, preempt });
      await using qemu = waiting.qemu;
      const events = await serveTwice(made, waiting, preempt);
      expect(events.map(({ event }) => event)).toEqual(expect.arrayContaining(['running', 'complete']));
      expect(events.at(-1)).toMatchObject({ event: 'complete', resident: 1, remainingBytes: 0 });
      await qemu.waitForMigration();
      expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
    },
  );

  test.each(isFull ? [false, true] : [true])('also over TLS, preempt %s', async (preempt) => {
    const made = await captured('mapped-ram', '10.0');
    const keys = 'qemu:0123456789abcdef0123456789abcdef\n';
    const waiting = await startWaiting(made, {
      ...{ transport: 'tcp', preempt },
      prepare: async (qemu) => {
        const server = { 'qom-type': 'tls-creds-psk', dir: tls.psk(keys), id: 'tls0', endpoint: 'server' };
        await qemu.execute('object-add', server);
        await qemu.setParameters({ 'tls-creds': 'tls0' });
      },
    });
    await using qemu = waiting.qemu;
    const object = `tls-creds-psk,id=tls0,endpoint=client,dir=${tls.psk(keys)}`;
    await serveTwice(made, waiting, preempt, { tls: ['--object', object, '--tls-creds', 'tls0'] });
    await qemu.waitForMigration();
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
  });

  test.runIf(isFull)('100 times of 100, RAM equal', async () => {
    const made = await captured('mapped-ram', '10.0');
    for (let times = 0; times < 100; times++) {
      const preempt = times % 2 === 1;
      const waiting = await startWaiting(made, { transport: times % 4 < 2 ? 'unix' : 'tcp', preempt });
      await using qemu = waiting.qemu;
      await serveTwice(made, waiting, preempt);
      await qemu.waitForMigration();
      expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
    }
  });
});

describe.skipIf(lacksQemu('10.0'))('resume --serve', () => {
  test('records what a guest asks for, and pushes it first to others, several at a time', async () => {
    const made = await captured('mapped-ram', '10.0');
    const waiting = await startWaiting(made, { preempt: true, runs: true });
    await using qemu = waiting.qemu;
    const order = join(qemu.dir, 'order');
    await using recording = new LiveCommand(
      serveArgs(made, waiting.uri, true, '--json', '--record', order, '--max-postcopy-bandwidth', '400K'),
    );
    await qemu.event('RESUME');
    const guest = await Guest.resume(qemu);
    await guest.startDirtying({ first: 1024, count: 64 }, 'few-bytes');
    await expectCounting(guest, 0);
    guest.close();
    recording.kill('SIGINT');
    const { code, stderr } = await recording.ended;
    expect(code).toBe(130);
    expect(JSON.parse(stderr.trim().split('\n').at(-1) as string).error).toMatchObject({ guest: 'split' });
    const recorded = readFileSync(order, 'utf8').trim().split('\n');
    expect(recorded[0]).toBe('# vmferry page order 1');
    const bytes = recorded.slice(1).reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
    expect(bytes).toBeGreaterThanOrEqual(64 * 4096);
    const others = await Promise.all([1, 2, 3].map(() => startWaiting(made, { preempt: true })));
    try {
      const commands = others.map(({ uri }) => new LiveCommand(serveArgs(made, uri, true, '--order', order)));
      for (const [i, command] of commands.entries()) {
        const { code: end, stdout } = await command.ended;
        expect([end, stdout]).toEqual([0, expect.stringContaining('the target has the guest')]);
        const { qemu: other } = others[i] as (typeof others)[number];
        await other.waitForMigration();
        expect(differences(await truthOf(other), made.truth)).toEqual([]);
      }
    } finally {
      for (const { qemu: other } of others) await other[Symbol.asyncDispose]();
    }
  });

  test('waits for a line through which a QEMU is reached', async () => {
    const made = await captured('mapped-ram', '10.0');
    const { qemu, uri } = await startWaiting(made, {});
    await using _qemu = qemu;
    await using command = new LiveCommand(serveArgs(made, `listen:unix:${join(qemu.dir, 'listen')}`, false));
    const unix = (address: string) => createConnection(address.slice('unix:'.length));
    const joined = joinSockets(unix(await command.uri()), unix(uri));
    expect((await command.ended).code).toBe(0);
    joined.end();
    await qemu.waitForMigration();
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
  });

  test('waits with TLS, and lets only those connect that may', async () => {
    const made = await captured('mapped-ram', '10.0');
    const { qemu, uri } = await startWaiting(made, {});
    await using _qemu = qemu;
    const objects = [
      ...['--object', `tls-creds-x509,id=tls0,endpoint=server,dir=${tls.server()}`],
      ...['--object', 'authz-simple,id=who,identity=O=Org,,CN=client1', '--tls-creds', 'tls0', '--tls-authz', 'who'],
    ];
    await using command = new LiveCommand(serveArgs(made, 'listen:tcp:127.0.0.1:0', false, ...objects));
    const port = Number(/:(\d+)$/.exec(await command.uri())?.[1]);
    const others = joinSockets(connectTls(port, tls.client('client2')), createConnection(uri.slice('unix:'.length)));
    await command.says(/was refused/);
    others.end();
    const again = await startWaiting(made, {});
    await using other = again.qemu;
    const joined = joinSockets(
      connectTls(port, tls.client('client1')),
      createConnection(again.uri.slice('unix:'.length)),
    );
    const { code, stderr } = await command.ended;
    expect(code, stderr).toBe(0);
    joined.end();
    await other.waitForMigration();
    expect(differences(await truthOf(other), made.truth)).toEqual([]);
  });

  test('a paused guest stays paused', async () => {
    const made = await captured('paused', '10.0');
    const { qemu, uri } = await startWaiting(made, { runs: true, preempt: true });
    await using _qemu = qemu;
    await using command = new LiveCommand(serveArgs(made, uri, true));
    const { code, stderr } = await command.ended;
    expect([code, stderr]).toEqual([0, expect.stringContaining('so that it stays paused')]);
    await qemu.waitForMigration();
    expect(await qemu.execute('query-status')).toMatchObject({ status: 'paused', running: false });
    expect(differences(await truthOf(qemu), made.truth)).toEqual([]);
  });

  test('a target without postcopy refuses the guest, which stays in its file', async () => {
    const made = await captured('mapped-ram', '10.0');
    const qemu = await startDestination(machineOf(made));
    await using _qemu = qemu;
    const uri = `unix:${join(qemu.dir, 'incoming')}`;
    await qemu.execute('migrate-incoming', { uri });
    await using command = new LiveCommand(serveArgs(made, uri, false, '--json'));
    const { code, stderr } = await command.ended;
    expect(code).toBe(3);
    const { error } = JSON.parse(stderr.trim().split('\n').at(-1) as string);
    expect(error).toMatchObject({ guest: 'source', next: expect.stringContaining('let QEMU map the file') });
  });
});

describe.skipIf(lacksQemu('10.0'))('a file on a server with a latency of 20 ms', () => {
  test('needs few requests before the guest runs, and none when the cache has it', async () => {
    const made = await captured('mapped-ram', '10.0');
    const server = await CountingServer.start({ guest: made.file }, { delayMs: 20 });
    const url = server.url('guest');
    try {
      const waiting = await startWaiting(made, { preempt: true, runs: true });
      await using qemu = waiting.qemu;
      const files = ['--cache', join(qemu.dir, 'cache'), '--record', join(qemu.dir, 'order')];
      await using command = new LiveCommand(serveArgs({ ...made, file: url }, waiting.uri, true, '--json', ...files));
      await command.prints(/"event":"running"/);
      // With the pieces behind those that are needed.
      expect(server.take().requests).toBeLessThan(24);
      expect((await command.ended).code).toBe(0);
      const guest = await Guest.resume(qemu);
      await guest.startDirtying({ first: 1024, count: 16 }, 'few-bytes');
      await expectCounting(guest, 0);
      guest.close();
      server.take();
      const others = await startWaiting(made, { preempt: true });
      await using other = others.qemu;
      const again = ['--cache', join(qemu.dir, 'cache'), '--order', join(qemu.dir, 'order')];
      await using second = new LiveCommand(serveArgs({ ...made, file: url }, others.uri, true, ...again));
      expect((await second.ended).code).toBe(0);
      expect(server.take().requests).toBeLessThan(5);
      await other.waitForMigration();
      expect(differences(await truthOf(other), made.truth)).toEqual([]);
    } finally {
      await server.close();
    }
  });
});

/** Joins two sockets, as socat does. */
function joinSockets(a: Socket, b: Socket): Socket {
  for (const socket of [a, b]) socket.on('error', () => {});
  a.pipe(b);
  b.pipe(a);
  return a;
}

/** A TLS client with the credentials in a directory, as those of socat. */
function connectTls(port: number, dir: string): Socket {
  const [ca, cert, key] = ['ca-cert', 'client-cert', 'client-key'].map((name) =>
    readFileSync(join(dir, `${name}.pem`)),
  );
  return connectSecure({ port, host: '127.0.0.1', ca, cert, key, checkServerIdentity: () => undefined });
}
