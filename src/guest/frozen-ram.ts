/**
 * RAM as it was at one moment, while the guest writes on: what a background snapshot saves.
 *
 *     guest writes a page ──→ was it read or kept? ──no──→ its old content is kept ──→ the page is written
 *
 *     kept   | memory, up to a limit | scratch file, at the page's own place |
 *
 * Whoever reads takes what was kept, and otherwise the guest's present page. A page that was read once is no longer kept.
 */
import type { ByteStore } from '../io/byte-source.ts';
import { MemoryFile } from '../io/memory-file.ts';
import type { GuestBlock } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import type { PageRun } from '../vm/page-states.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { PageState, RamReader } from '../vm/ram-store.ts';

/** Where old pages are kept. */
export interface FreezeOptions {
  /** Bytes of pages that are kept in memory. Default 64 MiB. */
  memoryBytes?: number;
  /** Makes the scratch file for those that do not fit. Default: memory. */
  makeScratch?: (() => ByteStore | Promise<ByteStore>) | undefined;
}

const defaultMemoryBytes = 64 << 20;

/** What is known of a block. */
interface FrozenBlock {
  /** Pages that need not be kept any more: they were kept, or read. */
  readonly settled: PageBitmap;
  /** Settled pages that had no data. */
  readonly zero: PageBitmap;
  readonly absent: PageBitmap;
  /** Kept pages, in memory and in the scratch file. */
  readonly inMemory: Map<number, Uint8Array>;
  readonly inScratch: PageBitmap;
}

/** RAM whose writers call {@link FrozenRam.keep} first. */
type LiveRam = Required<Pick<RamReader, 'isAbsent' | 'willRead'>> &
  RamReader & { readonly blocks: readonly GuestBlock[] };

/** Each page can be read once. */
export class FrozenRam implements RamReader {
  readonly blocks: readonly GuestBlock[];
  readonly #live: LiveRam;
  readonly #memoryBytes: number;
  readonly #makeScratch: NonNullable<FreezeOptions['makeScratch']>;
  readonly #frozen: readonly FrozenBlock[];
  readonly #onClose: (frozen: FrozenRam) => void;
  #scratch: ByteStore | undefined;
  #keptBytes = 0;
  /** Why old pages could not be kept. */
  #failure: { error: unknown } | undefined;
  #keeping: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** Use `GuestRam.freeze`. */
  constructor(live: LiveRam, options: FreezeOptions, onClose: (frozen: FrozenRam) => void) {
    const { memoryBytes = defaultMemoryBytes, makeScratch = () => new MemoryFile('old pages') } = options;
    this.blocks = live.blocks;
    this.#live = live;
    this.#memoryBytes = memoryBytes;
    this.#makeScratch = makeScratch;
    this.#onClose = onClose;
    const bitmap = (block: RamBlock) => new PageBitmap(block);
    this.#frozen = live.blocks.map((block) => ({
      ...{ settled: bitmap(block), zero: bitmap(block), absent: bitmap(block), inScratch: bitmap(block) },
      inMemory: new Map(),
    }));
  }

  /** Bytes of old pages that memory holds at present. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** Keeps pages before the guest writes them. Never rejects: what could not be kept cannot be read. */
  keep(block: GuestBlock, page: number, count: number): Promise<void> {
    this.#keeping = this.#keeping.then(async () => {
      if (this.#isClosed || this.#failure !== undefined) return;
      try {
        const { settled } = this.#of(block);
        for (let at = page; at < page + count; at++) if (!settled.has(at)) await this.#keepPage(block, at);
      } catch (error) {
        this.#failure = { error };
      }
    });
    return this.#keeping;
  }

  async #keepPage(block: GuestBlock, page: number): Promise<void> {
    const { settled, zero, absent, inMemory, inScratch } = this.#of(block);
    const { pageSize, ramAddress } = block;
    const state = await this.#live.state(block, page);
    if (state !== 'data') (this.#live.isAbsent(block, page) ? absent : zero).set(page);
    else {
      const bytes = new Uint8Array(pageSize);
      await this.#live.read(block, page, bytes);
      // It may have been read in the meantime.
      if (settled.has(page)) return;
      if (this.#keptBytes + pageSize <= this.#memoryBytes) {
        inMemory.set(page, bytes);
        this.#keptBytes += pageSize;
      } else {
        this.#scratch ??= await this.#makeScratch();
        await this.#scratch.write(bytes, ramAddress + page * pageSize);
        inScratch.set(page);
      }
    }
    settled.set(page);
  }

  state(block: RamBlock, page: number): PageState | Promise<PageState> {
    const { settled, zero, absent } = this.#of(block);
    if (!settled.has(page)) return this.#live.state(block, page);
    return absent.has(page) ? 'absent' : zero.has(page) ? 'zero' : 'data';
  }

  isAbsent(block: RamBlock, page: number): boolean {
    return this.#of(block).absent.has(page) || this.#live.isAbsent(block, page);
  }

  /** May find pages that were zero, and have been written since. */
  nextData(block: RamBlock, page: number, limit: number): Promise<PageRun> {
    return this.#live.nextData(block, page, limit);
  }

  willRead(block: RamBlock, first: number, end: number): void {
    this.#live.willRead(block, first, end);
  }

  /** Reads pages that were not read before. @throws what went wrong when old pages were kept */
  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const { pageSize } = block;
    await this.#live.read(block, page, target);
    // A page that is not settled now was not written: keeping it would have come first.
    for (let at = 0; at * pageSize < target.length; at++) {
      await this.#restore(
        this.blocks[block.index] as GuestBlock,
        page + at,
        target.subarray(at * pageSize, (at + 1) * pageSize),
      );
    }
  }

  /** Replaces what was read by what was kept, if it was. */
  async #restore(block: GuestBlock, page: number, target: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const { settled, zero, absent, inMemory, inScratch } = this.#of(block);
    const { pageSize, ramAddress } = block;
    if (!settled.has(page)) return settled.set(page);
    const kept = inMemory.get(page);
    if (kept !== undefined) {
      target.set(kept);
      inMemory.delete(page);
      this.#keptBytes -= pageSize;
    } else if (inScratch.has(page)) await this.#scratch?.read(target, ramAddress + page * pageSize);
    else if (zero.has(page) || absent.has(page)) target.fill(0);
    else throw new RangeError(`page ${page} of "${block.idstr}" was read before`);
  }

  /** Nothing is kept any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#onClose(this);
    await this.#keeping;
    await this.#scratch?.close();
    for (const { inMemory } of this.#frozen) inMemory.clear();
    this.#keptBytes = 0;
  }

  #of({ index }: RamBlock): FrozenBlock {
    return this.#frozen[index] as FrozenBlock;
  }
}
