import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Kernel, PageBatch, PageKind } from '../../src/kernel/index.ts';
import { loadSmall, variants } from './arena.ts';

const pageSize = 1024;
const capacity = 64;

/** A record: how far its page and its payload are behind those of the record before. 1 is the next. */
const record = fc.record({
  kind: fc.constantFrom(PageKind.zero, PageKind.data, PageKind.data, PageKind.data, PageKind.compressed),
  step: fc.constantFrom(1, 1, 1, 2, 70_000),
  gap: fc.constantFrom(0, 0, 8),
  isBlank: fc.boolean(),
});
type Shape = typeof record extends fc.Arbitrary<infer T> ? T : never;

/** One record at a time: what JavaScript would do without the kernel. */
function runsOf(batch: PageBatch, isZero: (record: number) => boolean): { count: number; type: string }[] {
  const runs: { count: number; type: string }[] = [];
  for (let i = 0; i < batch.count; ) {
    const zero = isZero(i);
    const isNext = (at: number) =>
      at < batch.count && batch.page[at] === batch.page[at - 1]! + 1 && isZero(at) === zero;
    const isBehind = (at: number) => batch.data[at] === batch.data[at - 1]! + pageSize;
    const type = zero ? 'zero' : isNext(i + 1) && !isBehind(i + 1) ? 'scattered' : 'inPlace';
    let end = i + 1;
    while (isNext(end) && (type !== 'inPlace' || isBehind(end))) end++;
    runs.push({ count: end - i, type });
    i = end;
  }
  return runs;
}

describe.each(variants)('runs of page records (%s)', (variant) => {
  async function bench() {
    const kernel = await loadSmall(variant);
    const batch = new PageBatch(kernel, capacity);
    const runs = kernel.allocate(4 * capacity);
    return { kernel, batch, runs, heap: kernel.allocate((pageSize + 8) * capacity) };
  }

  function fill(kernel: Kernel, batch: PageBatch, heap: number, records: Shape[]): void {
    batch.clear();
    let [page, at] = [-1, heap];
    for (const { kind, step, gap, isBlank } of records) {
      page += step;
      at += gap;
      batch.push(kind, page, 0, 0, kind === PageKind.zero ? 0 : at, kind === PageKind.zero ? 0 : pageSize);
      if (kind === PageKind.zero) continue;
      kernel.bytes.fill(0, at, at + pageSize);
      if (!isBlank) kernel.bytes[at + (page % pageSize)] = 1;
      at += pageSize;
    }
  }

  it('are those that a loop over the records finds', async () => {
    const { kernel, batch, runs, heap } = await bench();
    const names = Object.entries(kernel.runType);
    fc.assert(
      fc.property(fc.array(record, { maxLength: capacity }), (records) => {
        fill(kernel, batch, heap, records);
        const found = kernel.pageRuns(batch, pageSize, 2 ** 40, runs);
        const isZero = (i: number) => batch.kind[i] === PageKind.zero || records[i]!.isBlank;
        const words = [...kernel.u32(runs, found)];
        const type = (word: number) => names.find(([, value]) => value === (word & 3))?.[0];
        expect(words.map((word) => ({ count: word >>> 2, type: type(word) }))).toEqual(runsOf(batch, isZero));
      }),
    );
  });

  it.each([
    ['a delta', [PageKind.delta, 0, 100, 9]],
    ['no content', [PageKind.absent, 0, 100, 0]],
    ['data that is shorter than a page', [PageKind.data, 0, 100_000, 512]],
    ['data before the arena', [PageKind.data, 0, 4, pageSize]],
    ['data that reaches beyond the arena', [PageKind.data, 0, (1 << 20) - 100, pageSize]],
    ['a page beyond the block', [PageKind.zero, 8, 0, 0]],
    ['a negative page', [PageKind.zero, -1, 0, 0]],
    ['half a page number', [PageKind.zero, 1.5, 0, 0]],
    ['no page number', [PageKind.zero, Number.NaN, 0, 0]],
  ] as const)('are not made of %s', async (_, [kind, page, data, length]) => {
    const { kernel, batch, runs } = await bench();
    batch.push(PageKind.zero, 0, 0, 0, 0, 0);
    expect(kernel.pageRuns(batch, pageSize, 8, runs)).toBe(1);
    batch.push(kind, page, 0, 0, data, length);
    expect(kernel.pageRuns(batch, pageSize, 8, runs)).toBe(-1);
  });

  it('are gathered in the order of a table', async () => {
    const { kernel, heap } = await bench();
    const [table, out] = [kernel.allocate(12), kernel.allocate(3 * pageSize + 1)];
    [2, 0, 1].forEach((number, i) => {
      const at = heap + number * (pageSize + 3);
      kernel.u32(table, 3)[i] = at;
      kernel.bytes.fill(number + 1, at, at + pageSize);
    });
    kernel.gatherPages(table, pageSize, 3, out);
    const pages = kernel.bytes.subarray(out, out + 3 * pageSize + 1);
    expect([0, 1, 2].map((i) => new Set(pages.subarray(i * pageSize, (i + 1) * pageSize)))).toEqual(
      [3, 1, 2].map((value) => new Set([value])),
    );
    expect(pages[3 * pageSize]).toBe(0);
    expect(() => kernel.gatherPages(table, pageSize, 3, table - pageSize)).toThrow(RangeError);
    expect(() => kernel.gatherPages(table, pageSize, 3, kernel.size - 100)).toThrow(RangeError);
    kernel.u32(table, 3)[1] = kernel.size - 10;
    expect(() => kernel.gatherPages(table, pageSize, 3, out)).toThrow(RangeError);
  });
});
