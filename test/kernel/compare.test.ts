import { beforeAll, describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/index.ts';
import { Guarded, loadSmall, seeded, variants } from './arena.ts';
import { comparePages, countBits } from './oracle.ts';

describe.each(variants)('comparing pages (%s)', (variant) => {
  let kernel: Kernel;
  let first: Guarded;
  let second: Guarded;
  let bitmap: Guarded;
  let tables: Guarded;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    first = new Guarded(kernel, 200_000);
    second = new Guarded(kernel, 200_000);
    bitmap = new Guarded(kernel, 4096);
    tables = new Guarded(kernel, 4096);
  });

  it.each([1024, 4096, 65536])('sees a single bit at every byte of a page of %i bytes', (size) => {
    const content = seeded(size).bytes(size);
    const a = first.place(content, 1);
    const b = second.place(content, 5);
    const bits = bitmap.place(new Uint8Array(1));
    for (let at = 0; at < size; at++) {
      kernel.bytes[b + at]! ^= 1 << (at & 7);
      const differing = kernel.comparePages(a, b, size, 1, bits);
      if (differing !== 1 || kernel.bytes[bits] !== 1) expect.fail(`byte ${at} was overlooked`);
      kernel.bytes[b + at]! ^= 1 << (at & 7);
    }
    expect(kernel.comparePages(a, b, size, 1, bits)).toBe(0);
    expect(bitmap.content).toEqual(Uint8Array.of(0));
  });

  it('agrees with the oracle on batches of any size, contiguous and scattered', () => {
    const random = seeded(11);
    for (let n = 0; n < 300; n++) {
      const count = random.below(70);
      const pages = random.bytes(count * 1024);
      const others = pages.slice();
      for (let i = 0; i < count; i++) if (random.below(2) === 0) others[i * 1024 + random.below(1024)]! ^= 16;
      const a = first.place(pages, random.below(64));
      const b = second.place(others, random.below(64));
      const bits = bitmap.place(new Uint8Array(Math.ceil(count / 8)).fill(0xff), random.below(64));
      const split = (bytes: Uint8Array) =>
        Array.from({ length: count }, (_, i) => bytes.subarray(i * 1024, (i + 1) * 1024));
      const want = comparePages(split(pages), split(others));
      expect({ differing: kernel.comparePages(a, b, 1024, count, bits), bitmap: bitmap.content }).toEqual(want);

      tables.place(new Uint8Array(count * 8));
      const [as, bs] = [tables.address, tables.address + count * 4];
      kernel.u32(as, count).set(Array.from({ length: count }, (_, i) => a + (count - 1 - i) * 1024));
      kernel.u32(bs, count).set(Array.from({ length: count }, (_, i) => b + (count - 1 - i) * 1024));
      const scattered = comparePages(split(pages).reverse(), split(others).reverse());
      const differing = kernel.comparePagesGather(as, bs, 1024, count, bits);
      expect({ differing, bitmap: bitmap.content }).toEqual(scattered);
      expect([first, second, bitmap, tables].every((each) => each.isUntouchedAround)).toBe(true);
    }
  });

  it('counts the bits of bitmaps of every length', () => {
    const bytes = seeded(12).bytes(300);
    for (let length = 0; length <= 300; length++) {
      const content = bytes.subarray(0, length);
      expect(kernel.countBits(bitmap.place(content, length & 63), length)).toBe(countBits(content));
    }
    const full = bitmap.place(new Uint8Array(4096).fill(0xff));
    expect(kernel.countBits(full, 4096)).toBe(32768);
  });
});
