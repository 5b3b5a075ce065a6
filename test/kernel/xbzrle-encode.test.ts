import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/index.ts';
import { fixturePath } from '../fixture-files.ts';
import { recordedDeltas } from '../oracle/slow-reader.ts';
import { Guarded, loadSmall, seeded, variants } from './arena.ts';
import { uleb } from './oracle.ts';

// Facts: docs/formats/xbzrle.md, sections 1, 3 and 4.
const zeroes = (length = 4096) => new Uint8Array(length);
const filled = (from: number, to: number, length = 4096) => zeroes(length).fill(1, from, to);
const withBytes = (bytes: Record<number, number>, length = 4096) => {
  const page = zeroes(length);
  for (const [at, value] of Object.entries(bytes)) page[Number(at)] = value;
  return page;
};
const fromHex = (hex: string) => Uint8Array.from(hex.split(' '), (byte) => Number.parseInt(byte, 16));

describe.each(variants)('XBZRLE encoding (%s)', (variant) => {
  let kernel: Kernel;
  let old: Guarded;
  let next: Guarded;
  let out: Guarded;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    old = new Guarded(kernel, 16384);
    next = new Guarded(kernel, 16384);
    out = new Guarded(kernel, 65536 + kernel.xbzrleEncodeSlack);
  });

  /** Encodes between guards: the encoding, 'equal' or 'overflow'. */
  function encode(before: Uint8Array, after: Uint8Array, limit = before.length): Uint8Array | 'equal' | 'overflow' {
    old.place(before, 3);
    next.place(after, 9);
    out.place(new Uint8Array(limit + kernel.xbzrleEncodeSlack), 27);
    const length = kernel.xbzrleEncode(old.address, next.address, before.length, out.address, limit);
    if (![old, next, out].every((each) => each.isUntouchedAround)) throw new Error('wrote outside a buffer');
    if (length === 0) return 'equal';
    return length === kernel.xbzrleOverflow ? 'overflow' : out.content.slice(0, length);
  }

  it.each([
    ['the first byte', withBytes({ 0: 0x0a }), '00 01 0a'],
    ['the last byte', withBytes({ 4095: 1 }), 'ff 1f 01 01'],
    [
      'four bytes in three runs',
      withBytes({ 100: 0xaa, 101: 0xbb, 300: 0xcc, 4095: 0xdd }),
      '64 02 aa bb c6 01 01 cc d2 1d 01 dd',
    ],
    ['two bytes with one between', withBytes({ 5: 7, 7: 9 }), '05 01 07 01 01 09'],
    ['both ends of a page of 1 KiB', withBytes({ 0: 1, 1023: 2 }, 1024), '00 01 01 fe 07 01 02'],
  ])('writes %s', (_, page, encoded) => {
    expect(encode(zeroes(page.length), page)).toEqual(fromHex(encoded));
  });

  it('writes 200 bytes at the start after a count of two bytes', () => {
    const page = zeroes();
    page.set(
      seeded(1)
        .bytes(200)
        .map((byte) => byte | 1),
    );
    expect(encode(zeroes(), page)).toEqual(Uint8Array.of(0, 0xc8, 1, ...page.subarray(0, 200)));
  });

  it('returns 0 for an equal page, whatever its content', () => {
    const page = withBytes({ 1001: 1, 1003: 1, 1500: 1 });
    expect(encode(page, page)).toBe('equal');
    expect(encode(seeded(2).bytes(16384), seeded(2).bytes(16384))).toBe('equal');
  });

  it.each([
    ['4091 bytes at the start', 0, 4091, 4094],
    ['4092 bytes at the start', 0, 4092, 'overflow'],
    ['the whole page', 0, 4096, 'overflow'],
    ['4093 bytes at the end', 3, 4096, 4096],
    ['4094 bytes at the end', 2, 4096, 'overflow'],
    ['4032 bytes from the first to the last block', 1, 4032, 4034],
  ])('takes %s to the limit of one page', (_, from, to, outcome) => {
    const got = encode(zeroes(), filled(from, to));
    expect(typeof got === 'string' ? got : got.length).toBe(outcome);
  });

  it('gives up if every second byte differs', () => {
    const page = zeroes().map((_, i) => (i % 2 === 0 && i < 4094 ? 1 : 0));
    expect(encode(zeroes(), page)).toBe('overflow');
  });

  it('gives up at the limit even if the rest is equal', () => {
    const page = withBytes({ 0: 1, 2: 1 });
    expect(encode(zeroes(), page, 6)).toBe('overflow');
    expect(encode(zeroes(), page, 7)).toBe('overflow');
    expect(encode(zeroes(), page, 8)).toEqual(fromHex('00 01 01 01 01 01'));
    expect(encode(zeroes(), zeroes(), 1)).toBe('overflow');
    expect(encode(zeroes(), zeroes(), 2)).toBe('equal');
  });

  it('writes every count that a page can have', () => {
    const size = 16384;
    for (let n = 1; n <= 0x3fff; n++) {
      old.place(zeroes(0));
      const a = old.address;
      const b = next.address;
      kernel.bytes.fill(0, a, a + size).fill(0, b, b + size);
      // n equal bytes before one that differs.
      kernel.bytes[b + n] = 7;
      const length = kernel.xbzrleEncode(a, b, size, out.address, size);
      const want = [...uleb(n), 1, 7];
      if (length !== want.length || want.some((byte, i) => kernel.bytes[out.address + i] !== byte)) expect.fail(`${n}`);
      kernel.bytes[b + n] = 0;
      if (n % 61 !== 0 && n > 130) continue;
      // n differing bytes from the start of the page.
      kernel.bytes.fill(7, b, b + n);
      const literal = kernel.xbzrleEncode(a, b, size, out.address, size + 8);
      const header = [0, ...uleb(n)];
      if (literal !== header.length + n) expect.fail(`literal of ${n} gave ${literal}`);
      if (header.some((byte, i) => kernel.bytes[out.address + i] !== byte)) expect.fail(`literal of ${n}`);
    }
  });

  it('decodes what it encoded: a run of random length and two single bytes after it', () => {
    const random = seeded(3);
    const before = withBytes({});
    for (let n = 0; n < 10_000; n++) {
      const length = random.below(3090);
      const page = before.slice();
      for (let i = 0; i < length; i++) page[1001 + i] = i + 4;
      page[1001 + length + 3] = 101;
      page[1001 + length + 5] = 102;
      old.place(before);
      next.place(page);
      const encoded = kernel.xbzrleEncode(old.address, next.address, 4096, out.address, 4096);
      const end = kernel.xbzrleDecode(out.address, encoded, old.address, 4096);
      if (end !== 1001 + length + 6) expect.fail(`run of ${length}: decoding gave ${end}`);
      if (Buffer.compare(old.content, page) !== 0) expect.fail(`run of ${length}`);
    }
  });

  it('packs a batch, and distinguishes equal pages and overflows from encodings', () => {
    const pages = [withBytes({ 0: 0x0a }), zeroes(), filled(0, 4096), withBytes({ 4095: 1 })];
    const count = pages.length;
    const [olds, news, results] = [0, 0, 0].map(() => kernel.allocate(count * 4)) as [number, number, number];
    kernel.u32(olds, count).fill(old.place(zeroes()));
    const memory = kernel.allocate(count * 4096);
    pages.forEach((page, i) => {
      kernel.bytes.set(page, memory + i * 4096);
      kernel.u32(news, count)[i] = memory + i * 4096;
    });
    out.place(new Uint8Array(count * 4096 + kernel.xbzrleEncodeSlack));
    expect(kernel.xbzrleEncodeBatch(olds, news, count, 4096, 4096, out.address, results)).toBe(7);
    expect([...kernel.i32(results, count)]).toEqual([3, 0, kernel.xbzrleOverflow, 4]);
    expect(out.content.slice(0, 7)).toEqual(fromHex('00 01 0a ff 1f 01 01'));
    expect(out.isUntouchedAround).toBe(true);
    expect(kernel.xbzrleEncodeBatch(olds, news, 0, 4096, 4096, out.address, results)).toBe(0);
  });

  describe.each([
    ['7.2', 32],
    ['10.0', 52],
  ])('what QEMU %s wrote', (version, count) => {
    const deltas = recordedDeltas(new Uint8Array(readFileSync(fixturePath(`pc-xbzrle-${version}.bin`))));

    it(`is ${count} deltas, which the encoder writes byte for byte`, () => {
      expect(deltas.length).toBe(count);
      for (const { before, after, delta } of deltas) expect(encode(before, after)).toEqual(delta);
    });

    it('is decoded into the new pages', () => {
      for (const { before, after, delta } of deltas) {
        old.place(before);
        out.place(delta);
        expect(kernel.xbzrleDecode(out.address, delta.length, old.address, before.length)).toBeGreaterThan(0);
        expect(old.content).toEqual(after);
      }
    });
  });
});
