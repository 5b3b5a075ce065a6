/**
 * The kernels for pages in the caller's own buffers: encode, decode, scan, compare, hash, count.
 *
 * Everything is synchronous once {@link loadPageKernels} has resolved. No state remains between calls, so any number of
 * instances can exist side by side, one in each worker, each with its own memory. Buffers may be views of any memory,
 * including a SharedArrayBuffer. They are copied through the instance's memory in batches. To avoid the copies, place
 * pages in views from {@link PageKernels.allocate}: the kernels work on those in place.
 *
 * Formats and limits: `docs/formats/xbzrle.md`, `docs/formats/dirty-rate.md`.
 */
import { arenaBytes, encodeSlackBytes } from './arena-budget.ts';
import type { Kernel, KernelVariant, XbzrleFault } from './kernel.ts';
import { loadKernelFor } from './load-kernel.ts';

/** How the kernels are loaded. */
export interface PageKernelsOptions {
  /** Bytes per page: a multiple of 128 from 1 KiB to 64 KiB; 4096 by default. */
  pageSize?: number;
  /** The build to run. Default: SIMD if the platform supports it. */
  variant?: KernelVariant;
  /** Bytes for {@link PageKernels.allocate}. Default: none. */
  ownBytes?: number;
}

/** Bytes of pages that go through the memory at a time, for each of two operands. */
const STAGE_BYTES = 512 * 1024;
/** The largest page. */
const maxPageBytes = 65536;
/** Pages of the smallest size that go through at once. */
const maxBatch = STAGE_BYTES / 1024;
const stageArenaBytes = arenaBytes(
  STAGE_BYTES,
  STAGE_BYTES,
  maxPageBytes + encodeSlackBytes,
  maxBatch * 4,
  maxBatch / 8,
);
/** For the alignment of what callers allocate: some 1,000 buffers. */
const ownSlackBytes = 64 * 1024;

/**
 * Loads the kernels for pages of one size.
 *
 * @example
 * const kernels = await loadPageKernels({ pageSize: 4096 });
 * const delta = new Uint8Array(4096);
 * const length = kernels.encodePage(old, next, delta);
 * if (length > 0) kernels.decodePage(delta.subarray(0, length), old);
 *
 * @throws RangeError for a page size or variant that does not exist.
 */
export async function loadPageKernels(options: PageKernelsOptions = {}): Promise<PageKernels> {
  const { pageSize = 4096, variant, ownBytes = 0 } = options;
  if (!(Number.isInteger(pageSize) && pageSize >= 1024 && pageSize <= 65536 && pageSize % 128 === 0)) {
    throw new RangeError(`pageSize: expected a multiple of 128 in 1024..65536, got ${String(pageSize)}`);
  }
  if (!(Number.isInteger(ownBytes) && ownBytes >= 0 && ownBytes <= 2 ** 31)) {
    throw new RangeError(`ownBytes: expected an integer in 0..2^31, got ${String(ownBytes)}`);
  }
  const kernel = await loadKernelFor([stageArenaBytes, ownBytes, ownSlackBytes], variant);
  return new PageKernels(kernel, pageSize);
}

/** The kernels for pages in buffers of your own. */
export class PageKernels {
  readonly pageSize: number;
  readonly variant: KernelVariant;
  readonly #kernel: Kernel;
  /** Pages per batch. */
  readonly #batch: number;
  readonly #first: number;
  readonly #second: number;
  readonly #out: number;
  readonly #words: number;
  readonly #bits: number;

  /** Use {@link loadPageKernels}. */
  constructor(kernel: Kernel, pageSize: number) {
    this.#kernel = kernel;
    this.pageSize = pageSize;
    this.variant = kernel.variant;
    // A multiple of 8, so that the bits of a batch fill whole bytes.
    this.#batch = Math.floor(STAGE_BYTES / pageSize) & ~7;
    this.#first = kernel.allocate(STAGE_BYTES);
    this.#second = kernel.allocate(STAGE_BYTES);
    this.#out = kernel.allocate(maxPageBytes + encodeSlackBytes);
    this.#words = kernel.allocate(this.#batch * 4);
    this.#bits = kernel.allocate(this.#batch / 8);
  }

  /**
   * Allocates a buffer of zeros in the kernels' own memory, permanently. Pages in it are not copied.
   * @throws RangeError if `ownBytes` does not suffice.
   */
  allocate(byteLength: number): Uint8Array<ArrayBuffer> {
    const at = this.#kernel.allocate(byteLength);
    return this.#kernel.bytes.subarray(at, at + byteLength);
  }

  /**
   * XBZRLE: writes the delta from `old` to `next` to the beginning of `out`, byte for byte as QEMU does. QEMU's limit
   * is the page size, so give an `out` of that size. A smaller one lowers the limit, and a larger one changes nothing.
   *
   * @returns the length; 0 if the pages are equal; -1 if the encoding would exceed the limit (`out` is then unchanged).
   * @throws RangeError for pages over 16 KiB, whose runs XBZRLE cannot count.
   */
  encodePage(old: Uint8Array, next: Uint8Array, out: Uint8Array): number {
    const { pageSize } = this;
    const kernel = this.#kernel;
    checkLength('old', old, pageSize);
    checkLength('next', next, pageSize);
    checkBytes('out', out);
    const limit = Math.min(out.length, pageSize);
    const length = kernel.xbzrleEncode(
      this.#place(old, this.#first),
      this.#place(next, this.#second),
      pageSize,
      this.#out,
      limit,
    );
    if (length > 0) out.set(kernel.bytes.subarray(this.#out, this.#out + length));
    return length === kernel.xbzrleOverflow ? -1 : length;
  }

  /**
   * XBZRLE: applies a delta to `page`, which has the old content. `page` changes only if the delta is valid.
   *
   * @returns where the last literal ends (0 for an empty delta), or why the delta was refused.
   */
  decodePage(delta: Uint8Array, page: Uint8Array): number | XbzrleFault {
    const { pageSize } = this;
    const kernel = this.#kernel;
    checkBytes('delta', delta);
    checkLength('page', page, pageSize);
    // A longer delta cannot be valid, and the kernel finds the reason within these bytes.
    const source = delta.length > STAGE_BYTES ? delta.subarray(0, STAGE_BYTES) : delta;
    kernel.bytes.set(source, this.#second);
    kernel.bytes.set(page, this.#first);
    const end = kernel.xbzrleDecode(this.#second, source.length, this.#first, pageSize);
    if (end < 0) return kernel.xbzrleFault(end) as XbzrleFault;
    page.set(kernel.bytes.subarray(this.#first, this.#first + end));
    return end;
  }

  /**
   * Finds the zero pages among the contiguous pages in `pages`: page i is bit `i & 7` of byte `i >> 3` of `bitmap`;
   * unused bits of the last byte become 0.
   *
   * @returns the number of zero pages.
   */
  findZeroPages(pages: Uint8Array, bitmap: Uint8Array): number {
    const kernel = this.#kernel;
    const count = this.#countPages('pages', pages);
    checkRoom('bitmap', bitmap, Math.ceil(count / 8));
    let zeroes = 0;
    for (let page = 0; page < count; page += this.#batch) {
      const n = Math.min(this.#batch, count - page);
      zeroes += kernel.zeroScan(this.#placePages(pages, page, n, this.#first), this.pageSize, n, this.#bits);
      bitmap.set(kernel.bytes.subarray(this.#bits, this.#bits + Math.ceil(n / 8)), page >> 3);
    }
    return zeroes;
  }

  /**
   * Finds the pages of `pages` that differ from those of `others`. The bitmap has the layout of `findZeroPages`.
   *
   * @returns how many differ.
   */
  findChangedPages(pages: Uint8Array, others: Uint8Array, bitmap: Uint8Array): number {
    const kernel = this.#kernel;
    const count = this.#countPages('pages', pages);
    checkLength('others', others, pages.length);
    checkRoom('bitmap', bitmap, Math.ceil(count / 8));
    let differing = 0;
    for (let page = 0; page < count; page += this.#batch) {
      const n = Math.min(this.#batch, count - page);
      const first = this.#placePages(pages, page, n, this.#first);
      const second = this.#placePages(others, page, n, this.#second);
      differing += kernel.comparePages(first, second, this.pageSize, n, this.#bits);
      bitmap.set(kernel.bytes.subarray(this.#bits, this.#bits + Math.ceil(n / 8)), page >> 3);
    }
    return differing;
  }

  /** Hashes each of the contiguous pages as QEMU's dirty-rate sampling does since 8.1: XXH64, seed 1, low 32 bits. */
  hashPages(pages: Uint8Array, hashes: Uint32Array): void {
    this.#eachWord('hashes', pages, hashes, (at, n) => this.#kernel.hashPages(at, this.pageSize, n, this.#words));
  }

  /** Hashes each of the contiguous pages as QEMU's dirty-rate sampling did before 8.1: CRC-32, the same as gzip's. */
  crc32Pages(pages: Uint8Array, crcs: Uint32Array): void {
    this.#eachWord('crcs', pages, crcs, (at, n) => this.#kernel.crc32Pages(at, this.pageSize, n, this.#words));
  }

  /** How many bits of a bitmap are set. */
  countBits(bitmap: Uint8Array): number {
    checkBytes('bitmap', bitmap);
    let bits = 0;
    for (let at = 0; at < bitmap.length; at += STAGE_BYTES) {
      const part = bitmap.subarray(at, at + STAGE_BYTES);
      bits += this.#kernel.countBits(this.#place(part, this.#first), part.length);
    }
    return bits;
  }

  #eachWord(name: string, pages: Uint8Array, words: Uint32Array, run: (at: number, count: number) => void): void {
    const count = this.#countPages('pages', pages);
    if (!(words instanceof Uint32Array)) throw new TypeError(`${name}: expected a Uint32Array`);
    if (words.length < count) {
      throw new RangeError(`${name}: expected room for ${count} words, got ${words.length}`);
    }
    for (let page = 0; page < count; page += this.#batch) {
      const n = Math.min(this.#batch, count - page);
      run(this.#placePages(pages, page, n, this.#first), n);
      words.set(this.#kernel.u32(this.#words, n), page);
    }
  }

  #placePages(pages: Uint8Array, page: number, count: number, room: number): number {
    return this.#place(pages.subarray(page * this.pageSize, (page + count) * this.pageSize), room);
  }

  /** The address of these bytes: their own if they are in the arena. Otherwise `room`, after copying them there. */
  #place(bytes: Uint8Array, room: number): number {
    if (bytes.buffer === this.#kernel.bytes.buffer) return bytes.byteOffset;
    this.#kernel.bytes.set(bytes, room);
    return room;
  }

  #countPages(name: string, pages: Uint8Array): number {
    checkBytes(name, pages);
    if (pages.length % this.pageSize === 0) return pages.length / this.pageSize;
    throw new RangeError(`${name}: expected whole pages of ${this.pageSize} bytes, got ${pages.length} bytes`);
  }
}

function checkBytes(name: string, bytes: Uint8Array): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`${name}: expected a Uint8Array, got ${typeof bytes}`);
}

function checkLength(name: string, bytes: Uint8Array, byteLength: number): void {
  checkBytes(name, bytes);
  if (bytes.length === byteLength) return;
  throw new RangeError(`${name}: expected ${byteLength} bytes, got ${bytes.length}`);
}

function checkRoom(name: string, bytes: Uint8Array, byteLength: number): void {
  checkBytes(name, bytes);
  if (bytes.length >= byteLength) return;
  throw new RangeError(`${name}: expected at least ${byteLength} bytes, got ${bytes.length}`);
}
