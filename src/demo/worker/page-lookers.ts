/**
 * Who looks at pages while the next are being read. Where memory can be shared (cross-origin isolation) these are workers,
 * each with a window of its own in one shared memory, which the reader fills and they look at; else it is the reader itself.
 */
import { takeTurn } from '../../io/event-loop-yield.ts';
import { entropyBytes } from './entropy-bytes.ts';

/** Bytes of pages that are looked at in one go. */
export const windowBytes = 1 << 20;

/** A window that is the caller's until it was looked at. */
export interface PageWindow {
  /** To be filled with pages, {@link windowBytes}. */
  readonly bytes: Uint8Array;
  /** The entropy of each of its first `length / pageSize` pages, as in the layer; the window is free again. */
  measure(length: number, pageSize: number): Promise<Uint8Array>;
  /** It is not needed after all. */
  free(): void;
}

export interface PageLookers {
  /** How many look at the same time beside the reader. */
  readonly helpers: number;
  /** Waits for a window that is free. */
  take(): Promise<PageWindow>;
}

/** What a helper is asked, and what it answers. */
export interface LookRequest {
  memory: SharedArrayBuffer;
  offset: number;
  length: number;
  pageSize: number;
}

/** `start` starts a helper (`page-helper.ts`); without it, or without shared memory, there is none. */
export function makeLookers(helpers: number, start: () => Worker): PageLookers {
  return helpers > 0 ? new Helpers(helpers, start) : new Alone();
}

/** Windows that are free, and who waits for one. */
class Free<Window> {
  readonly #free: Window[];
  readonly #waiting: ((window: Window) => void)[] = [];

  constructor(windows: Window[]) {
    this.#free = windows;
  }

  take(): Promise<Window> {
    const window = this.#free.pop();
    return window === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(window);
  }

  give(window: Window): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(window);
    else next(window);
  }
}

class Alone implements PageLookers {
  readonly helpers = 0;
  readonly #free = new Free([new Uint8Array(windowBytes), new Uint8Array(windowBytes)]);

  async take(): Promise<PageWindow> {
    const bytes = await this.#free.take();
    return {
      bytes,
      measure: async (length, pageSize) => {
        // The next read is begun before this one is looked at.
        await takeTurn();
        const values = entropyBytes(bytes.subarray(0, length), pageSize);
        this.#free.give(bytes);
        return values;
      },
      free: () => this.#free.give(bytes),
    };
  }
}

/** Windows for each helper: one to look at, one to be filled. */
const windowsEach = 2;

class Helpers implements PageLookers {
  readonly helpers: number;
  readonly #start: () => Worker;
  readonly #memory: SharedArrayBuffer;
  readonly #free: Free<{ offset: number; worker: number }>;
  readonly #workers: (Worker | undefined)[];

  constructor(helpers: number, start: () => Worker) {
    this.helpers = helpers;
    this.#start = start;
    this.#memory = new SharedArrayBuffer(helpers * windowsEach * windowBytes);
    this.#workers = Array.from({ length: helpers }, () => undefined);
    const windows = Array.from({ length: helpers * windowsEach }, (_, i) => {
      return { offset: i * windowBytes, worker: i % helpers };
    });
    this.#free = new Free(windows);
  }

  async take(): Promise<PageWindow> {
    const window = await this.#free.take();
    const bytes = new Uint8Array(this.#memory, window.offset, windowBytes);
    return {
      bytes,
      measure: async (length, pageSize) => {
        try {
          return await this.#ask(window.worker, { memory: this.#memory, offset: window.offset, length, pageSize });
        } finally {
          this.#free.give(window);
        }
      },
      free: () => this.#free.give(window),
    };
  }

  #ask(number: number, request: LookRequest): Promise<Uint8Array> {
    const worker = this.#workers[number] ?? this.#start();
    this.#workers[number] = worker;
    return new Promise((resolve, reject) => {
      const { port1, port2 } = new MessageChannel();
      const onError = ({ message }: ErrorEvent) => {
        port1.close();
        reject(new Error(`a helper failed: ${message}`));
      };
      port1.onmessage = ({ data }: MessageEvent<Uint8Array>) => {
        port1.close();
        worker.removeEventListener('error', onError);
        resolve(data);
      };
      // All that it was asked, not only the latest.
      worker.addEventListener('error', onError, { once: true });
      worker.postMessage(request, [port2]);
    });
  }
}
