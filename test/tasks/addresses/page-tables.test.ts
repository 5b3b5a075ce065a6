import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressOf,
  EndlessTables,
  type PageTables,
  unitRanges,
  walkTables,
} from '../../../src/tasks/addresses/page-tables.ts';
import { collect } from '../../support/collect.ts';

/** Tables of 8-byte entries in little memory: bit 0 valid, bit 1 a table. */
function tree(entries: Record<number, bigint>, change: Partial<PageTables> = {}) {
  const bytes = new Uint8Array(0x1_0000);
  const view = new DataView(bytes.buffer);
  for (const [at, value] of Object.entries(entries)) view.setBigUint64(Number(at), value, change.isBigEndian !== true);
  const tables: PageTables = {
    ...{ root: 0x1000, entryBytes: 8, base: 0n, signExtends: true },
    levels: [39, 30, 21, 12].map((shift) => ({ shift, bits: 9 })),
    decode(low) {
      if ((low & 1) === 0) return undefined;
      const address = low - (low % 4096);
      return (low & 2) === 0 ? { memory: address } : { table: address };
    },
    ...change,
  };
  const read = async (address: number, length: number) =>
    address + length <= bytes.length ? new DataView(bytes.buffer, address, length) : undefined;
  return { tables, read };
}

const walk = async ({ tables, read }: ReturnType<typeof tree>, options = {}) =>
  collect(walkTables(tables, read, options));

describe('a walk', () => {
  const three = { 4096: 0x2003n, 8192: 0x3003n, 12288: 0x4003n };

  it('joins pages that are contiguous at both sides, and nothing else', async () => {
    const pages = { 16384: 0x7001n, 16392: 0x8001n, 16408: 0x9001n, 16416: 0x7001n };
    expect(await walk(tree({ ...three, ...pages }))).toEqual([
      { unit: 0, physical: 0x7000, units: 2 },
      { unit: 3, physical: 0x9000, units: 1 },
      { unit: 4, physical: 0x7000, units: 1 },
    ]);
  });

  it('can be limited to some units', async () => {
    const big = tree({ 4096: 0x2003n, 8192: 0x3003n, 12288: 0x20_0001n, 12296: 0x40_0001n });
    expect(await walk(big, { from: 3, end: 514 })).toEqual([{ unit: 3, physical: 0x20_3000, units: 511 }]);
    expect(await walk(big, { from: 1024, end: 2048 })).toEqual([]);
  });

  it('skips tables that are not in memory', async () => {
    expect(await walk(tree({ 4096: 0xff_f003n, 4104: 0x5003n }))).toEqual([]);
  });

  it('reads entries of either byte order', async () => {
    const big = tree({ ...three, 16384: 0x7001n }, { isBigEndian: true });
    expect(await walk(big)).toEqual([{ unit: 0, physical: 0x7000, units: 1 }]);
  });

  it('ends if tables contain one another', async () => {
    const loop = Object.fromEntries(Array.from({ length: 512 }, (_, i) => [0x1000 + i * 8, 0x1003n]));
    const { tables, read } = tree(loop);
    const endless = { ...tables, levels: [48, 39, 30, 21, 12].map((shift) => ({ shift, bits: 9 })) };
    await expect(walk({ tables: endless, read })).rejects.toThrow(EndlessTables);
  });
});

describe('addresses', () => {
  const { tables } = tree({});

  it('of the upper half have all upper bits set', () => {
    expect(addressOf(tables, 2 ** 35 - 1)).toBe(0x7fff_ffff_f000n);
    expect(addressOf(tables, 2 ** 35)).toBe(0xffff_8000_0000_0000n);
    expect(addressOf({ ...tables, signExtends: false, base: 0xffff_0000_0000_0000n }, 1)).toBe(0xffff_0000_0000_1000n);
  });

  it('become the units that contain them, and those that have no unit become none', () => {
    expect(unitRanges(tables, 0n, 1n << 64n)).toEqual([
      { from: 0, end: 2 ** 35 },
      { from: 2 ** 35, end: 2 ** 36 },
    ]);
    expect(unitRanges(tables, 0x1fffn, 0x2001n)).toEqual([{ from: 1, end: 3 }]);
    expect(unitRanges(tables, 0x8000_0000_0000n, 0xffff_8000_0000_0000n)).toEqual([]);
  });

  it('and back', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, (1n << 64n) - 1n), (address) => {
        const [range] = unitRanges(tables, address, address + 1n);
        const isCanonical = BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
        expect(range !== undefined).toBe(isCanonical);
        if (range !== undefined) expect(addressOf(tables, range.from)).toBe(address & ~0xfffn);
      }),
    );
  });
});
