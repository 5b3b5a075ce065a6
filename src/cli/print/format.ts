/** Tables and colours of the command line. Numbers are formatted as everywhere (src/words/format.ts). */
export { formatBytes, formatCount, formatHex, plural, printable } from '../../words/format.ts';

/** Aligns rows in columns, two spaces apart; a column is `left` or `right`. The first row is the head. */
export function formatTable(rows: string[][], columns: ('left' | 'right')[], indent = '  '): string {
  const widths = columns.map((_, i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  return rows
    .map((row) => {
      const cells = columns.map((side, i) => {
        const width = widths[i] as number;
        return side === 'left' ? (row[i] ?? '').padEnd(width) : (row[i] ?? '').padStart(width);
      });
      return indent + cells.join('  ').trimEnd();
    })
    .join('\n');
}

/** SGR codes that turn a style on and off. */
const styles = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
  cyan: [36, 39],
} as const;

type Style = keyof typeof styles;

/**
 * Whether to use colours: `NO_COLOR` (present and not empty) says no, `FORCE_COLOR` says yes, or no if it is 0 or false;
 * otherwise a terminal does, unless it is dumb. Not `util.styleText`, which judges by standard output, and differently
 * from version to version of Node.
 */
export function useColour(stream: { isTTY?: boolean }): boolean {
  const { NO_COLOR: no = '', FORCE_COLOR: force = '', TERM: term } = process.env;
  if (no !== '' || force === '0' || force === 'false') return false;
  return force !== '' || (stream.isTTY === true && term !== 'dumb');
}

/** Styles text for a stream, or leaves it as it is. */
export function painter(stream: { isTTY?: boolean }): (style: Style, text: string) => string {
  if (!useColour(stream)) return (_, text) => text;
  return (style, text) => `\x1b[${styles[style][0]}m${text}\x1b[${styles[style][1]}m`;
}
