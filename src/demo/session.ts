/** What the page is about at the moment: nothing, a file that is being opened, one that could not be, or a machine. */
import { signal } from '@preact/signals';
import { MigrationError } from '../wire/migration-error.ts';
import { announce } from './announce.ts';
import { Machine } from './machine.ts';
import type { Failure, FileInput, OpenedFile } from './protocol.ts';
import { startWorker } from './start-worker.ts';
import { Task } from './task.ts';
import { openViewer } from './viewer.ts';
import workerUrl from './worker.ts?worker&url';

export type Phase =
  | { kind: 'empty' }
  | { kind: 'opening'; name: string }
  | { kind: 'failed'; name: string; input: FileInput; failure: Failure }
  | { kind: 'open'; machine: Machine };

export const viewer = openViewer(startWorker(workerUrl, 'vmferry'));
export const phase = signal<Phase>({ kind: 'empty' });
export const opening = new Task<OpenedFile>();

/** Opens a file in place of what is open. `earlier`: what it may be compared with at a click. */
export async function openInput(input: FileInput, earlier?: () => Promise<FileInput>): Promise<void> {
  leave();
  const name = nameOf(input);
  phase.value = { kind: 'opening', name };
  const file = await opening.run((options) => viewer.open(input, options));
  if (file === undefined) {
    const { value } = opening.state;
    if (value.kind !== 'failed') {
      if (phase.value.kind === 'opening' && value.kind === 'idle') phase.value = { kind: 'empty' };
      return;
    }
    phase.value = { kind: 'failed', name, input, failure: value.failure };
    announce(`${name} could not be opened: ${value.failure.message}`);
    return;
  }
  const { version, error } = file.inspection;
  if (version === null && error !== null) {
    // Nothing of it is a migration file: there is nothing to show.
    void viewer.close(file.id).catch(() => {});
    const { code, place, message: detail } = error;
    const message = MigrationError.from(error).message;
    phase.value = { kind: 'failed', name, input, failure: { kind: 'bad-input', message, code, place, detail } };
    announce(`${name} could not be opened: ${message}`);
    return;
  }
  phase.value = { kind: 'open', machine: new Machine(viewer, file, earlier) };
  document.title = `${file.name} - vmferry`;
  announce(`${file.name} is open`);
}

/** Back to the beginning. */
export function leave(): void {
  opening.cancel();
  if (phase.value.kind === 'open') phase.value.machine.close();
  phase.value = { kind: 'empty' };
  document.title = 'vmferry: look into a saved machine';
}

/** What is opened, in a few words. */
export function nameOf(input: FileInput): string {
  if ('url' in input) return input.url;
  const [first, ...others] = input.files;
  return `${first?.name ?? 'nothing'}${others.length === 0 ? '' : ` and ${others.length} more`}`;
}
