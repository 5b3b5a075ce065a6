/**
 * The pages of one RAM block in a file, page i at `origin + i * page size`. Mapped-ram files and raw images have this
 * in common. Zero and absent pages take no space. The states of the pages are kept in memory.
 *
 * A batch is processed in few large operations. Data that is contiguous in the arena is written from there. Scattered
 * data and deltas are collected in page slots first, and runs of neighbouring slots are written at once. The kernel finds the
 * runs of a batch without deltas.
 */

import type { ByteStore } from '../io/byte-source.ts';
import { readFully } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { hasWholePage, type PageSlots } from '../kernel/page-slots.ts';
import { type Finding, MigrationError, makeFinding } from '../vm/migration-error.ts';
import { pagePlace } from '../vm/page-place.ts';
import { discardedState, PageStates } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import { requireRecords } from '../wire/require-vm.ts';
import { type PageBits, setStates } from './page-bits.ts';
import { readPages } from './read-pages.ts';

/** The most zeros that are written at once, in bytes. */
const erasedBytes = 1 << 20;

export interface PageAreaOptions {
  /** Offset of page 0 in the file, in bytes. */
  origin: number;
  /** Whether data that became zero is overwritten at once. Otherwise {@link PageArea.eraseStale} removes it. */
  erase: boolean;
  /**
   * Takes the finding for a page whose content is lost: a delta that does not decode, or whose base is missing. The page
   * is then discarded. Default: a delta that does not decode is thrown, and a missing base counts as zeros.
   */
  noteLost?: ((finding: Finding) => void) | undefined;
}

/** A page waiting in a slot. */
interface Slot {
  page: number;
  kind: PageKind;
  /** The page's record in the batch. */
  record: number;
}

export class PageArea {
  readonly block: RamBlock;
  /** `PageKind.absent`, `.zero`, `.data` or `discardedState` of each page. */
  readonly states = new PageStates();
  readonly #file: ByteStore;
  readonly #pageSlots: PageSlots;
  readonly #options: PageAreaOptions;
  /** Pages that had data when they were discarded or became zero. Their bytes may still be in the file. */
  readonly #stale = new PageStates();
  #hasStale = false;
  /** No page from here on ever had data. A first pass goes upward, so its zero pages need no look at their old state. */
  #dataEnd = 0;
  #slots: Slot[] = [];

  constructor(file: ByteStore, block: RamBlock, pageSlots: PageSlots, options: PageAreaOptions) {
    this.#file = file;
    this.block = block;
    this.#pageSlots = pageSlots;
    this.#options = options;
  }

  /** Reads whole pages. Absent and zero pages read as zeros. */
  read(page: number, target: Uint8Array): Promise<void> {
    return readPages(this.#file, this.#options.origin, this, page, target);
  }

  /** The next run of data pages, see `RamReader.nextData`. */
  nextData(page: number, limit: number): { first: number; end: number } {
    const pages = pageCount(this.block);
    const first = this.#firstData(page, pages);
    return { first, end: this.#endOfData(first, Math.min(pages, first + limit)) };
  }

  /** The first run of data pages in `[page, end)`, see `PageMap`. */
  dataBefore(page: number, end: number): { first: number; end: number } {
    const first = this.#firstData(page, end);
    return { first, end: this.#endOfData(first, end) };
  }

  #firstData(page: number, end: number): number {
    let first = this.states.nextSet(page, end);
    while (first < end && this.states.get(first) !== PageKind.data) first = this.states.nextSet(first + 1, end);
    return first;
  }

  #endOfData(first: number, end: number): number {
    let at = first;
    while (at < end && this.states.get(at) === PageKind.data) at++;
    return at;
  }

  /** @throws RangeError for pages beyond the block, and data that are not one page */
  async apply(batch: PageBatch): Promise<void> {
    const runs = this.#runsOf(batch);
    if (runs !== undefined) return this.#applyRuns(batch, runs);
    requireRecords(this.block, batch);
    return this.#applyEach(batch);
  }

  /** The runs of a batch of whole pages, see `Kernel.pageRuns`. Undefined if there are others, or each needs a look. */
  #runsOf(batch: PageBatch): Uint32Array | undefined {
    const { kernel, pages: table } = this.#pageSlots;
    if (this.#options.erase || this.#file.alignment !== undefined || batch.count > table.length) return undefined;
    const count = kernel.pageRuns(batch, this.block.pageSize, pageCount(this.block), table.byteOffset);
    return count < 0 ? undefined : table.subarray(0, count);
  }

  async #applyRuns(batch: PageBatch, runs: Uint32Array): Promise<void> {
    const { zero, scattered } = this.#pageSlots.kernel.runType;
    const slots = this.#pageSlots.slots(this.block.pageSize);
    let record = 0;
    for (const run of runs) {
      const type = run & 3;
      const end = record + (run >>> 2);
      if (type === zero) {
        this.#markZero(batch.page[record] as number, end - record);
        record = end;
      }
      while (record < end) {
        const count = type === scattered ? Math.min(slots, end - record) : end - record;
        const written = this.#writePages(batch, record, count, type === scattered);
        if (written !== undefined) await written;
        record += count;
      }
    }
  }

  /** Writes data of neighbouring pages, from where it is, or from the slots if it is scattered. */
  #writePages(batch: PageBatch, record: number, count: number, isScattered: boolean): Promise<void> | void {
    const { kernel, address: slots } = this.#pageSlots;
    const { pageSize } = this.block;
    const first = batch.page[record] as number;
    if (isScattered) kernel.gatherPages(batch.dataAddress + 4 * record, pageSize, count, slots);
    const address = isScattered ? slots : (batch.data[record] as number);
    const bytes = kernel.bytes.subarray(address, address + count * pageSize);
    this.#markData(first, count);
    return this.#file.write(bytes, this.#options.origin + first * pageSize);
  }

  async #applyEach(batch: PageBatch): Promise<void> {
    const { pageSize } = this.block;
    const zeroPages = this.#pageSlots.markZeroPages(batch, pageSize);
    const capacity = this.#pageSlots.slots(pageSize);
    for (let i = 0; i < batch.count; ) {
      const kind = batch.kind[i] as PageKind;
      const page = batch.page[i] as number;
      const isWhole = hasWholePage(batch, i);
      if (kind === PageKind.zero || (isWhole && zeroPages?.[i] === 1)) {
        if (this.#options.erase && this.#hasBytes(page)) this.#queue(page, PageKind.zero, i);
        else this.#markZero(page, 1);
        i++;
      } else {
        if (kind === PageKind.delta && this.#lacksBase(batch, i)) {
          i++;
          continue;
        }
        const run = isWhole && this.#isInPlace(batch, i) ? this.#contiguousRun(batch, i, zeroPages) : 1;
        if (run > 1) await this.#writeRun(batch, i, run);
        else this.#queue(page, isWhole ? PageKind.data : kind, i);
        i += run;
      }
      if (this.#slots.length === capacity) await this.#flush(batch);
    }
    await this.#flush(batch);
  }

  /** Discards pages. Their bytes in the file are stale. */
  discard(firstPage: number, pages: number): void {
    this.#markStale(firstPage, firstPage + pages);
    this.states.fill(firstPage, firstPage + pages, discardedState);
  }

  /** Takes over the states of pages that somebody else wrote to the file; 0 for pages without news. */
  note(firstPage: number, states: Uint8Array): void {
    for (let i = 0; i < states.length; i++) {
      const state = states[i] as number;
      if (state === PageKind.data) this.#markData(firstPage + i, 1);
      else if (state === PageKind.zero) this.#markZero(firstPage + i, 1);
    }
  }

  /** Takes over what was known of the pages, which are in the file. */
  restore(bits: PageBits): void {
    setStates(this.block, this.states, bits);
    this.#dataEnd = pageCount(this.block);
  }

  /** Removes the bytes of pages that have no data any more: they become holes if the file can make holes, or zeros. */
  async eraseStale(): Promise<void> {
    if (!this.#hasStale) return;
    const pages = pageCount(this.block);
    for (let first = this.#nextStale(0, pages); first < pages; ) {
      let end = first + 1;
      while (end < pages && this.#isStale(end)) end++;
      await this.#erase(first, end);
      first = this.#nextStale(end, pages);
    }
    this.#stale.drain();
    this.#hasStale = false;
  }

  async #erase(first: number, end: number): Promise<void> {
    const { pageSize } = this.block;
    const [from, to] = [first, end].map((page) => this.#options.origin + page * pageSize) as [number, number];
    if (this.#file.punch !== undefined) return this.#file.punch(from, to - from);
    const zeros = new Uint8Array(Math.min(to - from, erasedBytes));
    for (let at = from; at < to; at += zeros.length) await this.#file.write(zeros.subarray(0, to - at), at);
  }

  #isStale(page: number): boolean {
    return this.#stale.get(page) === PageKind.data && this.states.get(page) !== PageKind.data;
  }

  #nextStale(from: number, end: number): number {
    let page = this.#stale.nextSet(from, end);
    while (page < end && !this.#isStale(page)) page = this.#stale.nextSet(page + 1, end);
    return page;
  }

  #markData(first: number, count: number): void {
    this.states.setRun(first, count, PageKind.data);
    this.#dataEnd = Math.max(this.#dataEnd, first + count);
  }

  #markZero(first: number, count: number): void {
    this.#markStale(first, first + count);
    this.states.setRun(first, count, PageKind.zero);
  }

  /** Remembers which of these pages have data. */
  #markStale(first: number, end: number): void {
    const stop = Math.min(end, this.#dataEnd);
    for (let page = this.#firstData(first, stop); page < stop; page = this.#firstData(page + 1, stop)) {
      this.#stale.set(page, PageKind.data);
      this.#hasStale = true;
    }
  }

  /** Whether the file contains bytes of the page, even stale ones. */
  #hasBytes(page: number): boolean {
    return this.states.get(page) === PageKind.data || this.#stale.get(page) === PageKind.data;
  }

  /** Whether a delta has no base to apply to. Its page is then discarded, if the caller wants to know. */
  #lacksBase(batch: PageBatch, record: number): boolean {
    const { noteLost } = this.#options;
    const page = batch.page[record] as number;
    const state = this.states.get(page);
    if (noteLost === undefined || state === PageKind.data || state === PageKind.zero) return false;
    const isQueued = this.#slots.some((slot) => slot.page === page);
    if (isQueued) return false;
    const message = 'an XBZRLE delta for a page whose content is missing';
    noteLost(makeFinding('delta-without-base', message, pagePlace(this.block, batch, record)));
    this.discard(page, 1);
    return true;
  }

  #queue(page: number, kind: PageKind, record: number): void {
    this.#slots.push({ page, kind, record });
  }

  /** Whether a record's page can be written in place. Direct I/O requires aligned addresses, which only slots have. */
  #isInPlace(batch: PageBatch, record: number): boolean {
    const { alignment } = this.#file;
    return alignment === undefined || (batch.data[record] as number) % alignment === 0;
  }

  /** How many records from `first` on are data of neighbouring pages that are also contiguous in the arena. */
  #contiguousRun(batch: PageBatch, first: number, zeroPages: Uint8Array | undefined): number {
    const { pageSize } = this.block;
    let i = first + 1;
    while (
      i < batch.count &&
      hasWholePage(batch, i) &&
      batch.page[i] === (batch.page[i - 1] as number) + 1 &&
      batch.data[i] === (batch.data[i - 1] as number) + pageSize &&
      zeroPages?.[i] !== 1
    ) {
      i++;
    }
    return i - first;
  }

  async #writeRun(batch: PageBatch, first: number, count: number): Promise<void> {
    const { pageSize } = this.block;
    const page = batch.page[first] as number;
    const address = batch.data[first] as number;
    const bytes = this.#pageSlots.kernel.bytes.subarray(address, address + count * pageSize);
    await this.#file.write(bytes, this.#options.origin + page * pageSize);
    this.#markData(page, count);
  }

  /** Fills the slots, decodes the deltas among them in one call, and writes runs of neighbours. */
  async #flush(batch: PageBatch): Promise<void> {
    const slots = this.#slots;
    if (slots.length === 0) return;
    await this.#fillSlots(batch, slots);
    const lost = this.#decodeDeltas(batch, slots);
    const { pageSize } = this.block;
    for (let first = 0; first < slots.length; ) {
      const end = neighbours(slots, first, () => true);
      const { page } = slots[first] as Slot;
      const bytes = this.#pageSlots.bytes.subarray(first * pageSize, end * pageSize);
      await this.#file.write(bytes, this.#options.origin + page * pageSize);
      first = end;
    }
    for (const { page, kind } of slots) {
      this.states.set(page, kind === PageKind.zero ? PageKind.zero : PageKind.data);
      if (page >= this.#dataEnd) this.#dataEnd = page + 1;
    }
    for (const page of lost) this.discard(page, 1);
    this.#slots = [];
  }

  async #fillSlots(batch: PageBatch, slots: Slot[]): Promise<void> {
    const { pageSize } = this.block;
    const { bytes, address, kernel } = this.#pageSlots;
    const hasBase = ({ page, kind }: Slot) => kind === PageKind.delta && this.states.get(page) === PageKind.data;
    for (let i = 0; i < slots.length; ) {
      const slot = slots[i] as Slot;
      if (hasBase(slot)) {
        const end = neighbours(slots, i, hasBase);
        const bases = bytes.subarray(i * pageSize, end * pageSize);
        await readFully(this.#file, bases, this.#options.origin + slot.page * pageSize);
        i = end;
        continue;
      }
      if (slot.kind === PageKind.data) {
        const from = batch.data[slot.record] as number;
        kernel.bytes.copyWithin(address + i * pageSize, from, from + pageSize);
      } else {
        bytes.fill(0, i * pageSize, (i + 1) * pageSize);
      }
      i++;
    }
  }

  /** Decodes the deltas in the slots. Returns the pages whose deltas do not decode. */
  #decodeDeltas(batch: PageBatch, slots: Slot[]): number[] {
    const { kernel, sources, lengths, pages, results, address } = this.#pageSlots;
    const { pageSize } = this.block;
    const deltas: Slot[] = [];
    slots.forEach((slot, i) => {
      if (slot.kind !== PageKind.delta) return;
      sources[deltas.length] = batch.data[slot.record] as number;
      lengths[deltas.length] = batch.length[slot.record] as number;
      pages[deltas.length] = address + i * pageSize;
      deltas.push(slot);
    });
    if (deltas.length === 0) return [];
    const failures = kernel.xbzrleDecodeBatch(
      sources.byteOffset,
      lengths.byteOffset,
      pages.byteOffset,
      deltas.length,
      pageSize,
      results.byteOffset,
    );
    if (failures === 0) return [];
    const { noteLost } = this.#options;
    const lost: number[] = [];
    for (const [i, { record, page }] of deltas.entries()) {
      const fault = kernel.xbzrleFault(results[i] as number);
      if (fault === undefined) continue;
      const message = `an XBZRLE delta does not decode: ${fault}`;
      const finding = makeFinding('bad-delta', message, pagePlace(this.block, batch, record));
      if (noteLost === undefined) throw MigrationError.from(finding);
      noteLost(finding);
      lost.push(page);
    }
    return lost;
  }
}

/** The end of the run of slots from `first` on that are neighbouring pages and pass the test. */
function neighbours(slots: Slot[], first: number, test: (slot: Slot) => boolean): number {
  let end = first + 1;
  while (
    end < slots.length &&
    (slots[end] as Slot).page === (slots[end - 1] as Slot).page + 1 &&
    test(slots[end] as Slot)
  ) {
    end++;
  }
  return end;
}
