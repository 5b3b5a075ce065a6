import { describe, expect, it } from 'vitest';
import type { PageTables } from '../../../src/tasks/addresses/page-tables.ts';
import type { Paging } from '../../../src/tasks/addresses/paging.ts';
import { PhysicalRam } from '../../../src/tasks/addresses/physical-ram.ts';
import { virtualSegments } from '../../../src/tasks/addresses/virtual-segments.ts';
import { PlainRam } from '../../support/plain-ram.ts';

/** Memory with tables of one level: entry i of the table at `root` maps page i to the page in its value, if it is not 0. */
function memory(
  tables: Record<number, number[]>,
  ranges: [start: number, length: number, offset: number][],
): PhysicalRam {
  const bytes = new Uint8Array(0x1_0000);
  const view = new DataView(bytes.buffer);
  for (const [root, pages] of Object.entries(tables)) {
    for (const [i, page] of pages.entries()) view.setUint32(Number(root) + i * 4, page, true);
  }
  const ram = new PlainRam(bytes, 4096);
  return new PhysicalRam(
    ram,
    ranges.map(([start, length, offset]) => ({ start, length, offset, block: ram.block })),
  );
}

const pagingAt = (root: number): Paging => {
  const decode: PageTables['decode'] = (low) => (low === 0 ? undefined : { memory: low * 4096 });
  return {
    name: 'flat',
    tables: [{ root, levels: [{ shift: 12, bits: 4 }], entryBytes: 4, base: 0n, signExtends: false, decode }],
  };
};

const all: [number, number, number][] = [[0, 0x1_0000, 0]];
const segments = async (ram: PhysicalRam, ...roots: number[]) =>
  (await virtualSegments(ram, roots.map(pagingAt))).map(({ virtual, physical, length }) => [
    ...[Number(virtual) / 4096, physical / 4096, length / 4096],
  ]);

describe('segments', () => {
  it('are contiguous at both sides, ascending by their guest-physical addresses', async () => {
    expect(await segments(memory({ 4096: [0, 5, 6, 3, 0, 5] }, all), 0x1000)).toEqual([
      [3, 3, 1],
      [5, 5, 1],
      [1, 5, 2],
    ]);
  });

  it('lie in one range of memory each', async () => {
    const split: typeof all = [
      [0, 0x6000, 0],
      [0x6000, 0x2000, 0xe000],
    ];
    expect(await segments(memory({ 4096: [4, 5, 6, 7, 8, 9] }, split), 0x1000)).toEqual([
      [0, 4, 2],
      [2, 6, 2],
    ]);
  });

  it('of several CPUs are those of the first, and of the others what it leaves free', async () => {
    const ram = memory({ 4096: [0, 4, 5, 0, 8], 8192: [9, 4, 10, 11, 8, 12] }, all);
    expect(await segments(ram, 0x1000, 0x2000)).toEqual([
      [1, 4, 2],
      [4, 8, 1],
      [0, 9, 1],
      [3, 11, 1],
      [5, 12, 1],
    ]);
    expect(await segments(ram, 0x2000, 0x1000)).toEqual(await segments(ram, 0x2000));
    // A CPU's large segment is cut by a small one of an earlier CPU.
    const cut = memory({ 4096: [0, 0, 15], 8192: [3, 4, 5, 6] }, all);
    expect(await segments(cut, 0x1000, 0x2000)).toEqual([
      [0, 3, 2],
      [3, 6, 1],
      [2, 15, 1],
    ]);
  });

  it('are none without paging', async () => {
    expect(await virtualSegments(memory({}, all), [{ name: 'off', tables: [] }])).toEqual([]);
  });
});
