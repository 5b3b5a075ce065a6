/**
 * The browser's history: each opened file is an entry, so Back and Forward go from file to file, and Reload opens the same file
 * again. A URL is also in the address, so that a link to it can be passed on.
 */
import type { FileInput } from '../protocol.ts';
import { nameOf } from './input-names.ts';

/** What an entry of the history says about an opened file. */
export interface Recalled {
  entry: string;
  name: string;
  kind: 'sample' | 'url' | 'files';
  /** Number of files. */
  files: number;
  /** What the user chose in addition to the files. */
  choices: Choices;
}

type Choices = Pick<FileInput, 'snapshot' | 'offset'> & Pick<Extract<FileInput, { files: unknown }>, 'roles' | 'order'>;

/** The inputs that this document has opened, by entry. */
const inputs = new Map<string, FileInput>();
let count = 0;

/** Adds an entry for an input to the history, or puts it in place of the current entry. Returns its name. */
export function remember(input: FileInput, kind: Recalled['kind'], how: 'push' | 'replace'): string {
  const entry = `${performance.timeOrigin}-${++count}`;
  const { snapshot, offset } = input;
  const { roles, order } = 'files' in input ? input : {};
  const files = 'files' in input ? input.files.length : 0;
  const choices = JSON.parse(JSON.stringify({ snapshot, offset, roles, order })) as Choices;
  const recalled: Recalled = { entry, name: nameOf(input), kind, files, choices };
  inputs.set(entry, input);
  write(recalled, how, 'url' in input && kind === 'url' ? `#${encodeURIComponent(input.url)}` : '');
  return entry;
}

/** Adds an entry for the start page, if the current one is another. */
export function rememberStart(): void {
  if (recalled() !== undefined || location.hash !== '') write(undefined, 'push', '');
}

/** What the current entry has open. Undefined for the start page. */
export function recalled(): Recalled | undefined {
  return (history.state as { open?: Recalled } | null)?.open;
}

/** The input of an entry, if this document opened it. */
export const inputOf = (entry: string): FileInput | undefined => inputs.get(entry);

function write(open: Recalled | undefined, how: 'push' | 'replace', hash: string): void {
  const address = `${location.pathname}${location.search}${hash}`;
  if (how === 'push') history.pushState({ open }, '', address);
  else history.replaceState({ open }, '', address);
}
