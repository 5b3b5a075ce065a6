/**
 * In which order the background of postcopy sends the pages that nobody has asked for.
 *
 *     InTurn        ...|sent|asked for| next → ...        a running guest: on behind the latest request, round and round
 *
 *     ServedOrder   recorded ──→ near what was asked for, the latest first ──→ all the rest ──→ zero pages, if they are wanted
 *                                |16 before|request|64 behind|
 */
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { PostcopyPasses } from '../write/postcopy-passes.ts';

/** Pages `[first, end)` of a block. */
export interface PageRange {
  block: RamBlock;
  first: number;
  end: number;
}

export interface PushOrder {
  /** These pages were asked for, and sent. `isBeside`: through another channel than the background. */
  asked(range: PageRange, isBeside: boolean): void;
  /** What to send next: whole host pages, at most `most` of a block. Undefined: nothing is left. */
  next(most: (block: RamBlock) => number): Promise<PageRange | undefined>;
}

/** All dirty pages, block by block and round and round. Goes on behind what was asked for. */
export class InTurn implements PushOrder {
  readonly #pages: Pick<PostcopyPasses, 'next'>;
  readonly #blocks: readonly RamBlock[];
  #cursor = { block: 0, page: 0 };

  constructor(pages: Pick<PostcopyPasses, 'next'>, blocks: readonly RamBlock[]) {
    this.#pages = pages;
    this.#blocks = blocks;
  }

  asked({ block, end }: PageRange, isBeside: boolean): void {
    if (!isBeside) this.#cursor = { block: this.#blocks.indexOf(block), page: end };
  }

  async next(most: (block: RamBlock) => number): Promise<PageRange | undefined> {
    const blocks = this.#blocks;
    for (let tries = 0; tries <= blocks.length; tries++) {
      const block = blocks[this.#cursor.block];
      if (block === undefined) return undefined;
      const first = this.#pages.next(block, this.#cursor.page);
      if (first !== undefined) {
        const end = Math.min(first + most(block), pageCount(block));
        this.#cursor.page = end;
        return { block, first, end };
      }
      this.#cursor = { block: (this.#cursor.block + 1) % blocks.length, page: 0 };
    }
    return undefined;
  }
}

/** Pages around a request that are likely to be asked for next, and how many requests are remembered. */
const [pagesBefore, pagesBehind, mostSpans] = [16, 64, 512];

/** Pages with data: what was recorded first, then the neighbours of what was asked for, then the rest; and perhaps all others. */
export class ServedOrder implements PushOrder {
  readonly #pages: Pick<PostcopyPasses, 'nextData' | 'nextDirty'>;
  readonly #blocks: readonly RamBlock[];
  readonly #pushesZeros: boolean;
  /** All pages with data were found. */
  #isAtZeros = false;
  /** Where to look for pages: each span shrinks from its beginning. */
  readonly #recorded: PageRange[];
  #recordedAt = 0;
  readonly #near: PageRange[] = [];
  #rest: PageRange[];
  #restAt = 0;

  constructor(
    pages: Pick<PostcopyPasses, 'nextData' | 'nextDirty'>,
    blocks: readonly RamBlock[],
    { recorded = [], pushesZeros = false }: { recorded?: readonly PageRange[]; pushesZeros?: boolean } = {},
  ) {
    this.#pages = pages;
    this.#blocks = blocks;
    this.#pushesZeros = pushesZeros;
    this.#recorded = recorded.map((range) => ({ ...range }));
    this.#rest = wholeBlocks(blocks);
  }

  asked({ block, first, end }: PageRange): void {
    const before = { block, first: Math.max(0, first - pagesBefore), end: first };
    this.#near.push(before, { block, first: end, end: Math.min(end + pagesBehind, pageCount(block)) });
    if (this.#near.length > mostSpans) this.#near.splice(0, this.#near.length - mostSpans);
  }

  async next(most: (block: RamBlock) => number): Promise<PageRange | undefined> {
    for (let span = this.#span(); span !== undefined; span = this.#span()) {
      const { block, first, end } = span;
      const found = this.#isAtZeros
        ? this.#pages.nextDirty(block, first, end)
        : await this.#pages.nextData(block, first, end);
      if (found === undefined) {
        span.first = span.end;
        continue;
      }
      const stop = Math.min(found.end, found.first + most(block));
      span.first = Math.min(stop, span.end);
      return { block, first: found.first, end: stop };
    }
    return undefined;
  }

  /** The first span that is not empty. */
  #span(): PageRange | undefined {
    while (isEmpty(this.#recorded[this.#recordedAt])) this.#recordedAt++;
    while (isEmpty(this.#near.at(-1))) this.#near.pop();
    while (isEmpty(this.#rest[this.#restAt])) this.#restAt++;
    const span = this.#recorded[this.#recordedAt] ?? this.#near.at(-1) ?? this.#rest[this.#restAt];
    if (span !== undefined || this.#isAtZeros || !this.#pushesZeros) return span;
    this.#isAtZeros = true;
    this.#rest = wholeBlocks(this.#blocks);
    this.#restAt = 0;
    return this.#span();
  }
}

const wholeBlocks = (blocks: readonly RamBlock[]): PageRange[] =>
  blocks.map((block) => ({ block, first: 0, end: pageCount(block) }));

const isEmpty = (span: PageRange | undefined): boolean => span !== undefined && span.first >= span.end;
