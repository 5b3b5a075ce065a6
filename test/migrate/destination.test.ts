/** The destination, fed with captures of real migrations over lines in memory. */
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { type ReceiveOptions, receive } from '../../src/migrate/destination.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import { LiveError } from '../../src/migrate/live-error.ts';
import { open } from '../../src/node.ts';
import { convertToMappedRam } from '../../src/tasks/convert/convert.ts';
import { loadFixtures } from '../fixture-files.ts';
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

function begin(options: Partial<ReceiveOptions> = {}, whileDurable = () => {}) {
  const listener = new MemoryListener();
  const file = new MemoryFile('OUT');
  const log: string[] = [];
  const commit = async (confirm: () => void) => {
    whileDurable();
    confirm();
    log.push('commit');
  };
  const incoming = new Incoming(listener, { onStranger: (_, why) => void log.push(`stranger: ${why}`) });
  const received = receive(incoming, { file, commit }, { codecs: new NodeCodecs(), ...options });
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
    next: expect.stringMatching(/^a source had begun/),
  });
  expect(log).toEqual([]);
  // It noticed nothing.
  await sent;
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
