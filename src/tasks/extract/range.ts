/**
 * read: a range of a RAM block's final content. From a mapped-ram file only the bytes in the range are read. A stream is
 * read to its end and checked, because later passes overwrite earlier ones. Only the pages of the range are kept: in
 * memory if they are few, otherwise in a scratch file.
 */

import type { Abortable } from '../../io/abort.ts';
import type { ByteStore } from '../../io/byte-source.ts';
import { MemoryFile } from '../../io/memory-file.ts';
import { type PageBatch, PageKind } from '../../kernel/page-batch.ts';
import { FindingLog } from '../../read/finding-log.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { type ContentPlan, planContent } from '../../store/content-plan.ts';
import type { FlowSink } from '../../store/flow-sink.ts';
import { lostPage } from '../../store/mapped-ram-store.ts';
import { findMissing, type MissingRam } from '../../store/missing-ram.ts';
import { PageArea } from '../../store/page-area.ts';
import { type ContentPiece, openSavedVm } from '../../store/ram-content.ts';
import { type Settled, settle } from '../../store/settle.ts';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import type { FlowItem } from '../../vm/flow.ts';
import { PageStates } from '../../vm/page-states.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';

/** Bytes passed on at a time, few enough to stay in the processor's cache until they are written. */
const pieceBytes = 256 << 10;
const defaultLength = 256;

/** Which range is read. */
export interface RangeOptions extends Abortable {
  /** idstr of the block. Default: the main RAM if it is obvious, see {@link mainBlock}. */
  block?: string;
  /** Offset of the range in the block, in bytes. Default 0. */
  at?: number;
  /** Bytes in the range. Default: 256, or fewer at the end of the block. */
  length?: number;
  /** Accept a file that is incomplete or damaged. What is missing reads as zeros, see {@link RamRange}. Default false. */
  partial?: boolean;
  /** Makes the scratch file, if one is needed. Closing the range closes it. */
  makeScratch: () => ByteStore | Promise<ByteStore>;
}

/** A range of a block that can be read. */
export interface RamRange extends AutoClosed {
  /** How it is read. */
  readonly plan: ContentPlan;
  readonly block: RamBlock;
  readonly at: number;
  readonly length: number;
  /** Pages of the range that were never sent: they read as zeros. Undefined for a mapped-ram file, which does not say. */
  readonly absentPages: number | undefined;
  /** With `partial`: what is missing of the pages of the range. Undefined if the file is complete. */
  readonly missing: MissingRam | undefined;
  /** The range in order; `bytes` undefined means zeros. A piece is valid until the next one is requested. */
  pieces(): AsyncGenerator<ContentPiece, void>;
  /** Closes the scratch file, if there is one, not the file. */
  close(): Promise<void>;
}

/**
 * Opens a range. A stream is read to its end and checked; of a mapped-ram file, everything except the pages.
 * @throws RangeError for an unknown block or a range outside of the block; MigrationError if the file is bad or lacks
 *   memory
 */
export async function openRange(file: MigrationFile, options: RangeOptions): Promise<RamRange> {
  return whileAllowed(options, [file], () => openRangeOf(file, options));
}

async function openRangeOf(file: MigrationFile, options: RangeOptions): Promise<RamRange> {
  const plan = planContent(file, { rangeBytes: options.length ?? defaultLength });
  if (plan.how === 'in-place') {
    let chosen: ChosenRange | undefined;
    const { ram, missing } = await openSavedVm(file, {
      ...options,
      endBlocks: (blocks) => {
        chosen = chooseRange(blocks, options);
      },
      only: (block) => chosen === undefined || block === chosen.block,
    });
    const { block, at, length } = chooseRange(ram.blocks, options);
    return {
      plan,
      block,
      at,
      length,
      absentPages: undefined,
      missing: withinRange(missing, { block, at, length }),
      pieces: () => readPart(ram, block, at, length),
      close: () => ram.close(),
      [asyncDispose]: () => ram.close(),
    };
  }
  const kept = new KeptRange(file, plan, options);
  try {
    const needs = (block: RamBlock) => kept.needs(block);
    return await kept.finish(await settle(file, kept, { partial: options.partial === true, needs }));
  } catch (error) {
    await kept.close();
    throw error;
  }
}

/** Reads a range into memory, see {@link openRange}. */
export async function readRam(file: MigrationFile, options: RangeOptions): Promise<Uint8Array> {
  return whileAllowed(options, [file], () => readRangeOf(file, options));
}

async function readRangeOf(file: MigrationFile, options: RangeOptions): Promise<Uint8Array> {
  const range = await openRange(file, options);
  try {
    const content = new Uint8Array(range.length);
    let at = 0;
    for await (const { length, bytes } of range.pieces()) {
      if (bytes !== undefined) content.set(bytes, at);
      at += length;
    }
    return content;
  } finally {
    await range.close();
  }
}

/**
 * The block that is the guest's main RAM, where that is obvious: the only block, the only one named `ram` or `*.ram` as
 * QEMU's machines do, or one that is larger than all others together.
 */
export function mainBlock(blocks: readonly RamBlock[]): RamBlock | undefined {
  if (blocks.length === 1) return blocks[0];
  const named = blocks.filter(({ idstr }) => /(^|\.)ram$/.test(idstr));
  if (named.length === 1) return named[0];
  const total = blocks.reduce((sum, { usedLength }) => sum + usedLength, 0);
  return blocks.find(({ usedLength }) => usedLength > total / 2);
}

interface ChosenRange {
  block: RamBlock;
  at: number;
  length: number;
}

/** What is missing of the pages of a range. */
function withinRange(missing: MissingRam | undefined, { block, at, length }: ChosenRange): MissingRam | undefined {
  const { pageSize } = block;
  return missing?.restrictedTo(block, Math.floor(at / pageSize), Math.ceil((at + length) / pageSize));
}

/** @throws RangeError for an unknown block, or a range outside of the block. */
function chooseRange(blocks: readonly RamBlock[], options: RangeOptions): ChosenRange {
  const block = chooseBlock(blocks, options.block);
  const { idstr, usedLength } = block;
  const { at = 0, length = Math.max(0, Math.min(defaultLength, usedLength - at)) } = options;
  const isRange = Number.isSafeInteger(at) && Number.isSafeInteger(length) && at >= 0 && length >= 0;
  const isWithin = at + length <= usedLength && (at < usedLength || options.length === 0);
  if (isRange && isWithin) return { block, at, length };
  const wanted = options.length === undefined ? `offset ${both(at)}` : `${both(length)} bytes at ${both(at)}`;
  throw new RangeError(`expected a range within ${idstr}, which has ${both(usedLength)} bytes, got ${wanted}`);
}

function chooseBlock(blocks: readonly RamBlock[], wanted: string | undefined): RamBlock {
  const block = wanted === undefined ? mainBlock(blocks) : blocks.find(({ idstr }) => idstr === wanted);
  if (block !== undefined) return block;
  const names = blocks.map(({ idstr, usedLength }) => `${idstr} of ${both(usedLength)} bytes`).join(', ');
  const got = wanted === undefined ? 'none, and no block that is clearly the main one' : `"${wanted}"`;
  throw new RangeError(`expected the name of a RAM block in the file (${names || 'it has none'}), got ${got}`);
}

/** A number in decimal, as people count bytes, and in hex, as they write addresses. */
function both(bytes: number): string {
  return `${bytes} (0x${bytes.toString(16)})`;
}

/** Bytes `at` to `at + length` of a block, piece by piece. */
export async function* readPart(
  ram: Pick<RamReader, 'read' | 'nextData' | 'willRead'>,
  block: RamBlock,
  at: number,
  length: number,
): AsyncGenerator<ContentPiece, void> {
  const { pageSize } = block;
  const stop = at + length;
  const buffer = new Uint8Array(pieceBytes);
  ram.willRead?.(block, Math.floor(at / pageSize), Math.ceil(stop / pageSize));
  for (let from = at; from < stop; ) {
    const run = await ram.nextData(block, Math.floor(from / pageSize), pieceBytes / pageSize);
    const data = Math.min(stop, Math.max(from, run.first * pageSize));
    if (data > from) yield { length: data - from, bytes: undefined };
    const end = Math.min(stop, run.end * pageSize);
    if (end > data) {
      const first = Math.floor(data / pageSize);
      const pages = buffer.subarray(0, (Math.ceil(end / pageSize) - first) * pageSize);
      await ram.read(block, first, pages);
      yield { length: end - data, bytes: pages.subarray(data - first * pageSize, end - first * pageSize) };
    }
    from = Math.max(data, end);
  }
}

/** The pages of a range of a stream. Until all blocks are known, pages of several blocks may have to be kept. */
class KeptRange implements FlowSink {
  readonly #file: MigrationFile;
  readonly #plan: ContentPlan;
  readonly #options: RangeOptions;
  readonly #blocks: RamBlock[] = [];
  readonly #lost = new FindingLog();
  /** Pages that were sent, by the index of the block: 1 for each. */
  readonly #sent = new Map<number, PageStates>();
  readonly #areas = new Map<number, { store: ByteStore; area: PageArea }>();
  /** Discards of pages in blocks of which no page was kept before. */
  readonly #discarded: { block: RamBlock; first: number; pages: number }[] = [];
  #range: ChosenRange | undefined;

  constructor(file: MigrationFile, plan: ContentPlan, options: RangeOptions) {
    this.#file = file;
    this.#plan = plan;
    this.#options = options;
  }

  take(item: FlowItem): Promise<void> | void {
    if (item.kind === 'block') this.#blocks.push(item.block);
    else if (item.kind === 'blocks-end') this.#range = chooseRange(this.#blocks, this.#options);
    else if (item.kind === 'pages') return this.#apply(item.block, item.batch);
    else if (item.kind === 'discard') this.#discard(item.block, item.firstPage, item.pages);
  }

  async #apply(block: RamBlock, batch: PageBatch): Promise<void> {
    this.#note(block, batch);
    const { first, end } = this.#pagesOf(block);
    let from = 0;
    while (from < batch.count && (batch.page[from] as number) < first) from++;
    let to = from;
    while (to < batch.count && (batch.page[to] as number) < end) to++;
    if (to === from) return;
    batch.keep(from, to);
    await (await this.#area(block, first)).apply(batch);
  }

  #discard(block: RamBlock, firstPage: number, pages: number): void {
    const wanted = this.#pagesOf(block);
    const first = Math.max(firstPage, wanted.first);
    const end = Math.min(firstPage + pages, wanted.end);
    if (first >= end) return;
    const known = this.#areas.get(block.index);
    if (known !== undefined) known.area.discard(first, end - first);
    else this.#discarded.push({ block, first, pages: end - first });
  }

  lostPage(): { block: RamBlock; page: number } | undefined {
    const never = this.#discarded.find(({ block }) => !this.#areas.has(block.index));
    return never === undefined
      ? lostPage([...this.#areas.values()].map(({ area }) => area))
      : { block: never.block, page: never.first };
  }

  absentPages(block: RamBlock): number | undefined {
    const { first, end } = this.#pagesOf(block);
    if (end === first) return undefined;
    const sent = this.#sent.get(block.index);
    return sent === undefined
      ? this.#countAbsent(this.#areas.get(block.index)?.area, first, end)
      : pageCount(block) - (sent.count(2)[1] ?? 0);
  }

  /** Notes which pages the channels of a multifd set sent: what lies outside the range shows whether one is missing. */
  #note(block: RamBlock, batch: PageBatch): void {
    const { first, end } = this.#pagesOf(block);
    if (this.#file.parts.channels.length === 0 || end === first) return;
    const sent = this.#sent.get(block.index) ?? new PageStates();
    this.#sent.set(block.index, sent);
    for (let i = 0; i < batch.count; i++) sent.set(batch.page[i] as number, 1);
  }

  /** The pages of a block to keep. */
  #pagesOf(block: RamBlock): { first: number; end: number } {
    const wanted = this.#range?.block ?? this.#options.block ?? block;
    const isWanted = typeof wanted === 'string' ? wanted === block.idstr : wanted === block;
    if (!isWanted) return { first: 0, end: 0 };
    const { at = 0, length = defaultLength } = this.#range ?? this.#options;
    return { first: Math.floor(at / block.pageSize), end: Math.ceil((at + length) / block.pageSize) };
  }

  async #area(block: RamBlock, first: number): Promise<PageArea> {
    const known = this.#areas.get(block.index);
    if (known !== undefined) return known.area;
    const store = this.#plan.how === 'memory' ? new MemoryFile('range') : await this.#options.makeScratch();
    const area = new PageArea(store, block, this.#file.pageSlots, {
      origin: -first * block.pageSize,
      erase: false,
      noteLost: this.#options.partial === true ? (finding) => this.#lost.add(finding) : undefined,
    });
    this.#areas.set(block.index, { store, area });
    for (const each of this.#discarded) if (each.block === block) area.discard(each.first, each.pages);
    return area;
  }

  /** Whether pages of a block are in the range. */
  needs(block: RamBlock): boolean {
    const { first, end } = this.#pagesOf(block);
    return end > first;
  }

  /** The kept range. */
  async finish({ gaps, ignored }: Settled): Promise<RamRange> {
    // A stream without a RAM section has no list of blocks, so there was no `blocks-end`.
    const { block, at, length } = this.#range ?? chooseRange(this.#blocks, this.#options);
    const { first, end } = this.#pagesOf(block);
    const area = this.#areas.get(block.index)?.area;
    const absentPages = block.mapped === undefined ? this.#countAbsent(area, first, end) : undefined;
    const absentRuns = () => area?.states.absentRuns(pageCount(block)) ?? [{ first: 0, end: pageCount(block) }];
    const evidence = [...gaps, ...this.#lost.list()];
    const missing = await findMissing({ blocks: [block], absentRuns }, evidence, ignored);
    const none = { first: pageCount(block), end: pageCount(block) };
    const ram = {
      read: async (_: RamBlock, page: number, target: Uint8Array) => area?.read(page, target),
      nextData: async (_: RamBlock, page: number, limit: number) => area?.nextData(page, limit) ?? none,
    };
    return {
      plan: this.#plan,
      block,
      at,
      length,
      absentPages,
      missing: withinRange(missing, { block, at, length }),
      pieces: () => readPart(ram, block, at, length),
      close: () => this.close(),
      [asyncDispose]: () => this.close(),
    };
  }

  #countAbsent(area: PageArea | undefined, first: number, end: number): number {
    let count = 0;
    for (let page = first; page < end; page++) if ((area?.states.get(page) ?? 0) === PageKind.absent) count++;
    return count;
  }

  async close(): Promise<void> {
    for (const { store } of this.#areas.values()) await store.close();
    this.#areas.clear();
  }
}
