/** What a running call works with: its cancellation, its progress, and work that it shares with other calls. */
import type { Progress } from '../protocol.ts';

export interface CallContext {
  signal: AbortSignal;
  progress(progress: Progress): void;
  part(part: unknown): void;
}

/** The part of the context that work needs which several calls share. */
export type WorkContext = Pick<CallContext, 'signal' | 'progress'>;

/** Milliseconds between two progress reports. More of them would only cost time. */
const intervalMs = 100;

/** Reports the progress of one step of a call from time to time. */
export class Meter {
  readonly #context: Pick<CallContext, 'progress'>;
  readonly #doing: string;
  readonly #total: number | undefined;
  #done = 0;
  #last = performance.now();

  constructor(context: Pick<CallContext, 'progress'>, doing: string, total: number | undefined) {
    this.#context = context;
    this.#doing = doing;
    this.#total = total;
  }

  /** Counts bytes in addition to those before. */
  add(bytes: number): void {
    this.reach(this.#done + bytes);
  }

  /** Sets the number of bytes done. */
  reach(done: number): void {
    this.#done = done;
    const now = performance.now();
    if (now - this.#last < intervalMs) return;
    this.#last = now;
    this.#context.progress({ doing: this.#doing, done, total: this.#total });
  }
}

/**
 * Work that is done once, although several calls wait for it. It is cancelled when all of them are. After a failure the next
 * call starts it again.
 */
export class SharedWork<Result> {
  readonly #work: (context: WorkContext) => Promise<Result>;
  readonly #waiting = new Set<CallContext>();
  #running: { result: Promise<Result>; controller: AbortController } | undefined;

  constructor(work: (context: WorkContext) => Promise<Result>) {
    this.#work = work;
  }

  /** @throws the error of the work, or the reason of the signal if the call is cancelled */
  async get(context: CallContext): Promise<Result> {
    context.signal.throwIfAborted();
    this.#running ??= this.#begin();
    const running = this.#running;
    this.#waiting.add(context);
    const cancelled = new Promise<never>((_, reject) => {
      context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true });
    });
    try {
      return await Promise.race([running.result, cancelled]);
    } finally {
      this.#waiting.delete(context);
      if (context.signal.aborted && this.#waiting.size === 0) await this.#end(running);
    }
  }

  /** The result, so that it can be closed. Undefined if the work did not start or failed. */
  async finished(): Promise<Result | undefined> {
    return this.#running?.result.catch(() => undefined);
  }

  #begin() {
    const controller = new AbortController();
    const progress: CallContext['progress'] = (report) => {
      for (const each of this.#waiting) each.progress(report);
    };
    const result = this.#work({ signal: controller.signal, progress });
    const running = { result, controller, isDone: false };
    result.then(
      () => {
        running.isDone = true;
      },
      () => {
        if (this.#running === running) this.#running = undefined;
      },
    );
    return running;
  }

  /** Cancels unfinished work that no call waits for, and waits until it has cleaned up. */
  async #end(running: { result: Promise<Result>; controller: AbortController; isDone?: boolean }): Promise<void> {
    if (running.isDone === true) return;
    if (this.#running === running) this.#running = undefined;
    running.controller.abort();
    await running.result.catch(() => {});
  }
}
