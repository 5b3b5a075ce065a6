/** The text of a progress line. */
import { formatBytes, printable } from './format.ts';

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
