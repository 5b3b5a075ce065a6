/**
 * The postcopy loop of a source: the guest runs at the destination, and pages follow it. Requested pages come first, and then
 * those behind them.
 *
 *     request? ──yes──→ its pages, at once ──→ the background goes on behind them
 *        │no
 *     budget of the window (max-postcopy-bandwidth) left? ──no──→ sleep until its end, or until a request
 *        │yes
 *     PART: background pages, block by block, round and round ──→ no page left: done
 *
 * With a preempt channel requested pages go through it, beside the background.
 */
import type { Clock } from '../io/clock.ts';
import { partMs } from '../schema/precopy-rules.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { PostcopyPasses, RangeSender } from '../write/postcopy-passes.ts';
import type { PageRequests } from './page-requests.ts';
import { RateWindow } from './rate-window.ts';
import { UrgentPages } from './urgent-pages.ts';

/** What the loop works with. */
export interface PostcopyOptions {
  /** The blocks whose pages are sent. */
  blocks: readonly RamBlock[];
  requests: PageRequests;
  /** The main stream. */
  main: {
    /** Lets everything leave that was made. */
    flush: () => Promise<void>;
    beginPart: () => Promise<void>;
    endPart: () => Promise<void>;
  };
  /** Sends requested pages through a channel of their own. */
  preempt: RangeSender | undefined;
  /** Bytes per second of the background; 0: no limit. Read anew for each decision. */
  rate: () => number;
  /** Bytes made so far, for all lines together. */
  made: () => number;
  clock: Clock;
  /** Ends the loop. */
  signal: AbortSignal;
  /** Aborts the signal, because the preempt channel failed. */
  fail: (error: unknown) => void;
}

/** Background pages between two looks at the requests. Those that are under way hold up a requested page. */
const stepPages = 64;

export class Postcopy {
  readonly #passes: PostcopyPasses;
  readonly #options: PostcopyOptions;
  readonly #window: RateWindow;
  /** Where the background goes on. */
  #cursor = { block: 0, page: 0 };
  /** Requested pages went through the preempt channel while the main stream slept. */
  #hasServed = false;
  #isResting = false;
  /** All pages have been sent. */
  #isDone = false;

  constructor(passes: PostcopyPasses, options: PostcopyOptions) {
    this.#passes = passes;
    this.#options = options;
    const { clock, made, rate, signal } = options;
    this.#window = new RateWindow({ clock, made, rate, signal });
  }

  /** A request came. */
  wake(): void {
    if (this.#options.preempt === undefined) this.#window.wake();
  }

  /** Sends every page that is left. @throws the reason of the signal, and what sending throws */
  async run(): Promise<void> {
    const { signal, main } = this.#options;
    const urgent = this.#serveUrgent();
    this.#window.begin();
    while (!this.#isDone) {
      signal.throwIfAborted();
      await this.#sendRequested();
      if (this.#window.isSpent) await this.#rest();
      else await this.#sendPart();
      if (this.#window.isOver) this.#window.begin();
    }
    await main.endPart();
    await urgent?.end();
    signal.throwIfAborted();
  }

  /** Sends requested pages through the preempt channel, if there is one, until no page is left. */
  #serveUrgent(): UrgentPages | undefined {
    const { preempt, requests, signal, fail } = this.#options;
    if (preempt === undefined) return undefined;
    const onServed = () => {
      this.#hasServed = this.#isResting;
      this.#window.wake();
    };
    return new UrgentPages(this.#passes, { sender: preempt, requests, signal, onServed, fail });
  }

  /** Sends what was asked for through the main stream. */
  async #sendRequested(): Promise<void> {
    const { requests, preempt, main, blocks } = this.#options;
    if (preempt !== undefined) return;
    let sent = 0;
    for (let request = requests.next(); request !== undefined; request = requests.next()) {
      const { block, first, end } = request;
      sent += await this.#passes.send(block, first, end);
      this.#cursor = { block: blocks.indexOf(block), page: end };
    }
    if (sent === 0) return;
    await main.endPart();
    await main.flush();
  }

  async #sendPart(): Promise<void> {
    const { clock, requests, preempt, main } = this.#options;
    const isAsked = () => preempt === undefined && requests.isWaiting;
    const start = clock.now();
    do {
      if (!(await this.#sendStep())) {
        this.#isDone = true;
        return;
      }
      await main.flush();
    } while (!this.#window.isSpent && !isAsked() && clock.now() < start + partMs);
    await main.endPart();
  }

  /** Sends some pages of the background. Returns false if none is left. */
  async #sendStep(): Promise<boolean> {
    const { blocks } = this.#options;
    for (let tries = 0; tries <= blocks.length; tries++) {
      const block = blocks[this.#cursor.block];
      if (block === undefined) return false;
      const first = this.#passes.next(block, this.#cursor.page);
      if (first !== undefined) {
        const { pageSize, hostPageSize = pageSize } = block;
        const hostPages = hostPageSize / pageSize;
        const pages = Math.ceil(this.#window.mostPages(stepPages, pageSize) / hostPages) * hostPages;
        const end = Math.min(first + pages, pageCount(block));
        await this.#passes.send(block, first, end);
        this.#cursor.page = end;
        return true;
      }
      this.#cursor = { block: (this.#cursor.block + 1) % blocks.length, page: 0 };
    }
    return false;
  }

  /** Sleeps until the window ends, or until pages are asked for. */
  async #rest(): Promise<void> {
    const { main } = this.#options;
    await main.flush();
    this.#isResting = true;
    await this.#window.sleep();
    this.#isResting = false;
    if (!this.#hasServed) return;
    this.#hasServed = false;
    // A destination's small requests wait for an acknowledgement, which an idle line delays: this one carries it.
    await main.beginPart();
    await main.endPart();
    await main.flush();
  }
}
