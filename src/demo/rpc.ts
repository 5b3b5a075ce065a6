/**
 * Calls over messages. The caller sends a call with its number, and can send a cancellation. The other side answers with any
 * number of progress reports and partial results, and then with one result or failure. All messages are plain data.
 */
import { type CallOptions, type Failure, type Progress, type Viewer, ViewerError } from './protocol.ts';

/** One end of a channel: a worker as the page sees it, or the page as the worker sees it. */
export interface Port {
  postMessage(message: unknown): void;
  addEventListener(type: 'message', listener: (event: MessageEvent) => void): void;
  addEventListener(type: 'error', listener: (event: Partial<ErrorEvent>) => void): void;
}

type Call = { call: number; method: keyof Viewer; query: unknown } | { cancel: number };
type Answer = { to: number } & (
  | { progress: Progress }
  | { part: unknown }
  | { result: unknown }
  | { failure: Failure }
);

/** Options of a call with partial results of any type. */
type AnyOptions = Omit<CallOptions, 'onPart'> & { onPart?: (part: never) => void };

const cancelled: Failure = { kind: 'cancelled', message: 'cancelled' };

/** The methods of {@link Viewer} from the side that answers. */
export type Handlers = {
  [Method in keyof Viewer]: (
    query: Parameters<Viewer[Method]>[0],
    context: { signal: AbortSignal; progress(progress: Progress): void; part(part: unknown): void },
  ) => ReturnType<Viewer[Method]>;
};

const methods: readonly (keyof Viewer)[] = [
  ...(['about', 'open', 'close', 'prepare', 'map', 'page', 'read', 'bytes', 'search'] as const),
  ...([
    'devices',
    'findDevices',
    'deviceJson',
    'verify',
    'diff',
    'convert',
    'exportBlock',
    'exportBlocks',
    'release',
  ] as const),
];

/** The failure of every call if the worker did not start. */
export const notStarted = (reason: string | undefined): Failure => {
  const why = reason === undefined || reason === '' ? '' : `: ${reason}`;
  return { kind: 'unsupported', message: `the worker that reads files could not be started${why}` };
};

/** The failure of the calls that were running when the worker reported an error. */
const stopped = (reason: string | undefined): Failure => ({
  kind: 'internal',
  message: `the worker that reads files failed${reason === undefined || reason === '' ? '' : `: ${reason}`}`,
});

/** The viewer behind a port. Without a port, every call fails with `failure`. */
export function connect(port: Port | undefined, failure = notStarted(undefined)): Viewer {
  const calls = new Map<number, (answer: Answer) => void>();
  let last = 0;
  let isHeardOf = false;
  let broken = port === undefined ? failure : undefined;
  const send = (message: Call) => port?.postMessage(message);
  port?.addEventListener('message', ({ data }: MessageEvent<Answer>) => {
    isHeardOf = true;
    calls.get(data.to)?.(data);
  });
  port?.addEventListener('error', ({ message }) => {
    if (!isHeardOf) broken = notStarted(message);
    // The error belongs to no call, so it may be why any of them never ends.
    const failed = broken ?? stopped(message);
    for (const [to, answer] of [...calls]) {
      answer({ to, failure: failed });
      send({ cancel: to });
    }
  });
  const call = (method: keyof Viewer, query: unknown, options: AnyOptions = {}) =>
    new Promise((resolve, reject) => {
      const { signal, onProgress, onPart } = options;
      if (signal?.aborted === true) return reject(new ViewerError(cancelled));
      if (broken !== undefined) return reject(new ViewerError(broken));
      const number = ++last;
      const cancel = () => send({ cancel: number });
      const end = () => {
        calls.delete(number);
        signal?.removeEventListener('abort', cancel);
      };
      calls.set(number, (answer) => {
        if ('progress' in answer) return onProgress?.(answer.progress);
        if ('part' in answer) return onPart?.(answer.part as never);
        end();
        if ('failure' in answer) reject(new ViewerError(answer.failure));
        else resolve(answer.result);
      });
      signal?.addEventListener('abort', cancel);
      send({ call: number, method, query });
    });
  const entries = methods.map((method) => [
    method,
    // `about` takes no query, only options.
    method === 'about'
      ? (options?: AnyOptions) => call(method, undefined, options)
      : (query: unknown, options?: AnyOptions) => call(method, query, options),
  ]);
  return Object.fromEntries(entries) as Viewer;
}

/** Answers the calls that arrive at a port. `describe` turns an error into a failure. */
export function serve(port: Port, handlers: Handlers, describe: (error: unknown) => Failure): void {
  const running = new Map<number, AbortController>();
  const answer = (message: Answer) => port.postMessage(message);
  const run = async ({ call: to, method, query }: Extract<Call, { call: number }>) => {
    const controller = new AbortController();
    running.set(to, controller);
    const context = {
      signal: controller.signal,
      progress: (progress: Progress) => answer({ to, progress }),
      part: (part: unknown) => answer({ to, part }),
    };
    try {
      const handler = handlers[method] as (query: unknown, context_: typeof context) => Promise<unknown>;
      const result = await handler(query, context);
      answer({ to, result });
    } catch (error) {
      answer({ to, failure: controller.signal.aborted ? cancelled : describe(error) });
    } finally {
      running.delete(to);
    }
  };
  port.addEventListener('message', ({ data }: MessageEvent<Call>) => {
    if ('cancel' in data) running.get(data.cancel)?.abort();
    else void run(data);
  });
}
