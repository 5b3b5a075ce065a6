/** A progress line on standard error while a file is read; only on a terminal, and not with --quiet. */
import type { MigrationFile } from '../read/open.ts';
import { isQuiet } from './messages.ts';
import { progressLine } from './print/progress-line.ts';

const intervalMs = 100;
/** Shorter work shows no progress. */
const delayMs = 400;

/** Whether the line is on the terminal. */
let shown = false;

/** Clears the line for other output. The next update shows it again. */
export function hideProgress(): void {
  if (shown) process.stderr.write('\r\x1b[K');
  shown = false;
}

/** Starts a progress line. When two files are read in turns, the line of the file that advances is shown. */
export function showProgress(verb: string, file: MigrationFile): { stop(): void } {
  const { stderr } = process;
  if (stderr.isTTY !== true || isQuiet()) return { stop() {} };
  const started = Date.now();
  let latest = -1;
  const timer = setInterval(() => {
    const elapsed = Date.now() - started;
    if (elapsed < delayMs || (shown && file.reached === latest)) return;
    latest = file.reached;
    shown = true;
    stderr.write(`\r\x1b[K${progressLine(verb, file, elapsed, (stderr.columns || 80) - 1)}`);
  }, intervalMs);
  return {
    stop() {
      clearInterval(timer);
      hideProgress();
    },
  };
}
