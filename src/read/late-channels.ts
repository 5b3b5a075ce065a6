/**
 * Multifd channels whose first bytes come late. At a mark another one is asked for, as long as one may come:
 *
 *     asked ──→ it came ──→ asked …
 *       └─────→ none: nobody is asked any more
 *
 * The START of a source before 8.1 looks like that of a plain source. There a silent connection may be a first channel as
 * long as the main stream has no page with content. With postcopy it may be the preempt channel.
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';

export class LateChannels {
  readonly #another: ((isCertain: boolean) => Promise<boolean>) | undefined;
  readonly #wake: () => void;
  #coming: 'asked' | 'none' | undefined;
  #hasContent = false;
  #mayPreempt = false;

  /** `another` as of `LiveFlowOptions.anotherChannel`. `wake` is called with each answer. */
  constructor(another: ((isCertain: boolean) => Promise<boolean>) | undefined, wake: () => void) {
    this.#another = another;
    this.#wake = wake;
  }

  /** The answer has not come. */
  get isAsked(): boolean {
    return this.#coming === 'asked';
  }

  /** No other channel will come. */
  get isNone(): boolean {
    return this.#coming === 'none';
  }

  /** Asks for another channel, unless that was done, or none came when it was asked for before. */
  ask(isCertain: boolean): void {
    if (this.#coming !== undefined) return;
    this.#coming = 'asked';
    const another = this.#another?.(isCertain) ?? Promise.resolve(false);
    void another.then((came) => {
      this.#coming = came ? undefined : 'none';
      this.#wake();
    });
  }

  /** Takes pages of the main stream. */
  takePages({ kind, count }: PageBatch): void {
    this.#hasContent ||= kind.subarray(0, count).some((each) => each > PageKind.zero);
  }

  /** The source may open a preempt channel. */
  takeAdvice(): void {
    this.#mayPreempt = true;
  }

  /** Whether a first channel may still come, in a stream without marks that stand for themselves. */
  get mayHaveFirst(): boolean {
    return !this.#hasContent && !this.#mayPreempt && !this.isNone;
  }
}
