/**
 * zstd in threads, for releases of Node without an encoder of their own, where it is WebAssembly and would hold up the
 * sockets.
 *
 *     encoders of all channels ──→ queue ──→ thread 0: packet → frame
 *                                       └──→ thread 1: packet → frame
 *
 * A packet is a frame of its own, so any thread can take it. The threads end with the last encoder.
 */
import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { CodecError, overflow, type PageEncoder } from '../page-codec.ts';

/** What a thread gets: a packet at the beginning of shared memory, and space for its frame behind it. */
export interface ZstdJob {
  shared: SharedArrayBuffer;
  length: number;
  level: number;
}

/** What a thread answers: the length of the frame, or why there is none. */
export type ZstdResult = { length: number } | { error: string };

/** The built script: beside this module in the package, and in dist when the sources are run. */
const script = new URL(
  import.meta.url.endsWith('.ts') ? '../../../dist/zstd-worker.js' : './zstd-worker.js',
  import.meta.url,
);

/** Whether the script of a thread is there. A bundle may lack it. */
export const hasZstdThreads = (): boolean => script.protocol === 'file:' && existsSync(script);

interface Waiting {
  input: Uint8Array;
  target: Uint8Array;
  level: number;
  resolve: (length: number) => void;
  reject: (error: unknown) => void;
}

/** A thread, and the packet that it compresses. */
class Thread {
  readonly worker = new Worker(script);
  job: Waiting | undefined;
  #shared = new SharedArrayBuffer(0);

  constructor() {
    this.worker.unref();
  }

  start(job: Waiting): void {
    const { input, target, level } = job;
    this.job = job;
    const bytes = input.length + target.length;
    if (this.#shared.byteLength < bytes) this.#shared = new SharedArrayBuffer(bytes);
    new Uint8Array(this.#shared).set(input);
    this.worker.ref();
    this.worker.postMessage({ shared: this.#shared, length: input.length, level } satisfies ZstdJob);
  }

  /** Takes the answer. */
  finish(result: ZstdResult): void {
    const { input, target, resolve, reject } = this.job as Waiting;
    this.job = undefined;
    this.worker.unref();
    if ('error' in result) reject(new CodecError(result.error));
    else if (result.length > target.length) reject(overflow(target.length));
    else {
      target.set(new Uint8Array(this.#shared, input.length, result.length));
      resolve(result.length);
    }
  }
}

/** Threads that compress for all channels. */
export class ZstdThreads {
  readonly #count: number;
  readonly #waiting: Waiting[] = [];
  #threads: Thread[] = [];
  #encoders = 0;

  constructor(count: number) {
    this.#count = count;
  }

  openEncoder(level: number): PageEncoder {
    this.#encoders++;
    let isOpen = true;
    return {
      encode: (input, target) =>
        new Promise<number>((resolve, reject) => {
          this.#waiting.push({ input, target, level, resolve, reject });
          this.#startNext();
        }),
      close: () => {
        if (isOpen) this.#encoders--;
        isOpen = false;
        if (this.#encoders === 0) this.#end(new CodecError('the encoder was closed'));
      },
    };
  }

  #startNext(): void {
    let thread = this.#threads.find(({ job }) => job === undefined);
    if (thread === undefined && this.#threads.length < this.#count) thread = this.#addThread();
    const job = thread && this.#waiting.shift();
    if (job !== undefined) thread?.start(job);
  }

  #addThread(): Thread {
    const thread = new Thread();
    this.#threads.push(thread);
    thread.worker.on('message', (result: ZstdResult) => {
      thread.finish(result);
      this.#startNext();
    });
    thread.worker.on('error', (error) => this.#end(error));
    return thread;
  }

  /** Ends the threads. What they had to do fails. */
  #end(error: unknown): void {
    for (const { worker, job } of this.#threads) {
      job?.reject(error);
      worker.removeAllListeners('message');
      void worker.terminate();
    }
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#threads = [];
  }
}
