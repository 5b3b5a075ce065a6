/** The worker that reads files, as the page calls it. */
import { type CallOptions, type FileInput, type OpenedFile, type Viewer, ViewerError } from '../protocol.ts';
import { connect } from '../rpc.ts';

/** `worker` runs `worker.ts`. `end` stops it, whatever it does, and forgets what was opened. */
export function openViewer(worker: Worker): Viewer & { end(): void } {
  return { ...connect(worker), end: () => worker.terminate() };
}

/** Opens a file; one that is no longer wanted when it is open is closed again. @throws ViewerError */
export async function openWanted(viewer: Viewer, input: FileInput, options: CallOptions): Promise<OpenedFile> {
  const file = await viewer.open(input, options);
  if (options.signal?.aborted !== true) return file;
  void viewer.close(file.id).catch(() => {});
  throw new ViewerError({ kind: 'cancelled', message: 'cancelled' });
}
