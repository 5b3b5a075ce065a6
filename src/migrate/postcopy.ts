/**
 * The postcopy loop of a source: the guest runs at the destination, and pages follow it. Requested pages come first, and then
 * those behind them.
 *
 *     request? ──yes──→ its pages, at once ──→ the background goes on behind them
 *        │no
 *     budget of the window (max-postcopy-bandwidth) left? ──no──→ sleep until its end, or until a request
 *        │yes
 *     PART: background pages, in the order of `push-order.ts` ──→ no page left: done
 *
 * With a preempt channel requested pages go through it, beside the background.
 */
import type { Clock } from '../io/clock.ts';
import { partMs } from '../schema/precopy-rules.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { PostcopyPasses, RangeSender } from '../write/postcopy-passes.ts';
import type { PageRequest, PageRequests } from './page-requests.ts';
import type { PushOrder } from './push-order.ts';
import { RateWindow } from './rate-window.ts';
import { UrgentPages } from './urgent-pages.ts';

/** What the loop works with. */
export interface PostcopyOptions {
  /** In which order the background goes. */
  order: PushOrder;
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
  /** The background waits while this is true. Asked after each {@link Postcopy.wake}. Default: it does not wait. */
  isHeld?: (() => boolean) | undefined;
  /** Answers requests on the preempt channel until the signal, because pages were left out. Default: until no page is left. */
  servesOn?: boolean | undefined;
  /** Called when a request was answered. */
  onServed?: ((request: PageRequest) => void) | undefined;
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

  /** The background need not wait any more. */
  release(): void {
    this.#window.wake();
  }

  /** Sends every page that is left. @throws the reason of the signal, and what sending throws */
  async run(): Promise<void> {
    const { signal, main } = this.#options;
    const urgent = this.#serveUrgent();
    this.#window.begin();
    while (!this.#isDone) {
      signal.throwIfAborted();
      await this.#sendRequested();
      if (this.#mustRest) await this.#rest();
      else await this.#sendPart();
      if (this.#window.isOver) this.#window.begin();
    }
    await main.endPart();
    await (this.#options.servesOn === true ? urgent?.settle() : urgent?.end());
    signal.throwIfAborted();
  }

  get #mustRest(): boolean {
    return this.#window.isSpent || this.#options.isHeld?.() === true;
  }

  /** Sends requested pages through the preempt channel, if there is one, until no page is left. */
  #serveUrgent(): UrgentPages | undefined {
    const { preempt, requests, signal, fail, order } = this.#options;
    if (preempt === undefined) return undefined;
    const onServed = (request: PageRequest, pages: number) => {
      this.#options.onServed?.(request);
      order.asked(request, true);
      if (pages === 0) return;
      this.#hasServed = this.#isResting;
      this.#window.wake();
    };
    return new UrgentPages(this.#passes, { sender: preempt, requests, signal, onServed, fail });
  }

  /** Sends what was asked for through the main stream. */
  async #sendRequested(): Promise<void> {
    const { requests, preempt, main, order, onServed } = this.#options;
    if (preempt !== undefined) return;
    const answered: PageRequest[] = [];
    let sent = 0;
    for (let request = requests.next(); request !== undefined; request = requests.next()) {
      sent += await this.#passes.send(request.block, request.first, request.end);
      order.asked(request, false);
      answered.push(request);
    }
    if (sent > 0) {
      await main.endPart();
      await main.flush();
    }
    for (const each of answered) onServed?.(each);
  }

  async #sendPart(): Promise<void> {
    const { clock, main } = this.#options;
    const start = clock.now();
    do {
      if (!(await this.#sendStep())) {
        this.#isDone = true;
        return;
      }
      await main.flush();
    } while (!this.#window.isSpent && !this.#isAsked && clock.now() < start + partMs);
    await main.endPart();
  }

  /** The background must not go on before what was asked for. */
  get #isAsked(): boolean {
    const { requests, preempt } = this.#options;
    return preempt === undefined && requests.isWaiting;
  }

  /** Sends some pages of the background. Returns false if none is left. */
  async #sendStep(): Promise<boolean> {
    const { order } = this.#options;
    for (let left = stepPages; left > 0; ) {
      const pages = left;
      const range = await order.next((block) => this.#mostPages(block, pages));
      if (range === undefined) return false;
      await this.#passes.send(range.block, range.first, range.end);
      left -= range.end - range.first;
      if (this.#window.isSpent || this.#isAsked) break;
    }
    return true;
  }

  /** The most pages to send at a time: whole host pages. */
  #mostPages({ pageSize, hostPageSize = pageSize }: RamBlock, pages: number): number {
    const hostPages = hostPageSize / pageSize;
    return Math.ceil(this.#window.mostPages(pages, pageSize) / hostPages) * hostPages;
  }

  /** Sleeps until the window ends, until pages are asked for, or until the background may go on. */
  async #rest(): Promise<void> {
    const { main } = this.#options;
    await main.flush();
    if (this.#isAsked || !this.#mustRest) return;
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
