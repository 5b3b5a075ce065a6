/** What was typed into the shell of `vmferry qmp` before, newest first, in a file of the user. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

export const historyLines = 1000;

const path = (): string =>
  join(process.env.XDG_STATE_HOME || join(homedir(), '.local/state'), 'vmferry', 'qmp-history');

export function readHistory(): string[] {
  try {
    return readFileSync(path(), 'utf8').split('\n').filter(Boolean).slice(0, historyLines);
  } catch {
    return [];
  }
}

/** Only its owner may read it: commands can contain secrets. Without a place for it nothing is kept. */
export function writeHistory(lines: readonly string[]): void {
  try {
    mkdirSync(dirname(path()), { recursive: true, mode: 0o700 });
    writeFileSync(path(), lines.map((line) => `${line}\n`).join(''), { mode: 0o600 });
  } catch {
    // A shell works without it.
  }
}
