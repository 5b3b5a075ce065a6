/**
 * Statistics of a Flow: counts and lists its items, without their content. `inspect` shows them, and `verify` builds on them.
 */
import { PageKind } from '../../kernel/page-batch.ts';
import { FindingLog, ignoredFinding, lostPagesFinding } from '../../read/finding-log.ts';
import { MissingChannels } from '../../read/missing-channels.ts';
import type { FlowChannels } from '../../read/open.ts';
import { isBitSet } from '../../vm/bits.ts';
import type {
  Boundary,
  Command,
  Configuration,
  Description,
  DirtyBitmap,
  FlowItem,
  PageSizeFrom,
  Section,
} from '../../vm/flow.ts';
import { makeFinding, type PlaceOrigin } from '../../vm/migration-error.ts';
import { discardedState, PageStates } from '../../vm/page-states.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';

/** The most sections and commands that are listed; more are only counted. */
const maxListed = 100_000;
const kindCount = Object.keys(PageKind).length;

/** A section as listed. */
export interface ListedSection extends Section {
  /** How the end of a device section was determined. */
  boundary?: Boundary;
  /** Its source, if that is not the file itself. */
  source?: string;
}

/** Statistics of a block. */
export interface BlockStats {
  block: RamBlock;
  /** `PageKind` of each page's last record. In a mapped-ram file zero pages are not set, and other pages only on request. */
  states: PageStates;
  /** Pages whose bit is set, for a block known by its bitmap. */
  bitmapPages: number | undefined;
}

/** Records of one kind in all passes, and their bytes. */
export interface RecordCount {
  records: number;
  bytes: number;
}

/** Collects statistics of the items of a Flow. */
export class FlowStats {
  version: number | undefined;
  configuration: Configuration | undefined;
  totalBytes = 0;
  pageSizeFrom: PageSizeFrom | undefined;
  readonly blocks: BlockStats[] = [];
  /** Indexed by `PageKind`. */
  readonly records: RecordCount[] = Array.from({ length: kindCount }, () => ({ records: 0, bytes: 0 }));
  /** Passes over the blocks; meaningless with compressed pages, which threads send unordered. */
  passes = 0;
  syncs = 0;
  readonly sections: ListedSection[] = [];
  sectionsOmitted = 0;
  readonly commands: (Omit<Command, 'payload'> & { source?: string })[] = [];
  /** By node and name. */
  readonly dirtyBitmaps = new Map<string, DirtyBitmap>();
  readonly findings = new FindingLog();
  description: Description | undefined;
  /** The EOF byte was read. */
  eof = false;
  /** Offset of the first byte after the stream, if it ended. */
  end: number | undefined;
  #lastBoundary: Boundary | undefined;
  /** The source that is being read, for places. */
  origin: PlaceOrigin;
  readonly #missingChannels = new MissingChannels();
  readonly #file: string;
  readonly #keepBitmaps: boolean;

  /**
   * `origin` is that of the file. `keepBitmaps`: keep the pages of blocks known by their bitmap, not only their number.
   */
  constructor(origin: PlaceOrigin, keepBitmaps = false) {
    this.origin = origin;
    this.#file = origin.source;
    this.#keepBitmaps = keepBitmaps;
  }

  get format(): 'stream' | 'mapped-ram' {
    return this.configuration?.capabilities.includes('mapped-ram') === true ? 'mapped-ram' : 'stream';
  }

  take(item: FlowItem): void {
    this.#missingChannels.take(item);
    switch (item.kind) {
      case 'header':
        this.version = item.version;
        break;
      case 'configuration':
        this.configuration = item.configuration;
        break;
      case 'block':
        this.blocks.push({ block: item.block, states: new PageStates(), bitmapPages: undefined });
        break;
      case 'blocks-end':
        this.totalBytes = item.totalBytes;
        this.pageSizeFrom = item.pageSizeFrom;
        break;
      case 'pages':
        this.#takePages(item);
        break;
      case 'dirty-bitmap':
        this.dirtyBitmaps.set(`${item.bitmap.node}\0${item.bitmap.name}`, item.bitmap);
        break;
      case 'discard':
        this.blocks[item.block.index]?.states.fill(item.firstPage, item.firstPage + item.pages, discardedState);
        break;
      case 'source':
        this.origin = item.origin;
        break;
      case 'bitmap':
        this.#takeBitmap(item);
        break;
      case 'pass-end':
        this.passes++;
        break;
      case 'sync':
        this.syncs++;
        break;
      case 'unread-pages':
        this.#noteUnread(item);
        break;
      case 'device-packet': {
        const message = `the state of ${item.device.name} in multifd packets was skipped`;
        this.findings.add({ severity: 'warning', code: 'unsupported', message, place: item.place });
        break;
      }
      case 'command':
        this.#takeCommand(item.command);
        break;
      case 'device':
        this.#lastBoundary = item.device.boundary;
        break;
      case 'section-end':
        this.#takeSection(item.section);
        break;
      case 'finding':
        this.findings.add(item.finding);
        break;
      case 'description':
        this.description = item.description;
        break;
      case 'eof':
        this.eof = true;
        break;
      case 'end':
        this.#takeEnd(item.offset);
        break;
      case 'section':
    }
  }

  #takePages({ block, batch }: FlowItem & { kind: 'pages' }): void {
    if (this.passes === 0 && block.mapped === undefined) this.passes = 1;
    const { states } = this.blocks[block.index] as BlockStats;
    for (let i = 0; i < batch.count; i++) {
      const kind = batch.kind[i] as number;
      // A bitmap has no records of zero pages, so the counts are the same whether the pages are read or not.
      if (this.#keepBitmaps && kind === PageKind.zero && block.mapped !== undefined) continue;
      const count = this.records[kind] as RecordCount;
      count.records++;
      count.bytes += batch.size[i] as number;
      if (kind !== PageKind.zero || block.mapped === undefined) states.set(batch.page[i] as number, kind);
    }
  }

  /** Valid pages of unknown content. They count as compressed. */
  #noteUnread({ block, pages, method, place }: FlowItem & { kind: 'unread-pages' }): void {
    const { states } = this.blocks[block.index] as BlockStats;
    for (const page of pages) states.set(page, PageKind.compressed);
    const message = `pages compressed with ${method} are not decoded`;
    const where = { ...place, section: 'ram', block: block.idstr };
    this.findings.add(makeFinding('pages-unread', message, where), pages.length);
  }

  #takeEnd(offset: number): void {
    this.end = offset;
    this.#noteLostPages();
    this.#noteIgnored();
  }

  /** At the end, pages that were discarded and not sent again are lost. */
  #noteLostPages(): void {
    for (const stats of this.blocks) {
      const { block, states } = stats;
      const page = states.find(discardedState);
      if (page === undefined) continue;
      this.findings.add(lostPagesFinding(this.origin, block, page), this.countLost(stats));
    }
  }

  /** Whether a block is shared memory that the migration left out, judged by a complete stream. */
  isIgnored({ block, states, bitmapPages }: BlockStats): boolean {
    const mayIgnore = this.configuration?.capabilities.includes('x-ignore-shared') === true;
    if (!mayIgnore || !this.eof || block.mapped !== undefined || bitmapPages !== undefined) return false;
    return states.nextSet(0, pageCount(block)) === pageCount(block);
  }

  /** At the end, the blocks that the migration left out. */
  #noteIgnored(): void {
    for (const block of this.blocks) {
      if (!this.isIgnored(block)) continue;
      this.findings.add(ignoredFinding({ ...this.origin, offset: this.end ?? 0 }, block.block));
    }
  }

  /**
   * Adds the finding for multifd channels that were not given. Call it after the last item with what was read from the
   * channels.
   */
  noteMissingChannels(channels: Pick<FlowChannels, 'list' | 'numbers'>): void {
    const absentOf = (block: RamBlock) => this.#absentPages(this.blocks[block.index]);
    const finding = this.#missingChannels.finding(this.origin, channels, absentOf);
    if (finding !== undefined) this.findings.add(finding);
  }

  /** Pages of a block that were never sent; 0 for a block that the migration left out. */
  #absentPages(stats: BlockStats | undefined): number {
    if (stats === undefined || this.isIgnored(stats)) return 0;
    return this.countPages(stats).absent;
  }

  #takeBitmap({ block, firstPage, bits }: FlowItem & { kind: 'bitmap' }): void {
    const stats = this.blocks[block.index] as BlockStats;
    let pages = 0;
    for (const byte of bits) pages += bitCounts[byte] as number;
    stats.bitmapPages = (stats.bitmapPages ?? 0) + pages;
    const data = this.records[PageKind.data] as RecordCount;
    data.records += pages;
    data.bytes += pages * block.pageSize;
    if (!this.#keepBitmaps || pages === 0) return;
    for (let i = 0; i < bits.length * 8; i++) {
      if (isBitSet(bits, i)) stats.states.set(firstPage + i, PageKind.data);
    }
  }

  #takeSection(section: Section): void {
    if (this.sections.length >= maxListed) {
      this.sectionsOmitted++;
      return;
    }
    const listed: ListedSection = { ...section };
    if (section.kind === 'full' && this.#lastBoundary !== undefined) listed.boundary = this.#lastBoundary;
    if (this.origin.source !== this.#file) listed.source = this.origin.source;
    this.sections.push(listed);
    this.#lastBoundary = undefined;
  }

  #takeCommand({ code, name, offset }: Command): void {
    if (this.commands.length >= maxListed) return;
    const { source } = this.origin;
    this.commands.push({ code, name, offset, ...(source === this.#file ? {} : { source }) });
  }

  /** Records of one kind in all passes. */
  countRecords(kind: PageKind): number {
    return this.records[kind]?.records ?? 0;
  }

  /** Pages of a block that were discarded and not sent again. */
  countLost({ states }: BlockStats): number {
    return states.count(kindCount)[discardedState] ?? 0;
  }

  /** Pages of a block by the kind of their last record. */
  countPages({ block, states, bitmapPages }: BlockStats): PageCounts {
    const pages = pageCount(block);
    if (bitmapPages !== undefined) {
      return { zero: pages - bitmapPages, normal: bitmapPages, xbzrle: 0, compressed: 0, absent: 0 };
    }
    const counts = states.count(kindCount);
    const zero = counts[PageKind.zero] ?? 0;
    const normal = counts[PageKind.data] ?? 0;
    const xbzrle = counts[PageKind.delta] ?? 0;
    const compressed = counts[PageKind.compressed] ?? 0;
    if (block.mapped !== undefined) return { zero: pages - normal, normal, xbzrle, compressed, absent: 0 };
    return { zero, normal, xbzrle, compressed, absent: pages - zero - normal - xbzrle - compressed };
  }
}

/** How many page records there were, by kind. */
export interface PageCounts {
  zero: number;
  normal: number;
  xbzrle: number;
  compressed: number;
  absent: number;
}

const bitCounts = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);
