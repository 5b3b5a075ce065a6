/** What a call has to do with while it runs: whether it is still wanted, and who is told how far it has come. */
import type { Progress } from '../protocol.ts';

export interface CallContext {
  signal: AbortSignal;
  progress(progress: Progress): void;
  part(part: unknown): void;
}

/** People see no more than this many ms. */
const intervalMs = 100;

/** Tells the progress of one step of a call, now and then. Bytes are added up, unless `reached` says where it stands. */
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

  add(bytes: number): void {
    this.reach(this.#done + bytes);
  }

  reach(done: number): void {
    this.#done = done;
    const now = performance.now();
    if (now - this.#last < intervalMs) return;
    this.#last = now;
    this.#context.progress({ doing: this.#doing, done, total: this.#total });
  }
}

/**
 * Work that several calls wait for, and that is done once. It ends when none of them wants it any more; if it fails, the next
 * call begins it anew.
 */
export class SharedWork<Result> {
  readonly #work: (context: Pick<CallContext, 'signal' | 'progress'>) => Promise<Result>;
  readonly #waiting = new Set<CallContext>();
  #running: { result: Promise<Result>; controller: AbortController } | undefined;

  constructor(work: (context: Pick<CallContext, 'signal' | 'progress'>) => Promise<Result>) {
    this.#work = work;
  }

  /** @throws what the work throws; the signal's reason, if the call is cancelled before */
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

  /** What there is to close, if the work was begun. */
  async finished(): Promise<Result | undefined> {
    return this.#running?.result.catch(() => undefined);
  }

  #begin() {
    const controller = new AbortController();
    const progress: CallContext['progress'] = (told) => {
      for (const each of this.#waiting) each.progress(told);
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

  /** Nobody waits: what is not done is not wanted, and has cleaned up when this is done. */
  async #end(running: { result: Promise<Result>; controller: AbortController; isDone?: boolean }): Promise<void> {
    if (running.isDone === true) return;
    if (this.#running === running) this.#running = undefined;
    running.controller.abort();
    await running.result.catch(() => {});
  }
}
