/** Saving to the reader's disk: where the browser lets a place be chosen, right there; elsewhere as a download. */
import type { Target } from '../protocol.ts';

type SavePicker = (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;

/** Asks where to write something large. Undefined: the reader thought better of it. */
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
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
