/** Files can be dropped anywhere on the page. They are compared if they land on the Differences panel, and otherwise opened. */
import { signal } from '@preact/signals';
import { type Failure, ViewerError } from '../protocol.ts';
import { fail, nameOf, openInput, phase } from './session.ts';

/** Whether a file is being dragged over the page. */
export const isFileOver = signal(false);

/** Refuses folders, which look like files until they are read. */
function folderIn(dropped: DataTransfer | null): Failure | undefined {
  const entries = [...(dropped?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory === true);
  if (folder == null) return undefined;
  return { kind: 'wrong-call', message: `${folder.name} is a folder: drop the files in it instead` };
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
    } else if (folder !== undefined) fail(nameOf({ files }), { files }, folder);
    else void openInput({ files });
  });
}
