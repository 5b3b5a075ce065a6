/** How the command line shows numbers, tables and colours. */
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Bytes in binary units, with at most three digits that matter: `4 KiB`, `1.37 GiB`. */
export function formatBytes(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(value >= 1000 ? 4 : 3))} ${units[unit]}`;
}

/** An integer with thousands separated. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

export function formatHex(offset: number): string {
  return `0x${offset.toString(16)}`;
}

/** `1 page`, `2 pages`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

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

/** Names from a file have a char for each byte; where the bytes are UTF-8, they are shown so. */
function asUtf8(text: string): string {
  const codes = Array.from(text, (char) => char.codePointAt(0) as number);
  if (codes.every((code) => code < 0x80) || codes.some((code) => code > 0xff)) return text;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(codes));
  } catch {
    return text;
  }
}

/** Text from a file, safe for a terminal: control characters become escapes. */
export function printable(text: string): string {
  return asUtf8(text).replace(/\p{Cc}/gu, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
