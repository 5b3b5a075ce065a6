/** Files that are dropped onto the page, wherever: they are opened, or compared, if it is where differences are shown. */
import { signal } from '@preact/signals';
import { openInput, phase } from './session.ts';

/** A file is being dragged over the page. */
export const isFileOver = signal(false);

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
    const isToCompare = event.target instanceof Element && event.target.closest('#differences') !== null;
    if (isToCompare && phase.value.kind === 'open') void phase.value.machine.compare(async () => ({ files }));
    else void openInput({ files });
  });
}
