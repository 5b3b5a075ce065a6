/** Files can be dropped anywhere on the page. They are compared if they land on the Differences panel, and otherwise opened. */
import { signal } from '@preact/signals';
import { type Failure, ViewerError } from '../protocol.ts';
import { nameOf } from './input-names.ts';
import { fail, openInput, phase } from './session.ts';

/** Whether a file is being dragged over the page. */
export const isFileOver = signal(false);

/** Refuses folders, which look like files until they are read. */
function folderIn(dropped: DataTransfer | null): Failure | undefined {
  const entries = [...(dropped?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory === true);
  if (folder == null) return undefined;
  return { kind: 'folder', message: `${folder.name} is a folder: drop the files in it instead` };
}

type HandleOf = { getAsFileSystemHandle?: () => Promise<FileSystemHandle | null> };

/** The handles of dropped files, where the browser has them. Must be called during the event. */
async function handlesOf(dropped: DataTransfer | null): Promise<(FileSystemFileHandle | undefined)[]> {
  const items = [...(dropped?.items ?? [])].filter(({ kind }) => kind === 'file');
  const found = items.map((item) => (item as HandleOf).getAsFileSystemHandle?.());
  return Promise.all(
    found.map(async (each) => {
      const handle = await each?.catch(() => null);
      return handle?.kind === 'file' ? (handle as FileSystemFileHandle) : undefined;
    }),
  );
}

export function acceptDrops(): void {
  document.addEventListener('dragover', (event) => {
    if (event.dataTransfer?.types.includes('Files') !== true) return;
    event.preventDefault();
    isFileOver.value = true;
  });
  document.addEventListener('dragleave', ({ relatedTarget }) => {
    if (relatedTarget === null) isFileOver.value = false;
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    isFileOver.value = false;
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length === 0) return;
    const folder = folderIn(event.dataTransfer);
    const isToCompare = event.target instanceof Element && event.target.closest('#differences') !== null;
    if (isToCompare && phase.value.kind === 'open') {
      void phase.value.machine.compare(async () => {
        if (folder !== undefined) throw new ViewerError(folder);
        return { files };
      });
    } else if (folder !== undefined) fail(nameOf({ files }), { files }, folder, () => void openInput({ files }));
    else void openInput({ files }, { handles: handlesOf(event.dataTransfer) });
  });
}
