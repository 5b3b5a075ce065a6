/** Starts the worker that reads files, and gives what the page calls. */
import type { Viewer } from './protocol.ts';
import { connect } from './rpc.ts';

/** `end` stops the worker, whatever it does, and with it what was opened. */
export function startViewer(): Viewer & { end(): void } {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'vmferry' });
  return { ...connect(worker), end: () => worker.terminate() };
}
