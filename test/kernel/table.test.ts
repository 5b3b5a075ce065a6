import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { KernelExports } from '../../src/kernel/exports.ts';
import { variants } from './arena.ts';

/** The checks, one entry at a time and without 32-bit arithmetic. */
const oracle = {
  firstOutside: (table: number[], byteLength: number, base: number, end: number) =>
    table.findIndex((at) => at < base || at + byteLength > end),
  firstOutsideOf: (table: number[], lengths: number[], base: number, end: number) =>
    table.findIndex((at, i) => at < base || at + lengths[i]! > end),
  firstWithin: (table: number[], byteLength: number, from: number, to: number) =>
    table.findIndex((at) => at < to && at + byteLength > from),
};

const orCount = (index: number, table: number[]) => (index === -1 ? table.length : index);

describe.each(variants)('tables of addresses (%s)', (variant) => {
  let exports: KernelExports;
  let words: Uint32Array;
  const table = 16384;
  const lengths = 32768;

  beforeAll(async () => {
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 65536 });
    const bytes = readFileSync(new URL(`../../dist/kernel.${variant}.wasm`, import.meta.url));
    const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
    exports = instance.exports as unknown as KernelExports;
    words = new Uint32Array(memory.buffer);
  });

  const put = (at: number, values: number[]) => words.set(values, at / 4);

  /** Values close to where a check changes its result, and any others. */
  const near = (...edges: number[]) =>
    fc.oneof(
      ...edges.map((edge) =>
        fc.integer({ min: -9, max: 9 }).map((by) => Math.min(Math.max(0, edge + by), 2 ** 32 - 1)),
      ),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    );
  const range = fc
    .tuple(near(0, 9216, 2 ** 31), near(2 ** 20, 2 ** 31, 2 ** 32 - 1))
    .map(([a, b]): [number, number] => (a < b ? [a, b] : [b, a]));
  const some = (value: fc.Arbitrary<number>) => fc.array(value, { maxLength: 23 });

  it('finds the first entry outside of a range', () => {
    const entries = fc.tuple(range, near(1, 4096, 2 ** 20)).chain(([[base, end], byteLength]) => {
      const mostlyIn = fc.integer({ min: base, max: Math.max(base, end - byteLength) });
      return fc.record({
        base: fc.constant(base),
        end: fc.constant(end),
        byteLength: fc.constant(byteLength),
        list: some(fc.oneof({ weight: 8, arbitrary: mostlyIn }, near(base, Math.max(0, end - byteLength), end))),
      });
    });
    fc.assert(
      fc.property(entries, ({ base, end, byteLength, list }) => {
        put(table, list);
        const expected = orCount(oracle.firstOutside(list, byteLength, base, end), list);
        const found = exports.firstOutside(table, list.length, byteLength, base, end) >>> 0;
        // If no entry can fit, even an empty table has none that does.
        expect(byteLength > end - base ? Math.min(found, list.length) : found).toBe(expected);
      }),
      { numRuns: 3000 },
    );
  });

  it('finds the first entry outside of a range, each with its own length', () => {
    const entries = range.chain(([base, end]) => {
      const entry = fc.tuple(near(base, end), near(0, 4096, end - base));
      const fitting = fc
        .integer({ min: base, max: end })
        .chain((at) => fc.tuple(fc.constant(at), fc.integer({ min: 0, max: end - at })));
      return fc.record({
        base: fc.constant(base),
        end: fc.constant(end),
        list: fc.array(fc.oneof({ weight: 8, arbitrary: fitting }, entry), { maxLength: 23 }),
      });
    });
    fc.assert(
      fc.property(entries, ({ base, end, list }) => {
        const [ats, sizes] = [list.map(([at]) => at), list.map(([, size]) => size)];
        put(table, ats);
        put(lengths, sizes);
        const expected = orCount(oracle.firstOutsideOf(ats, sizes, base, end), ats);
        expect(exports.firstOutsideOf(table, lengths, list.length, base, end) >>> 0).toBe(expected);
      }),
      { numRuns: 3000 },
    );
  });

  it('finds the first entry that shares a byte with a range', () => {
    const entries = fc.tuple(range, fc.integer({ min: 1, max: 70000 })).chain(([[from, to], byteLength]) => {
      const inMemory = near(0, from - byteLength, from, to, 2 ** 32 - 1 - byteLength);
      return fc.record({
        from: fc.constant(from),
        to: fc.constant(to),
        byteLength: fc.constant(byteLength),
        list: some(inMemory.map((at) => Math.min(at, 2 ** 32 - byteLength))),
      });
    });
    fc.assert(
      fc.property(entries, ({ from, to, byteLength, list }) => {
        put(table, list);
        const expected = from === to ? list.length : orCount(oracle.firstWithin(list, byteLength, from, to), list);
        expect(exports.firstWithin(table, list.length, byteLength, from, to) >>> 0).toBe(expected);
      }),
      { numRuns: 3000 },
    );
  });
});
