/** Files that are named like another file, with a number: `set.0`, `set.1` and so on beside `set`. */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';

/** The paths of the regular files `PATH.N`, in the order of N. Numbers may be missing. */
export function listNumbered(path: string): string[] {
  const base = basename(path);
  let names: string[];
  try {
    names = readdirSync(dirname(path));
  } catch {
    // The directory may be searchable without being readable.
    return [];
  }
  const numbered = names.flatMap((name) => {
    const number = name.startsWith(`${base}.`) ? name.slice(base.length + 1) : '';
    return /^(0|[1-9]\d{0,2})$/.test(number) ? [Number(number)] : [];
  });
  return numbered
    .sort((a, b) => a - b)
    .map((number) => `${path}.${number}`)
    .filter((each) => statSync(each, { throwIfNoEntry: false })?.isFile() === true);
}

/** Whether a file begins with these bytes. A file that cannot be read does not. */
export function beginsWith(path: string, bytes: Uint8Array): boolean {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return false;
  }
  try {
    const head = Buffer.alloc(bytes.length);
    return readSync(fd, head) === bytes.length && head.equals(bytes);
  } finally {
    closeSync(fd);
  }
}
