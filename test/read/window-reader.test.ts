import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ByteSource } from '../../src/io/byte-source.ts';
import { StreamSource } from '../../src/io/stream-source.ts';
import type { Kernel } from '../../src/kernel/kernel.ts';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { allocateWindow, drive, WindowReader } from '../../src/read/window-reader.ts';
import { type ByteWindow, maxNeed, type Need, need, takeBytes, takeU8 } from '../../src/wire/byte-window.ts';
import { chunksOf, ScriptedSource } from '../io/sources.ts';

const kernel: Kernel = await loadKernel({ arenaBytes: 4 << 20 });
const buffers = allocateWindow(kernel);
const readerOf = (source: ByteSource, offset = 0) => new WindowReader(kernel, buffers, source, offset);

/** Bytes that encode their offset: byte i depends on all of i. */
const patterned = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i ^ (i >> 8) ^ (i >> 16)) & 0xff;
  return bytes;
};
const large = patterned((5 << 20) + 123);

type Step = { kind: 'take'; count: number } | { kind: 'seek'; offset: number; length?: number };

/** Takes bytes and seeks. Yields the bytes with their offset. */
function* walk(
  window: ByteWindow,
  steps: readonly Step[],
): Generator<Need | { offset: number; bytes: Uint8Array }, void> {
  for (const step of steps) {
    if (step.kind === 'seek') {
      yield step.length === undefined ? { kind: 'seek', offset: step.offset } : { ...step, length: step.length };
      expect(window.offset).toBe(step.offset);
      continue;
    }
    const { offset } = window;
    if (step.count <= maxNeed) {
      yield* need(window, step.count, 'a piece');
      yield { offset, bytes: window.bytes.slice(window.position, window.position + step.count) };
      window.position += step.count;
    } else yield { offset, bytes: yield* takeBytes(window, step.count, 'a piece') };
  }
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = [];
  for await (const item of items) list.push(item);
  return list;
}

async function expectWalk(source: ByteSource, content: Uint8Array, steps: readonly Step[]): Promise<void> {
  const reader = readerOf(source);
  for await (const { offset, bytes } of drive(reader, walk(reader.window, steps))) {
    const expected = content.subarray(offset, offset + bytes.length);
    expect(Buffer.compare(bytes, expected), `${bytes.length} bytes at ${offset}`).toBe(0);
  }
}

describe('a window reader', () => {
  it.each([1 << 20, 65536, 4096, 1000])('gives all bytes in order, from reads of %i bytes', async (chunk) => {
    for (const isSlow of chunk > 4096 ? [false, true] : [false]) {
      const steps = Array.from({ length: 90 }, (_, i): Step => ({ kind: 'take', count: 1 + ((i * 7919) % maxNeed) }));
      await expectWalk(new ScriptedSource(large, { chunk, isSlow }), large, steps);
    }
  });

  it('gives single bytes from reads of single bytes', async () => {
    const steps = Array.from({ length: 300 }, (): Step => ({ kind: 'take', count: 1 }));
    await expectWalk(new ScriptedSource(patterned(300), { chunk: 1 }), patterned(300), steps);
  });

  it('answers needs of the largest size, wherever they begin', async () => {
    const steps: Step[] = [];
    for (let i = 0; i < 30; i++) steps.push({ kind: 'take', count: 70_001 }, { kind: 'take', count: maxNeed });
    await expectWalk(new ScriptedSource(large, { chunk: 100_000 }), large, steps);
  });

  it('refuses a larger need', async () => {
    const reader = readerOf(new ScriptedSource(large));
    await expect(reader.satisfy({ kind: 'more', bytes: maxNeed + 1 })).rejects.toThrow(RangeError);
  });

  it('seeks anywhere: forward and backward, inside the window and outside, with and without a length', async () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('take' as const),
        count: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 300_000 })),
      }),
      fc.record(
        {
          kind: fc.constant('seek' as const),
          offset: fc.oneof(fc.nat(2 << 20), fc.nat(1000)),
          length: fc.oneof(fc.nat(10_000), fc.nat(2 << 20)),
        },
        { requiredKeys: ['kind', 'offset'] },
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 12 }),
        fc.constantFrom(999, 65536, 1 << 21),
        fc.boolean(),
        async (steps, chunk, isSlow) => {
          await expectWalk(
            new ScriptedSource(large, { chunk, isSlow: isSlow && chunk > 60_000 }),
            large,
            steps as Step[],
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it('seeks forward in a source that cannot go back, whatever was read ahead', async () => {
    const hop = fc.record({ by: fc.oneof(fc.nat(300_000), fc.nat(1000)), count: fc.integer({ min: 1, max: 5000 }) });
    const hops = fc.array(hop, { minLength: 1, maxLength: 15 });
    await fc.assert(
      fc.asyncProperty(hops, fc.constantFrom(999, 65536, 300_001, 1 << 20, 3 << 20), async (list, chunk) => {
        const steps: Step[] = [{ kind: 'take', count: 8 }];
        let offset = 8;
        for (const { by, count } of list) {
          offset += by;
          steps.push({ kind: 'seek', offset }, { kind: 'take', count });
          offset += count;
        }
        await expectWalk(new StreamSource(chunksOf(large, chunk), 'pipe'), large, steps);
      }),
      { numRuns: 40 },
    );
  });

  it('reads nothing again after a seek inside the window', async () => {
    const source = new ScriptedSource(patterned(10_000));
    const steps: Step[] = [{ kind: 'take', count: 5000 }];
    for (const offset of [0, 4999, 9999, 10, 5000]) steps.push({ kind: 'seek', offset }, { kind: 'take', count: 1 });
    await expectWalk(source, patterned(10_000), steps);
    expect(source.reads.filter(({ position }) => position < 10_000)).toHaveLength(1);
  });

  it('reads little beyond a known length', async () => {
    const source = new ScriptedSource(large);
    const steps: Step[] = [];
    for (let i = 1; i <= 4; i++)
      steps.push({ kind: 'seek', offset: i << 20, length: 512 }, { kind: 'take', count: 512 });
    await expectWalk(source, large, steps);
    // Except for the very first ones, before any seek.
    const sizes = source.reads.filter(({ position }) => position >= 1 << 20).map(({ length }) => length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096);
  });

  it('gives more than the stated length on request', async () => {
    const source = new ScriptedSource(large);
    await expectWalk(source, large, [
      { kind: 'seek', offset: 1 << 20, length: 10 },
      { kind: 'take', count: 400_000 },
    ]);
  });

  it('begins at an offset', async () => {
    const source = new ScriptedSource(large);
    const reader = readerOf(source, 123_456);
    const [first] = await collect(drive(reader, walk(reader.window, [{ kind: 'take', count: 10 }])));
    expect(first).toEqual({ offset: 123_456, bytes: large.slice(123_456, 123_466) });
    expect(source.reads[0]?.position).toBe(123_456);
  });

  it('reports the end of a source, and can seek backward afterwards', async () => {
    const bytes = patterned(100);
    const reader = readerOf(new ScriptedSource(bytes));
    await reader.satisfy({ kind: 'more', bytes: 101 });
    expect([reader.window.ended, reader.window.available]).toEqual([true, 100]);
    await reader.satisfy({ kind: 'seek', offset: 5000 });
    await reader.satisfy({ kind: 'more', bytes: 1 });
    expect([reader.window.ended, reader.window.available, reader.window.offset]).toEqual([true, 0, 5000]);
    await reader.satisfy({ kind: 'seek', offset: 90 });
    await reader.satisfy({ kind: 'more', bytes: 10 });
    expect([reader.window.bytes[reader.window.position], reader.window.available]).toEqual([bytes[90], 10]);
  });

  it('reads ahead into the buffer that is not being decoded', async () => {
    const source = new ScriptedSource(large, { chunk: 1 << 20, isSlow: true });
    const reader = readerOf(source);
    await reader.satisfy({ kind: 'more', bytes: 1 });
    const before = reader.window.bytes.slice(reader.window.position, reader.window.limit);
    expect(source.pending).toBe(1);
    await reader.settle();
    expect(source.pending).toBe(0);
    const after = reader.window.bytes.subarray(reader.window.position, reader.window.limit);
    expect(Buffer.compare(before, after)).toBe(0);
  });

  it('reports how far it has requested bytes', async () => {
    const reader = readerOf(new ScriptedSource(large, { chunk: 1000 }), 500);
    expect(reader.reached).toBe(500);
    await reader.satisfy({ kind: 'more', bytes: 1 });
    expect(reader.reached).toBe(1500);
    await reader.settle();
  });
});

describe('driving a decoder', () => {
  it.each(['later', 'at once'] as const)('rejects with the error of a read that fails %s', async (fails) => {
    const reader = readerOf(new ScriptedSource(large, { failAt: 1500, fails, chunk: 1000 }));
    const items: unknown[] = [];
    const reading = (async () => {
      for await (const item of drive(
        reader,
        walk(reader.window, [
          { kind: 'take', count: 900 },
          { kind: 'take', count: 900 },
        ]),
      )) {
        items.push(item);
      }
    })();
    await expect(reading).rejects.toThrow('cannot read at 1500');
    // Everything readable before came first.
    expect(items).toHaveLength(1);
  });

  it.each(['later', 'at once'] as const)(
    'ignores a read ahead that fails %s, if its bytes are not needed',
    async (fails) => {
      const reader = readerOf(new ScriptedSource(large, { failAt: 1000, fails, chunk: 1000 }));
      const items = await collect(drive(reader, walk(reader.window, [{ kind: 'take', count: 900 }])));
      expect(items).toHaveLength(1);
    },
  );

  it('settles when the consumer stops early: no read is pending, and the decoder has ended', async () => {
    const source = new ScriptedSource(large, { chunk: 4096, isSlow: true });
    const reader = readerOf(source);
    let hasEnded = false;
    function* endless(): Generator<Need | { byte: number }, void> {
      try {
        for (;;) yield { byte: yield* takeU8(reader.window, 'a byte') };
      } finally {
        hasEnded = true;
      }
    }
    for await (const { byte } of drive<{ byte: number }>(reader, endless())) {
      expect(byte).toBe(large[0]);
      break;
    }
    expect([hasEnded, source.pending]).toEqual([true, 0]);
  });

  it('settles when the consumer or the decoder throws', async () => {
    const source = new ScriptedSource(large, { chunk: 4096, isSlow: true });
    const reader = readerOf(source);
    const consuming = (async () => {
      for await (const _ of drive(reader, walk(reader.window, [{ kind: 'take', count: 1 }]))) throw new Error('enough');
    })();
    await expect(consuming).rejects.toThrow('enough');
    expect(source.pending).toBe(0);
    const second = readerOf(source);
    function* failing(): Generator<Need | { x: number }, void> {
      yield* need(second.window, 1, 'a byte');
      throw new Error('cannot decode');
    }
    await expect(collect(drive(second, failing()))).rejects.toThrow('cannot decode');
    expect(source.pending).toBe(0);
  });

  it('does not hang on a source that gives neither bytes nor an end', async () => {
    const endless = { name: 'endless', size: undefined, read: () => 0, close: async () => {} };
    const reader = new WindowReader(kernel, buffers, endless, 0);
    await expect(collect(drive(reader, walk(reader.window, [{ kind: 'take', count: 1 }])))).rejects.toThrow(
      /truncated/,
    );
  });
});
