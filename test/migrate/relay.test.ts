import { expect, test } from 'vitest';
import { PeerError } from '../../src/io/connection.ts';
import { WrappedConnection } from '../../src/io/wrapped-connection.ts';
import { LiveError } from '../../src/migrate/live-error.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { CommandCode, encodeCommand } from '../../src/wire/command.ts';
import { encodeMultifdHello } from '../../src/wire/multifd-packet.ts';
import { encodeReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { encodeStreamHeader } from '../../src/wire/stream.ts';
import { loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { someOf } from '../limits.ts';
import { connectionPair, type MemoryConnection } from '../support/connection-pair.ts';
import { settle } from '../support/manual-clock.ts';
import { startRelay, take, takeAll } from '../support/relay-ends.ts';

const fixture = (name: string) => loadFixtures().find((each) => each.name === name)!;
const plain = fixture('none-plain-10.0').bytes;
const postcopy = fixture('pc-postcopy-10.0');
const preempted = loadPartedFixtures().find(({ name }) => name === 'pc-preempt-10.0')!;

const written = (write: (out: ByteWriter) => void): Uint8Array => {
  const out = new ByteWriter();
  write(out);
  return out.bytes();
};
const shut = (value: number) => written((out) => encodeReturnMessage(out, { type: ReturnType.shut, value }));
const hello = (id: number) => written((out) => encodeMultifdHello(out, { uuid: '0'.repeat(32), id }));
/** A plain stream whose source opens a return path. */
const header = written((out) => encodeStreamHeader(out));
const headLength = 13 + new DataView(plain.buffer, plain.byteOffset).getUint32(9);
const answered = Buffer.concat([
  plain.subarray(0, headLength),
  written((out) => {
    encodeCommand(out, CommandCode.openReturnPath);
    encodeCommand(out, CommandCode.ping, Uint8Array.from([0, 0, 0, 1]));
  }),
  plain.subarray(headLength),
]);

const failure = async (result: Promise<unknown>): Promise<LiveError> => {
  const error = await result.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(LiveError);
  return error as LiveError;
};

const same = (got: Uint8Array, expected: Uint8Array) => expect(Buffer.from(got).equals(expected)).toBe(true);

/** Lets everything happen. */
const quiet = async () => {
  for (let turn = 0; turn < 50; turn++) await settle();
};

test('passes a stream without a return path, and ends when the target has taken all of it and closed', async () => {
  const { listener, targets, result, connected } = startRelay();
  const source = listener.connect();
  await source.write(plain);
  await source.end();
  await connected(1);
  const target = targets[0]!;
  same(await takeAll(target), plain);
  let isDone = false;
  void result.then(() => {
    isDone = true;
  });
  await quiet();
  expect(isDone).toBe(false);
  await target.end();
  expect(await result).toEqual({
    ...{ isConfirmed: false, hasPostcopy: false, connections: 1 },
    ...{ sourceBytes: plain.length, forwardBytes: plain.length, returnBytes: 0 },
  });
  expect(await takeAll(source)).toHaveLength(0);
  expect(listener.isClosed).toBe(true);
});

test('passes a return path, and knows from SHUT 0 that the target has the guest', async () => {
  const { listener, targets, result, connected } = startRelay();
  const source = listener.connect();
  await source.write(answered);
  await connected(1);
  const target = targets[0]!;
  same(await take(target, answered.length), answered);
  await target.write(shut(0));
  same(await take(source, 8), shut(0));
  await source.end();
  await target.end();
  expect(await result).toMatchObject({ isConfirmed: true, returnBytes: 8 });
});

test('passes one byte at a time', async () => {
  const { listener, targets, result, connected } = startRelay({ pair: { readBytes: 1, buffer: 1 } });
  const source = listener.connect({ readBytes: 1, buffer: 1 });
  const short = plain.subarray(0, 3000);
  void source.write(short).then(() => source.end());
  await connected(1);
  same(await takeAll(targets[0]!), short);
  // The stream is cut off, and the target gives up.
  await targets[0]!.end();
  expect(await failure(result)).toMatchObject({ guest: 'source', message: 'the source ended the migration early' });
});

test('tells the source that the target refuses the guest', async () => {
  const { listener, targets, result, connected } = startRelay();
  const source = listener.connect();
  await source.write(answered);
  await connected(1);
  await take(targets[0]!, answered.length);
  await targets[0]!.write(shut(1));
  await targets[0]!.end();
  same(await takeAll(source), shut(1));
  await source.end();
  expect(await failure(result)).toMatchObject({ guest: 'source', message: 'Sibling indicated error 1' });
});

/** Sends the first `cut` bytes of a stream through a relay. */
async function sendUpTo(bytes: Uint8Array, cut: number, answers: readonly Uint8Array[] = []) {
  const ends = startRelay();
  const source = ends.listener.connect();
  const sent = source.write(bytes.subarray(0, cut));
  await ends.connected(1);
  const target = ends.targets[0]!;
  await take(target, cut);
  await sent;
  for (const answer of answers) {
    await target.write(answer);
    await take(source, answer.length);
  }
  return { ...ends, source, target };
}

const cuts = (bytes: Uint8Array) =>
  someOf(
    Array.from({ length: 40 }, (_, i) => Math.max(9, Math.floor((bytes.length * i) / 40))),
    5,
  );

/** Where a stream in postcopy has its first command that precopy does not have. */
const firstDiscard = Buffer.from(postcopy.bytes).indexOf(Buffer.from([8, 0, 6]));

test.each([
  ['the source', 'with', answered],
  ['the source', 'without', plain],
  ['the target', 'with', answered],
  ['the target', 'without', plain],
] as const)('breaks the other side at once when %s breaks, %s a return path', async (side, how, bytes) => {
  // The rest of a whole stream is its description.
  const whole = Buffer.from(bytes).lastIndexOf('{"configuration"') - 6;
  const last = bytes === plain ? whole : bytes.length;
  for (const cut of [...cuts(bytes), last].filter((cut) => cut <= last)) {
    const { source, target, result, listener } = await sendUpTo(bytes, cut);
    const [broken, other]: MemoryConnection[] = side === 'the source' ? [source, target] : [target, source];
    broken!.destroy();
    const error = await failure(result);
    // In the first bytes it is not known yet that a return path follows.
    const isKnown = how === 'with' && cut > headLength + 5;
    // Once it has everything, a target may have started the guest.
    const isAtSource = isKnown && cut <= whole;
    if (isKnown || how === 'without') expect(error.guest).toBe(isAtSource ? 'source' : 'either');
    expect(error.cause).toBeInstanceOf(PeerError);
    await expect(other!.read(new Uint8Array(1), 0)).rejects.toThrow('Connection reset by peer');
    expect(listener.isClosed).toBe(true);
  }
});

test('knows that the guest is split once the source has begun postcopy', async () => {
  expect(firstDiscard).toBeGreaterThan(1000);
  for (const [cut, guest] of [
    // What says so may be on the line that broke.
    [firstDiscard - 1, 'either'],
    [firstDiscard + 100, 'split'],
    [postcopy.bytes.length - 1, 'split'],
    [postcopy.bytes.length, 'split'],
  ] as const) {
    for (const end of ['source', 'target'] as const) {
      const ends = await sendUpTo(postcopy.bytes, cut);
      ends[end].destroy();
      expect(await failure(ends.result)).toMatchObject({ guest });
    }
  }
});

test('a target that has refused the guest before postcopy leaves it at the source', async () => {
  const { source, target, result } = await sendUpTo(postcopy.bytes, firstDiscard - 1, [shut(1)]);
  target.destroy();
  await expect(take(source, 1)).rejects.toThrow('Connection reset by peer');
  const error = await failure(result);
  expect(error).toMatchObject({ guest: 'source' });
  expect(error.next).toBe('the guest is at the source; if it does not run on there, `cont` resumes it');
});

test('says that a source with postcopy on may be in postcopy-paused if its line breaks', async () => {
  const { source, result } = await sendUpTo(postcopy.bytes, firstDiscard - 1);
  source.destroy();
  expect((await failure(result)).next).toMatch('if it is in postcopy-paused');
});

test('cannot know whether the source runs the guest, too, if the line breaks behind SHUT 0', async () => {
  for (const [bytes, next] of [
    [answered, /^look at the target first/],
    [postcopy.bytes, /^the target has all of the guest/],
  ] as const) {
    const { source, result } = await sendUpTo(bytes, bytes.length, [shut(0)]);
    source.destroy();
    expect(await failure(result)).toMatchObject({ guest: 'either', next: expect.stringMatching(next) });
  }
});

test('a target that breaks its line behind SHUT 0 has the guest', async () => {
  const { source, target, result } = await sendUpTo(answered, answered.length, [shut(0)]);
  target.destroy();
  await source.end();
  expect(await takeAll(source)).toHaveLength(0);
  expect(await result).toMatchObject({ isConfirmed: true });
});

test('a source that is told of SHUT 0 ends first: what it has not read when it closes would reset its line', async () => {
  const { source, target, result, clock } = await sendUpTo(answered, answered.length, [shut(0)]);
  await target.end();
  let isTold = false;
  const rest = takeAll(source).then(() => {
    isTold = true;
  });
  await clock.advance(1999);
  expect(isTold).toBe(false);
  await source.end();
  await rest;
  expect(await result).toMatchObject({ isConfirmed: true });
});

test('does not need the line to a source that has sent everything and waits for no answer', async () => {
  const { source, target, result } = await sendUpTo(plain, plain.length);
  source.destroy();
  expect(await takeAll(target)).toHaveLength(0);
  await target.end();
  expect(await result).toMatchObject({ isConfirmed: false });

  // What becomes of the target is known only from its end.
  const unknown = await sendUpTo(plain, plain.length);
  await unknown.source.end();
  unknown.target.destroy();
  expect(await failure(unknown.result)).toMatchObject({ guest: 'either' });
});

test('breaks the source if the target ends in good order while the source goes on sending', async () => {
  for (const bytes of [plain, answered]) {
    const cut = Math.floor(bytes.length / 2);
    const { source, target, result } = await sendUpTo(bytes, cut);
    await target.end();
    expect(await takeAll(source)).toHaveLength(0);
    await source.write(bytes.subarray(cut, cut + 1));
    const guest = bytes === plain ? 'either' : 'source';
    expect(await failure(result)).toMatchObject({ guest, message: 'the target ended the migration early' });
    await expect(source.write(bytes.subarray(cut))).rejects.toThrow('Broken pipe');
  }
});

test('a source that ends early has failed, and keeps its guest', async () => {
  for (const [bytes, guest] of [
    [plain.subarray(0, plain.length / 2), 'source'],
    [answered.subarray(0, answered.length / 2), 'source'],
    // An end in good order brings everything, so postcopy has not begun.
    [postcopy.bytes.subarray(0, firstDiscard - 1), 'source'],
    [postcopy.bytes.subarray(0, -200), 'split'],
  ] as const) {
    const cut = bytes.length;
    const { source, target, result } = await sendUpTo(bytes, cut);
    await source.end();
    expect(await takeAll(target)).toHaveLength(0);
    await target.end();
    expect(await failure(result)).toMatchObject({ guest });
  }
});

test('breaks the source if the target cannot be reached', async () => {
  const { listener, result } = startRelay({ refuses: true });
  const source = listener.connect();
  await source.write(header);
  expect(await failure(result)).toMatchObject({
    guest: 'source',
    message: "Failed to connect to 'host:1': Connection refused",
    cause: { code: 'ECONNREFUSED' },
  });
  await expect(source.read(new Uint8Array(1), 0)).rejects.toThrow('Connection reset by peer');
  expect(listener.isClosed).toBe(true);
});

test('connects the main connection first, then channels, in the order of the source', async () => {
  const { listener, targets, connected, result } = startRelay();
  const main = listener.connect();
  const channels = [2, 0, 1].map((id) => ({ id, line: listener.connect() }));
  for (const { id, line } of channels) await line.write(hello(id));
  await quiet();
  // Nothing is known of the first connection, so nothing is passed on.
  expect(targets).toHaveLength(0);
  await main.write(answered);
  await connected(4);
  same(await take(targets[0]!, answered.length), answered);
  for (const [i, { id }] of channels.entries()) same(await take(targets[i + 1]!, 64), hello(id));
  await channels[1]!.line.write(Buffer.from('pages'));
  await channels[1]!.line.end();
  expect(Buffer.from(await takeAll(targets[2]!)).toString()).toBe('pages');
  await targets[0]!.write(shut(0));
  await take(main, 8);
  for (const line of [main, channels[0]!.line, channels[2]!.line, ...targets]) await line.end();
  expect(await result).toMatchObject({ forwardBytes: answered.length + 3 * 64 + 5 });
});

test('loses no connection that comes while the target is being connected', async () => {
  let go = () => {};
  const hold = new Promise<void>((resolve) => {
    go = resolve;
  });
  const { listener, targets, connected, result } = startRelay({ hold });
  const main = listener.connect();
  await main.write(answered.subarray(0, 2000));
  await quiet();
  const channel = listener.connect();
  await channel.write(hello(0));
  await quiet();
  go();
  await connected(2);
  same(await take(targets[1]!, 64), hello(0));
  targets[0]!.destroy();
  await failure(result);
});

test('breaks everything when a channel breaks', async () => {
  for (const side of ['source', 'target'] as const) {
    const { listener, targets, connected, result } = startRelay();
    const main = listener.connect();
    await main.write(answered.subarray(0, 2000));
    const channel = listener.connect();
    await channel.write(hello(0));
    await connected(2);
    (side === 'source' ? channel : targets[1]!).destroy();
    // The target may close a channel that is not needed any more.
    if (side === 'target') await channel.write(Buffer.from('pages'));
    expect(await failure(result)).toMatchObject({ guest: 'source' });
    for (const line of [main, targets[0]!]) {
      await take(line, 2000).catch(() => {});
      await expect(line.read(new Uint8Array(1), 0)).rejects.toThrow('Connection reset by peer');
    }
  }
});

test('a target may reset a channel before it says that it has the guest', async () => {
  const { listener, targets, connected, result } = startRelay();
  const main = listener.connect();
  await main.write(answered);
  const channel = listener.connect();
  await channel.write(hello(0));
  await connected(2);
  await take(targets[0]!, answered.length);
  targets[1]!.destroy();
  expect(await takeAll(channel)).toHaveLength(0);
  await targets[0]!.write(shut(0));
  same(await take(main, 8), shut(0));
  for (const line of [main, channel, targets[0]!]) await line.end();
  expect(await result).toMatchObject({ isConfirmed: true });
});

test('passes on a silent connection if the source may use a preempt channel', async () => {
  // 7.2 opens it at the start, 10.0 when postcopy begins.
  for (const isEarly of [true, false]) {
    const { listener, targets, connected, result } = startRelay();
    const main = listener.connect();
    let preempt = isEarly ? listener.connect() : undefined;
    await main.write(preempted.bytes);
    preempt ??= listener.connect();
    await connected(2);
    same(await take(targets[0]!, preempted.bytes.length), preempted.bytes);
    await preempt.write(preempted.preempt[0]!);
    await preempt.end();
    same(await takeAll(targets[1]!), preempted.preempt[0]!);
    await targets[0]!.write(shut(0));
    await take(main, 8);
    for (const line of [main, ...targets]) await line.end();
    expect(await result).toMatchObject({ isConfirmed: true, hasPostcopy: true });
  }
});

test('does not pass on a silent connection if the source cannot use a preempt channel', async () => {
  const { listener, targets, clock, refused, result } = await sendUpTo(answered, 2000);
  const silent = listener.connect();
  const stranger = listener.connect();
  await stranger.write(Buffer.from('GET / HTTP/1.1'));
  const second = listener.connect();
  await second.write(answered.subarray(0, 25));
  await clock.advance(29_999);
  expect(targets).toHaveLength(1);
  expect(refused).toEqual(['Not a migration stream', 'another migration is running']);
  await clock.advance(1);
  expect(refused.at(-1)).toBe('it sent nothing');
  await expect(silent.read(new Uint8Array(1), 0)).rejects.toThrow();
  targets[0]!.destroy();
  await failure(result);
});

test('closes strangers, and goes on listening', async () => {
  const { listener, targets, clock, refused, connected, result } = startRelay();
  const silent = listener.connect();
  const junk = listener.connect();
  await junk.write(Buffer.from('SSH-2.0-OpenSSH'));
  const brief = listener.connect();
  await brief.end();
  const channel = listener.connect();
  await channel.write(hello(0));
  await quiet();
  expect(refused).toEqual(['Not a migration stream', 'it ended before it sent anything']);
  await expect(junk.read(new Uint8Array(1), 0)).rejects.toThrow('Connection reset by peer');
  await clock.advance(30_000);
  expect(refused.slice(2)).toEqual(['it sent nothing', 'it is a multifd channel without a main connection']);
  await expect(silent.read(new Uint8Array(1), 0)).rejects.toThrow('Connection reset by peer');
  expect(targets).toHaveLength(0);

  const source = listener.connect();
  await source.write(plain);
  await source.end();
  await connected(1);
  same(await takeAll(targets[0]!), plain);
  await targets[0]!.end();
  await result;
});

test('a recovery is postcopy from its first byte', async () => {
  const { bytes } = loadPartedFixtures().find(({ name }) => name === 'pc-recovery-10.0')!;
  expect(bytes[0]).toBe(8);
  const { source, result, listener, targets, connected } = await sendUpTo(bytes, bytes.length, []);
  const preempt = listener.connect();
  await connected(2);
  await targets[0]!.write(shut(0));
  await take(source, 8);
  for (const line of [source, preempt, ...targets]) await line.end();
  expect(await result).toMatchObject({ isConfirmed: true, hasPostcopy: true });
  const broken = await sendUpTo(bytes, 1);
  broken.source.destroy();
  expect(await failure(broken.result)).toMatchObject({ guest: 'split' });
});

test('passes on a stream that it cannot decode', async () => {
  const strange = Buffer.concat([header, Buffer.alloc(70_000, 0x77)]);
  const { listener, targets, connected, result } = startRelay();
  const source = listener.connect();
  const sent = source.write(strange).then(() => source.end());
  await connected(1);
  same(await takeAll(targets[0]!), strange);
  await sent;
  await targets[0]!.end();
  expect(await result).toMatchObject({ isConfirmed: false });
});

test('closes a first connection that sends nothing for the setup timeout, and takes the source', async () => {
  const refused: string[] = [];
  const { listener, clock, targets, connected, result } = startRelay({
    setupTimeoutMs: 5000,
    idleTimeoutMs: 1000,
    onRefused: (_, why) => refused.push(why),
  });
  const idle = listener.connect();
  await clock.advance(4999);
  await quiet();
  expect(refused).toEqual([]);
  await clock.advance(1);
  await expect(idle.read(new Uint8Array(1), 0)).rejects.toThrow();
  expect(refused).toEqual(['it sent nothing']);
  // A listener waits for as long as it takes: the idle timeout is that of a migration.
  await clock.advance(3_600_000);
  const source = listener.connect();
  await source.write(answered);
  await connected(1);
  await take(targets[0]!, answered.length);
  await targets[0]!.write(shut(0));
  await take(source, 8);
  await source.end();
  await targets[0]!.end();
  expect(await result).toMatchObject({ isConfirmed: true });
});

test('ends when no byte moves for too long, and says so every 10 s before', async () => {
  const waits: number[] = [];
  const { listener, clock, targets, connected, result } = startRelay({
    idleTimeoutMs: 35_000,
    onWaiting(ms, what) {
      waits.push(ms);
      expect(what).toBe('the source to send more');
    },
  });
  const source = listener.connect();
  await source.write(answered.subarray(0, 500));
  await connected(1);
  await take(targets[0]!, 500);
  await clock.advance(36_000);
  expect(waits.map((ms) => Math.round(ms / 1000))).toEqual([10, 20, 30]);
  expect(await failure(result)).toMatchObject({ guest: 'source', message: 'the peer was silent for 35 s' });
  await expect(targets[0]!.read(new Uint8Array(1), 0)).rejects.toThrow('Connection reset by peer');
});

test('ends with the reason of its signal, before and during a migration', async () => {
  const before = new AbortController();
  const waiting = startRelay({ signal: before.signal });
  const silent = waiting.listener.connect();
  await quiet();
  before.abort(new Error('Ctrl-C'));
  expect(await failure(waiting.result)).toMatchObject({ guest: 'source', message: 'Ctrl-C' });
  await expect(silent.read(new Uint8Array(1), 0)).rejects.toThrow();
  expect(waiting.listener.isClosed).toBe(true);

  const during = new AbortController();
  const running = startRelay({ signal: during.signal });
  const source = running.listener.connect();
  await source.write(postcopy.bytes);
  await running.connected(1);
  await take(running.targets[0]!, postcopy.bytes.length);
  during.abort(new Error('Ctrl-C'));
  expect(await failure(running.result)).toMatchObject({ guest: 'split', message: 'Ctrl-C' });
  await expect(source.read(new Uint8Array(1), 0)).rejects.toThrow();
});

test('waits a little for channels that do not end', async () => {
  const { listener, targets, connected, result, clock } = startRelay();
  const main = listener.connect();
  await main.write(answered);
  const channel = listener.connect();
  await channel.write(hello(0));
  await connected(2);
  await take(targets[0]!, answered.length);
  await targets[0]!.write(shut(0));
  await take(main, 8);
  await main.end();
  await targets[0]!.end();
  await clock.advance(2_000);
  expect(await result).toMatchObject({ isConfirmed: true });
  expect(await takeAll(channel)).toHaveLength(0);
});

test('keeps to the bandwidth', async () => {
  const { listener, clock, targets, connected } = startRelay({ maxBandwidth: 10_000 });
  const source = listener.connect();
  void source.write(plain);
  await connected(1);
  let got = 0;
  void (async () => {
    for (;;) got += await targets[0]!.read(new Uint8Array(4096), got);
  })();
  await clock.advance(900);
  expect(got).toBeGreaterThan(8_000);
  expect(got).toBeLessThanOrEqual(10_000);
});

test('cannot know whether the target has the guest while the last bytes are being written', async () => {
  const [here, there] = connectionPair();
  let passed = 0;
  /** It passes the last bytes on, and does not say so. */
  class SilentConnection extends WrappedConnection {
    override async write(bytes: Uint8Array): Promise<void> {
      await super.write(bytes);
      passed += bytes.length;
      if (passed === answered.length) await new Promise<never>(() => {});
    }
  }
  const end = new AbortController();
  const { listener, result } = startRelay({ connect: async () => new SilentConnection(here), signal: end.signal });
  const source = listener.connect();
  await source.write(answered);
  same(await take(there, answered.length), answered);
  end.abort(new Error('ended by SIGTERM'));
  expect(await failure(result)).toMatchObject({ message: 'ended by SIGTERM', guest: 'either' });
});
