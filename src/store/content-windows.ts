/**
 * The content of a RAM block in address order, as overlapping windows in an arena. Anything up to a given length is
 * whole in one of the windows. While one window is being examined, the next is being read. If nothing can be found in
 * zeros, holes are skipped except for their edges.
 *
 *     block    |ddddd.............................dddddddd|      d data, . a hole
 *     windows  |--------|                     |-----------|
 *                  |-------|  overlaps, if one window would be too long
 */
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

/** A hole up to this fraction of the bytes read at a time is not worth skipping. */
const smallHole = 1 / 16;

export interface WindowNeeds {
  /** The most bytes from a position on that matter. */
  reach: number;
  /** The most bytes before a position that matter. */
  behind: number;
  /** Nothing begins in zeros if there are only zeros within `behind` and `reach`. */
  skipZeros: boolean;
  /** Bytes read at a time: at least a page. */
  bodyBytes: number;
}

export interface ContentWindow {
  /** Arena address of the window's bytes. */
  address: number;
  length: number;
  /** Offset of the window in the block. */
  offset: number;
  /** The positions in the block that this window reports. Each position is in one window only. */
  from: number;
  until: number;
}

export class ContentWindows {
  readonly #kernel: Kernel;
  readonly #needs: WindowNeeds;
  /** Arena addresses of the two bodies. Before each is space for the tail of the other. */
  readonly #bodies: readonly [number, number];

  /** Allocates two buffers in the arena, see {@link windowBytes}. */
  constructor(kernel: Kernel, needs: WindowNeeds) {
    this.#kernel = kernel;
    this.#needs = needs;
    const body = () => kernel.allocate(tailBytes(needs) + needs.bodyBytes) + tailBytes(needs);
    this.#bodies = [body(), body()];
  }

  /** Yields the windows of a block. Each is valid until the next is requested. */
  async *read(ram: RamReader, block: RamBlock): AsyncGenerator<ContentWindow, void> {
    const { reach, behind } = this.#needs;
    const spans = this.#plan(ram, block);
    ram.willRead?.(block, 0, pageCount(block));
    let current = 0;
    let pending = this.#start(ram, block, spans, current);
    /** Start of the previous window, the end of what it reported, and its end, in the block and in the arena. */
    let offset = 0;
    let told = 0;
    let end = 0;
    let endAddress = 0;
    try {
      for (;;) {
        const span = await pending;
        if (span === undefined) return;
        const body = this.#bodies[current] as number;
        const continues = span.from === end && end > 0;
        // A window that does not continue the previous one begins far enough into zeros that nothing is missed.
        if (!continues) told = span.from === 0 ? 0 : span.from + behind;
        offset = continues ? Math.max(offset, told - behind) : span.from;
        const tail = continues ? end - offset : 0;
        this.#kernel.bytes.copyWithin(body - tail, endAddress - tail, endAddress);
        const until = span.to === block.usedLength ? span.to : Math.max(told, span.to - reach + 1);
        end = span.to;
        endAddress = body + (span.to - span.from);
        current = 1 - current;
        pending = this.#start(ram, block, spans, current);
        yield { address: body - tail, length: tail + span.to - span.from, offset, from: told, until };
        told = until;
      }
    } finally {
      // The source may be closed afterwards.
      await pending.catch(() => {});
    }
  }

  /** Starts reading the next span into a body. */
  #start(ram: RamReader, block: RamBlock, spans: AsyncGenerator<Span, void>, body: number): Promise<Span | undefined> {
    const read = async () => {
      const { value: span } = await spans.next();
      if (!span) return undefined;
      const address = this.#bodies[body] as number;
      const target = this.#kernel.bytes.subarray(address, address + span.to - span.from);
      await ram.read(block, span.from / block.pageSize, target);
      return span;
    };
    const pending = read();
    // The failure is reported when the bytes are used, not as an unhandled rejection.
    pending.catch(() => {});
    return pending;
  }

  /** Plans the reads: whole pages in order, at most one body at a time. */
  async *#plan(ram: RamReader, block: RamBlock): AsyncGenerator<Span, void> {
    const { usedLength, pageSize } = block;
    const step = stepBytes(this.#needs, block);
    const padding = Math.ceil((this.#needs.reach + this.#needs.behind) / pageSize) * pageSize;
    let from = 0;
    let to = 0;
    for await (const run of this.#runs(ram, block)) {
      const begin = Math.max(0, run.from - padding);
      if (begin > to + step * smallHole) {
        if (to > from) yield { from, to };
        from = begin;
      }
      to = Math.min(usedLength, run.to + padding);
      for (; to - from > step; from += step) yield { from, to: from + step };
    }
    if (to > from) yield { from, to };
  }

  /** The runs that must be read. Both ends of the block are part of them, because the end of a block is not a zero. */
  async *#runs(ram: RamReader, block: RamBlock): AsyncGenerator<Span, void> {
    const { usedLength, pageSize } = block;
    const pages = pageCount(block);
    const step = stepBytes(this.#needs, block);
    if (!this.#needs.skipZeros) {
      for (let from = 0; from < usedLength; from += step) yield { from, to: Math.min(usedLength, from + step) };
      return;
    }
    yield { from: 0, to: 0 };
    for (let page = 0; page < pages; ) {
      const { first, end } = await ram.nextData(block, page, step / pageSize);
      if (end > first) yield { from: first * pageSize, to: end * pageSize };
      page = end;
    }
    yield { from: usedLength, to: usedLength };
  }
}

interface Span {
  from: number;
  to: number;
}

/** Whole pages read at a time, in bytes. */
function stepBytes({ bodyBytes }: WindowNeeds, { pageSize }: RamBlock): number {
  const step = bodyBytes - (bodyBytes % pageSize);
  if (step > 0) return step;
  throw new RangeError(`expected to read at least a page of ${pageSize} bytes at a time, got ${bodyBytes}`);
}

/** The most bytes that a window takes over from the previous one. */
function tailBytes({ reach, behind }: WindowNeeds): number {
  return reach + behind;
}

/** Bytes of arena that the windows need. */
export function windowBytes(needs: WindowNeeds): number {
  return 2 * arenaBytes(tailBytes(needs) + needs.bodyBytes);
}
