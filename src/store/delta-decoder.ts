/** Decodes XBZRLE deltas onto pages outside the arena. It has a small kernel of its own. */
import { arenaBytes } from '../kernel/arena-budget.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';

/** The largest page, and the largest delta. */
const maxPage = 64 << 10;

export class DeltaDecoder {
  readonly #kernel: Kernel;
  readonly #page: number;
  readonly #delta: number;

  private constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#page = kernel.allocate(maxPage);
    this.#delta = kernel.allocate(maxPage);
  }

  static async make(): Promise<DeltaDecoder> {
    return new DeltaDecoder(await loadKernelFor([arenaBytes(maxPage, maxPage)]));
  }

  /** Applies a delta to a page. Returns what is wrong with the delta, if it does not decode. */
  decode(delta: Uint8Array, page: Uint8Array): string | undefined {
    const { bytes } = this.#kernel;
    bytes.set(page, this.#page);
    bytes.set(delta, this.#delta);
    const result = this.#kernel.xbzrleDecode(this.#delta, delta.length, this.#page, page.length);
    const fault = this.#kernel.xbzrleFault(result);
    if (fault === undefined) page.set(bytes.subarray(this.#page, this.#page + page.length));
    return fault;
  }
}
