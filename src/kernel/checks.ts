/** Checks the arguments of the kernels: sizes, and that ranges and tables are within the arena and apart from each other. */
import type { KernelExports } from './exports.ts';
import type { RecordTables } from './record-tables.ts';

export const WASM_PAGE = 65536;
const MIN_PAGE = 1024;
export const MAX_PAGE = 65536;
/** Largest page whose end still fits the signed result of an XBZRLE kernel. */
export const MAX_XBZRLE_PAGE = 2 ** 31 - 1;

/** Each method throws TypeError for a wrong type, and RangeError for what is outside the arena, or overlaps. */
export class KernelChecks {
  readonly #exports: KernelExports;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #size: number;
  readonly #base: number;
  readonly #step: number;
  readonly #maxEncoderPage: number;

  constructor(exports: KernelExports, arena: ArrayBuffer) {
    this.#exports = exports;
    this.#words = new Uint32Array(arena);
    this.#size = arena.byteLength;
    this.#base = exports.HEAP_BASE.value;
    this.#step = exports.ZERO_SCAN_STEP.value;
    this.#maxEncoderPage = exports.XBZRLE_MAX_PAGE.value;
  }

  pageSize(pageSize: number, max: number): void {
    checkInteger('pageSize', pageSize, MIN_PAGE, max);
    if (pageSize % this.#step === 0) return;
    throw new RangeError(`pageSize: expected a multiple of ${this.#step}, got ${pageSize}`);
  }

  batch(pageSize: number, count: number): void {
    this.pageSize(pageSize, MAX_PAGE);
    checkInteger('count', count, 0, this.#size);
  }

  encoder(pageSize: number, limit: number): void {
    this.pageSize(pageSize, this.#maxEncoderPage);
    checkInteger('limit', limit, 0, MAX_PAGE);
  }

  encodings(sources: number, lengths: number, count: number, pageSize: number, results: number): void {
    checkInteger('pageSize', pageSize, 1, MAX_XBZRLE_PAGE);
    this.table('sources', sources, count);
    this.table('lengths', lengths, count);
    this.table('results', results, count);
    this.apart('results', results, count * 4, 'sources', sources, count);
    this.apart('results', results, count * 4, 'lengths', lengths, count);
    const [size, base] = [this.#size, this.#base];
    const bad = this.#exports.firstOutsideOf(sources, lengths, count, base, size) >>> 0;
    if (bad === count) return;
    throw outside(`sources[${bad}]`, this.#word(sources, bad), this.#word(lengths, bad), base, size);
  }

  pages(name: string, table: number, count: number, pageSize: number): void {
    const [size, base] = [this.#size, this.#base];
    const bad = this.#exports.firstOutside(table, count, pageSize, base, size) >>> 0;
    if (bad < count) throw outside(`${name}[${bad}]`, this.#word(table, bad), pageSize, base, size);
  }

  /** Like `apart`, for pages that are written: none may overlap the table. */
  pagesApart(pages: number, count: number, pageSize: number, table: number): void {
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
  apart(name: string, address: number, byteLength: number, table: string, at: number, count: number): void {
    if (address + byteLength <= at || at + count * 4 <= address || byteLength === 0 || count === 0) return;
    throw new RangeError(`${name}: expected bytes apart from ${table}, got ${byteLength} at ${address}`);
  }

  table(name: string, address: number, count: number): void {
    checkInteger('count', count, 0, this.#size);
    this.range(name, address, count * 4);
    if ((address & 3) !== 0) throw new RangeError(`${name}: expected a multiple of 4, got ${address}`);
  }

  range(name: string, address: number, byteLength: number): void {
    if (
      Number.isInteger(address) &&
      Number.isInteger(byteLength) &&
      byteLength >= 0 &&
      address >= this.#base &&
      address + byteLength <= this.#size
    ) {
      return;
    }
    checkNumber(name, address);
    checkNumber(`${name} length`, byteLength);
    throw outside(name, address, byteLength, this.#base, this.#size);
  }

  records(batch: RecordTables, count: number): void {
    this.range('kinds', batch.kindAddress, count);
    this.range('pages', batch.pageAddress, count * 8);
    this.range('offsets', batch.offsetAddress, count * 8);
    this.table('sizes', batch.sizeAddress, count);
    this.table('data', batch.dataAddress, count);
    this.table('lengths', batch.lengthAddress, count);
  }
}

function outside(name: string, address: number, byteLength: number, base: number, size: number): RangeError {
  return new RangeError(`${name}: expected bytes within ${base}..${size}, got ${byteLength} at ${address}`);
}

function checkNumber(name: string, value: number): void {
  if (typeof value !== 'number') throw new TypeError(`${name}: expected a number, got ${typeof value}`);
}

/** @throws TypeError for what is not a number; RangeError for what is not an integer, or out of range */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  checkNumber(name, value);
  throw new RangeError(`${name}: expected an integer in ${min}..${max}, got ${value}`);
}
