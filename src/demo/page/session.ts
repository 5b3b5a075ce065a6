/** The state of the whole page: nothing is open, a file is being opened, a file failed to open, or a machine is open. */
import { signal } from '@preact/signals';
import { MigrationError } from '../../vm/migration-error.ts';
import type { Failure, FileInput, MapQuery, OpenedFile, OpeningFile, Viewer, WhatWorks } from '../protocol.ts';
import { connect, notStarted } from '../rpc.ts';
import { startWorker } from '../start-worker.ts';
import workerUrl from '../worker/worker.ts?worker&url';
import { announce } from './announce.ts';
import { nameOf } from './input-names.ts';
import { forgetFiles, keepFiles } from './kept-files.ts';
import { Machine } from './machine.ts';
import { openWanted } from './open-wanted.ts';
import { type Recalled, remember, rememberStart } from './recall.ts';
import { isOutOfReach } from './remote.ts';
import { failureOf, Task } from './task.ts';

/** A file that was open before the page was loaded again. */
export interface Lost {
  name: string;
  files: number;
  /** Opens it, if the browser allows that after a click. Otherwise, the user must choose it again. */
  reopen: (() => Promise<void>) | undefined;
  /** What the user had chosen in addition to the files. */
  choices: Recalled['choices'];
}

type Phase =
  | { kind: 'empty'; lost?: Lost }
  | { kind: 'opening'; name: string }
  | { kind: 'failed'; name: string; input: FileInput | undefined; failure: Failure; retry: () => void }
  | { kind: 'open'; machine: Machine };

/** How an input is opened. */
export interface OpenHow {
  /** Opens an earlier file to compare with. */
  earlier?: () => Promise<FileInput>;
  /** `none`: the history already is at the entry of this input. Default: `push`. */
  history?: 'push' | 'replace' | 'none';
  kind?: Recalled['kind'];
  /** The handles of the files, where the browser has them. */
  handles?: Promise<readonly (FileSystemFileHandle | undefined)[]>;
}

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

/** Opens a file instead of the current one. */
export async function openInput(input: FileInput, how: OpenHow = {}): Promise<void> {
  close();
  const name = nameOf(input);
  noteOpening(input, how);
  const again = () => void openInput(input, { ...how, history: 'none' });
  if ('url' in input && isOutOfReach(input.url)) {
    const message = `${input.url} is on another server, and this page connects only to its own`;
    return fail(name, input, { kind: 'out-of-reach', message }, again);
  }
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
    if (value.kind === 'failed') fail(name, input, value.failure, again);
    else phase.value = { kind: 'empty' };
    return;
  }
  const { version, error } = file.inspection;
  if (version === undefined && error !== undefined) {
    // It is not a migration file, so there is nothing to show.
    void viewer.close(file.id).catch(() => {});
    const { code, place, message: detail, reason } = error;
    const message = MigrationError.from(error).message;
    const failure = { kind: 'bad-input', message, code, place, detail } as const;
    fail(name, input, reason === undefined ? failure : { ...failure, reason }, again);
    return;
  }
  phase.value = { kind: 'open', machine: new Machine(viewer, file, input, how.earlier) };
  document.title = `${file.name} - vmferry`;
  announce(`${file.name} is open`);
}

/** Notes the input in the history, and keeps its files for a reload. */
function noteOpening(input: FileInput, { history = 'push', kind, handles }: OpenHow): void {
  if (history === 'none') return;
  const isUrl = 'url' in input;
  const entry = remember(input, kind ?? (isUrl ? 'url' : 'files'), history);
  if (isUrl || kind === 'sample') void forgetFiles();
  else void Promise.resolve(handles).then((found) => keepFiles(entry, input.files, found));
}

/** Shows why a file did not open. */
export function fail(name: string, input: FileInput | undefined, failure: Failure, retry: () => void): void {
  close();
  phase.value = { kind: 'failed', name, input, failure, retry };
  announce(`could not open ${name}: ${failure.message}`);
}

/** Closes the file and goes back to the start. */
export function leave(): void {
  close();
  rememberStart();
  void forgetFiles();
}

/** Closes the file. The history stays as it is. */
export function close(lost?: Lost): void {
  opening.cancel();
  openingFile.value = undefined;
  if (phase.value.kind === 'open') phase.value.machine.close();
  phase.value = lost === undefined ? { kind: 'empty' } : { kind: 'empty', lost };
  document.title = 'vmferry: look into a saved machine';
}

/** The input that is open or failed to open. */
export function currentInput(): FileInput | undefined {
  const now = phase.peek();
  return now.kind === 'open' ? now.machine.input : now.kind === 'failed' ? now.input : undefined;
}
