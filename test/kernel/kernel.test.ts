import { beforeAll, describe, expect, it } from 'vitest';
import scalarBytes from '../../dist/kernel.scalar.wasm';
import simdBytes from '../../dist/kernel.simd.wasm';
import { type Kernel, type KernelVariant, loadKernel } from '../../src/kernel/index.ts';
import { loadSmall, variants } from './arena.ts';

describe('loading a kernel', () => {
  it('uses SIMD if the platform supports it, and 32 MiB', async () => {
    const kernel = await loadKernel();
    expect(kernel.variant).toBe('simd');
    expect(kernel.size).toBe(32 << 20);
    expect(kernel.bytes.length).toBe(kernel.size);
  });

  it('gives each kernel its own arena', async () => {
    const [one, other] = await Promise.all([loadSmall('simd'), loadSmall('simd')]);
    one.bytes[one.base] = 1;
    expect(other.bytes[other.base]).toBe(0);
  });

  it('makes an arena that cannot grow', async () => {
    const kernel = await loadSmall('scalar');
    expect(() => kernel.memory.grow(1)).toThrow(RangeError);
  });

  it('rounds the arena up to whole 64 KiB', async () => {
    expect((await loadKernel({ arenaBytes: 65537 })).size).toBe(131072);
  });

  it.each([0, 65535, 65536.5, Number.NaN, 2 ** 32])('refuses an arena of %d bytes', async (arenaBytes) => {
    await expect(loadKernel({ arenaBytes })).rejects.toThrow(RangeError);
  });

  it('refuses a variant it does not have', async () => {
    const variant = 'avx' as KernelVariant;
    await expect(loadKernel({ variant })).rejects.toThrow("variant: expected 'simd' or 'scalar', got avx");
  });

  it('finds the same exports in both builds', () => {
    const [simd, scalar] = [simdBytes, scalarBytes].map((bytes) =>
      WebAssembly.Module.exports(new WebAssembly.Module(bytes)).map(({ name, kind }) => `${kind} ${name}`),
    );
    expect(simd).toEqual(scalar);
  });

  it('needs nothing but memory', () => {
    for (const bytes of [simdBytes, scalarBytes]) {
      const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes));
      expect(imports).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }]);
    }
  });
});

describe.each(variants)('the arena (%s)', (variant) => {
  let kernel: Kernel;
  beforeAll(async () => {
    kernel = await loadKernel({ variant, arenaBytes: 65536 });
  });

  it("allocates after the module's data, aligned, and never twice", async () => {
    const fresh = await loadKernel({ variant, arenaBytes: 65536 });
    const first = fresh.allocate(10);
    expect(first).toBeGreaterThanOrEqual(fresh.base);
    expect(first % 64).toBe(0);
    expect(fresh.allocate(1)).toBe(first + 64);
    expect(fresh.allocate(1, 1)).toBe(first + 65);
    expect(fresh.allocate(4, 4096) % 4096).toBe(0);
  });

  it('can be used to the last byte, and then reports that it is full', async () => {
    const fresh = await loadKernel({ variant, arenaBytes: 65536 });
    const rest = fresh.size - fresh.allocate(0);
    fresh.allocate(rest);
    expect(fresh.allocate(0)).toBe(fresh.size);
    expect(() => fresh.allocate(1)).toThrow('arena of 65536 bytes is full: expected at most 0 bytes, got 1');
  });

  it('refuses impossible sizes and alignments', () => {
    expect(() => kernel.allocate(-1)).toThrow(RangeError);
    expect(() => kernel.allocate(1.5)).toThrow(RangeError);
    expect(() => kernel.allocate(1, 48)).toThrow('alignment: expected a power of two, got 48');
    expect(() => kernel.allocate('8' as unknown as number)).toThrow(TypeError);
  });

  it('has views of words', () => {
    const at = kernel.allocate(8);
    kernel.i32(at, 2)[1] = -1;
    expect([...kernel.u32(at, 2)]).toEqual([0, 0xffffffff]);
    expect(kernel.bytes[at + 7]).toBe(0xff);
  });

  it('refuses views outside it, or not aligned to a word', () => {
    expect(() => kernel.u32(kernel.size - 4, 2)).toThrow(RangeError);
    expect(() => kernel.i32(kernel.base + 2, 1)).toThrow(`i32: expected a multiple of 4, got ${kernel.base + 2}`);
    expect(() => kernel.u32(kernel.base - 4, 1)).toThrow(RangeError);
  });
});

describe.each(variants)('a kernel call (%s)', (variant) => {
  let kernel: Kernel;
  let calls: Record<string, { good: number[]; call: (...args: number[]) => unknown }>;
  /** The address of 4096 zero bytes, and of a table of 8 words that all contain that address. */
  let room: number;
  let table: number;
  let out: number;
  let wide: number;

  beforeAll(async () => {
    kernel = await loadSmall(variant);
    room = kernel.allocate(8192);
    table = kernel.allocate(32);
    kernel.u32(table, 8).fill(room);
    const lengths = kernel.allocate(32);
    const results = kernel.allocate(64);
    out = kernel.allocate(8192 + kernel.xbzrleEncodeSlack);
    wide = kernel.allocate(65536);
    calls = {
      comparePages: {
        good: [room, room, 1024, 8, results],
        call: (a, b, c, d, e) => kernel.comparePages(a!, b!, c!, d!, e!),
      },
      comparePagesGather: {
        good: [table, table, 1024, 8, results],
        call: (a, b, c, d, e) => kernel.comparePagesGather(a!, b!, c!, d!, e!),
      },
      hashPages: { good: [room, 1024, 8, results], call: (a, b, c, d) => kernel.hashPages(a!, b!, c!, d!) },
      hashPages64: { good: [room, 1024, 8, results], call: (a, b, c, d) => kernel.hashPages64(a!, b!, c!, d!) },
      hashPagesGather: {
        good: [table, 1024, 8, results],
        call: (a, b, c, d) => kernel.hashPagesGather(a!, b!, c!, d!),
      },
      crc32Pages: { good: [room, 1024, 8, results], call: (a, b, c, d) => kernel.crc32Pages(a!, b!, c!, d!) },
      crc32PagesGather: {
        good: [table, 1024, 8, results],
        call: (a, b, c, d) => kernel.crc32PagesGather(a!, b!, c!, d!),
      },
      countBits: { good: [room, 32], call: (a, b) => kernel.countBits(a!, b!) },
      xbzrleEncode: {
        good: [room, room, 1024, out, 1024],
        call: (...args) => kernel.xbzrleEncode(...(args as [number, number, number, number, number])),
      },
      xbzrleEncodeBatch: {
        good: [table, table, 8, 1024, 1024, out, results],
        call: (...args) =>
          kernel.xbzrleEncodeBatch(...(args as [number, number, number, number, number, number, number])),
      },
      zeroScan: { good: [room, 1024, 8, results], call: (a, b, c, d) => kernel.zeroScan(a!, b!, c!, d!) },
      zeroScanGather: { good: [table, 1024, 8, results], call: (a, b, c, d) => kernel.zeroScanGather(a!, b!, c!, d!) },
      xbzrleDecode: { good: [room, 0, room, 4096], call: (a, b, c, d) => kernel.xbzrleDecode(a!, b!, c!, d!) },
      xbzrleCheck: { good: [room, 0, 4096], call: (a, b, c) => kernel.xbzrleCheck(a!, b!, c!) },
      xbzrleDecodeBatch: {
        good: [table, lengths, table, 8, 4096, results],
        call: (a, b, c, d, e, f) => kernel.xbzrleDecodeBatch(a!, b!, c!, d!, e!, f!),
      },
      xbzrleCheckBatch: {
        good: [table, lengths, 8, 4096, results],
        call: (a, b, c, d, e) => kernel.xbzrleCheckBatch(a!, b!, c!, d!, e!),
      },
    };
  });

  const arguments_: [string, number[]][] = [
    ['comparePages', [0, 1, 4]],
    ['comparePagesGather', [0, 1, 4]],
    ['hashPages', [0, 3]],
    ['hashPages64', [0, 3]],
    ['hashPagesGather', [0, 3]],
    ['crc32Pages', [0, 3]],
    ['crc32PagesGather', [0, 3]],
    ['countBits', [0]],
    ['xbzrleEncode', [0, 1, 3]],
    ['xbzrleEncodeBatch', [0, 1, 5, 6]],
    ['zeroScan', [0, 3]],
    ['zeroScanGather', [0, 3]],
    ['xbzrleDecode', [0, 2]],
    ['xbzrleCheck', [0]],
    ['xbzrleDecodeBatch', [0, 1, 2, 5]],
    ['xbzrleCheckBatch', [0, 1, 4]],
  ];

  it.each(arguments_)('%s accepts good arguments', (name) => {
    expect(() => calls[name]!.call(...calls[name]!.good)).not.toThrow();
  });

  it.each(arguments_)('%s refuses every argument that is not a number, not an integer, or negative', (name) => {
    const { good, call } = calls[name]!;
    good.forEach((_, i) => {
      expect(() => call(...good.with(i, '64' as unknown as number))).toThrow(TypeError);
      expect(() => call(...good.with(i, 64n as unknown as number))).toThrow(TypeError);
      expect(() => call(...good.with(i, undefined as unknown as number))).toThrow(TypeError);
      for (const bad of [-4, 1028.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        expect(() => call(...good.with(i, bad))).toThrow(RangeError);
      }
    });
  });

  it.each(arguments_)('%s refuses ranges that begin before the arena or end after it', (name, addresses) => {
    const { good, call } = calls[name]!;
    for (const i of addresses) {
      expect(() => call(...good.with(i, 0))).toThrow(RangeError);
      expect(() => call(...good.with(i, kernel.base - 4))).toThrow(RangeError);
      expect(() => call(...good.with(i, kernel.size + 4))).toThrow(RangeError);
      expect(() => call(...good.with(i, 2 ** 32 + room))).toThrow(RangeError);
    }
  });

  it('refuses ranges that begin inside and end outside', () => {
    const end = kernel.size;
    expect(() => kernel.zeroScan(end - 8191, 1024, 8, room)).toThrow(
      `pages: expected bytes within ${kernel.base}..${end}, got 8192 at ${end - 8191}`,
    );
    expect(() => kernel.zeroScan(room, 1024, 9, end - 1)).toThrow(RangeError);
    expect(() => kernel.zeroScanGather(end - 28, 1024, 8, room)).toThrow(RangeError);
    expect(() => kernel.xbzrleDecode(end - 3, 4, room, 4096)).toThrow(RangeError);
    expect(() => kernel.xbzrleDecode(room, 4, end - 4095, 4096)).toThrow(RangeError);
    expect(() => kernel.xbzrleCheck(end - 3, 4, 4096)).toThrow(RangeError);
  });

  it('refuses tables that are not aligned to a word', () => {
    expect(() => kernel.zeroScanGather(table + 1, 1024, 1, room)).toThrow(RangeError);
    expect(() => kernel.xbzrleCheckBatch(table, table + 2, 1, 4096, room)).toThrow(RangeError);
  });

  it('refuses page sizes it cannot scan', () => {
    expect(() => kernel.zeroScan(room, 1100, 1, room)).toThrow('pageSize: expected a multiple of 128, got 1100');
    expect(() => kernel.zeroScan(room, 896, 1, room)).toThrow('pageSize: expected an integer in 1024..65536, got 896');
    expect(() => kernel.hashPages(room, 65536 + 128, 1, room)).toThrow(RangeError);
    expect(() => kernel.comparePages(room, room, 0, 1, room)).toThrow(RangeError);
    expect(() => kernel.xbzrleCheck(room, 0, 0)).toThrow(RangeError);
    expect(() => kernel.xbzrleCheck(room, 0, 2 ** 31)).toThrow(RangeError);
  });

  it('refuses to encode pages whose runs 14 bits cannot count', () => {
    expect(() => kernel.xbzrleEncode(wide, wide + 16384, 16384, out, 8192)).not.toThrow();
    expect(() => kernel.xbzrleEncode(wide, wide + 32768, 32768, out, 8192)).toThrow(
      'pageSize: expected an integer in 1024..16384, got 32768',
    );
    expect(() => kernel.xbzrleEncodeBatch(table, table, 1, 65536, 65536, out, out)).toThrow(RangeError);
  });

  it("counts the slack as part of an encoder's output", () => {
    const end = kernel.size - kernel.xbzrleEncodeSlack - 4096;
    expect(() => kernel.xbzrleEncode(room, room, 4096, end, 4096)).not.toThrow();
    expect(() => kernel.xbzrleEncode(room, room, 4096, end + 1, 4096)).toThrow(RangeError);
    expect(() => kernel.xbzrleEncodeBatch(table, table, 8, 1024, 512, end, out)).not.toThrow();
    expect(() => kernel.xbzrleEncodeBatch(table, table, 8, 1024, 512, end + 1, out)).toThrow(RangeError);
  });

  it('refuses outputs that overlap a table of addresses', () => {
    const slack = kernel.xbzrleEncodeSlack;
    const pages = kernel.allocate(32);
    const other = kernel.allocate(32);
    const onPages = `expected bytes apart from`;
    kernel.u32(pages, 8).fill(room);
    expect(() => kernel.zeroScanGather(pages, 1024, 8, pages + 31)).toThrow(`bitmap: ${onPages} table`);
    expect(() => kernel.comparePagesGather(pages, other, 1024, 8, pages + 31)).toThrow(`bitmap: ${onPages} as`);
    expect(() => kernel.comparePagesGather(other, pages, 1024, 8, pages)).toThrow(`bitmap: ${onPages} bs`);
    expect(() => kernel.hashPagesGather(pages, 1024, 8, pages + 28)).toThrow(`hashes: ${onPages} table`);
    expect(() => kernel.crc32PagesGather(pages, 1024, 8, pages - 28)).toThrow(`crcs: ${onPages} table`);
    expect(() => kernel.xbzrleEncodeBatch(pages, pages, 8, 1024, 0, pages - slack + 1, other)).toThrow(
      `out: ${onPages} olds`,
    );
    expect(() => kernel.xbzrleEncodeBatch(table, pages, 8, 1024, 0, out, pages)).toThrow(`results: ${onPages} news`);
    expect(() => kernel.xbzrleCheckBatch(table, pages, 8, 1024, pages)).toThrow(`results: ${onPages} lengths`);
    kernel.u32(other, 8).fill(0);
    expect(() => kernel.xbzrleDecodeBatch(table, other, pages, 8, 1024, pages)).toThrow(`results: ${onPages} pages`);
    kernel.u32(pages, 8)[7] = pages - 1023;
    expect(() => kernel.xbzrleDecodeBatch(table, other, pages, 8, 1024, out)).toThrow('pages[7]: expected bytes apart');
  });

  it('refuses every pointer in a table that leads outside, and names it', () => {
    const pointers = kernel.allocate(32);
    const lengths = kernel.allocate(32);
    const results = kernel.allocate(32);
    for (let i = 0; i < 8; i++) {
      for (const bad of [0, kernel.base - 1, kernel.size - 1023, 0xffffffff]) {
        kernel.u32(pointers, 8).fill(room)[i] = bad;
        kernel.u32(lengths, 8).fill(1024);
        expect(() => kernel.zeroScanGather(pointers, 1024, 8, results)).toThrow(`table[${i}]: expected bytes within`);
        expect(() => kernel.xbzrleCheckBatch(pointers, lengths, 8, 1024, results)).toThrow(`sources[${i}]: expected`);
        expect(() => kernel.xbzrleDecodeBatch(pointers, lengths, table, 8, 1024, results)).toThrow(`sources[${i}]:`);
        expect(() => kernel.hashPagesGather(pointers, 1024, 8, results)).toThrow(`table[${i}]: expected bytes within`);
        expect(() => kernel.crc32PagesGather(pointers, 1024, 8, results)).toThrow(`table[${i}]: expected bytes within`);
        expect(() => kernel.comparePagesGather(pointers, table, 1024, 8, results)).toThrow(`as[${i}]: expected`);
        expect(() => kernel.comparePagesGather(table, pointers, 1024, 8, results)).toThrow(`bs[${i}]: expected`);
        expect(() => kernel.xbzrleEncodeBatch(pointers, table, 8, 1024, 9, out, results)).toThrow(`olds[${i}]:`);
        expect(() => kernel.xbzrleEncodeBatch(table, pointers, 8, 1024, 9, out, results)).toThrow(`news[${i}]:`);
        expect(() => kernel.xbzrleDecodeBatch(table, lengths, pointers, 8, 1024, results)).toThrow(`pages[${i}]:`);
      }
      kernel.u32(lengths, 8).fill(0)[i] = 0xffffffff;
      expect(() => kernel.xbzrleCheckBatch(table, lengths, 8, 1024, results)).toThrow(`sources[${i}]: expected`);
    }
    expect([...kernel.i32(results, 8)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });
});
