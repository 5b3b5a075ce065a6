/** The state of the whole page: nothing is open, a file is being opened, a file failed to open, or a machine is open. */
import { signal } from '@preact/signals';
import { MigrationError } from '../../vm/migration-error.ts';
import type { Failure, FileInput, MapQuery, OpenedFile, OpeningFile, Viewer, WhatWorks } from '../protocol.ts';
import { connect, notStarted } from '../rpc.ts';
import workerUrl from '../worker/worker.ts?worker&url';
import { announce } from './announce.ts';
import { Machine } from './machine.ts';
import { openWanted } from './open-wanted.ts';
import { startWorker } from './start-worker.ts';
import { failureOf, Task } from './task.ts';

type Phase =
  | { kind: 'empty' }
  | { kind: 'opening'; name: string }
  | { kind: 'failed'; name: string; input: FileInput; failure: Failure }
  | { kind: 'open'; machine: Machine };

const viewer = startViewer();
/** What the worker can use in this browser, or why the page does not work here. */
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
/** The file that is being opened, once its RAM blocks are known. */
export const openingFile = signal<OpeningFile | undefined>(undefined);
/** Cells of its map. */
export const readMap = (query: MapQuery) => viewer.map(query);

function startViewer(): Viewer {
  try {
    return connect(startWorker(workerUrl, 'vmferry'));
  } catch (error) {
    return connect(undefined, notStarted(failureOf(error).message));
  }
}

/** Opens a file instead of the current one. `earlier` opens an earlier file to compare with. */
export async function openInput(input: FileInput, earlier?: () => Promise<FileInput>): Promise<void> {
  leave();
  const name = nameOf(input);
  phase.value = { kind: 'opening', name };
  const begun = phase.value;
  const onPart = (part: OpeningFile) => {
    if (phase.value === begun) openingFile.value = part;
  };
  const file = await opening.run((options) => openWanted(viewer, input, { ...options, onPart }));
  // Meanwhile, the user may have opened another file.
  if (phase.value !== begun) return;
  if (file === undefined) {
    const { value } = opening.state;
    if (value.kind === 'failed') fail(name, input, value.failure);
    else phase.value = { kind: 'empty' };
    return;
  }
  const { version, error } = file.inspection;
  if (version === undefined && error !== undefined) {
    // It is not a migration file, so there is nothing to show.
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

/** Shows why a file did not open. */
export function fail(name: string, input: FileInput, failure: Failure): void {
  leave();
  phase.value = { kind: 'failed', name, input, failure };
  announce(`could not open ${name}: ${failure.message}`);
}

/** Closes the file and goes back to the start. */
export function leave(): void {
  opening.cancel();
  openingFile.value = undefined;
  if (phase.value.kind === 'open') phase.value.machine.close();
  phase.value = { kind: 'empty' };
  document.title = 'vmferry: look into a saved machine';
}

/** A short name for an input. */
export function nameOf(input: FileInput): string {
  if ('url' in input) return input.url;
  const [first, ...others] = input.files;
  return `${first?.name ?? 'nothing'}${others.length === 0 ? '' : ` and ${others.length} more`}`;
}
