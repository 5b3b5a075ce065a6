/**
 * Reads the RAM of a stream in place. An index says where the files have the last records of each page (`indexed-block.ts`). This
 * works for files with random access. A page can be whole in the main stream or in a multifd channel, and can have XBZRLE deltas.
 * Compressed pages, and pages of other connections, must be settled into a store instead.
 */

import { type ByteSource, placeIn, readFully } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { MigrationFile } from '../read/open.ts';
import { asyncDispose } from '../vm/auto-closed.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding, type Place } from '../vm/migration-error.ts';
import { pagePlace } from '../vm/page-place.ts';
import { discardedState, type PageRun } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, PageState } from '../vm/ram-store.ts';
import { DeltaDecoder } from './delta-decoder.ts';
import type { FlowSink } from './flow-sink.ts';
import { type Delta, type Extent, extentBytes, IndexedBlock, sourceSpan, strideAt } from './indexed-block.ts';
import type { WrittenPages } from './mapped-ram-pages.ts';

/** The most runs and deltas: 24 MiB of index. A stream with more is settled. */
const maxEntries = 1_000_000;
/** Deltas that are read before they are decoded, and the gaps between them that are read rather than skipped. */
const maxDeltas = 4096;
const smallGap = 4096;

/** Shorter runs are read together with what is around them. */
const leastSpaced = 32;

/** The stream is sound so far, but does not contain all content as whole pages and deltas. The message gives the reason. */
export class NotIndexable extends Error {
  override readonly name = 'NotIndexable';
}

export class StreamIndex implements OpenedRam, FlowSink {
  readonly blocks: RamBlock[] = [];
  readonly #file: MigrationFile;
  readonly #only: (block: RamBlock) => boolean;
  readonly #noteLost: ((finding: Finding) => void) | undefined;
  readonly #areas: IndexedBlock[] = [];
  /** By their place in the offsets of the index: the main stream, then the channels by their numbers. */
  readonly #sources: ByteSource[];
  #entries = 0;
  #decoder: DeltaDecoder | undefined;
  /** A buffer that no read uses at present. */
  #buffer: Uint8Array | undefined;

  /** `noteLost`: as in `PageAreaOptions`. */
  constructor(file: MigrationFile, only: (block: RamBlock) => boolean, noteLost?: (finding: Finding) => void) {
    this.#file = file;
    this.#only = only;
    this.#noteLost = noteLost;
    this.#sources = [file.content];
  }

  /** Takes blocks, pages, discards and the end. @throws NotIndexable */
  take(item: FlowItem): void {
    if (item.kind === 'block') this.addBlock(item.block);
    else if (item.kind === 'pages') this.apply(item.block, item.batch);
    else if (item.kind === 'end') this.finish();
    else if (item.kind === 'discard' && this.#only(item.block)) {
      this.#area(item.block).discard(item.firstPage, item.firstPage + item.pages);
    }
  }

  addBlock(block: RamBlock): void {
    this.blocks.push(block);
    this.#areas.push(new IndexedBlock(block));
  }

  /** Records the places of a batch's pages. @throws NotIndexable */
  apply(block: RamBlock, batch: PageBatch): void {
    if (!this.#only(block)) return;
    const area = this.#area(block);
    const before = area.entries;
    const { channel } = batch.origin;
    for (let i = 0; i < batch.count; i++) {
      const page = batch.page[i] as number;
      const kind = batch.kind[i];
      if (kind === PageKind.zero) {
        area.addZero(page);
        continue;
      }
      if (kind === PageKind.compressed) throw new NotIndexable('the stream has compressed pages');
      const offset = this.#locate(batch.data[i] as number, channel);
      if (offset === undefined) throw new NotIndexable(noPlace(channel));
      if (kind === PageKind.data) area.addData(page, offset);
      else if (this.#isLost(area, block, batch, i)) area.discard(page, page + 1);
      else area.addDelta(page, offset, batch.length[i] as number);
    }
    this.#entries += area.entries - before;
    if (this.#entries > maxEntries) throw new NotIndexable('the pages lie in too many places');
  }

  /** Whether the content of a page is lost, as in `PageAreaOptions.noteLost`. @throws MigrationError `bad-delta` */
  #isLost(area: IndexedBlock, block: RamBlock, batch: PageBatch, record: number): boolean {
    const { kernel } = this.#file;
    const place = pagePlace(block, batch, record);
    const state = area.states.get(batch.page[record] as number);
    if (this.#noteLost !== undefined && (state === PageKind.absent || state === discardedState)) {
      const message = 'an XBZRLE delta for a page whose content is missing';
      this.#noteLost(makeFinding('delta-without-base', message, place));
      return true;
    }
    const [data, length] = [batch.data[record] as number, batch.length[record] as number];
    const fault = kernel.xbzrleFault(kernel.xbzrleCheck(data, length, block.pageSize));
    if (fault === undefined) return false;
    if (this.#noteLost === undefined) throw badDelta(fault, place);
    this.#noteLost(badDelta(fault, place).toFinding());
    return true;
  }

  /** The offset of the bytes at an arena address. */
  #locate(address: number, channel: number | undefined): number | undefined {
    if (channel === undefined) return this.#file.offsetOf(address);
    const place = this.#file.locateInChannel(channel, address);
    if (place === undefined) return undefined;
    this.#sources[channel + 1] ??= place.source;
    return (channel + 1) * sourceSpan + place.offset;
  }

  /** Ends the index. For each page the last records count. */
  finish(): void {
    for (const area of this.#areas) area.resolve();
  }

  state(block: RamBlock, page: number): PageState {
    const state = this.#area(block).states.get(page);
    if (state === PageKind.data || state === PageKind.delta) return 'data';
    return state === PageKind.zero ? 'zero' : 'absent';
  }

  isAbsent(block: RamBlock, page: number): boolean {
    return this.#area(block).states.get(page) === PageKind.absent;
  }

  /** A discarded page that was not sent again, if any. */
  lostPage(): { block: RamBlock; page: number } | undefined {
    for (const [i, { states }] of this.#areas.entries()) {
      const page = states.find(discardedState);
      if (page !== undefined) return { block: this.blocks[i] as RamBlock, page };
    }
    return undefined;
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    return this.#area(block).nextData(page, limit);
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { pageSize } = block;
    const end = page + target.length / pageSize;
    if (!Number.isSafeInteger(page) || !Number.isSafeInteger(end) || page < 0 || end > pageCount(block)) {
      const expected = `whole pages from 0 to ${pageCount(block)}, ${pageSize} bytes each`;
      throw new RangeError(`${block.idstr}: expected ${expected}, got ${target.length} bytes at page ${page}`);
    }
    const area = this.#area(block);
    const buffer = this.#buffer ?? new Uint8Array(extentBytes);
    this.#buffer = undefined;
    let filled = page;
    for (const extent of area.extents(page, end)) {
      const bytes = await this.#readExtent(extent, buffer);
      for (const { page: first, offset, count } of extent.runs) {
        target.fill(0, (filled - page) * pageSize, (first - page) * pageSize);
        const stride = strideAt(offset, pageSize);
        for (let i = 0; i < count; i++) {
          const at = offset - extent.from + i * stride;
          target.set(bytes.subarray(at, at + pageSize), (first + i - page) * pageSize);
        }
        filled = first + count;
      }
    }
    target.fill(0, (filled - page) * pageSize);
    this.#buffer = buffer;
    await this.#applyDeltas(block, area, page, target);
  }

  async readSpaced(block: RamBlock, page: number, target: Uint8Array, room: number): Promise<number> {
    const stride = block.pageSize + room;
    const run = this.#area(block).runFrom(page, Math.floor(target.length / stride));
    if (run === undefined || strideAt(run.offset, block.pageSize) !== stride || run.count < leastSpaced) return 0;
    // In front of each page is its header.
    await this.#readExtent({ from: run.offset - room, to: run.offset - room + run.count * stride }, target);
    return run.count;
  }

  async #readExtent({ from, to }: Pick<Extent, 'from' | 'to'>, buffer: Uint8Array): Promise<Uint8Array> {
    const bytes = buffer.subarray(0, to - from);
    await readFully(this.#sources[Math.floor(from / sourceSpan)] as ByteSource, bytes, from % sourceSpan);
    return bytes;
  }

  /** Applies the deltas of the pages in `target`, of which `page` is the first. */
  async #applyDeltas(block: RamBlock, area: IndexedBlock, page: number, target: Uint8Array): Promise<void> {
    const { pageSize } = block;
    let some: Delta[] = [];
    for (const delta of area.deltas(page, page + target.length / pageSize)) {
      some.push(delta);
      if (some.length < maxDeltas) continue;
      await this.#decode(block, some, page, target);
      some = [];
    }
    if (some.length > 0) await this.#decode(block, some, page, target);
  }

  async #decode(block: RamBlock, deltas: readonly Delta[], page: number, target: Uint8Array): Promise<void> {
    const encoded = await this.#readDeltas(deltas);
    this.#decoder ??= await DeltaDecoder.make();
    for (const [i, delta] of deltas.entries()) {
      const at = (delta.page - page) * block.pageSize;
      const fault = this.#decoder.decode(encoded[i] as Uint8Array, target.subarray(at, at + block.pageSize));
      if (fault === undefined) continue;
      // The delta decoded when the file was read. Since then, the file was changed.
      const { offset, page: number } = delta;
      throw badDelta(fault, {
        ...placeIn(this.#file.source, offset),
        section: 'ram',
        block: block.idstr,
        page: number,
      });
    }
  }

  /** Reads deltas in the order of the stream. Those that are near each other are read together. */
  async #readDeltas(deltas: readonly Delta[]): Promise<Uint8Array[]> {
    const encoded: Uint8Array[] = [];
    const order = deltas.map((_, i) => i).sort((a, b) => (deltas[a] as Delta).offset - (deltas[b] as Delta).offset);
    for (let i = 0; i < order.length; ) {
      const from = (deltas[order[i] as number] as Delta).offset;
      let to = from;
      let next = i;
      for (; next < order.length; next++) {
        const { offset, length } = deltas[order[next] as number] as Delta;
        if (next > i && (offset > to + smallGap || offset + length - from > extentBytes)) break;
        to = Math.max(to, offset + length);
      }
      const bytes = await this.#readExtent({ from, to }, new Uint8Array(to - from));
      for (; i < next; i++) {
        const { offset, length } = deltas[order[i] as number] as Delta;
        encoded[order[i] as number] = bytes.subarray(offset - from, offset - from + length);
      }
    }
    return encoded;
  }

  /** The place of a page's bytes in the main stream. Undefined for other pages. */
  placeOf(block: RamBlock, page: number): number | undefined {
    const place = this.#area(block).placeOf(page);
    return place === undefined || place >= sourceSpan ? undefined : place;
  }

  absentRuns(block: RamBlock): Iterable<PageRun> {
    return this.#area(block).states.absentRuns(pageCount(block));
  }

  absentPages(block: RamBlock): number {
    const { states } = this.#area(block);
    const present = states.count(discardedState).reduce((sum, count) => sum + count, 0);
    return pageCount(block) - present;
  }

  /** What is known of the pages of a block, for a store that takes them over. */
  listStates(block: RamBlock): WrittenPages[] {
    const written: WrittenPages[] = [];
    for (const { first, end, states, state } of this.#area(block).states.pieces(0, pageCount(block))) {
      if (states === undefined && state === PageKind.absent) continue;
      const known = states?.slice() ?? new Uint8Array(end - first).fill(state);
      for (let i = 0; i < known.length; i++) if (known[i] === PageKind.delta) known[i] = PageKind.data;
      written.push({ block: block.index, firstPage: first, states: known });
    }
    return written;
  }

  /** Leaves the file open, because the caller owns it. */
  async close(): Promise<void> {}

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  #area(block: RamBlock): IndexedBlock {
    const area = this.#areas[block.index];
    if (area !== undefined) return area;
    throw new RangeError(`expected a block of this stream, got "${block.idstr}"`);
  }
}

const badDelta = (fault: string, place: Place) =>
  new MigrationError('bad-delta', `an XBZRLE delta does not decode: ${fault}`, place);

const noPlace = (channel: number | undefined) =>
  channel === undefined ? 'pages are not in the stream' : 'the channels are compressed';
