/**
 * The mapped-ram file as a page store (docs/formats/mapped-ram.md): every page has its own place. So pages may arrive
 * in any order and any number of times, and memory use does not depend on the size of the guest.
 *
 * {@link MappedRamStore} writes a file from the header to the last byte. `MappedRamReader` reads files of QEMU or vmferry.
 * Deltas need the old content of a page, which is read back from the file.
 */

import type { ByteStore } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { PageSlots } from '../kernel/page-slots.ts';
import { asyncDispose } from '../vm/auto-closed.ts';
import type { ChangesIds, Configuration, Description, FlowItem } from '../vm/flow.ts';
import type { Finding } from '../vm/migration-error.ts';
import { discardedState, type PageRun, type PageTally, tallyPages } from '../vm/page-states.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, PageState } from '../vm/ram-store.ts';
import type { Framing, RawSection, WritableDevice } from '../vm/saved-vm.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { encodeConfiguration } from '../wire/configuration.ts';
import { encodeMappedHeader, placeMapped } from '../wire/mapped-ram.ts';
import { encodeBlockEntry, encodeMemSize, ramVersion } from '../wire/ram-section.ts';
import { requireBlock, requireDevices, requireLastBlock, requirePageSize } from '../wire/require-vm.ts';
import { encodeSectionHead } from '../wire/section.ts';
import { encodeStreamHeader } from '../wire/stream.ts';
import type { FlowSink } from './flow-sink.ts';
import type { WrittenPages } from './mapped-ram-pages.ts';
import { encodeMappedRamTail } from './mapped-ram-tail.ts';
import { PageArea } from './page-area.ts';
import { bitsOf, markPages, type PageBits, pageBitsOf } from './page-bits.ts';

/** Section id of `ram` if none is given. Any id works that no device has, and QEMU numbers from 0. */
export const defaultRamId = 0x7265_7272;

/** The configuration if none is given. */
const unnamedMachine: Configuration = { machine: 'none', capabilities: [] };

/** The page size that readers assume until the file states another. */
const assumedPageSize = 4096;

/** Bytes of bitmap processed at a time: a multiple of 8. */
const bitmapPiece = 64 * 1024;

const stateNames: Record<number, PageState> = { [PageKind.zero]: 'zero', [PageKind.data]: 'data' };

/** How a mapped-ram file is laid out. */
export interface MappedRamOptions {
  /** Where the stream begins in the file, in bytes. */
  offset?: number;
  /** The machine's configuration; `mapped-ram` is added to its capabilities. */
  configuration?: Configuration | undefined;
  /** Takes the findings for pages whose content is lost, see `PageAreaOptions`. */
  noteLost?: ((finding: Finding) => void) | undefined;
  /** The file has been laid out before: everything up to the pages is there, and only pages are written. Default false. */
  isLaidOut?: boolean;
}

/** What else {@link MappedRamStore.finish} writes. */
export interface FinishOptions {
  /** How the VM's own stream was put together. Default: with footers, without SWITCHOVER_START. */
  framing?: Pick<Framing, 'footers' | 'switchoverStart'>;
  /** Sections of iterables other than RAM, in stream order. */
  iterables?: readonly RawSection[];
  /** The ids of a file of changes, now that they are known. Its configuration must already contain them. */
  changes?: ChangesIds;
}

export class MappedRamStore implements OpenedRam, FlowSink {
  readonly blocks: RamBlock[] = [];
  readonly #file: ByteStore;
  readonly #pageSlots: PageSlots;
  readonly #areas: PageArea[] = [];
  readonly #names = new Set<string>();
  readonly #offset: number;
  readonly #noteLost: MappedRamOptions['noteLost'];
  readonly #isLaidOut: boolean;
  #configuration: Configuration | undefined;
  #ramId: number | undefined;
  /** Offset of the word with the size of RAM. Undefined before the header is written. */
  #memSizeOffset: number | undefined;
  /** Offset of the next block entry. */
  #end = 0;
  #isFinished = false;

  /**
   * Begins a file. Add blocks next, then pages in any order, then call {@link finish}. Until then no reader accepts the
   * file as complete, whatever it contained before.
   * @throws RangeError for an impossible offset, TypeError for a file that is not a `ByteStore`.
   */
  constructor(file: ByteStore, pageSlots: PageSlots, options: MappedRamOptions = {}) {
    const { offset = 0, configuration, noteLost, isLaidOut = false } = options;
    if (typeof file?.read !== 'function' || typeof file.truncate !== 'function') {
      throw new TypeError('expected a ByteStore, whose bytes can be written anywhere, and be read');
    }
    if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`expected an offset in bytes, got ${offset}`);
    this.#file = file;
    this.#pageSlots = pageSlots;
    this.#offset = offset;
    this.#configuration = configuration;
    this.#noteLost = noteLost;
    this.#isLaidOut = isLaidOut;
  }

  /** The machine's configuration. Undefined until it is given. */
  get configuration(): Configuration | undefined {
    return this.#configuration;
  }

  /** Takes configuration, RAM section id, blocks, pages and discards. @throws the errors of the method for each */
  take(item: FlowItem): Promise<void> | void {
    switch (item.kind) {
      case 'configuration':
        return this.configure(item.configuration);
      case 'section':
        if (item.section.name === 'ram' && this.#ramId === undefined) this.startRam(item.section);
        return;
      case 'block':
        return this.#takeBlock(item.block);
      case 'pages':
        return this.apply(item.block, item.batch);
      case 'discard':
        return this.discard(item.block, item.firstPage, item.pages);
      default:
    }
  }

  async #takeBlock(block: RamBlock): Promise<void> {
    await this.addBlock(block);
  }

  /** Sets the machine's configuration, before the first block. `mapped-ram` is added to its capabilities. */
  configure(configuration: Configuration): void {
    if (this.#memSizeOffset !== undefined) throw new Error('expected the configuration before the first block');
    this.#configuration = configuration;
  }

  /** Sets the section id of RAM, before the first block. */
  startRam({ id }: { id: number }): void {
    if (this.#memSizeOffset !== undefined) throw new Error('expected the section id before the first block');
    this.#ramId = id;
  }

  /** Writes everything before the first block, once. Returns the offset of the size of RAM. */
  async #begin(pageSize = assumedPageSize): Promise<number> {
    if (this.#memSizeOffset !== undefined) return this.#memSizeOffset;
    const length = await this.#writeHead(pageSize);
    this.#memSizeOffset = this.#offset + length;
    this.#end = this.#memSizeOffset + 8;
    return this.#memSizeOffset;
  }

  /**
   * Writes header, configuration and the start of RAM. The size of RAM stays 0, because only a complete file has
   * one. Returns the offset of the size.
   */
  async #writeHead(pageSize: number): Promise<number> {
    const configuration = { ...(this.#configuration ?? unnamedMachine) };
    // A reader that assumes larger pages would take part of the size of RAM for flags.
    if (pageSize < assumedPageSize) configuration.targetPageBits ??= Math.log2(pageSize);
    const out = new ByteWriter();
    encodeStreamHeader(out);
    const capabilities = [...new Set([...configuration.capabilities, 'mapped-ram'])].filter(
      (name) => name !== 'x-ignore-shared',
    );
    encodeConfiguration(out, { ...configuration, capabilities });
    encodeSectionHead(out, {
      kind: 'start',
      id: this.#ramId ?? defaultRamId,
      name: 'ram',
      instanceId: 0,
      versionId: ramVersion,
    });
    const { length } = out;
    if (!this.#isLaidOut) await this.#file.write(out.u64(0).bytes(), this.#offset);
    return length;
  }

  /**
   * Lays out a block whose pages are absent. Returns the block with its place.
   * @throws RangeError for a block that cannot follow the earlier ones.
   */
  async addBlock(block: RamBlock): Promise<RamBlock> {
    const { idstr, usedLength, pageSize } = block;
    this.#requireUnfinished();
    requireBlock(block);
    requirePageSize(this.#configuration, block);
    if (this.#names.has(idstr)) throw new RangeError(`expected RAM blocks of different names, got "${idstr}" twice`);
    const { pageSize: others } = this.blocks[0] ?? block;
    if (pageSize !== others)
      throw new RangeError(`expected pages of ${others} bytes, got those of "${idstr}", ${pageSize}`);
    this.#names.add(idstr);
    await this.#begin(pageSize);
    const entry = new ByteWriter();
    encodeBlockEntry(entry, idstr, usedLength);
    const place = placeMapped(this.#end + entry.length, usedLength / pageSize);
    encodeMappedHeader(entry, pageSize, place);
    if (!this.#isLaidOut) await this.#file.write(entry.bytes(), this.#end);
    const added: RamBlock = { index: this.blocks.length, idstr, usedLength, pageSize, mapped: place };
    this.blocks.push(added);
    const options = { origin: place.pagesOffset, erase: false, noteLost: this.#noteLost };
    this.#areas.push(new PageArea(this.#file, added, this.#pageSlots, options));
    this.#end = place.pagesOffset + usedLength;
    return added;
  }

  /**
   * Takes the space that {@link finish} needs: that of the bitmaps, and `bytes` for the devices and the description. So the
   * file can be finished even if the pages fill the disk. Call this after the last block, and before any page.
   */
  async reserve(bytes: number): Promise<void> {
    await this.writeBitmaps();
    await this.#file.write(new Uint8Array(bytes), this.#end);
  }

  /** @throws RangeError for pages beyond the block. */
  async apply(block: RamBlock, batch: PageBatch): Promise<void> {
    this.#requireUnfinished();
    return this.#area(block).apply(batch);
  }

  /** Records zero pages as data, as a file of changes has them: their bits are set, and the pages are holes. */
  applyHoles(block: RamBlock, firstPage: number, pages: number): void {
    const { states } = this.#area(block);
    for (let page = firstPage; page < firstPage + pages; page++) states.set(page, PageKind.data);
  }

  /** Discards pages, which will be sent again (postcopy). */
  discard(block: RamBlock, firstPage: number, pages: number): void {
    this.#area(block).discard(firstPage, pages);
  }

  /** A discarded page that was not sent again, if any. */
  lostPage(): { block: RamBlock; page: number } | undefined {
    return lostPage(this.#areas);
  }

  state(block: RamBlock, page: number): PageState {
    return stateNames[this.#area(block).states.get(page)] ?? 'absent';
  }

  isAbsent(block: RamBlock, page: number): boolean {
    return this.state(block, page) === 'absent';
  }

  read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    return this.#area(block).read(page, target);
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    return this.#area(block).nextData(page, limit);
  }

  absentRuns(block: RamBlock): Iterable<PageRun> {
    return this.#area(block).states.absentRuns(pageCount(block));
  }

  absentPages(block: RamBlock): number {
    return this.countPages(block).absentPages;
  }

  /**
   * Records which pages a worker wrote to their places (`mapped-ram-pages.ts`). Later reports about a page replace
   * earlier ones.
   */
  note(written: readonly WrittenPages[]): void {
    for (const { block, firstPage, states } of written) {
      const area = this.#areas[block];
      if (area === undefined) throw new RangeError(`expected a block of this store, got number ${block}`);
      area.note(firstPage, states);
    }
  }

  /** One bit per page of a block, 1 if it is there, LSB first, in whole 64-bit words: what RECV_BITMAP has. */
  presentBits(block: RamBlock): Uint8Array {
    return bitsOf(block, this.#area(block).states, isPresent);
  }

  /** What is known of the pages of a block. */
  pageBits(block: RamBlock): PageBits {
    return pageBitsOf(block, this.#area(block).states);
  }

  /** Takes over what was known of the pages of a block, which are in the file. */
  restore(block: RamBlock, bits: PageBits): void {
    this.#area(block).restore(bits);
  }

  /** Counts the pages of a block by state. */
  countPages(block: RamBlock): PageTally {
    return tallyPages(block, this.#area(block).states);
  }

  /**
   * Writes the bitmaps, the end of the RAM section, the devices and the description, and last the size of RAM, which
   * makes the file complete.
   * @throws RangeError for devices that no file can contain, and for an empty last block.
   */
  async finish(
    devices: readonly WritableDevice[],
    description: Pick<Description, 'text'> | undefined,
    options: FinishOptions = {},
  ): Promise<void> {
    await this.#file.truncate(await this.#write(devices, description, options));
    await this.#writeMemSize();
    this.#isFinished = true;
  }

  /**
   * Writes the same for a file that is not whole yet, so that it can be read as it is. Pages can be added afterwards, and
   * {@link finish} called. Returns the offset behind everything.
   */
  async checkpoint(
    devices: readonly WritableDevice[],
    description: Pick<Description, 'text'>,
    framing: FinishOptions['framing'],
  ): Promise<number> {
    const end = await this.#write(devices, description, framing === undefined ? {} : { framing });
    await this.#writeMemSize();
    return end;
  }

  async #write(
    devices: readonly WritableDevice[],
    description: Pick<Description, 'text'> | undefined,
    { iterables = [], framing = { footers: true, switchoverStart: false }, changes }: FinishOptions,
  ): Promise<number> {
    this.#requireUnfinished();
    requireLastBlock(this.blocks);
    const ramId = this.#ramId ?? defaultRamId;
    requireDevices(devices, ramId);
    await this.#begin();
    await this.writeBitmaps();
    if (changes !== undefined) {
      this.#configuration = { ...(this.#configuration ?? unnamedMachine), changes };
      await this.#writeHead(this.blocks[0]?.pageSize ?? assumedPageSize);
    }
    let end = this.#end;
    for await (const piece of encodeMappedRamTail({ ramId, framing, iterables, devices, description })) {
      await this.#file.write(piece, end);
      end += piece.length;
    }
    return end;
  }

  async #writeMemSize(): Promise<void> {
    const total = new ByteWriter();
    const bytes = this.blocks.reduce((sum, block) => sum + block.usedLength, 0);
    encodeMemSize(total, bytes);
    await this.#file.write(total.bytes(), await this.#begin());
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireUnfinished(): void {
    if (this.#isFinished) throw new Error('the file is finished: nothing can be written to it');
  }

  #area(block: RamBlock): PageArea {
    const area = this.#areas[block.index];
    if (area !== undefined) return area;
    throw new RangeError(`expected a block of this store, got "${block.idstr}"`);
  }

  /** Writes which pages have data, and removes the bytes of those that no longer have any. */
  async writeBitmaps(): Promise<void> {
    for (const area of this.#areas) {
      await this.#writeBitmap(area);
      await area.eraseStale();
    }
  }

  async #writeBitmap(area: PageArea): Promise<void> {
    const { block } = area;
    const { mapped } = block;
    if (mapped === undefined) return;
    for (let done = 0; done < mapped.bitmapLength; done += bitmapPiece) {
      const bits = new Uint8Array(Math.min(bitmapPiece, mapped.bitmapLength - done));
      const firstPage = done * 8;
      const end = Math.min(pageCount(block), firstPage + bits.length * 8);
      markPages(bits, area.states, [firstPage, end], isData);
      await this.#file.write(bits, mapped.bitmapOffset + done);
    }
  }
}

const isData = (state: number): boolean => state === PageKind.data;
const isPresent = (state: number): boolean => stateNames[state] !== undefined;

/** The first page of the areas that was discarded and not sent again. */
export function lostPage(areas: Iterable<PageArea>): { block: RamBlock; page: number } | undefined {
  for (const { block, states } of areas) {
    const page = states.find(discardedState);
    if (page !== undefined) return { block, page };
  }
  return undefined;
}
