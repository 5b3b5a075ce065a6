/** What `--help` prints below the options: notes, exit codes and examples, wrapped at the width of the terminal. */
import type { CommandFacts, Note } from './command-facts.ts';
import type { ExitCodes } from './exit-codes.ts';
import { formatTable } from './print/format.ts';
import { wrap } from './print/wrap.ts';

const defaultWidth = 80;
/** Narrower terminals get lines of this width. */
const minWidth = 40;

/** The terminal's width; without a terminal that of COLUMNS, or 80. */
export function helpWidth(stream: { isTTY?: boolean; columns?: number }): number {
  const stated = Number(process.env.COLUMNS);
  const columns = stream.isTTY === true && stream.columns ? stream.columns : stated;
  return Number.isInteger(columns) && columns > 0 ? Math.max(minWidth, columns) : defaultWidth;
}

export function renderHelp(
  { notes, examples }: CommandFacts,
  exitCodes: ExitCodes,
  width = helpWidth(process.stdout),
): string {
  const codes = Object.entries(exitCodes).map(([code, meaning]) => item(code, meaning, width));
  const blocks = [
    ...notes.map((note) => renderNote(note, width)),
    ['Exit codes:', ...codes].join('\n'),
    ['Examples:', ...examples.flatMap((example) => wrapCommand(example, width - 2))].join('\n  '),
  ];
  return blocks.map((block) => `\n${block}`).join('\n');
}

function renderNote(note: Note, width: number): string {
  if (typeof note === 'string') return wrap(note, width).join('\n');
  const table = formatTable(
    note.table.map((row) => [...row]),
    (note.table[0] ?? []).map(() => 'left' as const),
  );
  if (table.split('\n').every((line) => line.length <= width)) return table;
  // A table that is too wide is read row by row.
  const [, ...heads] = note.table[0] ?? [];
  return note.table
    .slice(1)
    .map(([term = '', ...cells]) => {
      const texts = cells.map((cell, i) => (cell === '' ? '' : `${heads[i]}: ${cell}`));
      return [`  ${term}`, ...texts.flatMap((text) => indent(text, 4, width))].join('\n');
    })
    .join('\n');
}

/** Breaks a shell command into lines that the shell reads as one: at spaces outside quotes. */
function wrapCommand(command: string, width: number): string[] {
  const words = command.match(/(?:'[^']*'|[^' ])+/g) ?? [];
  const lines: string[] = [];
  let line = '';
  for (const word of words) {
    // The backslash takes two more characters.
    if (line !== '' && line.length + 1 + word.length > width - 2) {
      lines.push(`${line} \\`);
      line = `  ${word}`;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

const indent = (text: string, by: number, width: number) =>
  text === '' ? [] : wrap(text, width - by).map((line) => ' '.repeat(by) + line);

function item(term: string, text: string, width: number): string {
  return `  ${term.padEnd(3)}  ${indent(text, 7, width).join('\n').trimStart()}`;
}
