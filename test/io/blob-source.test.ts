import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlobSource } from '../../src/io/blob-source.ts';
import { readFully } from '../../src/io/byte-source.ts';
import { CountedBlob, type CountedBlobOptions } from './counted-blob.ts';

const MiB = 1 << 20;

const bytesOf = (length: number) => {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 2654435761);
  return new Uint8Array(words.buffer, 0, length);
};
const sample = bytesOf(6 * MiB + 123);

/** Reads all bytes in order, at most 1 MiB at a time, and compares them. */
async function readInOrder(source: BlobSource, from = 0): Promise<void> {
  const target = new Uint8Array(MiB);
  for (let at = from; ; ) {
    const count = await source.read(target, at);
    if (count === 0) {
      expect(at).toBe(sample.length);
      return;
    }
    expect(Buffer.compare(target.subarray(0, count), sample.subarray(at, at + count))).toBe(0);
    at += count;
  }
}

const whole = (blob: CountedBlob) => ({
  slice: (start?: number, end?: number) => blob.slice(start, end),
  arrayBuffer: () => blob.arrayBuffer(),
  stream: () => blob.stream?.(),
});

/** Looks at the head and the tail, as `openFile` and the Flow do. */
async function lookAround(source: BlobSource): Promise<void> {
  const look = async (at: number, length: number) => {
    const target = new Uint8Array(length);
    await readFully(source, target, at);
    expect(Buffer.compare(target, sample.subarray(at, at + length))).toBe(0);
  };
  await look(0, 16);
  await look(0, 4096);
  await look(sample.length - 256 * 1024, 256 * 1024);
}

describe.each(['byob', 'default', 'none'] as const)('a Blob with a stream of kind %s', (stream) => {
  const counted = (options: CountedBlobOptions = {}) => new CountedBlob(sample, { stream, ...options });

  it('is read once, although its head and tail are looked at first', async () => {
    const blob = counted();
    const source = new BlobSource(blob);
    await lookAround(source);
    await readInOrder(source);
    expect({ most: blob.most, unread: blob.unread, open: blob.openStreams }).toEqual({ most: 1, unread: 0, open: 0 });
    if (stream === 'none') return;
    // Slices only before the reading in order has begun.
    expect(blob.slices.reduce((sum, [from, to]) => sum + to - from, 0)).toBeLessThan(2.5 * MiB);
    await source.close();
  });

  it('is read anew in a second pass, and closes its streams', async () => {
    const blob = counted();
    const source = new BlobSource(blob);
    await readInOrder(source);
    await readInOrder(source);
    const target = new Uint8Array(MiB);
    for (let at = 0; at < 3 * MiB; at += await source.read(target, at));
    await source.close();
    expect(blob.openStreams).toBe(0);
  });

  it('skips small gaps within its stream, and jumps over large ones', async () => {
    const blob = counted();
    const source = new BlobSource(blob, 'guest', { bufferBytes: 64 << 10 });
    const target = new Uint8Array(4096);
    for (let at = 0; at < sample.length; at += 3 * 4096) {
      const count = await source.read(target, at);
      expect(Buffer.compare(target.subarray(0, count), sample.subarray(at, at + count))).toBe(0);
    }
    expect(blob.most).toBe(1);
    await source.close();
    expect(blob.openStreams).toBe(0);
  });

  it('gives the same bytes as memory for reads anywhere, even at the same time', async () => {
    const reads = fc.array(fc.tuple(fc.nat(sample.length + 10), fc.integer({ min: 1, max: 2 * MiB })), {
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(reads, fc.boolean(), async (list, areParallel) => {
        const source = new BlobSource(counted({ chunkBytes: 40_000 }), 'guest', { bufferBytes: 200_000 });
        const check = async ([at, length]: [number, number]) => {
          // Each read is followed by those that continue it, as a reader in order does.
          for (let next = at, end = at + length; next < end; ) {
            const target = new Uint8Array(Math.min(300_000, end - next));
            const count = await source.read(target, next);
            expect(Buffer.compare(target.subarray(0, count), sample.subarray(next, next + count))).toBe(0);
            expect(count > 0 || next >= sample.length).toBe(true);
            if (count === 0) break;
            next += count;
          }
        };
        if (areParallel) await Promise.all(list.map(check));
        else for (const each of list) await check(each);
        await source.close();
      }),
      { numRuns: 30 },
    );
  });

  it('fails with the reason of a slice if the file changes while it is read', async () => {
    let failure: Error | undefined;
    const source = new BlobSource(counted({ failure: () => failure }));
    const target = new Uint8Array(64 << 10);
    let at = 0;
    while (at < 4 * MiB) at += await source.read(target, at);
    failure = new Error('the file could not be read');
    const rest = async () => {
      while (at < sample.length) at += await source.read(target, at);
    };
    await expect(rest()).rejects.toThrow('the file could not be read');
    await source.close();
  });
});

it('a Blob that is shorter than it says ends early', async () => {
  const blob = new CountedBlob(sample);
  const longer = { ...whole(blob), size: sample.length + MiB };
  const source = new BlobSource(longer);
  await readInOrder(source);
  expect(await source.read(new Uint8Array(10), sample.length)).toBe(0);
});

it('an ordinary Blob is read in order', async () => {
  const source = new BlobSource(new Blob([sample]));
  await readInOrder(source);
  await source.close();
});
