/** The pages that a destination in postcopy waits for, in the order in which it asked. */
import type { RamBlock } from '../vm/ram-block.ts';
import type { ReturnMessage } from '../wire/return-path.ts';
import type { PageRange } from './push-order.ts';

/** A request. */
export interface PageRequest extends PageRange {
  /** When it came, in ms of the clock that was given. */
  at?: number;
}

export class PageRequests {
  /** Requests so far. */
  count = 0;
  readonly #blocks: readonly RamBlock[];
  readonly #now: () => number;
  readonly #onRequest: ((request: PageRequest) => void) | undefined;
  #queue: PageRequest[] = [];
  #wake: () => void = () => {};

  /** @param onRequest is told of each request when it comes. `now` is the time that it keeps. */
  constructor(blocks: readonly RamBlock[], onRequest?: (request: PageRequest) => void, now: () => number = () => 0) {
    this.#blocks = blocks;
    this.#onRequest = onRequest;
    this.#now = now;
  }

  /** Takes REQ_PAGES or REQ_PAGES_ID. Returns false for pages that do not exist. */
  take({ block: idstr, start = 0, bytes = 0 }: ReturnMessage): boolean {
    const block = this.#blocks.find((each) => each.idstr === idstr);
    if (block === undefined || start % block.pageSize !== 0 || start + bytes > block.usedLength) return false;
    this.count++;
    const pages = { first: start / block.pageSize, end: Math.ceil((start + bytes) / block.pageSize) };
    const request = { block, ...pages, at: this.#now() };
    this.#queue.push(request);
    this.#onRequest?.(request);
    this.#wake();
    return true;
  }

  /** Whether a request waits. */
  get isWaiting(): boolean {
    return this.#queue.length > 0;
  }

  /** The oldest request. Undefined: none waits. */
  next(): PageRequest | undefined {
    return this.#queue.shift();
  }

  /** Forgets what was asked for over a line that broke. The destination asks again. */
  clear(): void {
    this.#queue = [];
  }

  /** Ends a {@link wait} without a request. */
  stir(): void {
    this.#wake();
  }

  /** Resolves when a request waits, when the signal is aborted, or when it is stirred. */
  async wait(signal: AbortSignal): Promise<void> {
    if (this.isWaiting || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        signal.removeEventListener('abort', end);
        resolve();
      };
      this.#wake = end;
      signal.addEventListener('abort', end, { once: true });
    });
  }
}
