/**
 * Measures pages while the next ones are being read. With shared memory (cross-origin isolation), helper workers do that: the
 * reader fills windows in the shared memory, and the helpers measure them. Otherwise the reader measures them itself.
 */
import { takeTurn } from '../../io/event-loop-yield.ts';
import { entropyBytes } from './entropy-bytes.ts';

/** Bytes of a window. */
export const windowBytes = 1 << 20;

/** A window for pages. The caller owns it until its pages are measured. */
interface PageWindow {
  /** {@link windowBytes} to fill with pages. */
  readonly bytes: Uint8Array;
  /** Measures the entropy of the first `length / pageSize` pages and frees the window. The result has the bytes of the layer. */
  measure(length: number, pageSize: number): Promise<Uint8Array>;
  /** Frees a window that is not needed. */
  free(): void;
}

export interface PageMeasurer {
  /** Workers that measure at the same time. 0: the reader measures. */
  readonly helpers: number;
  /** Waits for a free window. */
  take(): Promise<PageWindow>;
}

/** A request to a helper: measure the pages at `offset` in `memory`. */
export interface MeasureRequest {
  memory: SharedArrayBuffer;
  offset: number;
  length: number;
  pageSize: number;
}

/** `start` starts a helper (`page-helper.ts`). Without shared memory, `helpers` must be 0. */
export function makeMeasurer(helpers: number, start: () => Worker): PageMeasurer {
  return helpers > 0 ? new Helpers(helpers, start) : new Alone();
}

/** The free windows, and the calls that wait for one. */
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

class Alone implements PageMeasurer {
  readonly helpers = 0;
  readonly #free = new Free([new Uint8Array(windowBytes), new Uint8Array(windowBytes)]);

  async take(): Promise<PageWindow> {
    const bytes = await this.#free.take();
    return {
      bytes,
      measure: async (length, pageSize) => {
        // Lets the next read begin before this window is measured.
        await takeTurn();
        const values = entropyBytes(bytes.subarray(0, length), pageSize);
        this.#free.give(bytes);
        return values;
      },
      free: () => this.#free.give(bytes),
    };
  }
}

/** Windows per helper: one to measure, one to fill. */
const windowsEach = 2;

class Helpers implements PageMeasurer {
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

  #ask(number: number, request: MeasureRequest): Promise<Uint8Array> {
    const worker = this.#workers[number] ?? this.#start();
    this.#workers[number] = worker;
    return new Promise((resolve, reject) => {
      const { port1, port2 } = new MessageChannel();
      const onError = ({ message }: ErrorEvent) => {
        port1.close();
        reject(new Error(`a helper worker failed: ${message}`));
      };
      port1.onmessage = ({ data }: MessageEvent<Uint8Array>) => {
        port1.close();
        worker.removeEventListener('error', onError);
        resolve(data);
      };
      // Every request that the helper has not answered fails.
      worker.addEventListener('error', onError, { once: true });
      worker.postMessage(request, [port2]);
    });
  }
}
