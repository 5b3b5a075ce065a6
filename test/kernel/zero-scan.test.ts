import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/index.ts';
import { Guarded, loadSmall, variants } from './arena.ts';
import { zeroScan } from './oracle.ts';

describe.each(variants)('zero scan (%s)', (variant) => {
  let kernel: Kernel;
  let memory: Guarded;
  let bitmap: Guarded;
  let table: Guarded;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    memory = new Guarded(kernel, 600_000);
    bitmap = new Guarded(kernel, 256);
    table = new Guarded(kernel, 1024);
  });

  /** Scans between guards. The bitmap is full of ones before the scan. */
  function scan(pages: Uint8Array[], pageSize: number, misalignment = 0) {
    const all = new Uint8Array(pages.length * pageSize);
    pages.forEach((page, i) => {
      all.set(page, i * pageSize);
    });
    memory.place(all, misalignment);
    bitmap.place(new Uint8Array(Math.ceil(pages.length / 8)).fill(0xff), misalignment);
    const zeroes = kernel.zeroScan(memory.address, pageSize, pages.length, bitmap.address);
    expect(memory.isUntouchedAround && bitmap.isUntouchedAround).toBe(true);
    return { bitmap: bitmap.content, zeroes };
  }

  it.each([1024, 4096, 65536])('finds a single bit at every byte of a page of %i bytes', (pageSize) => {
    const page = memory.place(new Uint8Array(pageSize), 1);
    bitmap.place(new Uint8Array(1));
    for (let at = 0; at < pageSize; at++) {
      kernel.bytes[page + at] = 1 << (at & 7);
      const zeroes = kernel.zeroScan(page, pageSize, 1, bitmap.address);
      if (zeroes !== 0 || kernel.bytes[bitmap.address] !== 0) expect.fail(`byte ${at} was overlooked`);
      kernel.bytes[page + at] = 0;
    }
    expect(kernel.zeroScan(page, pageSize, 1, bitmap.address)).toBe(1);
    expect(bitmap.content).toEqual(Uint8Array.of(1));
  });

  it.each([1024, 2048, 4096, 8192, 16384, 32768, 65536])('reads nothing outside a page of %i bytes', (pageSize) => {
    expect(scan([new Uint8Array(pageSize)], pageSize, 5)).toEqual({ bitmap: Uint8Array.of(1), zeroes: 1 });
  });

  it('writes 0 to the unused bits of the last byte', () => {
    for (let count = 0; count <= 17; count++) {
      const pages = Array.from({ length: count }, () => new Uint8Array(1024));
      expect(scan(pages, 1024)).toEqual(zeroScan(pages));
    }
  });

  const somePages = fc.array(
    fc.record({ isZero: fc.boolean(), at: fc.nat(1023), value: fc.integer({ min: 1, max: 255 }) }),
    { minLength: 1, maxLength: 70 },
  );
  const fromRecipe = (recipe: { isZero: boolean; at: number; value: number }[]) =>
    recipe.map(({ isZero, at, value }) => {
      const page = new Uint8Array(1024);
      if (!isZero) page[at] = value;
      return page;
    });

  it('agrees with the oracle on batches of any size', () => {
    fc.assert(
      fc.property(somePages, fc.nat(63), (recipe, misalignment) => {
        const pages = fromRecipe(recipe);
        expect(scan(pages, 1024, misalignment)).toEqual(zeroScan(pages));
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  it('agrees with the oracle on pages scattered over any addresses', () => {
    fc.assert(
      fc.property(somePages, fc.integer({ min: 1, max: 300 }), (recipe, gap) => {
        const pages = fromRecipe(recipe);
        memory.place(new Uint8Array(pages.length * (1024 + gap)).fill(0xee), gap & 63);
        table.place(new Uint8Array(pages.length * 4));
        bitmap.place(new Uint8Array(Math.ceil(pages.length / 8)).fill(0xff), 3);
        const addresses = kernel.u32(table.address, pages.length);
        pages.forEach((page, i) => {
          const at = memory.address + (pages.length - 1 - i) * (1024 + gap);
          kernel.bytes.set(page, at);
          addresses[i] = at;
        });
        const zeroes = kernel.zeroScanGather(table.address, 1024, pages.length, bitmap.address);
        expect({ bitmap: bitmap.content, zeroes }).toEqual(zeroScan(pages));
        expect(memory.isUntouchedAround && bitmap.isUntouchedAround && table.isUntouchedAround).toBe(true);
      }),
      { seed: 2, numRuns: 200 },
    );
  });

  it('reads the last page of the arena to its last byte and no further', () => {
    const page = kernel.size - 4096;
    kernel.bytes.fill(0, page);
    bitmap.place(new Uint8Array(1));
    expect(kernel.zeroScan(page, 4096, 1, bitmap.address)).toBe(1);
    kernel.bytes[kernel.size - 1] = 1;
    expect(kernel.zeroScan(page, 4096, 1, bitmap.address)).toBe(0);
  });
});
