import { describe, expect, it } from 'vitest';
import { open } from '../../src/index.ts';
import { PeerError } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { LiveError } from '../../src/migrate/live-error.ts';
import type { MigrationProgress } from '../../src/migrate/progress.ts';
import type { SendOptions, SentGuest } from '../../src/migrate/send-options.ts';
import { send } from '../../src/migrate/source.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import { type Guest, stoppedGuest } from '../../src/vm/guest.ts';
import type { WritableVm } from '../../src/vm/saved-vm.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeReturnMessage, type ReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { someOf } from '../limits.ts';
import { connectionPair, type MemoryConnection, type PairOptions } from '../support/connection-pair.ts';
import { ManualClock, settle } from '../support/manual-clock.ts';
import { PlainRam } from '../support/plain-ram.ts';

const pages = 600;
const pageSize = 4096;

/** Content with zero pages, and pages that compress badly. */
function image(): Uint8Array {
  const bytes = new Uint8Array(pages * pageSize);
  for (let page = 0; page < pages; page++) {
    if (page % 5 === 2) continue;
    for (let i = 0; i < pageSize; i++) bytes[page * pageSize + i] = (i * (page + 1) * 2654435761) >>> 13;
  }
  return bytes;
}

const content = image();
const devices = [
  { kind: 'full' as const, id: 9, name: 'timer', instanceId: 0, versionId: 1, data: new Uint8Array([1, 2, 3]) },
];
const timer = { name: 'timer', instance_id: 0, size: 3, fields: [{ name: 'data', size: 3, type: 'buffer' }] };
const vm = (): WritableVm => ({
  configuration: { machine: 'pc-i440fx-10.0', capabilities: [] },
  ram: new PlainRam(content, pageSize),
  devices,
  description: { text: JSON.stringify({ page_size: 4096, devices: [timer] }) },
});

/** The same with two pages. */
const small = () => stoppedGuest({ ...vm(), ram: new PlainRam(content.slice(0, 2 * pageSize), pageSize) });

/** What a destination received. */
class Received {
  readonly #all = new Uint8Array(2 * content.length);
  length = 0;
  /** Resolves when the line ended or broke. */
  readonly over: Promise<void>;
  #wake: () => void = () => {};

  constructor(line: MemoryConnection, until = Number.POSITIVE_INFINITY) {
    this.over = this.#readAll(line, until);
  }

  async #readAll(line: MemoryConnection, until: number): Promise<void> {
    try {
      while (this.length < until) {
        const count = await line.read(this.#all.subarray(this.length, until), this.length);
        if (count === 0) return;
        this.length += count;
        this.#wake();
      }
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
    }
  }

  get bytes(): Uint8Array {
    return this.#all.subarray(0, this.length);
  }

  /** Resolves when the end of the description is here. */
  async whole(): Promise<void> {
    const end = Buffer.from('"type":"buffer"}]}]}');
    while (!Buffer.from(this.bytes.subarray(-end.length)).equals(end)) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

type Message = Pick<ReturnMessage, 'type' | 'value' | 'block' | 'start' | 'bytes'>;

async function say(line: MemoryConnection, message: Message): Promise<void> {
  const out = new ByteWriter();
  encodeReturnMessage(out, message);
  await line.write(out.bytes());
}

/** A source and a destination, joined by lines. */
function begin(options: SendOptions = {}, pair: PairOptions = {}, guest: Guest = stoppedGuest(vm())) {
  const [main, far] = connectionPair(pair);
  const channels: MemoryConnection[] = [];
  const near: MemoryConnection[] = [main];
  const openChannel = async () => {
    const [one, other] = connectionPair(pair);
    near.push(one);
    channels.push(other);
    return one;
  };
  const outcome: { sent?: SentGuest; error?: unknown } = {};
  const over = send(guest, { main, openChannel }, options).then(
    (sent) => {
      outcome.sent = sent;
    },
    (error) => {
      outcome.error = error;
    },
  );
  return { far, channels, near, outcome, over };
}

const shut = (value: number): Message => ({ type: ReturnType.shut, value });

/** The VM in a stream and its channels equals the one that was sent. */
async function expectArrived(main: Uint8Array, channels: Uint8Array[] = []): Promise<void> {
  const file = await open(main, { channels });
  expect(await verify(file)).toMatchObject({ findings: [] });
  const copy = await openSavedVm(file, { makeScratch: () => new MemoryFile('scratch'), devices: true });
  const [block] = copy.ram.blocks;
  const there = new Uint8Array(content.length);
  await copy.ram.read(block!, 0, there);
  expect(Buffer.compare(there, content), 'RAM').toBe(0);
  expect(copy.devices.map(({ name, data }) => [name, [...data]])).toEqual([['timer', [1, 2, 3]]]);
  await copy.ram.close();
  await file.close();
}

const failure = (outcome: { error?: unknown }) => {
  const { guest, message, cause } = outcome.error as LiveError;
  expect(outcome.error).toBeInstanceOf(LiveError);
  return { guest, message, cause };
};

describe('send', () => {
  it('completes when the destination says that it has the guest, and not earlier', async () => {
    const { far, near, outcome, over } = begin();
    const received = new Received(far);
    await say(far, { type: ReturnType.pong, value: 1 });
    await received.whole();
    await settle();
    expect(outcome).toEqual({});
    await say(far, shut(0));
    await over;
    expect(outcome.sent).toMatchObject({ isConfirmed: true, length: received.length, channels: [] });
    expect(near[0]).toMatchObject({ isEnded: true, isDestroyed: true });
    await expectArrived(received.bytes);
  });

  it('opens the return path between the configuration and RAM', async () => {
    const { far, over } = begin();
    const received = new Received(far);
    await received.whole();
    await say(far, shut(0));
    await over;
    const file = await open(received.bytes);
    const kinds: string[] = [];
    for await (const item of file.flow()) {
      if (item.kind === 'command') kinds.push(`${item.command.name} ${[...item.command.payload]}`);
      if (item.kind === 'configuration') kinds.push('configuration');
      if (item.kind === 'section') kinds.push(`${item.section.name} ${item.section.kind}`);
    }
    const [configuration, ...rest] = kinds;
    expect(configuration).toBe('configuration');
    expect(rest.slice(0, 3)).toEqual(['OPEN_RETURN_PATH ', 'PING 0,0,0,1', 'ram start']);
  });

  it('sends an empty description if the guest has none: a destination waits for one before its last word', async () => {
    const { description: _, ...without } = vm();
    const { far, over, outcome } = begin({}, {}, stoppedGuest(without));
    const received = new Received(far);
    const end = Buffer.from([6, 0, 0, 0, 2, 0x7b, 0x7d]);
    await expect.poll(() => [...received.bytes.subarray(-end.length)], { timeout: 10_000 }).toEqual([...end]);
    await say(far, shut(0));
    await over;
    expect(outcome.sent).toMatchObject({ isConfirmed: true });
  });

  it('cannot know whether the guest arrived on a line that can only be written', async () => {
    const { far, outcome, over } = begin({}, { oneWay: true });
    const received = new Received(far);
    await over;
    expect(outcome.sent).toMatchObject({ isConfirmed: false });
    await received.over;
    await expectArrived(received.bytes);
    expect(Buffer.from(received.bytes).includes(Buffer.from([8, 0, 1, 0, 0]))).toBe(false);
  });

  it('opens no return path if that is not wanted, and reads what comes anyway', async () => {
    const { far, outcome, over } = begin({ returnPath: false }, { buffer: 1000 });
    const received = new Received(far);
    await far.write(new Uint8Array(5000));
    await over;
    expect(outcome.sent).toMatchObject({ isConfirmed: false });
    await received.over;
    await expectArrived(received.bytes);
  });

  it('sends to a destination that takes single bytes', async () => {
    const { far, over, outcome } = begin({}, { readBytes: 1, buffer: 7 }, small());
    const received = new Received(far);
    await received.whole();
    await say(far, shut(0));
    await over;
    expect(outcome.sent?.length).toBe(received.length);
  });
});

describe('send through multifd channels', () => {
  const cases = [
    { channels: 1, compression: 'none' },
    { channels: 3, compression: 'none' },
    { channels: 255, compression: 'none' },
    { channels: 2, compression: 'zlib' },
    { channels: 255, compression: 'zstd' },
  ] as const;
  it.each(cases)('$channels channels, $compression', async ({ compression, channels }) => {
    const {
      far,
      channels: lines,
      near,
      outcome,
      over,
    } = begin({ multifd: { channels, compression, codecs: new NodeCodecs() } });
    const main = new Received(far);
    while (lines.length < channels) await settle();
    const others = lines.map((line) => new Received(line));
    await main.whole();
    await say(far, shut(0));
    await over;
    await Promise.all(others.map(({ over: done }) => done));
    expect(outcome.sent?.channels).toEqual(others.map(({ length }) => length));
    expect(others).toHaveLength(channels);
    expect(near.every(({ isEnded }) => isEnded)).toBe(true);
    await expectArrived(
      main.bytes,
      others.map(({ bytes }) => bytes),
    );
  });

  it('needs a line that can be opened again', async () => {
    const [main] = connectionPair();
    await expect(send(stoppedGuest(vm()), { main }, { multifd: { channels: 2 } })).rejects.toThrow(
      new RangeError('Migration requires multi-channel URIs (e.g. tcp)'),
    );
    expect(main.isDestroyed).toBe(true);
  });

  it('ends all lines when one of them breaks', async () => {
    const { far, channels, near, outcome, over } = begin({ multifd: { channels: 3 } });
    const main = new Received(far);
    while (channels.length < 3) await settle();
    const [first, second, third] = channels as [MemoryConnection, MemoryConnection, MemoryConnection];
    void new Received(first);
    void new Received(second);
    const broken = new Received(third, 100_000);
    await broken.over;
    third.destroy();
    await settle();
    // The destination sees that, too, and breaks off.
    far.destroy();
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'source', message: 'Unable to write to socket: Broken pipe' });
    expect(near.every(({ isDestroyed }) => isDestroyed)).toBe(true);
    await main.over;
  });
});

describe('a destination that does not take the guest', () => {
  it('refuses it: the guest is at the source', async () => {
    const { far, outcome, over } = begin();
    const received = new Received(far, 1 << 20);
    await received.over;
    await say(far, shut(1));
    far.destroy();
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'source', message: 'Sibling indicated error 1' });
    expect(failure(outcome).cause).toBeInstanceOf(PeerError);
  });

  it('refuses it after the end of the stream', async () => {
    const { far, outcome, over } = begin();
    await new Received(far).whole();
    await say(far, shut(22));
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'source', message: 'Sibling indicated error 22' });
  });

  it('says why before it hangs up, and that is the reason', async () => {
    // Reads nothing more, so that the write fails first.
    const { far, near, outcome, over } = begin({}, { buffer: 1000 });
    await new Received(far, 500).over;
    await say(far, shut(1));
    const [main] = near as [MemoryConnection];
    // The words are still in the line when it breaks.
    far.destroy();
    await over;
    expect(failure(outcome).message).toBe('Sibling indicated error 1');
    expect(main.isDestroyed).toBe(true);
  });

  it('hangs up before the end', async () => {
    const { far, outcome, over } = begin();
    await new Received(far, 100_000).over;
    await far.end();
    await over;
    expect(failure(outcome)).toMatchObject({
      guest: 'source',
      message: 'the target hung up before it had the guest: Channel error: Input/output error',
    });
  });

  it('hangs up after the end: nobody knows', async () => {
    const { far, outcome, over } = begin();
    await new Received(far).whole();
    far.destroy();
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'either' });
  });

  it('takes the guest, and hangs up before it took the description', async () => {
    const { far, outcome, over } = begin({}, { buffer: 1 }, small());
    const received = new Received(far);
    while (!hasEof(received.bytes)) await settle();
    await say(far, shut(0));
    far.destroy();
    await over;
    expect(outcome).toMatchObject({ sent: { isConfirmed: true } });
  });

  const strange: [string, Message, string][] = [
    [
      'asks for pages',
      { type: ReturnType.reqPages, start: 0, bytes: 4096, block: 'ram' },
      'return path: REQ_PAGES before any REQ_PAGES_ID',
    ],
    [
      'asks for pages of a block',
      { type: ReturnType.reqPagesId, start: 0, bytes: 4096, block: 'ram' },
      'RP: Received invalid message 0x0003 length 0x0010',
    ],
    ['resumes', { type: ReturnType.resumeAck, value: 1 }, 'RP: Received invalid message 0x0006 length 0x0004'],
    ['answers another ping', { type: ReturnType.pong, value: 2 }, 'RP: Received invalid message 0x0002 length 0x0004'],
    ['ends too early', shut(0), 'the target ended the migration before it had the guest'],
  ];
  it.each(strange)('%s', async (_, message, expected) => {
    const { far, outcome, over } = begin();
    await new Received(far, 100_000).over;
    await say(far, message);
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'source', message: expected });
    expect(failure(outcome).cause).toBeInstanceOf(PeerError);
  });

  it('sends junk', async () => {
    const { far, outcome, over } = begin();
    await far.write(new TextEncoder().encode('HTTP/1.1 400 Bad Request\r\n'));
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'source' });
    expect(failure(outcome).cause).toBeInstanceOf(PeerError);
  });

  it('may acknowledge a switchover without being asked', async () => {
    const { far, outcome, over } = begin();
    const received = new Received(far);
    await say(far, { type: ReturnType.switchoverAck });
    await received.whole();
    await say(far, shut(0));
    await over;
    expect(outcome.sent?.isConfirmed).toBe(true);
  });
});

/** Whether the end of the stream is in these bytes: it follows the footer of the only device. */
function hasEof(bytes: Uint8Array): boolean {
  const footer = Buffer.from([1, 2, 3, 0x7e, 0, 0, 0, 9]);
  const at = Buffer.from(bytes.buffer, 0, bytes.length).lastIndexOf(footer);
  return at >= 0 && bytes.length > at + footer.length;
}

describe('a line that breaks after any number of bytes', () => {
  it.each([{ returnPath: true }, { returnPath: false }])(
    'never loses or doubles the guest %j',
    async ({ returnPath }) => {
      const whole = begin({ returnPath }, {}, small());
      const all = new Received(whole.far);
      await all.whole();
      if (returnPath) await say(whole.far, shut(0));
      await whole.over;
      const cuts = [0, 1, 100, ...Array.from({ length: 20 }, (_, i) => Math.floor((all.length * i) / 20))];
      const end = all.length;
      for (const cut of [
        ...cuts,
        ...someOf(
          Array.from({ length: 500 }, (_, i) => end - i),
          12,
          4,
        ),
      ]) {
        const { far, outcome, over } = begin({ returnPath }, { buffer: 1000 });
        const received = new Received(far, cut);
        await received.over;
        far.destroy();
        await over;
        if (outcome.error === undefined) {
          // Without a return path, everything was taken.
          expect([cut, returnPath, received.length >= end - 100]).toEqual([cut, false, true]);
          continue;
        }
        const { guest } = failure(outcome);
        const isThere = hasEof(received.bytes);
        expect([cut, isThere && guest === 'source']).toEqual([cut, false]);
        // It is not said of a guest that certainly stayed.
        if (cut < end - 400) expect([cut, guest]).toEqual([cut, 'source']);
      }
    },
  );
});

describe('a migration that the user or the guest ends', () => {
  it('breaks all lines at once when it is cancelled', async () => {
    const cancel = new AbortController();
    const states: string[] = [];
    const options = { signal: cancel.signal, onProgress: ({ status }: MigrationProgress) => states.push(status) };
    const { far, channels, near, outcome, over } = begin({ ...options, multifd: { channels: 2 } });
    const received = new Received(far);
    while (received.length === 0) await settle();
    const reason = new Error('interrupted');
    cancel.abort(reason);
    await over;
    expect(near.map(({ isDestroyed }) => isDestroyed)).toEqual([true, true, true]);
    expect(failure(outcome)).toEqual({ guest: 'source', message: 'interrupted', cause: reason });
    expect(states.at(-1)).toBe('cancelled');
    await received.over;
    expect(hasEof(received.bytes)).toBe(false);
    expect(channels).toHaveLength(2);
  });

  it('sends nothing if it was cancelled before', async () => {
    const reason = new Error('interrupted');
    const { far, outcome, over } = begin({ signal: AbortSignal.abort(reason) });
    await over;
    const received = new Received(far);
    await received.over;
    expect([received.length, failure(outcome).cause]).toEqual([0, reason]);
  });

  it('passes on an error of the guest, and the destination does not get the end', async () => {
    const ram = new PlainRam(content, pageSize);
    const error = new Error('EIO: i/o error, read');
    const read = ram.read.bind(ram);
    ram.read = async (block, page, target) => {
      if (page > 300) throw error;
      return read(block, page, target);
    };
    const { far, outcome, over } = begin({}, {}, stoppedGuest({ ...vm(), ram }));
    const received = new Received(far);
    await over;
    expect(failure(outcome)).toEqual({ guest: 'source', message: error.message, cause: error });
    await received.over;
    expect(hasEof(received.bytes)).toBe(false);
  });

  it('refuses a guest that no stream can contain, and breaks the line', async () => {
    const [main] = connectionPair();
    const guest = stoppedGuest({ ...vm(), ram: new PlainRam(new Uint8Array(), pageSize) });
    await expect(send(guest, { main })).rejects.toThrow(RangeError);
    expect(main.isDestroyed).toBe(true);
  });

  it.each([{ maxBandwidth: -1 }, { idleTimeoutMs: 0 }, { multifd: { channels: 256 } }, { multifd: { channels: 0 } }])(
    'refuses the options %j',
    async (options) => {
      const { outcome, over } = begin(options);
      await over;
      expect(outcome.error).toBeInstanceOf(RangeError);
    },
  );
});

describe('progress', () => {
  it("has QEMU's states in their order, and final counts", async () => {
    const states: MigrationProgress[] = [];
    const { far, outcome, over } = begin({ onProgress: (each) => states.push(each) });
    const received = new Received(far);
    await received.whole();
    await say(far, shut(0));
    await over;
    const order = states.map(({ status }) => status).filter((status, i, all) => status !== all[i - 1]);
    expect(order).toEqual(['setup', 'active', 'device', 'completed']);
    expect(outcome.sent?.progress).toMatchObject({
      status: 'completed',
      ram: {
        ...{ transferred: received.length, total: content.length, remaining: 0, duplicate: 120, normal: 480 },
        ...{ 'normal-bytes': 480 * pageSize, 'page-size': pageSize, 'dirty-sync-count': 2, 'multifd-bytes': 0 },
      },
    });
    expect(states.at(-1)).toEqual(outcome.sent?.progress);
    const active = states.filter(({ status }) => status === 'active');
    expect(active[0]?.ram?.remaining).toBe(content.length);
  });

  it('gives the reason of a failure', async () => {
    const states: MigrationProgress[] = [];
    const { far, over } = begin({ onProgress: (each) => states.push(each) });
    await say(far, shut(3));
    await over;
    expect(states.at(-1)).toMatchObject({ status: 'failed', 'error-desc': 'Sibling indicated error 3' });
  });
});

describe('time', () => {
  it('holds max-bandwidth over all lines together', async () => {
    const clock = new ManualClock();
    const rate = 1_000_000;
    const { far, channels, outcome, over } = begin({ clock, maxBandwidth: rate, multifd: { channels: 2 } });
    const main = new Received(far);
    while (channels.length < 2) await settle();
    const all = [main, ...channels.map((line) => new Received(line))];
    const total = () => all.reduce((sum, { length }) => sum + length, 0);
    for (let tenths = 1; tenths <= 15; tenths++) {
      await clock.advance(100);
      await settle();
      expect(total()).toBeGreaterThan((rate * (tenths - 1)) / 10);
      expect(total()).toBeLessThanOrEqual((rate * (tenths + 0.3)) / 10);
    }
    const bytes = content.length * 0.8 + 10_000;
    await clock.advance((bytes / rate - 1.5) * 1000 + 50);
    await say(far, shut(0));
    await over;
    expect(outcome.sent?.isConfirmed).toBe(true);
  });

  it('gives up a destination that takes nothing for the idle timeout', async () => {
    const clock = new ManualClock();
    const waits: [number, string][] = [];
    const options = {
      clock,
      idleTimeoutMs: 25_000,
      onWaiting: (ms: number, what: string) => waits.push([ms, what]),
    };
    const { far, outcome, over } = begin(options);
    await new Received(far, 1000).over;
    await clock.advance(24_000);
    expect(outcome).toEqual({});
    await clock.advance(2000);
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'source', message: 'the peer was silent for 25 s' });
    expect(waits).toEqual([10_000, 20_000].map((ms) => [ms, 'the target to take more']));
    expect(clock.hasSleeper).toBe(false);
  });

  it('gives up a destination that does not confirm: nobody knows where the guest is', async () => {
    const clock = new ManualClock();
    const { far, outcome, over } = begin({ clock, idleTimeoutMs: 5000 });
    await new Received(far).whole();
    await clock.advance(5000);
    await over;
    expect(failure(outcome)).toMatchObject({ guest: 'either', message: 'the peer was silent for 5 s' });
  });
});
