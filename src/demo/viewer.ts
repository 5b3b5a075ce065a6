/** The worker that reads files, as the page calls it. */
import type { Viewer } from './protocol.ts';
import { connect } from './rpc.ts';

/**
 * `worker` runs `worker.ts`; a failure to start it is the caller's to notice. `end` stops it, whatever it does, and forgets
 * what was opened.
 */
export function openViewer(worker: Worker): Viewer & { end(): void } {
  return { ...connect(worker), end: () => worker.terminate() };
}
