/**
 * The kernels and the arena that they work in: one WebAssembly instance with its own memory of fixed size.
 *
 * The memory never grows, so views of it stay valid. This file checks the arguments once per call, and the kernels
 * (`assembly/`) trust them. A `TypeError` means a wrong type. A `RangeError` means bytes outside the arena, or an
 * output that overlaps a table of addresses. The caller must otherwise keep pages and outputs apart: if they overlap,
 * the result is unspecified, but nothing outside the ranges is touched.
 */
import scalarBytes from '../../dist/kernel.scalar.wasm';
import simdBytes from '../../dist/kernel.simd.wasm';
import type { KernelExports } from './exports.ts';

export type KernelVariant = 'simd' | 'scalar';

export interface KernelOptions {
  /** Size of the arena in bytes, rounded up to whole 64 KiB. Default 32 MiB. */
  arenaBytes?: number;
  /** The build to run. Default: SIMD if the platform supports it. */
  variant?: KernelVariant;
}

/** Why an XBZRLE encoding was refused (`docs/formats/xbzrle.md`, section 2). */
export type XbzrleFault = 'truncated' | 'badUleb' | 'emptyRun' | 'runBeyondPage' | 'literalBeyondInput';

const WASM_PAGE = 65536;
const DEFAULT_ARENA_BYTES = 32 << 20;
/** One WASM page less than 4 GiB, so that the end of a range is always a 32-bit address. */
const MAX_ARENA_BYTES = 2 ** 32 - WASM_PAGE;
/** The count of a larger bitmap would not fit the result. */
const MAX_BITMAP_BYTES = 2 ** 29 - 1;
/** A position beyond this would not fit the signed result of a search. */
const MAX_TEXT_BYTES = 2 ** 31 - 1;
const MIN_PAGE = 1024;
const MAX_PAGE = 65536;
/** Largest page whose end still fits the signed result of an XBZRLE kernel. */
const MAX_XBZRLE_PAGE = 2 ** 31 - 1;

/** A module with one function that returns a vector. It is valid only on platforms with SIMD. */
// biome-ignore format: bytes of a file
const SIMD_PROBE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,                           // magic, version
  1, 5, 1, 0x60, 0, 1, 0x7b,                                 // type: () -> v128
  3, 2, 1, 0,                                                // function 0 has it
  10, 10, 1, 8, 0, 0x41, 0, 0xfd, 15, 0xfd, 98, 11,          // i32.const 0, i8x16.splat, i8x16.popcnt
]);

/** Tables of page records in the arena: those of a `PageBatch`. */
export interface RecordTables {
  readonly capacity: number;
  readonly count: number;
  /** Addresses of tables of bytes, doubles and words. */
  readonly kindAddress: number;
  readonly pageAddress: number;
  readonly offsetAddress: number;
  readonly sizeAddress: number;
  readonly dataAddress: number;
  readonly lengthAddress: number;
}

/** Where records of a stream are, and what comes next. */
export interface RecordSource {
  /** Arena addresses of the first byte, and after the last one. */
  at: number;
  limit: number;
  /** What is added to an address to get an offset in the source. */
  base: number;
  pageSize: number;
  /** The page of the record before. */
  lastPage: number;
  /** Bytes of the block. */
  usedLength: number;
}

const modules = new Map<KernelVariant, Promise<WebAssembly.Module>>();

function compiled(variant: KernelVariant): Promise<WebAssembly.Module> {
  let module = modules.get(variant);
  if (module === undefined) {
    module = WebAssembly.compile(variant === 'simd' ? simdBytes : scalarBytes);
    modules.set(variant, module);
  }
  return module;
}

/**
 * Makes a kernel with an arena of its own. The module is compiled once per process.
 * @throws RangeError if the arena size or the variant is impossible.
 */
export async function loadKernel(options: KernelOptions = {}): Promise<Kernel> {
  const { arenaBytes = DEFAULT_ARENA_BYTES, variant = WebAssembly.validate(SIMD_PROBE) ? 'simd' : 'scalar' } = options;
  if (variant !== 'simd' && variant !== 'scalar') {
    throw new RangeError(`variant: expected 'simd' or 'scalar', got ${String(variant)}`);
  }
  checkInteger('arenaBytes', arenaBytes, WASM_PAGE, MAX_ARENA_BYTES);
  const pages = Math.ceil(arenaBytes / WASM_PAGE);
  const module = await compiled(variant);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  return new Kernel(variant, memory as KernelMemory, instance.exports as unknown as KernelExports);
}

/** The memory that a kernel works in: a `WebAssembly.Memory` that does not grow. */
export interface KernelMemory {
  /** The bytes of the arena. */
  readonly buffer: ArrayBuffer;
  /** @throws RangeError, always: the memory has a fixed size. */
  grow(pages: number): number;
}

/** At least the size of the module's own data at the start of the arena. */
const MODULE_BYTES = 64 << 10;

/**
 * Makes a kernel whose arena has space for components that need this many bytes each (`arena-budget.ts`).
 * @throws RangeError for more than 4 GiB in all.
 */
export function loadKernelFor(needs: readonly number[], variant?: KernelVariant): Promise<Kernel> {
  const arenaBytes = needs.reduce((sum, need) => sum + need, MODULE_BYTES);
  return loadKernel(variant === undefined ? { arenaBytes } : { arenaBytes, variant });
}

/** A kernel: the functions of the WebAssembly module, and the arena that they work in. */
export class Kernel {
  readonly variant: KernelVariant;
  readonly memory: KernelMemory;
  /** The whole arena. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Size of the arena in bytes. */
  readonly size: number;
  /** The first usable address. The bytes before it belong to the module, and no range may touch them. */
  readonly base: number;
  /** Page sizes are multiples of this, from 1 KiB to 64 KiB. Only the XBZRLE decoder accepts others. */
  readonly zeroScanStep: number;
  /** Types of the runs of `pageRuns`: pages of zeros, pages of data that are contiguous in the arena, and that are not. */
  readonly runType: Readonly<Record<'zero' | 'inPlace' | 'scattered', number>>;
  /** The (negative) result of the XBZRLE encoder if the encoding would exceed its limit. */
  readonly xbzrleOverflow: number;
  /** The largest page that the XBZRLE encoder accepts, in bytes. Its counts have 14 bits. */
  readonly xbzrleMaxPage: number;
  /** Bytes after its output that the XBZRLE encoder overwrites. */
  readonly xbzrleEncodeSlack: number;
  /** The (negative) result of the XBZRLE kernels for each fault. */
  readonly xbzrleCode: Readonly<Record<XbzrleFault, number>>;

  readonly #exports: KernelExports;
  readonly #words: Uint32Array<ArrayBuffer>;
  #next: number;

  constructor(variant: KernelVariant, memory: KernelMemory, exports: KernelExports) {
    const { buffer } = memory;
    this.variant = variant;
    this.memory = memory;
    this.bytes = new Uint8Array(buffer);
    this.size = buffer.byteLength;
    this.base = exports.HEAP_BASE.value;
    this.zeroScanStep = exports.ZERO_SCAN_STEP.value;
    this.runType = Object.freeze({
      zero: exports.RUN_ZERO.value,
      inPlace: exports.RUN_IN_PLACE.value,
      scattered: exports.RUN_SCATTERED.value,
    });
    this.xbzrleOverflow = exports.XBZRLE_OVERFLOW.value;
    this.xbzrleMaxPage = exports.XBZRLE_MAX_PAGE.value;
    this.xbzrleEncodeSlack = exports.XBZRLE_ENCODE_SLACK.value;
    this.xbzrleCode = Object.freeze({
      truncated: exports.XBZRLE_TRUNCATED.value,
      badUleb: exports.XBZRLE_BAD_ULEB.value,
      emptyRun: exports.XBZRLE_EMPTY_RUN.value,
      runBeyondPage: exports.XBZRLE_RUN_BEYOND_PAGE.value,
      literalBeyondInput: exports.XBZRLE_LITERAL_BEYOND_INPUT.value,
    });
    this.#exports = exports;
    this.#words = new Uint32Array(buffer);
    this.#next = this.base;
  }

  /**
   * Allocates `byteLength` zero bytes of the arena, permanently, and returns their address.
   * @throws RangeError if the arena has no space left, or the alignment is not a power of two.
   */
  allocate(byteLength: number, alignment = 64): number {
    checkInteger('byteLength', byteLength, 0, this.size);
    checkInteger('alignment', alignment, 1, WASM_PAGE);
    if ((alignment & (alignment - 1)) !== 0) {
      throw new RangeError(`alignment: expected a power of two, got ${alignment}`);
    }
    const address = Math.ceil(this.#next / alignment) * alignment;
    if (address + byteLength <= this.size) {
      this.#next = address + byteLength;
      return address;
    }
    throw new RangeError(
      `arena of ${this.size} bytes is full: expected at most ${Math.max(0, this.size - address)} bytes, got ${byteLength}`,
    );
  }

  /** A view of `length` words of the arena at `address`. */
  u32(address: number, length: number): Uint32Array<ArrayBuffer> {
    this.#checkTable('u32', address, length);
    return new Uint32Array(this.bytes.buffer, address, length);
  }

  /** A view of `length` signed words of the arena at `address`. */
  i32(address: number, length: number): Int32Array<ArrayBuffer> {
    this.#checkTable('i32', address, length);
    return new Int32Array(this.bytes.buffer, address, length);
  }

  /**
   * Finds the zero pages among `count` contiguous pages, and sets their bits in the bitmap (page i is bit `i & 7` of
   * byte `i >> 3`; unused bits of the last byte become 0). Returns how many pages are zero.
   */
  zeroScan(pages: number, pageSize: number, count: number, bitmap: number): number {
    this.#checkBatch(pageSize, count);
    this.#checkRange('bitmap', bitmap, Math.ceil(count / 8));
    this.#checkRange('pages', pages, count * pageSize);
    return this.#exports.zeroScan(pages, pageSize, count, bitmap) >>> 0;
  }

  /** Like `zeroScan`, but page i is at the address in word i of the u32 table. */
  zeroScanGather(table: number, pageSize: number, count: number, bitmap: number): number {
    this.#checkBatch(pageSize, count);
    this.#checkRange('bitmap', bitmap, Math.ceil(count / 8));
    this.#checkTable('table', table, count);
    this.#checkApart('bitmap', bitmap, Math.ceil(count / 8), 'table', table, count);
    this.#checkPages('table', table, count, pageSize);
    return this.#exports.zeroScanGather(table, pageSize, count, bitmap) >>> 0;
  }

  /**
   * Compares `count` contiguous pages at `as` with `count` pages at `bs`, and sets the bits of the pages that differ.
   * The bitmap has the layout of `zeroScan`. Returns how many pages differ.
   */
  comparePages(as: number, bs: number, pageSize: number, count: number, bitmap: number): number {
    this.#checkBatch(pageSize, count);
    this.#checkRange('as', as, count * pageSize);
    this.#checkRange('bs', bs, count * pageSize);
    this.#checkRange('bitmap', bitmap, Math.ceil(count / 8));
    return this.#exports.comparePages(as, bs, pageSize, count, bitmap) >>> 0;
  }

  /** Like `comparePages`, but the pages i are at the addresses in word i of two u32 tables. */
  comparePagesGather(as: number, bs: number, pageSize: number, count: number, bitmap: number): number {
    this.#checkBatch(pageSize, count);
    this.#checkTable('as', as, count);
    this.#checkTable('bs', bs, count);
    this.#checkRange('bitmap', bitmap, Math.ceil(count / 8));
    this.#checkApart('bitmap', bitmap, Math.ceil(count / 8), 'as', as, count);
    this.#checkApart('bitmap', bitmap, Math.ceil(count / 8), 'bs', bs, count);
    this.#checkPages('as', as, count, pageSize);
    this.#checkPages('bs', bs, count, pageSize);
    return this.#exports.comparePagesGather(as, bs, pageSize, count, bitmap) >>> 0;
  }

  /** Writes the dirty-sampling hash of each of `count` contiguous pages to the u32 table at `hashes` (QEMU 8.1 and later). */
  hashPages(pages: number, pageSize: number, count: number, hashes: number): void {
    this.#checkBatch(pageSize, count);
    this.#checkRange('pages', pages, count * pageSize);
    this.#checkTable('hashes', hashes, count);
    this.#exports.hashPages(pages, pageSize, count, hashes);
  }

  /**
   * Like `hashPages`, but with all 64 bits of each hash, low word first: two words per page in the u32 table at
   * `hashes`. Pages with the same hash have the same content, except for one pair in 2^64.
   */
  hashPages64(pages: number, pageSize: number, count: number, hashes: number): void {
    this.#checkBatch(pageSize, count);
    this.#checkRange('pages', pages, count * pageSize);
    this.#checkTable('hashes', hashes, count * 2);
    this.#exports.hashPages64(pages, pageSize, count, hashes);
  }

  /** Like `hashPages`, but page i is at the address in word i of the u32 table. */
  hashPagesGather(table: number, pageSize: number, count: number, hashes: number): void {
    this.#checkBatch(pageSize, count);
    this.#checkTable('table', table, count);
    this.#checkTable('hashes', hashes, count);
    this.#checkApart('hashes', hashes, count * 4, 'table', table, count);
    this.#checkPages('table', table, count, pageSize);
    this.#exports.hashPagesGather(table, pageSize, count, hashes);
  }

  /**
   * Writes the CRC-32 of each of `count` contiguous pages to the u32 table at `crcs`. QEMU before 8.1 uses this hash.
   */
  crc32Pages(pages: number, pageSize: number, count: number, crcs: number): void {
    this.#checkBatch(pageSize, count);
    this.#checkRange('pages', pages, count * pageSize);
    this.#checkTable('crcs', crcs, count);
    this.#exports.crc32Pages(pages, pageSize, count, crcs);
  }

  /** Like `crc32Pages`, but page i is at the address in word i of the u32 table. */
  crc32PagesGather(table: number, pageSize: number, count: number, crcs: number): void {
    this.#checkBatch(pageSize, count);
    this.#checkTable('table', table, count);
    this.#checkTable('crcs', crcs, count);
    this.#checkApart('crcs', crcs, count * 4, 'table', table, count);
    this.#checkPages('table', table, count, pageSize);
    this.#exports.crc32PagesGather(table, pageSize, count, crcs);
  }

  /**
   * Divides the records of a batch into runs of neighbouring pages that are treated alike, in the order of the records.
   * Writes a word for each to the u32 table at `runs`, which has space for all records: its records x 4 + `runType`. Returns
   * how many there are. Returns -1 if a record is neither a zero page nor a whole page of data, or is of no page of a block of
   * `pagesInBlock` pages.
   */
  pageRuns(batch: RecordTables, pageSize: number, pagesInBlock: number, runs: number): number {
    const { kindAddress, pageAddress, dataAddress, lengthAddress, count } = batch;
    this.#checkBatch(pageSize, count);
    this.#checkRecords(batch, count);
    this.#checkTable('runs', runs, count);
    const { base, size } = this;
    return this.#exports.pageRuns(
      kindAddress,
      pageAddress,
      dataAddress,
      lengthAddress,
      count,
      pageSize,
      pagesInBlock,
      base,
      size,
      runs,
    );
  }

  /** Copies pages to `out`, one behind the other. Page i is at the address in word i of the u32 table. */
  gatherPages(table: number, pageSize: number, count: number, out: number): void {
    this.#checkBatch(pageSize, count);
    this.#checkTable('table', table, count);
    this.#checkRange('out', out, count * pageSize);
    this.#checkApart('out', out, count * pageSize, 'table', table, count);
    this.#checkPages('table', table, count, pageSize);
    this.#exports.gatherPages(table, pageSize, count, out);
  }

  /**
   * Appends whole and zero pages of a stream to a batch: the records from `at` on that continue the block of the one before,
   * up to the first other one, or one that is cut at `limit`. Returns how many records the batch then has.
   */
  ramRecords(batch: RecordTables, { at, limit, base, pageSize, lastPage, usedLength }: RecordSource): number {
    const { capacity, count, kindAddress, pageAddress, offsetAddress, sizeAddress, dataAddress, lengthAddress } = batch;
    this.#checkPageSize(pageSize, MAX_PAGE);
    this.#checkRecords(batch, capacity);
    this.#checkRange('records', at, limit - at);
    return this.#exports.ramRecords(
      at,
      limit,
      base,
      pageSize,
      lastPage,
      usedLength,
      count,
      capacity,
      kindAddress,
      pageAddress,
      offsetAddress,
      sizeAddress,
      dataAddress,
      lengthAddress,
    );
  }

  #checkRecords(batch: RecordTables, count: number): void {
    this.#checkRange('kinds', batch.kindAddress, count);
    this.#checkRange('pages', batch.pageAddress, count * 8);
    this.#checkRange('offsets', batch.offsetAddress, count * 8);
    this.#checkTable('sizes', batch.sizeAddress, count);
    this.#checkTable('data', batch.dataAddress, count);
    this.#checkTable('lengths', batch.lengthAddress, count);
  }

  /** Counts the set bits of `byteLength` bytes. The count is at most 2^32 - 1. */
  countBits(bitmap: number, byteLength: number): number {
    this.#checkRange('bitmap', bitmap, byteLength);
    checkInteger('byteLength', byteLength, 0, MAX_BITMAP_BYTES);
    return this.#exports.countBits(bitmap, byteLength) >>> 0;
  }

  /**
   * Returns the first position in the `length` bytes at `text` where a pattern matches, or -1. At `pattern` are `size`
   * values, followed by as many masks. A byte matches if it equals the value in the bits of the mask. `first` and
   * `second` select the two bytes of the pattern that are tested first. The rarer they are in the text, the faster the
   * search.
   */
  find(text: number, length: number, pattern: number, size: number, first: number, second: number): number {
    this.#checkRange('text', text, length);
    checkInteger('length', length, 0, MAX_TEXT_BYTES);
    checkInteger('size', size, 1, this.size);
    this.#checkRange('pattern', pattern, 2 * size);
    checkInteger('first', first, 0, size - 1);
    checkInteger('second', second, 0, size - 1);
    return this.#exports.find(text, length, pattern, size, first, second);
  }

  /**
   * Encodes the page at `next` against its old content, byte for byte as QEMU does, into at most `limit` bytes at
   * `out`. It overwrites the `xbzrleEncodeSlack` bytes after them. QEMU's limit is the page size. Returns the length, 0
   * if the pages are equal, or `xbzrleOverflow`.
   * @throws RangeError for a page beyond `xbzrleMaxPage` bytes.
   */
  xbzrleEncode(old: number, next: number, pageSize: number, out: number, limit: number): number {
    this.#checkEncoder(pageSize, limit);
    this.#checkRange('old', old, pageSize);
    this.#checkRange('next', next, pageSize);
    this.#checkRange('out', out, limit + this.xbzrleEncodeSlack);
    return this.#exports.xbzrleEncode(old, next, pageSize, out, limit);
  }

  /**
   * Encodes `count` pages, `news[i]` against `olds[i]`, each within `limit` bytes. `news` and `olds` are u32 tables.
   * `results` is an i32 table, and receives each result. The encodings are stored back to back from `out`, where
   * `count * limit + xbzrleEncodeSlack` bytes may be overwritten. Returns the total number of bytes.
   * @throws RangeError for pages beyond `xbzrleMaxPage` bytes.
   */
  xbzrleEncodeBatch(
    olds: number,
    news: number,
    count: number,
    pageSize: number,
    limit: number,
    out: number,
    results: number,
  ): number {
    this.#checkEncoder(pageSize, limit);
    this.#checkTable('olds', olds, count);
    this.#checkTable('news', news, count);
    this.#checkTable('results', results, count);
    const outBytes = count * limit + this.xbzrleEncodeSlack;
    this.#checkRange('out', out, outBytes);
    this.#checkApart('out', out, outBytes, 'olds', olds, count);
    this.#checkApart('out', out, outBytes, 'news', news, count);
    this.#checkApart('results', results, count * 4, 'olds', olds, count);
    this.#checkApart('results', results, count * 4, 'news', news, count);
    this.#checkPages('olds', olds, count, pageSize);
    this.#checkPages('news', news, count, pageSize);
    return this.#exports.xbzrleEncodeBatch(olds, news, count, pageSize, limit, out, results) >>> 0;
  }

  /**
   * Decodes an XBZRLE encoding onto the old content of a page. Returns where the last literal ends (0 for no input,
   * at most `pageSize`), or a negative code: see `xbzrleFault`. After a fault the page may be partly written.
   */
  xbzrleDecode(source: number, length: number, page: number, pageSize: number): number {
    this.#checkRange('source', source, length);
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    this.#checkRange('page', page, pageSize);
    return this.#exports.xbzrleDecode(source, length, page, pageSize);
  }

  /** Returns what `xbzrleDecode` would return for a page of this size, without a page. */
  xbzrleCheck(source: number, length: number, pageSize: number): number {
    this.#checkRange('source', source, length);
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    return this.#exports.xbzrleCheck(source, length, pageSize);
  }

  /**
   * Decodes `count` encodings in order: the `lengths[i]` bytes at `sources[i]` onto the page at `pages[i]`. These three
   * are u32 tables. `results` is an i32 table, and receives each result. Returns how many failed.
   */
  xbzrleDecodeBatch(
    sources: number,
    lengths: number,
    pages: number,
    count: number,
    pageSize: number,
    results: number,
  ): number {
    this.#checkEncodings(sources, lengths, count, pageSize, results);
    this.#checkTable('pages', pages, count);
    this.#checkApart('results', results, count * 4, 'pages', pages, count);
    this.#checkPages('pages', pages, count, pageSize);
    // The tables are usually close together. One check covers all of them; only if it fails is each checked.
    const from = Math.min(sources, lengths, pages);
    const to = Math.max(sources, lengths, pages) + count * 4;
    if (this.#exports.firstWithin(pages, count, pageSize, from, to) >>> 0 < count) {
      for (const table of [sources, lengths, pages]) this.#checkPagesApart(pages, count, pageSize, table);
    }
    return this.#exports.xbzrleDecodeBatch(sources, lengths, pages, count, pageSize, results) >>> 0;
  }

  /** Like `xbzrleDecodeBatch`, without pages. */
  xbzrleCheckBatch(sources: number, lengths: number, count: number, pageSize: number, results: number): number {
    this.#checkEncodings(sources, lengths, count, pageSize, results);
    return this.#exports.xbzrleCheckBatch(sources, lengths, count, pageSize, results) >>> 0;
  }

  /** The fault that a result of an XBZRLE kernel means; undefined if it decoded. */
  xbzrleFault(result: number): XbzrleFault | undefined {
    if (result >= 0) return undefined;
    return (Object.keys(this.xbzrleCode) as XbzrleFault[]).find((fault) => this.xbzrleCode[fault] === result);
  }

  #checkPageSize(pageSize: number, max: number): void {
    checkInteger('pageSize', pageSize, MIN_PAGE, max);
    if (pageSize % this.zeroScanStep === 0) return;
    throw new RangeError(`pageSize: expected a multiple of ${this.zeroScanStep}, got ${pageSize}`);
  }

  #checkBatch(pageSize: number, count: number): void {
    this.#checkPageSize(pageSize, MAX_PAGE);
    checkInteger('count', count, 0, this.size);
  }

  #checkEncoder(pageSize: number, limit: number): void {
    this.#checkPageSize(pageSize, this.xbzrleMaxPage);
    checkInteger('limit', limit, 0, MAX_PAGE);
  }

  #checkEncodings(sources: number, lengths: number, count: number, pageSize: number, results: number): void {
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    this.#checkTable('sources', sources, count);
    this.#checkTable('lengths', lengths, count);
    this.#checkTable('results', results, count);
    this.#checkApart('results', results, count * 4, 'sources', sources, count);
    this.#checkApart('results', results, count * 4, 'lengths', lengths, count);
    const { size, base } = this;
    const bad = this.#exports.firstOutsideOf(sources, lengths, count, base, size) >>> 0;
    if (bad === count) return;
    throw outside(`sources[${bad}]`, this.#word(sources, bad), this.#word(lengths, bad), base, size);
  }

  #checkPages(name: string, table: number, count: number, pageSize: number): void {
    const { size, base } = this;
    const bad = this.#exports.firstOutside(table, count, pageSize, base, size) >>> 0;
    if (bad < count) throw outside(`${name}[${bad}]`, this.#word(table, bad), pageSize, base, size);
  }

  /** Like `#checkApart`, for pages that are written: none may overlap the table. */
  #checkPagesApart(pages: number, count: number, pageSize: number, table: number): void {
    const bad = this.#exports.firstWithin(pages, count, pageSize, table, table + count * 4) >>> 0;
    if (bad === count) return;
    const page = this.#word(pages, bad);
    throw new RangeError(`pages[${bad}]: expected bytes apart from the tables, got ${pageSize} at ${page}`);
  }

  #word(table: number, index: number): number {
    return this.#words[table / 4 + index]!;
  }

  /**
   * The kernel follows tables of addresses that were checked before it ran, so it must not overwrite them. A caller who
   * passes the same bytes as a table and as an output could otherwise make it write anywhere.
   */
  #checkApart(name: string, address: number, byteLength: number, table: string, at: number, count: number): void {
    if (address + byteLength <= at || at + count * 4 <= address || byteLength === 0 || count === 0) return;
    throw new RangeError(`${name}: expected bytes apart from ${table}, got ${byteLength} at ${address}`);
  }

  #checkTable(name: string, address: number, count: number): void {
    checkInteger('count', count, 0, this.size);
    this.#checkRange(name, address, count * 4);
    if ((address & 3) !== 0) throw new RangeError(`${name}: expected a multiple of 4, got ${address}`);
  }

  #checkRange(name: string, address: number, byteLength: number): void {
    if (
      Number.isInteger(address) &&
      Number.isInteger(byteLength) &&
      byteLength >= 0 &&
      address >= this.base &&
      address + byteLength <= this.size
    ) {
      return;
    }
    checkNumber(name, address);
    checkNumber(`${name} length`, byteLength);
    throw outside(name, address, byteLength, this.base, this.size);
  }
}

function outside(name: string, address: number, byteLength: number, base: number, size: number): RangeError {
  return new RangeError(`${name}: expected bytes within ${base}..${size}, got ${byteLength} at ${address}`);
}

function checkNumber(name: string, value: number): void {
  if (typeof value !== 'number') throw new TypeError(`${name}: expected a number, got ${typeof value}`);
}

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  checkNumber(name, value);
  throw new RangeError(`${name}: expected an integer in ${min}..${max}, got ${value}`);
}
