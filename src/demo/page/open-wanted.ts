/** Opens files through the worker. */
import {
  type CallOptions,
  type FileInput,
  type OpenedFile,
  type OpeningFile,
  type Viewer,
  ViewerError,
} from '../protocol.ts';

/** Opens a file. If the call was cancelled meanwhile, closes it again. @throws ViewerError */
export async function openWanted(
  viewer: Viewer,
  input: FileInput,
  options: CallOptions<OpeningFile>,
): Promise<OpenedFile> {
  const file = await viewer.open(input, options);
  if (options.signal?.aborted !== true) return file;
  void viewer.close(file.id).catch(() => {});
  throw new ViewerError({ kind: 'cancelled', message: 'cancelled' });
}
