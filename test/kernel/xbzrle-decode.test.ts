import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Kernel, XbzrleFault } from '../../src/kernel/index.ts';
import { Guarded, loadSmall, seeded, variants } from './arena.ts';
import { uleb, xbzrleDecode, xbzrleEncode } from './oracle.ts';

// Facts: docs/formats/xbzrle.md, sections 2 to 4.
const zeroes = (length = 4096) => new Uint8Array(length);
const fromHex = (hex: string) => Uint8Array.from(hex.split(' '), (byte) => Number.parseInt(byte, 16));
const withBytes = (bytes: Record<number, number>, length = 4096) => {
  const page = zeroes(length);
  for (const [at, value] of Object.entries(bytes)) page[Number(at)] = value;
  return page;
};

describe.each(variants)('XBZRLE decoding (%s)', (variant) => {
  let kernel: Kernel;
  let source: Guarded;
  let page: Guarded;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    source = new Guarded(kernel, 65536);
    page = new Guarded(kernel, 65536);
  });

  /**
   * Decodes between guards, requires that the check kernel agrees and that the guards are intact, and returns the
   * result.
   */
  function decode(encoded: Uint8Array, old: Uint8Array, misalignment = 0): ReturnType<typeof xbzrleDecode> {
    source.place(encoded, misalignment);
    page.place(old, (misalignment * 3) & 63);
    const checked = kernel.xbzrleCheck(source.address, encoded.length, old.length);
    const result = kernel.xbzrleDecode(source.address, encoded.length, page.address, old.length);
    if (checked !== result) throw new Error(`check says ${checked}, decode says ${result}`);
    if (!source.isUntouchedAround || !page.isUntouchedAround) throw new Error('wrote outside the page');
    if (!source.content.every((byte, i) => byte === encoded[i])) throw new Error('wrote to the source');
    return kernel.xbzrleFault(result) ?? { page: page.content, end: result };
  }

  describe('the worked examples', () => {
    it.each([
      ['the first byte', '00 01 0a', withBytes({ 0: 0x0a }), 1],
      ['the last byte', 'ff 1f 01 01', withBytes({ 4095: 1 }), 4096],
      [
        'four bytes in three runs',
        '64 02 aa bb c6 01 01 cc d2 1d 01 dd',
        withBytes({ 100: 0xaa, 101: 0xbb, 300: 0xcc, 4095: 0xdd }),
        4096,
      ],
      ['two bytes with one between', '05 01 07 01 01 09', withBytes({ 5: 7, 7: 9 }), 8],
      ['both ends of an 8-byte page', '00 01 01 06 01 02', withBytes({ 0: 1, 7: 2 }, 8), 8],
    ])('%s', (_, encoded, next, end) => {
      expect(decode(fromHex(encoded), zeroes(next.length))).toEqual({ page: next, end });
    });

    it('200 bytes at the start', () => {
      const literal = seeded(1).bytes(200);
      const next = zeroes();
      next.set(literal);
      expect(decode(Uint8Array.of(0, 0xc8, 1, ...literal), zeroes())).toEqual({ page: next, end: 200 });
    });
  });

  describe('what is accepted', () => {
    it('nothing at all, which changes nothing', () => {
      const old = seeded(2).bytes(4096);
      expect(decode(zeroes(0), old)).toEqual({ page: old, end: 0 });
    });

    it('a count in more bytes than it needs', () => {
      expect(decode(fromHex('83 00 81 00 ff'), zeroes())).toEqual({ page: withBytes({ 3: 0xff }), end: 4 });
      expect(decode(fromHex('80 00 01 ff'), zeroes())).toEqual({ page: withBytes({ 0: 0xff }), end: 1 });
    });

    it('every count a ULEB of 14 bits can hold', () => {
      const size = 0x4000;
      for (let count = 0; count <= 0x3fff; count++) {
        const equal = source.place(Uint8Array.from([...uleb(count), 1, 0xee]));
        if (kernel.xbzrleCheck(equal, source.length, size) !== count + 1) expect.fail(`equal run of ${count}`);
        if (count === 0) continue;
        const header = uleb(count);
        kernel.bytes.set([0, ...header], equal);
        const result = kernel.xbzrleCheck(equal, 1 + header.length + count, size);
        if (result !== count) expect.fail(`literal of ${count} gave ${result}`);
      }
    });

    it('the longest encoding of a page, as long as the page', () => {
      const next = seeded(3)
        .bytes(4096)
        .map((byte) => byte | 1);
      next.fill(0, 0, 3);
      const encoded = xbzrleEncode(zeroes(), next)!;
      expect(encoded.length).toBe(4096);
      expect(decode(encoded, zeroes())).toEqual({ page: next, end: 4096 });
    });

    it('a literal of every length at every distance from the end of the page', () => {
      const old = seeded(4).bytes(96);
      for (let length = 1; length <= 80; length++) {
        const literal = seeded(length).bytes(length);
        for (let after = 0; after <= 16; after++) {
          const start = old.length - after - length;
          if (start < 0) continue;
          const next = old.slice();
          next.set(literal, start);
          const got = decode(Uint8Array.of(start, length, ...literal), old, length & 15);
          if (typeof got === 'string' || got.page.some((byte, i) => byte !== next[i])) {
            expect.fail(`literal of ${length}, ${after} before the end`);
          }
        }
      }
    });
  });

  describe('what is refused', () => {
    it.each<[string, string, XbzrleFault]>([
      ['a lone equal count', '05', 'truncated'],
      ['an equal run with nothing after it', '05 01 07 01', 'truncated'],
      ['an equal run with half a header after it', '05 01', 'truncated'],
      ['an equal count of three bytes', '80 80', 'badUleb'],
      ['a literal count of three bytes', '00 80 80 01', 'badUleb'],
      ['an empty equal run that is not the first', '00 01 07 00 01 08', 'emptyRun'],
      ['an empty equal run in two bytes that is not the first', '00 01 07 80 00 01 08', 'emptyRun'],
      ['an empty literal', '05 00 07', 'emptyRun'],
      ['an empty literal in two bytes', '05 80 00', 'emptyRun'],
      ['an equal run that ends after the page', '81 20 01 07', 'runBeyondPage'],
      ['a literal that ends after the page', 'ff 1f 02 01 02', 'runBeyondPage'],
      ['a literal at the very end of the page', '80 20 01 07', 'runBeyondPage'],
      ['a literal that ends after the input', '00 03 01 02', 'literalBeyondInput'],
      ['a literal whose count ends the input', '00 81 00', 'literalBeyondInput'],
    ])('%s', (_, encoded, fault) => {
      expect(decode(fromHex(encoded), zeroes())).toBe(fault);
      expect(xbzrleDecode(fromHex(encoded), zeroes())).toBe(fault);
    });

    it('with a different negative code for each fault', () => {
      const codes = Object.values(kernel.xbzrleCode);
      expect(new Set(codes).size).toBe(5);
      expect(codes.every((code) => code < 0)).toBe(true);
      expect(kernel.xbzrleFault(0)).toBeUndefined();
    });
  });

  it('decodes every page the oracle encodes', () => {
    const sizes = fc.constantFrom(1024, 2048, 4096, 8192, 16384);
    const edits = fc.array(
      fc.record({ at: fc.nat(16383), length: fc.integer({ min: 1, max: 40 }), value: fc.nat(255) }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(sizes, edits, fc.nat(63), fc.nat(), (size, changes, misalignment, seed) => {
        const old = seeded(seed).bytes(size);
        const next = old.slice();
        for (const { at, length, value } of changes) next.fill(value, at % size, (at % size) + length);
        const encoded = xbzrleEncode(old, next);
        if (encoded === undefined) return;
        const got = decode(encoded, old, misalignment);
        expect(typeof got === 'string' ? got : got.page).toEqual(next);
      }),
      { seed: 7, numRuns: 150 },
    );
  });

  it('agrees with the oracle on 10,000 pages with runs of every length', () => {
    const random = seeded(8);
    for (let n = 0; n < 10_000; n++) {
      const old = zeroes(1024);
      const next = old.slice();
      const longest = 1 + random.below(n % 2 === 0 ? 12 : 100);
      for (let at = random.below(8); at < next.length; at += 1 + random.below(longest)) {
        const length = 1 + random.below(longest);
        next.fill(1 + random.below(255), at, at + length);
        at += length;
      }
      const encoded = xbzrleEncode(old, next);
      if (encoded === undefined) continue;
      const got = decode(encoded, old, n & 63);
      if (typeof got === 'string' || got.page.some((byte, i) => byte !== next[i])) expect.fail(`page ${n}`);
    }
  });

  it('agrees with the oracle on 20,000 random and damaged encodings', () => {
    const random = seeded(9);
    const old = random.bytes(16384);
    const outcomes = new Map<string, number>();
    for (let n = 0; n < 20_000; n++) {
      const before = old.subarray(0, 8 << random.below(12));
      const encoded = someEncoding(random, before.length);
      const want = xbzrleDecode(encoded, before);
      const got = decode(encoded, before, n & 63);
      const outcome = typeof want === 'string' ? want : 'decoded';
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      const agrees =
        typeof want === 'string' || typeof got === 'string'
          ? want === got
          : want.end === got.end && want.page.every((byte, i) => byte === got.page[i]);
      if (!agrees) expect.fail(`input ${n}: expected ${outcome}, got ${typeof got === 'string' ? got : got.end}`);
    }
    expect([...outcomes.keys()].sort()).toEqual([
      'badUleb',
      'decoded',
      'emptyRun',
      'literalBeyondInput',
      'runBeyondPage',
      'truncated',
    ]);
    expect(Math.min(...outcomes.values())).toBeGreaterThan(300);
  });

  it('neither reads nor writes past the last byte of the arena', () => {
    const random = seeded(10);
    const old = random.bytes(1024);
    for (let n = 0; n < 2000; n++) {
      const before = old.subarray(0, 1 + random.below(1024));
      const encoded = someEncoding(random, before.length);
      const want = xbzrleDecode(encoded, before);

      const sourceAtEnd = kernel.size - encoded.length;
      kernel.bytes.set(encoded, sourceAtEnd);
      kernel.bytes.set(before, page.address);
      const fromEnd = kernel.xbzrleDecode(sourceAtEnd, encoded.length, page.address, before.length);

      const pageAtEnd = kernel.size - before.length;
      kernel.bytes.set(before, pageAtEnd);
      kernel.bytes.set(encoded, source.address);
      const ontoEnd = kernel.xbzrleDecode(source.address, encoded.length, pageAtEnd, before.length);

      const expected = typeof want === 'string' ? kernel.xbzrleCode[want] : want.end;
      if (fromEnd !== expected || ontoEnd !== expected) expect.fail(`input ${n}`);
    }
  });

  describe('a batch', () => {
    it('gives each encoding its own result and counts the failures', () => {
      const encodings = ['00 01 0a', '05', 'ff 1f 01 01', '05 00 07'].map(fromHex);
      const count = encodings.length;
      const tables = kernel.allocate(count * 16);
      const [sources, lengths, pages, results] = [0, 1, 2, 3].map((t) => tables + t * count * 4) as [
        number,
        number,
        number,
        number,
      ];
      const memory = kernel.allocate(count * 4096);
      encodings.forEach((encoded, i) => {
        const at = kernel.allocate(encoded.length, 1);
        kernel.bytes.set(encoded, at);
        kernel.u32(sources, count)[i] = at;
        kernel.u32(lengths, count)[i] = encoded.length;
        kernel.u32(pages, count)[i] = memory + (count - 1 - i) * 4096;
      });
      const want = [1, kernel.xbzrleCode.truncated, 4096, kernel.xbzrleCode.emptyRun];

      expect(kernel.xbzrleCheckBatch(sources, lengths, count, 4096, results)).toBe(2);
      expect([...kernel.i32(results, count)]).toEqual(want);
      expect(kernel.bytes.subarray(memory, memory + count * 4096).every((byte) => byte === 0)).toBe(true);

      kernel.i32(results, count).fill(99);
      expect(kernel.xbzrleDecodeBatch(sources, lengths, pages, count, 4096, results)).toBe(2);
      expect([...kernel.i32(results, count)]).toEqual(want);
      expect(kernel.bytes[memory + 3 * 4096]).toBe(0x0a);
      expect(kernel.bytes[memory + 4096 + 4095]).toBe(1);
    });

    it('applies encodings for the same page in order', () => {
      const count = 2;
      const [sources, lengths, pages, results] = [0, 0, 0, 0].map(() => kernel.allocate(count * 4)) as [
        number,
        number,
        number,
        number,
      ];
      const memory = kernel.allocate(4096);
      kernel.bytes.set(fromHex('00 02 0a 0b 01 01 0c'), source.address);
      kernel.u32(sources, count).set([source.address, source.address + 4]);
      kernel.u32(lengths, count).set([4, 3]);
      kernel.u32(pages, count).set([memory, memory]);
      expect(kernel.xbzrleDecodeBatch(sources, lengths, pages, count, 4096, results)).toBe(0);
      expect([...kernel.bytes.subarray(memory, memory + 3)]).toEqual([0x0a, 0x0c, 0]);
    });

    it('without encodings does nothing', () => {
      const table = kernel.allocate(4);
      expect(kernel.xbzrleDecodeBatch(table, table, table, 0, 4096, table)).toBe(0);
      expect(kernel.xbzrleCheckBatch(table, table, 0, 4096, table)).toBe(0);
    });
  });
});

/**
 * Runs of all kinds, with some counts too wide, too large or zero. Often some bytes are then changed, cut off or added.
 */
function someEncoding(random: ReturnType<typeof seeded>, pageSize: number): Uint8Array {
  if (random.below(8) === 0) return random.bytes(random.below(24));
  const out: number[] = [];
  let left = pageSize;
  const longest = 1 + random.below(random.below(3) === 0 ? 2000 : 24);
  for (let runs = random.below(12); runs > 0 && left > 1; runs--) {
    const equal = out.length === 0 ? random.below(3) : 1 + random.below(Math.min(longest, left - 1));
    const different = 1 + random.below(Math.min(longest, Math.max(1, left - equal)));
    out.push(...uleb(equal, random.below(8) === 0), ...uleb(different, random.below(8) === 0));
    out.push(...random.bytes(different));
    left -= equal + different;
  }
  if (random.below(3) === 0) return Uint8Array.from(out);
  const damaged = Uint8Array.from(out);
  for (let times = random.below(3); times > 0 && damaged.length > 0; times--) {
    damaged[random.below(random.below(2) === 0 ? Math.min(6, damaged.length) : damaged.length)] =
      random.below(2) === 0 ? random.below(4) * 0x40 : random.below(256);
  }
  const cut = random.below(3) === 0 ? random.below(damaged.length + 1) : damaged.length;
  return Uint8Array.from([
    ...damaged.subarray(0, cut),
    ...random.bytes(random.below(4) === 0 ? 1 + random.below(3) : 0),
  ]);
}
