/** What the page is about at the moment: nothing, a file that is being opened, one that could not be, or a machine. */
import { signal } from '@preact/signals';
import { MigrationError } from '../../vm/migration-error.ts';
import type { Failure, FileInput, OpenedFile, Viewer, WhatWorks } from '../protocol.ts';
import { connect, notStarted } from '../rpc.ts';
import workerUrl from '../worker/worker.ts?worker&url';
import { announce } from './announce.ts';
import { Machine } from './machine.ts';
import { startWorker } from './start-worker.ts';
import { failureOf, Task } from './task.ts';
import { openViewer, openWanted } from './viewer.ts';

export type Phase =
  | { kind: 'empty' }
  | { kind: 'opening'; name: string }
  | { kind: 'failed'; name: string; input: FileInput; failure: Failure }
  | { kind: 'open'; machine: Machine };

export const viewer = startViewer();
/** What this browser gives the page, or why that is not enough. */
export const means = signal<WhatWorks | { failure: Failure } | undefined>(undefined);
viewer.about().then(
  (found) => {
    means.value = found;
  },
  (error) => {
    means.value = { failure: failureOf(error) };
  },
);
export const phase = signal<Phase>({ kind: 'empty' });
export const opening = new Task<OpenedFile>();

function startViewer(): Viewer {
  try {
    return openViewer(startWorker(workerUrl, 'vmferry'));
  } catch (error) {
    return connect(undefined, notStarted(failureOf(error).message));
  }
}

/** Opens a file in place of what is open. `earlier`: what it may be compared with at a click. */
export async function openInput(input: FileInput, earlier?: () => Promise<FileInput>): Promise<void> {
  leave();
  const name = nameOf(input);
  phase.value = { kind: 'opening', name };
  const begun = phase.value;
  const file = await opening.run((options) => openWanted(viewer, input, options));
  // Another may have been chosen meanwhile, and be open by now.
  if (phase.value !== begun) return;
  if (file === undefined) {
    const { value } = opening.state;
    if (value.kind === 'failed') fail(name, input, value.failure);
    else phase.value = { kind: 'empty' };
    return;
  }
  const { version, error } = file.inspection;
  if (version === null && error !== null) {
    // Nothing of it is a migration file: there is nothing to show.
    void viewer.close(file.id).catch(() => {});
    const { code, place, message: detail } = error;
    const message = MigrationError.from(error).message;
    fail(name, input, { kind: 'bad-input', message, code, place, detail });
    return;
  }
  phase.value = { kind: 'open', machine: new Machine(viewer, file, earlier) };
  document.title = `${file.name} - vmferry`;
  announce(`${file.name} is open`);
}

/** Says why something could not be opened. */
export function fail(name: string, input: FileInput, failure: Failure): void {
  leave();
  phase.value = { kind: 'failed', name, input, failure };
  announce(`${name} could not be opened: ${failure.message}`);
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
