/** The script of the worker that reads files: an {@link Engine} with the scratch storage and helpers that the browser allows. */
import { openOpfsScratch } from '../../io/opfs-scratch.ts';
import { MemoryScratch } from '../../io/scratch.ts';
import { type Handlers, type Port, serve } from '../rpc.ts';
import { startWorker } from '../start-worker.ts';
import { Engine } from './engine.ts';
import { describeFailure, requireWebAssembly } from './failures.ts';
import helperUrl from './page-helper.ts?worker&url';
import { makeMeasurer } from './page-measurer.ts';

/** Limit of scratch files in memory, if there is no private file system. */
const memoryLimit = 128 << 20;
/** With more helpers, some would always wait for the reader. */
const maxHelpers = 4;

const startHelper = () => startWorker(helperUrl, 'vmferry-helper');

/** WebKit can be isolated and still have no shared memory. */
const canShare = () => self.crossOriginIsolated && typeof SharedArrayBuffer === 'function';

async function makeEngine(): Promise<Engine> {
  requireWebAssembly();
  const scratch = await openOpfsScratch(navigator, crypto.randomUUID?.() ?? String(performance.timeOrigin));
  const helpers = canShare() ? Math.min(maxHelpers, Math.max(1, navigator.hardwareConcurrency - 1)) : 0;
  return new Engine(scratch ?? new MemoryScratch(memoryLimit), makeMeasurer(helpers, startHelper));
}

// An error that belongs to no call. The page then ends its calls, which would otherwise wait forever (rpc.ts).
self.addEventListener('unhandledrejection', ({ reason }) => reportError(reason));

// Calls can arrive before the engine is ready.
const engine = makeEngine();
// Each call fails with the error.
engine.catch(() => {});
const handlers = new Proxy({} as Handlers, {
  get: (_, method: keyof Handlers) => async (query: never, context: never) => {
    const handler = (await engine).handlers[method] as (query: never, context: never) => Promise<unknown>;
    return handler(query, context);
  },
});
serve(self as unknown as Port, handlers, describeFailure);
