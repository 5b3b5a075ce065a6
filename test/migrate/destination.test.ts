/** The destination, fed with captures of real migrations over lines in memory. */
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import { LiveError } from '../../src/migrate/live-error.ts';
import { receive } from '../../src/migrate/receive.ts';
import type { ReceiveOptions } from '../../src/migrate/receive-options.ts';
import { open } from '../../src/node.ts';
import { convertToMappedRam } from '../../src/tasks/convert/convert.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import { loadFixtures } from '../fixture-files.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryListener } from './memory-listener.ts';

const fixtures = loadFixtures();
const streams = fixtures.filter(({ name, offset }) => !name.includes('mapped-ram') && offset === 0);
const fixture = (name: string) => {
  const found = fixtures.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no fixture ${name}`);
  return found;
};

/** Sends bytes in steps, and ends the line. */
async function play(line: Connection, bytes: Uint8Array, step = 64 * 1024): Promise<void> {
  for (let at = 0; at < bytes.length; at += step) await line.write(bytes.subarray(at, at + step));
  await line.end();
}

/** What the source hears, to the end of the line. */
async function hear(line: Connection): Promise<string> {
  const parts: number[] = [];
  const bytes = new Uint8Array(1024);
  for (;;) {
    const count = await line.read(bytes, parts.length).catch(() => 0);
    if (count === 0) return Buffer.from(parts).toString('hex');
    parts.push(...bytes.subarray(0, count));
  }
}

/** Lets a file take this many pages. Then the disk is full: only what has its place already can be written. */
function limit(file: MemoryFile, pages: number): void {
  const places = new Set<number>();
  const write = file.write.bind(file);
  const isPages = (bytes: Uint8Array, position: number) =>
    position % 4096 === 0 && bytes.length % 4096 === 0 && bytes.length < 1 << 20;
  let left = pages;
  file.write = (bytes, position) => {
    if (isPages(bytes, position)) left -= bytes.length / 4096;
    for (let at = position >> 12; at <= (position + bytes.length - 1) >> 12; at++) {
      if (left < 0 && (isPages(bytes, position) || !places.has(at))) {
        throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      }
      places.add(at);
    }
    write(bytes, position);
  };
}

function begin(options: Partial<ReceiveOptions> = {}, whileDurable = () => {}, pages = Number.POSITIVE_INFINITY) {
  const { clock } = options;
  const listener = new MemoryListener();
  const file = new MemoryFile('OUT');
  limit(file, pages);
  const log: string[] = [];
  const commit = async (confirm: () => void) => {
    whileDurable();
    confirm();
    log.push('commit');
  };
  const incoming = new Incoming(listener, {
    ...(clock === undefined ? {} : { clock }),
    onStranger: (_, why) => void log.push(`stranger: ${why}`),
  });
  const keep = async () => 'OUT.partial';
  const received = receive(incoming, { file, commit, keep }, { codecs: new NodeCodecs(), ...options });
  received.catch(() => {});
  return { listener, file, log, received };
}

const contentOf = (file: MemoryFile) => {
  const bytes = Buffer.alloc(file.size);
  file.read(bytes, 0);
  return bytes;
};

async function converted(bytes: Uint8Array, channels: Uint8Array[]): Promise<Buffer> {
  await using file = await open(bytes, { channels });
  const output = new MemoryFile('converted');
  await using _ = await convertToMappedRam(file, output);
  return contentOf(output);
}

describe('a live migration arrives as the same file that convert makes of its capture', () => {
  for (const { name, bytes, channels } of streams) {
    it(name, async () => {
      const { listener, file, log, received } = begin();
      const main = listener.connect();
      const others = channels.map(() => listener.connect());
      const heard = hear(main);
      const playing = [play(main, bytes), ...others.map((line, i) => play(line, channels[i] as Uint8Array))];
      await Promise.allSettled(playing);
      const { confirmed, found } = await received;
      expect(log).toEqual(['commit']);
      expect(found.channels).toBe(channels.length);
      expect(contentOf(file).equals(await converted(bytes, channels))).toBe(true);
      expect((await heard).endsWith('0001000400000000')).toBe(confirmed);
    });
  }
});

it('takes single bytes, a channel before the main stream, and channels that come late', async () => {
  const { bytes, channels } = fixture('none-multifd-uuid-10.0');
  const { listener, file, received } = begin();
  const early = listener.connect();
  await early.write((channels[1] as Uint8Array).subarray(0, 1));
  const main = listener.connect();
  const late = listener.connect();
  await Promise.allSettled([
    early.write((channels[1] as Uint8Array).subarray(1)).then(() => early.end()),
    play(main, bytes, 1),
    play(late, channels[0] as Uint8Array, 1),
  ]);
  await received;
  expect(contentOf(file).equals(await converted(bytes, channels))).toBe(true);
});

describe('a channel whose first bytes come long after those of the others', () => {
  /** Plays everything but `late`, until nothing more happens. */
  async function playWithout(
    late: number[],
    options: Partial<ReceiveOptions> = {},
    name = 'pc-multifd-none-zero-multifd-10.0',
  ) {
    const { bytes, channels } = fixture(name);
    const clock = new ManualClock();
    let note = () => {};
    const hasBegun = new Promise<void>((resolve) => {
      note = resolve;
    });
    const { listener, file, received } = begin({ clock, onProgress: note, ...options });
    const main = listener.connect();
    const lines = channels.map(() => listener.connect());
    const playOne = (i: number) => play(lines[i] as Connection, channels[i] as Uint8Array).catch(() => {});
    const playing = [play(main, bytes).catch(() => {})];
    for (const i of channels.keys()) if (!late.includes(i)) playing.push(playOne(i));
    await hasBegun;
    // Longer than channels are waited for when nothing shows that they are missing.
    await clock.advance(5000);
    const finish = async () => {
      await Promise.all([...playing, ...late.map(playOne)]);
      await received;
      expect(contentOf(file).equals(await converted(bytes, channels))).toBe(true);
    };
    return { clock, lines, listener, received, finish };
  }

  it.each([[[0]], [[1]], [[0, 1]]])('channels %j', async (late) => {
    const { finish } = await playWithout(late);
    await finish();
  });

  it.each([[[0]], [[1]]])('channels %j of 7.2, whose packets do not show it', async (late) => {
    const { finish } = await playWithout(late, {}, 'pc-multifd-none-7.2');
    await finish();
  });

  it('beside a stranger that leaves', async () => {
    const { listener, finish } = await playWithout([1]);
    await listener.connect().end();
    await finish();
  });

  it.each([[[0]], [[1]], [[0, 1]]])('is given up after the time that a first byte may take: %j', async (late) => {
    const { clock, received } = await playWithout(late);
    await clock.advance(60_000);
    await expect(received).rejects.toMatchObject({ cause: { code: 'missing-channels' } });
  });

  it('is given up at once if it ends without a byte', async () => {
    const { lines, received } = await playWithout([1]);
    await lines[1]?.end();
    await expect(received).rejects.toMatchObject({ cause: { code: 'missing-channels' } });
  });

  it('ends with the idle timeout, and with the signal', async () => {
    const idle = await playWithout([1], { idleTimeoutMs: 8000 });
    await idle.clock.advance(20_000);
    await expect(idle.received).rejects.toThrow(/^the peer was silent for 8(\.\d)? s$/);
    const controller = new AbortController();
    const aborted = await playWithout([1], { signal: controller.signal });
    const reason = new Error('given up');
    controller.abort(reason);
    await expect(aborted.received).rejects.toMatchObject({ cause: reason });
  });
});

describe('what a newer source sends is named, and never becomes a file', () => {
  const text = (value: string) => Buffer.from(value, 'latin1');
  const word = (value: number) => Buffer.from([value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255]);
  const opening = Buffer.from('0800010000080002000400000001', 'hex');
  /** The stream of a source with a return path, and something put in before its RAM. */
  const withBefore = (bytes: Uint8Array, ...more: Uint8Array[]) => {
    const start = Buffer.from(bytes).indexOf('\x03ram') - 5;
    return Buffer.concat([bytes.subarray(0, start), opening, ...more, bytes.subarray(start)]);
  };
  const devicePacket = Buffer.concat([
    ...[word(0x11223344), word(1), word(0x40), text('0000:00:04.0/vfio'.padEnd(256, '\0'))],
    ...[word(0), word(12), text('device state')],
  ]);
  const helloLength = 64;

  /** The failure of a source that sends this. */
  async function refused(main: Uint8Array, channels: Uint8Array[] = []): Promise<LiveError> {
    const { listener, log, received } = begin();
    const line = listener.connect();
    const heard = hear(line);
    const others = channels.map((bytes) => play(listener.connect(), bytes));
    void Promise.allSettled([play(line, main), ...others]);
    const error = await received.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(LiveError);
    expect(log).not.toContain('commit');
    // SHUT 1: the guest runs on at the source.
    expect(await heard).toMatch(/0001000400000001$/);
    return error as LiveError;
  }

  it('the state of a device on a multifd channel', async () => {
    const { bytes, channels } = fixture('none-multifd-uuid-10.0');
    const [first, ...rest] = channels as [Uint8Array, ...Uint8Array[]];
    const with0 = Buffer.concat([first.subarray(0, helloLength), devicePacket, first.subarray(helloLength)]);
    expect(await refused(withBefore(bytes), [with0, ...rest])).toMatchObject({
      ...{ guest: 'source', cause: { code: 'unsupported' } },
      message: expect.stringContaining('0000:00:04.0/vfio'),
    });
  });

  it('a flag of a multifd packet', async () => {
    const { bytes, channels } = fixture('none-multifd-uuid-10.0');
    const [first, ...rest] = channels.map((channel) => Buffer.from(channel)) as [Buffer, ...Buffer[]];
    first.writeUInt32BE(first.readUInt32BE(helloLength + 8) | 0x80, helloLength + 8);
    expect(await refused(withBefore(bytes), [first, ...rest])).toMatchObject({
      ...{ guest: 'source', cause: { code: 'bad-packet' } },
      message: expect.stringContaining('0x81'),
    });
  });

  it('a section of another kind, a section type, and a command', async () => {
    const { bytes } = fixture('none-plain-10.0');
    const iterable = [Buffer.from([1]), word(77), Buffer.from([9]), text('new-thing'), word(0), word(1), text('body')];
    expect(await refused(withBefore(bytes, ...iterable))).toMatchObject({
      ...{ guest: 'source', message: expect.stringContaining('new-thing') },
    });
    expect(await refused(withBefore(bytes, Buffer.from([0x3b])))).toMatchObject({
      ...{ guest: 'source', message: expect.stringMatching(/0x3b|59/) },
    });
    expect(await refused(withBefore(bytes, Buffer.from('080063000401020304', 'hex')))).toMatchObject({
      ...{ guest: 'source', message: expect.stringMatching(/0x63|99/) },
    });
  });

  it('a flag of a page', async () => {
    const stream = Buffer.from(withBefore(fixture('none-plain-10.0').bytes));
    const start = stream.indexOf('\x03ram') + 4 + 8;
    // After the list of blocks comes the first record.
    const eos = stream.indexOf(Buffer.from('0000000000000010', 'hex'), start);
    stream.writeUInt32BE(0x800, eos + 4);
    expect(await refused(stream)).toMatchObject({
      ...{ guest: 'source', message: expect.stringContaining('0x800') },
    });
  });
});

it('closes a first connection that sends nothing for the setup timeout, and waits for the source', async () => {
  const { bytes } = fixture('none-plain-10.0');
  const clock = new ManualClock();
  const waits: unknown[] = [];
  const { listener, file, log, received } = begin({
    ...{ clock, idleTimeoutMs: 1000 },
    onWaiting: (...wait) => waits.push(wait),
  });
  const idle = listener.connect();
  await clock.advance(29_999);
  expect(log).toEqual([]);
  await clock.advance(1);
  await expect(idle.read(new Uint8Array(1), 0)).rejects.toThrow();
  expect(log).toHaveLength(1);
  // The idle timeout is that of a migration.
  await clock.advance(3_600_000);
  expect(waits).toEqual([]);
  await play(listener.connect(), bytes);
  await received;
  expect(contentOf(file).equals(await converted(bytes, []))).toBe(true);
});

it('says every 10 s that the source is silent, and for what it waits', async () => {
  const { bytes } = fixture('none-plain-10.0');
  const clock = new ManualClock();
  const waits: [number, string][] = [];
  let note = () => {};
  const hasBegun = new Promise<void>((resolve) => {
    note = resolve;
  });
  const { listener, received } = begin({
    clock,
    onWaiting: (ms, what) => waits.push([Math.floor(ms / 10_000), what]),
    onProgress: note,
  });
  const main = listener.connect();
  await main.write(bytes.subarray(0, 3000));
  await hasBegun;
  await clock.advance(45_000);
  expect(waits.slice(0, 3)).toEqual([1, 2, 3].map((tens) => [tens, 'the source to send more']));
  await main.write(bytes.subarray(3000));
  await main.end();
  await received;
});

it('closes strangers, and takes the real source', async () => {
  const { bytes } = fixture('none-plain-10.0');
  const { listener, file, log, received } = begin();
  const idle = listener.connect();
  const junk = listener.connect();
  await junk.write(new TextEncoder().encode('GET / HTTP/1.1\r\n'));
  await expect(junk.read(new Uint8Array(1), 0)).rejects.toThrow();
  // A source that recovers from a broken line would wait for ever if this were kept.
  const recovery = listener.connect();
  await recovery.write(new Uint8Array([8, 0, 10, 0, 4, 3, 0x72, 0x61, 0x6d]));
  await expect(recovery.read(new Uint8Array(1), 0)).rejects.toThrow();
  await listener.connect().end();
  await play(listener.connect(), bytes);
  await received;
  await expect(idle.read(new Uint8Array(1), 0)).rejects.toThrow();
  expect(log.filter((line) => line.startsWith('stranger')).sort()).toEqual([
    'stranger: Not a migration stream',
    'stranger: it was closed without a byte',
    'stranger: the recovery of a migration in postcopy cannot be received',
  ]);
  expect(contentOf(file).equals(await converted(bytes, []))).toBe(true);
});

it.each(['pc-no-vmdesc-10.0', 'none-plain-10.0'])(
  '%s is never whole after a cut, and says where the guest is',
  async (name) => {
    const { bytes } = fixture(name);
    for (const cut of [0, 3, 4, 20, 200, 5000, bytes.length >> 1, bytes.length - 1]) {
      const { listener, log, received } = begin(cut < 4 ? { signal: AbortSignal.timeout(200) } : {});
      await play(listener.connect(), bytes.subarray(0, cut)).catch(() => {});
      const error = await received.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error, `cut at ${cut}`).toBeInstanceOf(LiveError);
      expect((error as LiveError).guest, `cut at ${cut}`).toBe(cut < 4 ? 'source' : 'either');
      expect(log).not.toContain('commit');
    }
  },
);

it('given up while the file is made durable: it does not appear, and the source is not told', async () => {
  const { bytes } = fixture('none-plain-10.0');
  const start = Buffer.from(bytes).indexOf('\x03ram') - 5;
  const opening = Buffer.from('08000100000800020004000000 01'.replace(' ', ''), 'hex');
  const answered = Buffer.concat([bytes.subarray(0, start), opening, bytes.subarray(start)]);
  for (const [stream, guest] of [[bytes, 'either'] as const, [answered, 'source'] as const]) {
    const controller = new AbortController();
    const reason = new Error('given up');
    const { listener, log, received } = begin({ signal: controller.signal }, () => controller.abort(reason));
    const line = listener.connect();
    const heard = hear(line);
    await play(line, stream).catch(() => {});
    await expect(received).rejects.toMatchObject({ cause: reason, guest });
    expect(log).toEqual([]);
    expect(await heard).not.toContain('00010004');
  }
});

it('given up before anything of a source was read: the source may have completed', async () => {
  const { bytes } = fixture('none-plain-10.0');
  const controller = new AbortController();
  const reason = new Error('given up');
  const { listener, log, received } = begin({ signal: controller.signal });
  const sent = play(listener.connect(), bytes);
  controller.abort(reason);
  await expect(received).rejects.toMatchObject({
    cause: reason,
    guest: 'either',
    next: expect.stringMatching(/^a source may have begun/),
  });
  expect(log).toEqual([]);
  // It noticed nothing.
  await sent;
});

it.each([
  ['broke', 'either', /^a source may have begun/],
  ['ended', 'source', /^nothing was received/],
])('given up after a connection %s before its first bytes came: %s', async (how, guest, next) => {
  const controller = new AbortController();
  const { listener, log, received } = begin({ signal: controller.signal });
  const line = listener.connect();
  if (how === 'broke') line.destroy();
  else await line.end();
  await expect.poll(() => log).toEqual(['stranger: it was closed without a byte']);
  controller.abort(new Error('given up'));
  await expect(received).rejects.toMatchObject({ guest, next: expect.stringMatching(next) });
});

it('a disk that is full does not cost the pages that came in postcopy, and before it not the guest', async () => {
  const { bytes } = fixture('pc-postcopy-10.0');
  const guests = new Set<string>();
  for (let pages = 0; ; pages += 4) {
    const { listener, file, log, received } = begin({}, () => {}, pages);
    const line = listener.connect();
    const heard = hear(line);
    await play(line, bytes).catch(() => {});
    const error = await received.then(
      () => undefined,
      (thrown: unknown) => thrown as LiveError,
    );
    if (error === undefined) break;
    guests.add(error.guest);
    expect(error).toMatchObject({ message: expect.stringContaining('no space'), cause: { code: 'ENOSPC' } });
    expect(log).toEqual([]);
    if (error.guest === 'source') expect(await heard).toMatch(/0001000400000001$/);
    else {
      expect(error).toMatchObject({ guest: 'split', next: expect.stringMatching(/; what came is in OUT\.partial$/) });
      expect(await heard).not.toContain('00010004');
      await using kept = await open(contentOf(file));
      const verified = await verify(kept);
      expect(verified.findings.filter(({ severity }) => severity === 'error')).toEqual([]);
      expect(verified.verdict).toBe('incomplete');
    }
  }
  expect([...guests]).toEqual(['source', 'split']);
});

it('a stranger beside the source is not taken for a preempt channel', async () => {
  const { bytes } = fixture('none-plain-10.0');
  const { listener, file, log, received } = begin();
  const main = listener.connect();
  await main.write(bytes.subarray(0, 1000));
  for (const junk of ['GET / HTTP/1.1', '\x08\0\x01\0', '\0\0\0\0junk']) {
    const stranger = listener.connect();
    await stranger.write(Buffer.from(junk, 'latin1'));
    await expect(stranger.read(new Uint8Array(1), 0)).rejects.toThrow();
  }
  await main.write(bytes.subarray(1000));
  await main.end();
  await received;
  expect(log).toEqual([...Array(3).fill('stranger: Not a migration stream'), 'commit']);
  expect(contentOf(file).equals(await converted(bytes, []))).toBe(true);
});
