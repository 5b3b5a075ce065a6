import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlobSource } from '../../src/io/blob-source.ts';
import { readFully } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { StreamSource } from '../../src/io/stream-source.ts';
import { chunksOf, ScriptedSource } from './sources.ts';

const sample = Uint8Array.from({ length: 1000 }, (_, i) => (i * 31) & 0xff);

describe('a stream source', () => {
  it('gives all bytes to reads of any size, from chunks of any size, even empty ones', async () => {
    const lengths = fc.array(fc.nat(40), { maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(lengths, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), async (chunks, reads) => {
        const total = chunks.reduce((sum, length) => sum + length, 0);
        async function* produce() {
          let at = 0;
          for (const length of chunks) {
            yield sample.slice(at, at + length);
            at += length;
          }
        }
        const source = new StreamSource(produce(), 'pipe');
        const target = new Uint8Array(total + 100).fill(0xee);
        let at = 0;
        for (let i = 0; ; i++) {
          const want = reads[i % reads.length] as number;
          const count = await source.read(target.subarray(at, at + want), at);
          expect(count).toBeLessThanOrEqual(want);
          if (count === 0) break;
          at += count;
        }
        expect(target.subarray(0, total)).toEqual(sample.subarray(0, total));
        expect(await source.read(new Uint8Array(1), at)).toBe(0);
      }),
    );
  });

  it('skips bytes up to a later position', async () => {
    const source = new StreamSource(chunksOf(sample, 7), 'pipe');
    const target = new Uint8Array(5);
    expect(await source.read(target, 500)).toBeGreaterThan(0);
    expect(target[0]).toBe(sample[500]);
    expect(await source.read(target, 2000)).toBe(0);
  });

  it('refuses to seek backward, and names itself', async () => {
    const source = new StreamSource(chunksOf(sample, 100), 'pipe');
    await source.read(new Uint8Array(10), 0);
    await expect(source.read(new Uint8Array(10), 9)).rejects.toThrow(/pipe: expected a position from 10 on, got 9/);
  });

  it('rejects with the error of its chunks', async () => {
    async function* failing() {
      yield sample.slice(0, 3);
      throw new Error('connection reset');
    }
    const source = new StreamSource(failing(), 'pipe');
    expect(await source.read(new Uint8Array(10), 0)).toBe(3);
    await expect(source.read(new Uint8Array(10), 3)).rejects.toThrow('connection reset');
  });

  it('can be closed while its other side stays silent, if that side can be notified', async () => {
    let isCancelled = false;
    const silent = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) };
    const source = new StreamSource(silent, 'pipe', () => {
      isCancelled = true;
    });
    void source.read(new Uint8Array(10), 0);
    await source.close();
    expect(isCancelled).toBe(true);
  });

  it('ends the chunks when it is closed', async () => {
    let hasEnded = false;
    async function* endless() {
      try {
        for (;;) yield sample;
      } finally {
        hasEnded = true;
      }
    }
    const source = new StreamSource(endless(), 'pipe');
    await source.read(new Uint8Array(10), 0);
    await source.close();
    expect(hasEnded).toBe(true);
    expect(source.size).toBeUndefined();
  });
});

describe('a blob source', () => {
  it('reads any range, and nothing beyond the end', async () => {
    const source = new BlobSource(new Blob([sample.slice(0, 300), sample.slice(300)]));
    expect([source.size, source.name]).toEqual([1000, 'blob']);
    await fc.assert(
      fc.asyncProperty(fc.nat(1200), fc.nat(400), async (position, length) => {
        const target = new Uint8Array(length).fill(0xee);
        const count = await source.read(target, position);
        expect(count).toBe(Math.max(0, Math.min(length, 1000 - position)));
        expect(target.subarray(0, count)).toEqual(sample.subarray(position, position + count));
        expect(target.subarray(count).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
    await source.close();
  });

  it('has the name of its file', () => {
    expect(new BlobSource(new File([sample], 'guest.bin')).name).toBe('guest.bin');
    expect(new BlobSource(new File([sample], 'guest.bin'), 'other').name).toBe('other');
  });
});

describe('a memory file', () => {
  it('behaves like an array of bytes: writes anywhere, truncates, and has holes of zeros', () => {
    // Also around the boundaries of chunks of 64 KiB.
    const position = fc.oneof(fc.nat(300), fc.integer({ min: 65_400, max: 65_700 }), fc.nat(200_000));
    const change = fc.oneof(
      fc.record({
        kind: fc.constant('write' as const),
        position,
        length: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 140_000 })),
      }),
      fc.record({ kind: fc.constant('truncate' as const), position }),
    );
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), position, fc.nat(150_000), (changes, from, length) => {
        const file = new MemoryFile('guest');
        let model = new Uint8Array();
        const resize = (size: number) => {
          const next = new Uint8Array(size);
          next.set(model.subarray(0, size));
          model = next;
        };
        changes.forEach((each, i) => {
          if (each.kind === 'truncate') {
            file.truncate(each.position);
            resize(each.position);
          } else {
            const bytes = new Uint8Array(each.length).fill(i + 1);
            file.write(bytes, each.position);
            bytes.fill(0xdd); // the file keeps a copy
            resize(Math.max(model.length, each.position + each.length));
            model.fill(i + 1, each.position, each.position + each.length);
          }
          expect(file.size).toBe(model.length);
        });
        const whole = new Uint8Array(model.length).fill(0xee);
        expect(file.read(whole, 0)).toBe(model.length);
        expect(Buffer.compare(whole, model)).toBe(0);
        const part = new Uint8Array(length).fill(0xee);
        const count = file.read(part, from);
        expect(count).toBe(Math.max(0, Math.min(length, model.length - from)));
        expect(Buffer.compare(part.subarray(0, count), model.subarray(from, from + count))).toBe(0);
        expect(part.subarray(count).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });

  it('starts with a copy of its content', () => {
    const content = sample.slice();
    const file = new MemoryFile('guest', content);
    content.fill(0);
    const target = new Uint8Array(1000);
    expect([file.read(target, 0), file.name, file.size]).toEqual([1000, 'guest', 1000]);
    expect(target).toEqual(sample);
  });

  it('holds a hole of a terabyte', () => {
    const file = new MemoryFile();
    file.write(Uint8Array.of(9), 2 ** 40);
    const target = new Uint8Array(3).fill(1);
    expect([file.size, file.read(target, 2 ** 40 - 2), ...target]).toEqual([2 ** 40 + 1, 3, 0, 0, 9]);
    file.truncate(5);
    expect(file.size).toBe(5);
  });

  it('does not grow from an empty write', () => {
    const file = new MemoryFile();
    file.write(new Uint8Array(), 100);
    expect(file.size).toBe(0);
  });
});

describe('reading fully', () => {
  it('continues until the target is full', async () => {
    const target = new Uint8Array(900);
    await readFully(new ScriptedSource(sample, { chunk: 7 }), target, 50);
    expect(target).toEqual(sample.subarray(50, 950));
  });

  it('refuses a range beyond the end, and names the place', async () => {
    for (const chunk of [7, 5000]) {
      const reading = readFully(new ScriptedSource(sample, { chunk }), new Uint8Array(100), 990);
      await expect(reading).rejects.toMatchObject({ code: 'truncated', place: { offset: 1000 } });
    }
  });
});
