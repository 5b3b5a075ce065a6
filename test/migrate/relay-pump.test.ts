import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PeerError } from '../../src/io/connection.ts';
import { type Onlooker, Pump, PumpFailure } from '../../src/migrate/relay-pump.ts';
import { someOf } from '../limits.ts';
import { connectionPair } from '../support/connection-pair.ts';
import { settle } from '../support/manual-clock.ts';

/** Reads to the end, in pieces of at most `most` bytes. */
async function readAll(line: ReturnType<typeof connectionPair>[0], most = 1 << 16): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let position = 0; ; ) {
    const target = new Uint8Array(most);
    const count = await line.read(target, position);
    if (count === 0) return Buffer.concat(parts);
    parts.push(target.subarray(0, count));
    position += count;
  }
}

const bytesOf = (length: number, seed = 1) => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * seed) & 0xff);

/** Keeps what it sees, as a decoder would that always leaves some bytes unread. */
class Looker implements Onlooker {
  readonly seen: number[] = [];
  readonly #memory: Uint8Array;
  readonly #rest: number;
  #from = 0;
  #to = 0;

  constructor(memory: Uint8Array, rest: number) {
    this.#memory = memory;
    this.#rest = rest;
  }

  restart(at: number): void {
    const rest = this.#to - this.#from;
    this.#memory.copyWithin(at - rest, this.#from, this.#to);
    this.#from = at - rest;
    this.#to = at;
  }

  see(from: number, to: number): void {
    expect(from).toBe(this.#to);
    this.#to = to;
    while (this.#to - this.#from > this.#rest) this.seen.push(this.#memory[this.#from++] as number);
  }

  end(): number[] {
    while (this.#from < this.#to) this.seen.push(this.#memory[this.#from++] as number);
    return this.seen;
  }
}

const sizes = fc.record({
  length: fc.integer({ min: 0, max: 2000 }),
  capacity: fc.integer({ min: 1, max: 300 }).map((half) => 2 * half),
  readBytes: fc.integer({ min: 1, max: 700 }),
  taken: fc.integer({ min: 1, max: 700 }),
  buffer: fc.integer({ min: 1, max: 700 }),
  rest: fc.integer({ min: 0, max: 2000 }),
});

test('passes every byte on in order, and shows each once, whatever the sizes of ring, reads and writes', async () => {
  await fc.assert(
    fc.asyncProperty(sizes, async ({ length, capacity, readBytes, taken, buffer, rest }) => {
      const [source, from] = connectionPair({ readBytes, buffer });
      const [to, target] = connectionPair({ buffer });
      let looker: Looker | undefined;
      const pump = new Pump(from, to, {
        capacity,
        onlooker: (memory) => {
          looker = new Looker(memory, rest);
          return looker;
        },
      });
      const bytes = bytesOf(length);
      const sent = source.write(bytes).then(() => source.end());
      const got = readAll(target, taken);
      await pump.run();
      await to.end();
      await sent;
      expect(Buffer.from(bytes).equals(await got)).toBe(true);
      expect(Buffer.from(looker?.end() ?? []).equals(bytes)).toBe(true);
      expect([pump.read, pump.written, pump.hasEnded]).toEqual([length, length, true]);
    }),
    { numRuns: someOf(Array.from({ length: 2000 }), 20).length },
  );
});

test('passes on what is there while a read is pending', async () => {
  const [source, from] = connectionPair();
  const [to, target] = connectionPair();
  void new Pump(from, to, { capacity: 1 << 16 }).run();
  for (const text of ['a', 'few', 'bytes']) {
    await source.write(Buffer.from(text));
    const got = new Uint8Array(16);
    const count = await target.read(got, 0);
    expect(Buffer.from(got.subarray(0, count)).toString()).toBe(text);
  }
});

test('reads no more than the ring holds while the other side takes nothing', async () => {
  const [source, from] = connectionPair({ buffer: 1 });
  const [to] = connectionPair({ buffer: 1 });
  const pump = new Pump(from, to, { capacity: 64 });
  void pump.run();
  void source.write(bytesOf(1000)).catch(() => {});
  for (let turn = 0; turn < 200; turn++) await settle();
  expect(pump.read - pump.written).toBe(64);
});

test('says which of its two connections failed', async () => {
  const [source, from] = connectionPair();
  const [to, target] = connectionPair();
  const reading = new Pump(from, to, { capacity: 64 }).run();
  source.destroy();
  await expect(reading).rejects.toMatchObject({ end: 'from', error: expect.any(PeerError) });

  const [other, next] = connectionPair();
  const writing = new Pump(next, to, { capacity: 64 }).run();
  target.destroy();
  await other.write(bytesOf(10));
  const failure = await writing.catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(PumpFailure);
  expect(failure).toMatchObject({ end: 'to', error: { code: 'EPIPE' } });
});

test('takes a failure to read for an end, if nothing can follow, and passes on what came before', async () => {
  const [source, from] = connectionPair();
  const [to, target] = connectionPair();
  const running = new Pump(from, to, { capacity: 64, isEnd: () => true }).run();
  await source.write(bytesOf(50));
  source.destroy();
  await running;
  await to.end();
  expect((await readAll(target)).length).toBe(50);
});

test('writes as many bytes as the limit grants', async () => {
  const [source, from] = connectionPair();
  const [to, target] = connectionPair();
  const grants: number[] = [];
  const limit = async (bytes: number) => {
    grants.push(Math.min(bytes, 7));
    return Math.min(bytes, 7);
  };
  const running = new Pump(from, to, { capacity: 64, limit }).run();
  await source.write(bytesOf(20));
  await source.end();
  await running;
  await to.end();
  expect(Buffer.from(bytesOf(20)).equals(await readAll(target))).toBe(true);
  expect(grants).toEqual([7, 7, 6]);
});
