/** The worker that reads files for the page: an {@link Engine} with what this browser gives. */
import { openOpfsScratch } from '../../io/opfs-scratch.ts';
import { MemoryScratch } from '../../io/scratch.ts';
import { type Handlers, type Port, serve } from '../rpc.ts';
import { Engine } from './engine.ts';
import { describeFailure, requireWebAssembly } from './failures.ts';
import { makeLookers } from './page-lookers.ts';

/** The most that scratch files may have of memory where there is no disk for them. */
const memoryLimit = 128 << 20;
/** More helpers than this would wait for the reader. */
const maxHelpers = 4;

const startHelper = () => new Worker(new URL('./page-helper.ts', import.meta.url), { type: 'module' });

async function makeEngine(): Promise<Engine> {
  requireWebAssembly();
  const scratch = await openOpfsScratch(navigator, crypto.randomUUID?.() ?? String(performance.timeOrigin));
  const helpers = self.crossOriginIsolated ? Math.min(maxHelpers, Math.max(1, navigator.hardwareConcurrency - 1)) : 0;
  return new Engine(scratch ?? new MemoryScratch(memoryLimit), makeLookers(helpers, startHelper));
}

// Calls may come before the engine is there.
const engine = makeEngine();
// Each call says what is wrong.
engine.catch(() => {});
const handlers = new Proxy({} as Handlers, {
  get: (_, method: keyof Handlers) => async (query: never, context: never) => {
    const handler = (await engine).handlers[method] as (query: never, context: never) => Promise<unknown>;
    return handler(query, context);
  },
});
serve(self as unknown as Port, handlers, describeFailure);
