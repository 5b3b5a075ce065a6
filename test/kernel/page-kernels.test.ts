import { beforeAll, describe, expect, it } from 'vitest';
import { loadPageKernels, type PageKernels } from '../../src/kernel/index.ts';
import { seeded, variants } from './arena.ts';
import { comparePages, countBits, crc32, pageHash, xbzrleEncode, zeroScan } from './oracle.ts';

const split = (bytes: Uint8Array, size: number) =>
  Array.from({ length: bytes.length / size }, (_, i) => bytes.subarray(i * size, (i + 1) * size));

/** Bytes between poisoned bytes, at an odd address. */
function guarded(length: number) {
  const whole = new Uint8Array(length + 64).fill(0xa5);
  const room = whole.subarray(33, 33 + length);
  return { room, isClean: () => whole.every((byte, i) => (i >= 33 && i < 33 + length) || byte === 0xa5) };
}

describe.each(variants)('kernels over buffers of the caller (%s)', (variant) => {
  let kernels: PageKernels;
  beforeAll(async () => {
    kernels = await loadPageKernels({ variant });
  });

  it('encode a page and decode it again, between guards', () => {
    const random = seeded(1);
    const old = random.bytes(4096);
    const next = old.slice();
    next.set(random.bytes(300), 77);
    const { room, isClean } = guarded(4096);
    const length = kernels.encodePage(old, next, room);
    const delta = room.subarray(0, length);
    expect(delta).toEqual(xbzrleEncode(old, next));
    expect(room.subarray(length).every((byte) => byte === 0xa5) && isClean()).toBe(true);

    const page = guarded(4096);
    page.room.set(old);
    expect(kernels.decodePage(delta, page.room)).toBe(377);
    expect(page.room).toEqual(next);
    expect(page.isClean()).toBe(true);
  });

  it('report equal pages, overflow, and an output that is too small', () => {
    const [zero, full] = [new Uint8Array(4096), new Uint8Array(4096).fill(1)];
    const out = new Uint8Array(4096).fill(9);
    expect(kernels.encodePage(zero, zero, out)).toBe(0);
    expect(kernels.encodePage(zero, full, out)).toBe(-1);
    expect(kernels.encodePage(zero, full, new Uint8Array(9000))).toBe(-1);
    expect(kernels.encodePage(zero, zero.with(5, 1), out.subarray(0, 4))).toBe(-1);
    expect(out.every((byte) => byte === 9)).toBe(true);
    expect(kernels.encodePage(zero, zero.with(5, 1), out.subarray(0, 5))).toBe(3);
  });

  it('leave the page unchanged if a delta is refused', () => {
    const page = new Uint8Array(4096).fill(3);
    expect(kernels.decodePage(Uint8Array.of(0, 1, 7, 5), page)).toBe('truncated');
    expect(kernels.decodePage(new Uint8Array(2 ** 20), page)).toBe('emptyRun');
    expect(page.every((byte) => byte === 3)).toBe(true);
    expect(kernels.decodePage(new Uint8Array(0), page)).toBe(0);
  });

  it.each([1024, 1152, 4096, 65536])(
    'scan, compare and hash batches of any size, of pages of %i bytes',
    async (size) => {
      const sized = await loadPageKernels({ variant, pageSize: size });
      const random = seeded(size);
      // Also more pages than go through the memory at a time.
      for (const count of [0, 1, 9, Math.ceil(600_000 / size)]) {
        const pages = new Uint8Array(count * size);
        for (let i = 0; i < count; i++) if (random.below(3) > 0) pages[i * size + random.below(size)] = 1;
        const others = pages.slice();
        for (let i = 0; i < count; i++) if (random.below(3) > 0) others[i * size + random.below(size)]! ^= 2;

        const bitmap = guarded(Math.ceil(count / 8));
        expect(sized.findZeroPages(pages, bitmap.room)).toBe(zeroScan(split(pages, size)).zeroes);
        expect(bitmap.room).toEqual(zeroScan(split(pages, size)).bitmap);
        const wanted = comparePages(split(pages, size), split(others, size));
        expect(sized.findChangedPages(pages, others, bitmap.room)).toBe(wanted.differing);
        expect(bitmap.room).toEqual(wanted.bitmap);
        expect(bitmap.isClean()).toBe(true);
        expect(sized.countBits(pages)).toBe(countBits(pages));

        const words = new Uint32Array(count + 1).fill(77);
        sized.hashPages(pages, words);
        const some = [0, count >> 1, count - 1].filter((i) => i >= 0);
        const page = (i: number) => pages.subarray(i * size, (i + 1) * size);
        for (const i of some) expect(words[i]).toBe(count === 0 ? 77 : Number(pageHash(page(i)) & 0xffffffffn));
        sized.crc32Pages(pages, words);
        for (const i of some) expect(words[i]).toBe(count === 0 ? 77 : crc32(page(i)));
        expect(words[count]).toBe(77);
      }
    },
  );

  it('work on pages in their own memory without copying, and on shared memory', async () => {
    const own = await loadPageKernels({ variant, ownBytes: 8 * 4096 });
    const pages = own.allocate(8 * 4096);
    pages[3 * 4096 + 9] = 1;
    const shared = new Uint8Array(new SharedArrayBuffer(8 * 4096));
    shared[6 * 4096] = 1;
    const bitmap = new Uint8Array(new SharedArrayBuffer(1));
    expect(own.findZeroPages(pages, bitmap)).toBe(7);
    expect([...bitmap]).toEqual([0b11110111]);
    expect(own.findChangedPages(pages, shared, bitmap)).toBe(2);
    expect([...bitmap]).toEqual([0b01001000]);
    expect(() => own.allocate(2 ** 20)).toThrow(RangeError);
  });

  it('refuse impossible arguments', async () => {
    const page = new Uint8Array(4096);
    expect(() => kernels.encodePage(page, page.subarray(1), page)).toThrow('next: expected 4096 bytes, got 4095');
    expect(() => kernels.encodePage(page, page, [] as unknown as Uint8Array)).toThrow(TypeError);
    expect(() => kernels.decodePage(page, new Uint8Array(8192))).toThrow(RangeError);
    expect(() => kernels.findZeroPages(new Uint8Array(4097), page)).toThrow('pages: expected whole pages of 4096');
    expect(() => kernels.findZeroPages(page, new Uint8Array(0))).toThrow('bitmap: expected at least 1 bytes, got 0');
    expect(() => kernels.findChangedPages(page, new Uint8Array(8192), page)).toThrow(RangeError);
    expect(() => kernels.hashPages(page, new Uint32Array(0))).toThrow('hashes: expected room for 1 words, got 0');
    expect(() => kernels.crc32Pages(page, page as unknown as Uint32Array)).toThrow(TypeError);
    await expect(loadPageKernels({ pageSize: 1000 })).rejects.toThrow(RangeError);
    await expect(loadPageKernels({ ownBytes: -1 })).rejects.toThrow(RangeError);
    const large = await loadPageKernels({ variant, pageSize: 32768 });
    const out = new Uint8Array(32768);
    expect(() => large.encodePage(out, out, out)).toThrow('pageSize: expected an integer in 1024..16384, got 32768');
  });
});
