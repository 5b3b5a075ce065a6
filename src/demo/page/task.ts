/** A call to the worker that can take long. Components show its progress, result or failure. */
import { signal } from '@preact/signals';
import { type CallOptions, type Failure, type Progress, ViewerError } from '../protocol.ts';

type TaskState<Result> =
  | { kind: 'idle' }
  | { kind: 'running'; progress: Progress | undefined }
  | { kind: 'done'; result: Result }
  | { kind: 'failed'; failure: Failure };

export class Task<Result> {
  readonly state = signal<TaskState<Result>>({ kind: 'idle' });
  #controller: AbortController | undefined;

  /** Cancels the call before and runs `work`. Resolves to the result, or to undefined if it failed or was cancelled. */
  async run(work: (options: Omit<CallOptions, 'onPart'>) => Promise<Result>): Promise<Result | undefined> {
    this.cancel();
    const controller = new AbortController();
    this.#controller = controller;
    const isCurrent = () => this.#controller === controller;
    this.state.value = { kind: 'running', progress: undefined };
    try {
      const result = await work({
        signal: controller.signal,
        onProgress: (progress) => {
          if (isCurrent()) this.state.value = { kind: 'running', progress };
        },
      });
      if (!isCurrent()) return undefined;
      this.state.value = { kind: 'done', result };
      return result;
    } catch (error) {
      if (!isCurrent()) return undefined;
      const failure = failureOf(error);
      this.state.value = failure.kind === 'cancelled' ? { kind: 'idle' } : { kind: 'failed', failure };
      return undefined;
    }
  }

  /** Cancels the call and forgets its result. */
  cancel(): void {
    const controller = this.#controller;
    this.#controller = undefined;
    this.state.value = { kind: 'idle' };
    controller?.abort();
  }

  get result(): Result | undefined {
    return this.state.value.kind === 'done' ? this.state.value.result : undefined;
  }
}

/** Turns any error into a failure that the page can show. */
export function failureOf(error: unknown): Failure {
  if (error instanceof ViewerError) return error.failure;
  return { kind: 'internal', message: error instanceof Error ? error.message : String(error) };
}
