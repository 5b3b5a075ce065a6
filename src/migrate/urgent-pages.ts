/**
 * Requested pages of postcopy on their way through the preempt channel, one request after another, while the background goes
 * through the main stream.
 */
import type { PostcopyPasses, RangeSender } from '../write/postcopy-passes.ts';
import type { PageRequest, PageRequests } from './page-requests.ts';

export interface UrgentPagesOptions {
  sender: RangeSender;
  requests: PageRequests;
  /** Ends the sending. */
  signal: AbortSignal;
  /** Called when a request has been answered, with the pages that were sent for it. */
  onServed: (request: PageRequest, pages: number) => void;
  fail: (error: unknown) => void;
}

export class UrgentPages {
  readonly #passes: PostcopyPasses;
  readonly #options: UrgentPagesOptions;
  readonly #serving: Promise<void>;
  #isEnding = false;
  #isBusy = false;
  #rest: () => void = () => {};

  /** Begins to send. */
  constructor(passes: PostcopyPasses, options: UrgentPagesOptions) {
    this.#passes = passes;
    this.#options = options;
    this.#serving = this.#serve().catch(options.fail);
  }

  /** Ends the sending. Resolves when what was asked for has left, or when the channel has failed. */
  async end(): Promise<void> {
    this.#isEnding = true;
    this.#options.requests.stir();
    await this.#serving;
  }

  /** Resolves when what was asked for has left. Goes on with what is asked for later. */
  async settle(): Promise<void> {
    if (!this.#isBusy && !this.#options.requests.isWaiting) return;
    await Promise.race([
      this.#serving,
      new Promise<void>((resolve) => {
        this.#rest = resolve;
      }),
    ]);
  }

  async #serve(): Promise<void> {
    const { sender, requests, signal, onServed } = this.#options;
    while (!signal.aborted) {
      const request = requests.next();
      this.#isBusy = request !== undefined;
      if (request === undefined) {
        this.#rest();
        if (this.#isEnding) return;
        await requests.wait(signal);
      } else {
        onServed(request, await this.#passes.send(request.block, request.first, request.end, sender));
      }
    }
  }
}
