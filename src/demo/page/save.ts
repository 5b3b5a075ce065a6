/** Saves to the user's disk: to a file that the user chooses, or as a download if the browser has no such dialog. */
import type { Target } from '../protocol.ts';

type SavePicker = (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;

/** Asks where to write a large output. Undefined if the user cancels. */
export async function chooseTarget(suggestedName: string): Promise<Target | undefined> {
  const { showSaveFilePicker } = globalThis as { showSaveFilePicker?: SavePicker };
  if (showSaveFilePicker === undefined) return 'file';
  try {
    return { handle: await showSaveFilePicker({ suggestedName }) };
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return undefined;
    throw error;
  }
}

/** Hands a file to the browser's downloads. */
export function download(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // By then, the browser has started to read the file.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
