/** One line of bytes, in hex or as text, with marks on the bytes that were searched for or that differ. */
import { asciiBytes, hexAddress, hexLine } from '../../../words/hex-dump.ts';

export type BytesMode = 'hex' | 'text';

interface Props {
  /** Offset of the first byte. */
  at: number;
  bytes: Uint8Array;
  /** Digits of an address. */
  digits: number;
  perLine: number;
  mode: BytesMode;
  /** The bytes to compare with. */
  other: Uint8Array | undefined;
  /** The range to mark. */
  mark: { offset: number; length: number };
}

/** Characters of a line that are marked. */
interface Mark {
  column: number;
  width: number;
  kind: 'differs' | 'marked';
}

export function ByteLine(props: Props) {
  const text = textOf(props);
  const marks = marksOf(props);
  const parts = [];
  let done = 0;
  for (const { column, width, kind } of marks) {
    parts.push(text.slice(done, column), <mark class={kind}>{text.slice(column, column + width)}</mark>);
    done = column + width;
  }
  return (
    <div class="line">
      {parts}
      {text.slice(done)}
    </div>
  );
}

function textOf({ at, bytes, digits, perLine, mode }: Props): string {
  if (mode === 'hex') return hexLine(at, bytes, digits, perLine);
  return `${hexAddress(at, digits)}  ${asciiBytes(bytes).replaceAll('.', '·')}`;
}

/** The marks of a line from left to right. In hex each byte has two places: its digits, and its character at the end. */
function marksOf({ at, bytes, digits, perLine, mode, other, mark }: Props): Mark[] {
  const textAt = mode === 'hex' ? digits + perLine * 3 + perLine / 8 + 3 : digits + 2;
  const marks: Mark[] = [];
  for (const [i, byte] of bytes.entries()) {
    const isMarked = at + i >= mark.offset && at + i < mark.offset + mark.length;
    const differs = other !== undefined && other[i] !== byte;
    if (!differs && !isMarked) continue;
    const kind = differs ? 'differs' : 'marked';
    if (mode === 'hex') marks.push({ column: digits + 2 + 3 * i + Math.floor(i / 8), width: 2, kind });
    marks.push({ column: textAt + i, width: 1, kind });
  }
  return marks.sort((a, b) => a.column - b.column);
}
