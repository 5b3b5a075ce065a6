import { describe, expect, it } from 'vitest';
import { PageBatch, PageKind } from '../../src/kernel/index.ts';
import { loadSmall } from './arena.ts';

describe('a batch of pages', () => {
  it('holds as many records as its capacity', async () => {
    const batch = new PageBatch(await loadSmall('scalar'), 128);
    expect(batch.capacity).toBe(128);
    expect(batch.count).toBe(0);
    for (const table of [batch.kind, batch.page, batch.offset, batch.data, batch.length]) {
      expect(table.length).toBe(128);
    }
  });

  it('keeps payload addresses and lengths where a kernel can read them', async () => {
    const kernel = await loadSmall('scalar');
    const batch = new PageBatch(kernel, 2);
    const pages = kernel.allocate(2 * 1024);
    const results = kernel.allocate(8);
    batch.count = 2;
    batch.kind.fill(PageKind.delta, 0, 2);
    for (let i = 0; i < 2; i++) {
      batch.data[i] = kernel.allocate(3);
      batch.length[i] = 3;
      kernel.bytes.set([0, 1, 10 + i], batch.data[i]);
    }
    const targets = kernel.allocate(8);
    kernel.u32(targets, 2).set([pages, pages + 1024]);
    expect(kernel.xbzrleDecodeBatch(batch.dataAddress, batch.lengthAddress, targets, batch.count, 1024, results)).toBe(
      0,
    );
    expect([kernel.bytes[pages], kernel.bytes[pages + 1024]]).toEqual([10, 11]);
  });

  it('holds page numbers and offsets beyond 32 bits', async () => {
    const batch = new PageBatch(await loadSmall('scalar'), 1);
    batch.page[0] = 2 ** 40 + 1;
    batch.offset[0] = 2 ** 52 + 1;
    expect([batch.page[0], batch.offset[0]]).toEqual([2 ** 40 + 1, 2 ** 52 + 1]);
  });

  it('keeps the given records completely', async () => {
    const batch = new PageBatch(await loadSmall('scalar'), 8);
    const tables = [batch.kind, batch.page, batch.offset, batch.size, batch.data, batch.length];
    tables.forEach((table, t) => {
      for (let i = 0; i < 8; i++) table[i] = 10 * t + i;
    });
    batch.count = 8;
    batch.keep(0, 7);
    batch.keep(2, 5);
    expect(batch.count).toBe(3);
    tables.forEach((table, t) => {
      expect([...table.subarray(0, 3)]).toEqual([10 * t + 2, 10 * t + 3, 10 * t + 4]);
    });
  });

  it('removes its records when cleared', async () => {
    const batch = new PageBatch(await loadSmall('scalar'), 4);
    batch.count = 3;
    batch.clear();
    expect(batch.count).toBe(0);
  });

  it('refuses a capacity that does not fit the arena', async () => {
    const kernel = await loadSmall('scalar');
    expect(() => new PageBatch(kernel, 1 << 18)).toThrow(RangeError);
    expect(() => new PageBatch(kernel, -1)).toThrow(RangeError);
  });
});
