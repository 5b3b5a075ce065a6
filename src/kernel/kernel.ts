/**
 * The kernels and the arena they work in: one WebAssembly instance with its own memory of fixed size.
 *
 * The memory never grows, so views of it stay valid for good. Arguments are checked here, once per call, and the
 * kernels (`assembly/`) trust them: a `TypeError` is a wrong type, a `RangeError` bytes outside the arena. That a
 * kernel's input and output do not overlap is left to the caller: if they do, the result is unspecified, but nothing
 * outside the ranges is touched.
 */
import scalarBytes from '../../dist/kernel.scalar.wasm';
import simdBytes from '../../dist/kernel.simd.wasm';
import type { KernelExports } from './exports.ts';

export type KernelVariant = 'simd' | 'scalar';

export interface KernelOptions {
  /** Size of the arena in bytes, rounded up to whole 64 KiB; 32 MiB unless told. */
  arenaBytes?: number;
  /** Which build to run; unless told, SIMD where the platform has it. */
  variant?: KernelVariant;
}

/** Why an XBZRLE encoding was refused (`docs/formats/xbzrle.md`, section 2). */
export type XbzrleFault = 'truncated' | 'badUleb' | 'emptyRun' | 'runBeyondPage' | 'literalBeyondInput';

const WASM_PAGE = 65536;
const DEFAULT_ARENA_BYTES = 32 << 20;
/** One WASM page short of 4 GiB, so that the end of a range is always a 32-bit address. */
const MAX_ARENA_BYTES = 2 ** 32 - WASM_PAGE;
/** Largest page whose end still fits the signed result of an XBZRLE kernel. */
const MAX_XBZRLE_PAGE = 2 ** 31 - 1;

/** A module of one function that returns a vector: it is valid only where SIMD exists. */
// biome-ignore format: bytes of a file
const SIMD_PROBE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,                           // magic, version
  1, 5, 1, 0x60, 0, 1, 0x7b,                                 // type: () -> v128
  3, 2, 1, 0,                                                // function 0 has it
  10, 10, 1, 8, 0, 0x41, 0, 0xfd, 15, 0xfd, 98, 11,          // i32.const 0, i8x16.splat, i8x16.popcnt
]);

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
 * Makes a kernel with an arena of its own. The code is compiled once per process.
 * @throws RangeError if the arena size or the variant is not one there can be.
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
  return new Kernel(variant, memory, instance.exports as unknown as KernelExports);
}

export class Kernel {
  readonly variant: KernelVariant;
  readonly memory: WebAssembly.Memory;
  /** The whole arena. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Bytes in the arena. */
  readonly size: number;
  /** The first usable address; what lies before it belongs to the module, and no range may touch it. */
  readonly base: number;
  /** Page sizes of the zero scan are multiples of this. */
  readonly zeroScanStep: number;
  /** The result (negative) by which the XBZRLE kernels report each fault. */
  readonly xbzrleCode: Readonly<Record<XbzrleFault, number>>;

  readonly #exports: KernelExports;
  readonly #words: Uint32Array<ArrayBuffer>;
  #next: number;

  constructor(variant: KernelVariant, memory: WebAssembly.Memory, exports: KernelExports) {
    const buffer = memory.buffer as ArrayBuffer;
    this.variant = variant;
    this.memory = memory;
    this.bytes = new Uint8Array(buffer);
    this.size = buffer.byteLength;
    this.base = exports.HEAP_BASE.value;
    this.zeroScanStep = exports.ZERO_SCAN_STEP.value;
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
   * Takes `byteLength` bytes of the arena for good and returns their address. They are zero.
   * @throws RangeError if the arena has no room left, or the alignment is not a power of two.
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

  /** `length` words at `address`, as a view of the arena. */
  u32(address: number, length: number): Uint32Array<ArrayBuffer> {
    this.#checkTable('u32', address, length);
    return new Uint32Array(this.bytes.buffer, address, length);
  }

  /** `length` signed words at `address`, as a view of the arena. */
  i32(address: number, length: number): Int32Array<ArrayBuffer> {
    this.#checkTable('i32', address, length);
    return new Int32Array(this.bytes.buffer, address, length);
  }

  /**
   * Finds the pages that are all zero among `count` contiguous ones and sets their bits in the bitmap
   * (page i is bit `i & 7` of byte `i >> 3`; unused bits of its last byte become 0). Returns how many there are.
   */
  zeroScan(pages: number, pageSize: number, count: number, bitmap: number): number {
    this.#checkZeroScan(pageSize, count, bitmap);
    this.#checkRange('pages', pages, count * pageSize);
    return this.#exports.zeroScan(pages, pageSize, count, bitmap) >>> 0;
  }

  /** As `zeroScan`, with page i at the address in word i of the u32 table, wherever that is. */
  zeroScanGather(table: number, pageSize: number, count: number, bitmap: number): number {
    this.#checkZeroScan(pageSize, count, bitmap);
    this.#checkTable('table', table, count);
    this.#checkPages('table', table, count, pageSize);
    return this.#exports.zeroScanGather(table, pageSize, count, bitmap) >>> 0;
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

  /** What `xbzrleDecode` would return for a page of this size, without touching one. */
  xbzrleCheck(source: number, length: number, pageSize: number): number {
    this.#checkRange('source', source, length);
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    return this.#exports.xbzrleCheck(source, length, pageSize);
  }

  /**
   * Decodes `count` encodings in order: number i is the `lengths[i]` bytes at `sources[i]`, decoded onto the page at
   * `pages[i]`, and its result goes to `results[i]`. The first three are u32 tables, `results` is an i32 table.
   * Returns how many failed.
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
    this.#checkPages('pages', pages, count, pageSize);
    return this.#exports.xbzrleDecodeBatch(sources, lengths, pages, count, pageSize, results) >>> 0;
  }

  /** As `xbzrleDecodeBatch`, without touching pages. */
  xbzrleCheckBatch(sources: number, lengths: number, count: number, pageSize: number, results: number): number {
    this.#checkEncodings(sources, lengths, count, pageSize, results);
    return this.#exports.xbzrleCheckBatch(sources, lengths, count, pageSize, results) >>> 0;
  }

  /** The fault that a result of an XBZRLE kernel stands for; undefined if it decoded. */
  xbzrleFault(result: number): XbzrleFault | undefined {
    if (result >= 0) return undefined;
    return (Object.keys(this.xbzrleCode) as XbzrleFault[]).find((fault) => this.xbzrleCode[fault] === result);
  }

  #checkZeroScan(pageSize: number, count: number, bitmap: number): void {
    checkInteger('pageSize', pageSize, this.zeroScanStep, this.size);
    if (pageSize % this.zeroScanStep !== 0) {
      throw new RangeError(`pageSize: expected a multiple of ${this.zeroScanStep}, got ${pageSize}`);
    }
    checkInteger('count', count, 0, this.size);
    this.#checkRange('bitmap', bitmap, Math.ceil(count / 8));
  }

  #checkEncodings(sources: number, lengths: number, count: number, pageSize: number, results: number): void {
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    this.#checkTable('sources', sources, count);
    this.#checkTable('lengths', lengths, count);
    this.#checkTable('results', results, count);
    const { size, base } = this;
    const words = this.#words;
    const lengthsAhead = (lengths - sources) / 4;
    for (let i = sources / 4, end = i + count; i < end; i++) {
      const source = words[i]!;
      const length = words[i + lengthsAhead]!;
      if (source >= base && source + length <= size) continue;
      throw outside(`sources[${i - sources / 4}]`, source, length, base, size);
    }
  }

  #checkPages(name: string, table: number, count: number, pageSize: number): void {
    const { size, base } = this;
    const words = this.#words;
    const last = size - pageSize;
    for (let i = table / 4, end = i + count; i < end; i++) {
      const page = words[i]!;
      if (page >= base && page <= last) continue;
      throw outside(`${name}[${i - table / 4}]`, page, pageSize, base, size);
    }
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
