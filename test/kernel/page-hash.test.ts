import { beforeAll, describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/index.ts';
import { Guarded, loadSmall, seeded, variants } from './arena.ts';
import { crc32, pageHash } from './oracle.ts';

// Facts: docs/formats/dirty-rate.md, section 2.
const page = (fill: (i: number) => number, length = 4096) => Uint8Array.from({ length }, (_, i) => fill(i));
const words = new Uint8Array(Uint32Array.from({ length: 1024 }, (_, i) => i).buffer);
let lcg = 1;
const lcgBytes = page(() => {
  lcg = (Math.imul(lcg, 1103515245) + 12345) | 0;
  return lcg >>> 24;
});

const known: [string, Uint8Array, string, string][] = [
  ['4096 x 00', page(() => 0), '82da6c108266bfde', 'c71c0011'],
  ['4096 x ff', page(() => 0xff), '8793f750ebda33d5', 'f154670a'],
  ['byte i = i & 0xff', page((i) => i), '56a5998059d44c19', 'a2912082'],
  ['words 0 to 1023', words, 'b5c41b030aa8703b', 'f15f689b'],
  ['01 then 4095 x 00', page((i) => (i === 0 ? 1 : 0)), '0bf765b41db83ca2', '9dc4a93d'],
  ['4095 x 00 then 01', page((i) => (i === 4095 ? 1 : 0)), 'c04b233a7070cd00', 'b01b3087'],
  ['4096 x a5', page(() => 0xa5), 'e124704802788079', '4a9d36c6'],
  ['8192 x 00', page(() => 0, 8192), '4610da69af79f69a', 'd8f49994'],
  ['bytes of an LCG', lcgBytes, '0b97a51db94ed3b0', '831f81de'],
];

describe('the hash oracle', () => {
  it.each(known)('knows %s', (_, bytes, hash, crc) => {
    expect(pageHash(bytes).toString(16).padStart(16, '0')).toBe(hash);
    expect(crc32(bytes).toString(16).padStart(8, '0')).toBe(crc);
  });
});

describe.each(variants)('page hashes (%s)', (variant) => {
  let kernel: Kernel;
  let pages: Guarded;
  let table: Guarded;
  let hashes: Guarded;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    pages = new Guarded(kernel, 300_000);
    table = new Guarded(kernel, 1024);
    hashes = new Guarded(kernel, 1024);
  });

  const isClean = () => [pages, table, hashes].every((each) => each.isUntouchedAround);

  it.each(known)('of %s', (_, bytes, hash, crc) => {
    const at = pages.place(bytes, 3);
    table.place(new Uint8Array(0));
    const out = hashes.place(new Uint8Array(8), 4);
    kernel.hashPages(at, bytes.length, 1, out);
    kernel.crc32Pages(at, bytes.length, 1, out + 4);
    expect([...kernel.u32(out, 2)]).toEqual([Number.parseInt(hash.slice(8), 16), Number.parseInt(crc, 16)]);
    kernel.hashPages64(at, bytes.length, 1, out);
    expect([...kernel.u32(out, 2)]).toEqual([hash.slice(8), hash.slice(0, 8)].map((word) => Number.parseInt(word, 16)));
    expect(isClean()).toBe(true);
  });

  it.each([1024, 1152, 2048, 16384, 65536])(
    'agree with the oracle on pages of %i bytes, contiguous and scattered',
    (size) => {
      const random = seeded(size);
      const count = Math.min(9, Math.floor(300_000 / size));
      const all = random.bytes(count * size);
      const at = pages.place(all, 7);
      const each = Array.from({ length: count }, (_, i) => all.subarray(i * size, (i + 1) * size));
      const wantedHashes = each.map((bytes) => Number(pageHash(bytes) & 0xffffffffn));
      const wantedCrcs = each.map(crc32);
      table.place(new Uint8Array(count * 4));
      kernel.u32(table.address, count).set(each.map((_, i) => at + (count - 1 - i) * size));
      const out = hashes.place(new Uint8Array(count * 4));
      const results = () => [...kernel.u32(out, count)];

      kernel.hashPages(at, size, count, out);
      expect(results()).toEqual(wantedHashes);
      kernel.crc32Pages(at, size, count, out);
      expect(results()).toEqual(wantedCrcs);
      kernel.hashPagesGather(table.address, size, count, out);
      expect(results()).toEqual(wantedHashes.toReversed());
      kernel.crc32PagesGather(table.address, size, count, out);
      expect(results()).toEqual(wantedCrcs.toReversed());
      expect(isClean()).toBe(true);
      const wide = hashes.place(new Uint8Array(count * 8));
      kernel.hashPages64(at, size, count, wide);
      expect([...new BigUint64Array(hashes.content.buffer)]).toEqual(each.map(pageHash));
      expect(isClean()).toBe(true);
    },
  );
});
