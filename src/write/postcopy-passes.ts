/**
 * How a stream goes on in postcopy, in place of `Passes.finish`:
 *
 *     begin      PART and END of other iterables, SWITCHOVER_START, discards, the package with the devices
 *     send       dirty pages of a range, each once; the caller ends the PART
 *     finish     END of RAM, END of iterables that could wait, EOF
 *
 * The caller decides which pages come first. The guest must be stopped.
 */

import type { PageBatch } from '../kernel/page-batch.ts';
import { isBitSet } from '../vm/bits.ts';
import type { Guest } from '../vm/guest.ts';
import type { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { CommandCode } from '../wire/command.ts';
import { requireDevices } from '../wire/require-vm.ts';
import type { Passes, RamWriter } from './passes.ts';
import { discardsOf, widenToHostPages, writePackage } from './postcopy-switch.ts';
import type { RamScan, ScannedBlock, ScannedRam } from './ram-scan.ts';
import type { StreamWriter } from './stream-writer.ts';

/** What sends a range of pages: by default the main stream. */
export interface RangeSender {
  scan: RamScan;
  pages: RamWriter['pages'];
}

/** Told of pages `[first, end)` of a block. */
export type DiscardPages = (block: RamBlock, first: number, end: number) => Promise<void> | void;

export class PostcopyPasses {
  readonly #guest: Guest;
  readonly #writer: StreamWriter;
  readonly #passes: Passes;
  /** RAM in which pages that were never sent are zero pages, because the destination waits for each. */
  readonly #ram: ScannedRam;
  readonly #main: RangeSender;
  readonly #discard: DiscardPages | undefined;
  /** What was sent, by block index. */
  readonly #sent: ScannedBlock[];

  /** @param discard is told of pages that the destination has. Default: nobody is */
  constructor(guest: Guest, writer: StreamWriter, passes: Passes, discard?: DiscardPages) {
    this.#discard = discard;
    this.#guest = guest;
    this.#writer = writer;
    this.#passes = passes;
    const { ram } = guest;
    this.#ram = {
      read: (block, page, target) => ram.read(block, page, target),
      nextData: (block, page, limit) => ram.nextData(block, page, limit),
    };
    this.#sent = ram.blocks.map((block) => ({ block, dataPages: 0, zeroPages: 0, absentPages: 0, records: 0 }));
    this.#main = { scan: passes.scan, pages: (block, batch) => writer.pages(block, batch) };
  }

  /**
   * Ends precopy. The dirty bitmaps must be synced. The destination may start the guest as soon as it has the package, so
   * `beforePackage` is the last moment to give up.
   * @throws RangeError for devices that no stream can contain
   */
  async begin(beforePackage: () => Promise<void> | void): Promise<void> {
    const writer = this.#writer;
    await this.#passes.beginSwitchover();
    await this.#passes.sendIterables('end', 'now');
    for (const block of this.#passes.sentBlocks) {
      const dirty = this.#dirty(block);
      widenToHostPages(block, dirty);
      for (const payload of discardsOf(block, dirty)) await writer.command(CommandCode.postcopyRamDiscard, payload);
    }
    const { devices } = await this.#guest.saveDevices();
    requireDevices(devices, writer.ramId);
    await writePackage(writer, devices, beforePackage);
    writer.forgetBlock();
    for (const block of this.#discard === undefined ? [] : this.#passes.sentBlocks) await this.#discardClean(block);
  }

  /** The first dirty page of a block from `from` on. Undefined: none is. */
  next(block: RamBlock, from: number): number | undefined {
    const dirty = this.#dirty(block);
    const page = dirty.nextSet(from);
    return page < dirty.pages ? page : undefined;
  }

  /**
   * The next dirty pages of a block that have data, in whole host pages, from `from` on and before `to`. Between them may
   * be pages that are not dirty any more. Undefined: there is none.
   */
  async nextData(block: RamBlock, from: number, to: number): Promise<{ first: number; end: number } | undefined> {
    const dirty = this.#dirty(block);
    const step = hostPagesOf(block);
    for (let page = dirty.nextSet(from); page < to; ) {
      const { first, end } = await this.#ram.nextData(block, page, to - page);
      if (first >= to) return undefined;
      page = dirty.nextSet(first);
      if (page >= end) continue;
      const last = Math.min(end, dirty.nextClear(page));
      return { first: page - (page % step), end: Math.min(dirty.pages, Math.ceil(last / step) * step) };
    }
    return undefined;
  }

  /** The same, for all dirty pages. */
  nextDirty(block: RamBlock, from: number, to: number): { first: number; end: number } | undefined {
    const dirty = this.#dirty(block);
    const step = hostPagesOf(block);
    const first = dirty.nextSet(from);
    if (first >= to) return undefined;
    const end = Math.min(to, dirty.nextClear(first));
    return { first, end: Math.min(dirty.pages, Math.ceil(end / step) * step) };
  }

  /** How many pages of each block were sent so far, by block index. */
  get sent(): readonly ScannedBlock[] {
    return this.#sent;
  }

  /** Sends the dirty pages of a block from `first` to before `end`. Returns how many these were. */
  async send(block: RamBlock, first: number, end: number, { scan, pages } = this.#main): Promise<number> {
    const dirty = this.#dirty(block);
    const from = dirty.nextSet(first);
    let taken = 0;
    if (from >= end) return taken;
    const counts = this.#sent[block.index] as ScannedBlock;
    for await (const batch of scan.pages(this.#ram, counts, dirty, end - from, from, end)) {
      await pages(block, batch);
      this.#passes.count(batch);
      await this.#discardSent(block, batch);
      taken += batch.count;
    }
    return taken;
  }

  /** Discards what was sent before the switch, and not written since. */
  async #discardClean(block: RamBlock): Promise<void> {
    const dirty = this.#dirty(block);
    for (let first = dirty.nextClear(0); first < dirty.pages; first = dirty.nextClear(first)) {
      const end = Math.min(dirty.pages, dirty.nextSet(first));
      await this.#discard?.(block, first, end);
      first = end;
    }
  }

  async #discardSent(block: RamBlock, { page, count }: PageBatch): Promise<void> {
    if (this.#discard === undefined) return;
    for (let i = 0; i < count; ) {
      const first = page[i] as number;
      let end = first;
      while (i < count && page[i] === end) [i, end] = [i + 1, end + 1];
      await this.#discard(block, first, end);
    }
  }

  /** Recovery: the pages of a block that have arrived are clean, all others are dirty. One bit per page, LSB first. */
  takeReceived(block: RamBlock, received: Uint8Array): void {
    const dirty = this.#dirty(block);
    dirty.fill();
    for (let page = 0; page < dirty.pages; page++) if (isBitSet(received, page)) dirty.clear(page);
    widenToHostPages(block, dirty);
  }

  /** Ends the stream, when no page is dirty any more. */
  async finish(): Promise<void> {
    await this.#writer.endRam();
    await this.#passes.sendIterables('end', 'postcopiable');
    await this.#writer.finish();
  }

  #dirty({ index }: RamBlock): PageBitmap {
    return this.#passes.dirty[index] as PageBitmap;
  }
}

/** Pages of the target in a page of the host. */
const hostPagesOf = ({ hostPageSize, pageSize }: RamBlock): number => (hostPageSize ?? pageSize) / pageSize;
