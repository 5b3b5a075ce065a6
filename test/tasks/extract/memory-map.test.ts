import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryMap } from '../../../src/tasks/extract/memory-map.ts';
import type { RamBlock } from '../../../src/vm/ram-block.ts';

const block = (idstr: string, index = 0): RamBlock => ({ index, idstr, usedLength: 1 << 20, pageSize: 4096 });
const blocks = [block('a'), block('b', 1), block('c', 2)];
const size = 64;

type Step = { start: number; length: number; block: number; offset: number };

describe('a memory map', () => {
  it('shows for each byte what was painted there last, after any painting and clearing', () => {
    const step = fc.record({
      start: fc.nat(size),
      length: fc.nat(20),
      // -1 clears.
      block: fc.integer({ min: -1, max: 2 }),
      offset: fc.nat(100),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps: Step[]) => {
        const map = new MemoryMap();
        const plain: (string | undefined)[] = new Array(size + 20).fill(undefined);
        for (const { start, length, block: i, offset } of steps) {
          const shown = blocks[i];
          if (shown === undefined) map.clear(start, length);
          else map.paint({ start, length, block: shown, offset });
          for (let n = 0; n < length; n++) plain[start + n] = shown && `${shown.idstr} ${offset + n}`;
        }
        const got: (string | undefined)[] = new Array(size + 20).fill(undefined);
        let last = 0;
        for (const range of map.ranges) {
          expect(range.length).toBeGreaterThan(0);
          expect(range.start).toBeGreaterThanOrEqual(last);
          last = range.start + range.length;
          for (let n = 0; n < range.length; n++) got[range.start + n] = `${range.block.idstr} ${range.offset + n}`;
        }
        expect(got).toEqual(plain);
        for (let at = 0; at < size; at++) expect(map.has(at, 3)).toBe(plain.slice(at, at + 3).some(Boolean));
      }),
    );
  });

  it('joins neighbours only if they are contiguous in the block and the same kind of memory', () => {
    const [a, b] = blocks as [RamBlock, RamBlock];
    const map = new MemoryMap();
    map.paint({ start: 0, length: 10, block: a, offset: 0 });
    map.paint({ start: 10, length: 10, block: a, offset: 10 });
    map.paint({ start: 20, length: 10, block: a, offset: 0 });
    map.paint({ start: 30, length: 10, block: b, offset: 10 });
    map.paint({ start: 40, length: 10, block: b, offset: 20, isFlash: true });
    expect(map.ranges.map(({ start, length }) => [start, length])).toEqual([
      [0, 20],
      [20, 10],
      [30, 10],
      [40, 10],
    ]);
  });
});
