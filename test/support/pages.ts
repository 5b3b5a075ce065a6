/** Hand-made batches of pages, and a plain model of their effect. */
import * as fc from 'fast-check';
import type { Kernel } from '../../src/kernel/kernel.ts';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import { PageSlots } from '../../src/kernel/page-slots.ts';
import { pageCount, type RamBlock } from '../../src/vm/ram-block.ts';
import { xbzrleDecode, xbzrleEncode } from '../kernel/oracle.ts';

export interface PlainPage {
  page: number;
  kind: PageKind;
  payload: Uint8Array;
}

const capacity = 256;
const bufferBytes = 2 << 20;

/** Puts pages into the arena as a decoder would leave them there. */
export class Feeder {
  readonly kernel: Kernel;
  readonly pageSlots: PageSlots;
  readonly #batch: PageBatch;
  readonly #buffer: number;

  private constructor(kernel: Kernel) {
    this.kernel = kernel;
    this.pageSlots = new PageSlots(kernel, capacity);
    this.#batch = new PageBatch(kernel, capacity);
    this.#buffer = kernel.allocate(bufferBytes);
  }

  static async make(): Promise<Feeder> {
    return new Feeder(await loadKernel({ arenaBytes: 4 << 20 }));
  }

  /** A batch of these pages. Payloads lie `gap` bytes apart; 0 puts neighbouring pages side by side. */
  batch(pages: readonly PlainPage[], gap: number): PageBatch {
    const batch = this.#batch;
    batch.begin({ source: 'test.bin', coordinate: 'file' });
    let at = this.#buffer;
    this.kernel.bytes.fill(0xcc, at, at + bufferBytes);
    for (const { page, kind, payload } of pages) {
      this.kernel.bytes.set(payload, at);
      batch.push(kind, page, 1000 + batch.count, 8 + payload.length, at, payload.length);
      at += payload.length + gap;
    }
    return batch;
  }
}

/** A block's content and the state of each page, kept in the most obvious way. */
export class BlockModel {
  readonly block: RamBlock;
  readonly content: Uint8Array;
  readonly states: ('absent' | 'zero' | 'data')[];

  constructor(block: RamBlock) {
    this.block = block;
    this.content = new Uint8Array(block.usedLength);
    this.states = new Array(pageCount(block)).fill('absent');
  }

  page(page: number): Uint8Array {
    const { pageSize } = this.block;
    return this.content.subarray(page * pageSize, (page + 1) * pageSize);
  }

  /** Applies a wish and returns the record that carries it. */
  change({ page, as, seed }: PageWish): PlainPage {
    const old = this.page(page);
    const next = old.slice();
    if (as === 'zero') next.fill(0);
    else if (as === 'zeros in full') next.fill(0);
    else if (as === 'data') for (let i = 0; i < next.length; i++) next[i] = (seed + i * 7) & 0xff;
    else for (let i = 0; i < seed % 5; i++) next[(seed * 977 * (i + 1)) % next.length] = (seed + i) & 0xff;
    // Counts have 14 bits, so large pages have deltas only for some changes.
    const encoding = as === 'delta' ? xbzrleEncode(old, next) : undefined;
    const decoded = encoding === undefined ? 'truncated' : xbzrleDecode(encoding, old);
    const delta = typeof decoded === 'object' && Buffer.compare(decoded.page, next) === 0 ? encoding : undefined;
    const record: PlainPage =
      as === 'zero'
        ? { page, kind: PageKind.zero, payload: new Uint8Array() }
        : delta === undefined
          ? { page, kind: PageKind.data, payload: next }
          : { page, kind: PageKind.delta, payload: delta };
    this.states[page] = as === 'zero' || as === 'zeros in full' ? 'zero' : 'data';
    old.set(next);
    return record;
  }

  /** The next run of data pages, as stores report it. */
  nextData(page: number, limit: number): { first: number; end: number } {
    const found = this.states.findIndex((state, i) => i >= page && state === 'data');
    const first = found === -1 ? this.states.length : found;
    let end = first;
    while (end < this.states.length && end < first + limit && this.states[end] === 'data') end++;
    return { first, end };
  }
}

/** What should happen to a page. */
export interface PageWish {
  page: number;
  as: 'zero' | 'zeros in full' | 'data' | 'delta';
  seed: number;
}

export interface Pass {
  wishes: PageWish[];
  gap: number;
}

/** Passes over a block of `pages` pages: each touches some of them, in ascending order. */
export function passes(pages: number): fc.Arbitrary<Pass[]> {
  const as = fc.constantFrom('zero', 'zeros in full', 'data', 'data', 'delta', 'delta');
  const wish = fc.record({ page: fc.nat(pages - 1), as, seed: fc.integer({ min: 1, max: 250 }) });
  // Stores treat runs of neighbours specially, so they must be common.
  const run = fc
    .record({
      from: fc.nat(pages - 1),
      length: fc.integer({ min: 1, max: 12 }),
      as,
      seed: fc.integer({ min: 1, max: 200 }),
    })
    .map(({ from, length, as: kind, seed }) =>
      Array.from({ length: Math.min(length, pages - from) }, (_, i) => ({ page: from + i, as: kind, seed: seed + i })),
    );
  const wishes = fc
    .array(
      fc.oneof(
        wish.map((one) => [one]),
        run,
      ),
      { minLength: 1, maxLength: 8 },
    )
    .map((lists) => [...new Map(lists.flat().map((one) => [one.page, one])).values()].sort((a, b) => a.page - b.page));
  return fc.array(fc.record({ wishes, gap: fc.constantFrom(0, 0, 1, 64) }), { minLength: 1, maxLength: 5 });
}
