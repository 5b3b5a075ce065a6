/** How the command line shows tables and colours; numbers as everywhere (src/words/format.ts). */
export { formatBytes, formatCount, formatHex, plural, printable } from '../../words/format.ts';

/** Rows as aligned columns, two spaces apart; a column is `left` or `right`. The first row is the head. */
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
 * Styles text if the stream is a terminal that wants colours: `NO_COLOR` and `TERM=dumb` say no. Not `util.styleText`,
 * which judges by standard output, and differently from version to version of Node.
 */
export function painter(stream: { isTTY?: boolean }): (style: Style, text: string) => string {
  const plain = stream.isTTY !== true || (process.env.NO_COLOR ?? '') !== '' || process.env.TERM === 'dumb';
  if (plain) return (_, text) => text;
  return (style, text) => `\x1b[${styles[style][0]}m${text}\x1b[${styles[style][1]}m`;
}
