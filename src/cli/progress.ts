/** A progress line on standard error while a file is read; only on a terminal, and not with --quiet. */
import type { MigrationFile } from '../read/open.ts';
import { isQuiet } from './messages.ts';
import { formatBytes, printable } from './print/format.ts';

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

/** The shortest name that is still worth showing. */
const minName = 12;

/** The line, in at most `columns` characters. The figures matter most, so the name is shortened first. */
export function progressLine(
  verb: string,
  file: { reached: number; size: number | undefined; source: { name: string } },
  elapsedMs: number,
  columns: number,
): string {
  const figures = `: ${figuresOf(file, elapsedMs)}`;
  const name = shortenPath(printable(file.source.name), Math.max(minName, columns - verb.length - 1 - figures.length));
  return `${verb} ${name}${figures}`.slice(0, columns);
}

/** Cuts a path in the middle: its last part, the file's name, says most. */
function shortenPath(path: string, length: number): string {
  if (path.length <= length) return path;
  const fileName = path.slice(path.lastIndexOf('/'));
  const end = fileName.length < length - 1 ? Math.max(fileName.length, Math.ceil((length - 1) / 2)) : length - 1;
  const start = length - 1 - end;
  return `${path.slice(0, start)}…${path.slice(path.length - end)}`;
}

function figuresOf({ reached: done, size }: { reached: number; size: number | undefined }, elapsedMs: number): string {
  const rate = (done / elapsedMs) * 1000;
  const text = formatBytes(done);
  if (size === undefined) return `${text}, ${formatBytes(rate)}/s`;
  const total = Math.max(1, size);
  const left = rate > 0 ? Math.ceil((total - done) / rate) : 0;
  const percent = Math.floor((done / total) * 100);
  return `${text} of ${formatBytes(total)}, ${percent} %, ${formatBytes(rate)}/s, ${left} s left`;
}
