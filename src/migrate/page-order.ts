/**
 * An order of pages as text: what a guest asked for first. A page server writes it, and another one pushes pages in that order
 * (`push-order.ts`).
 *
 *     # vmferry page order 1
 *     0x1fc000 0x1000 pc.ram        begin and length in bytes, and the block, whose name may have spaces
 */
import type { RamBlock } from '../vm/ram-block.ts';
import { pageCount } from '../vm/ram-block.ts';
import type { PageRange } from './push-order.ts';

const head = '# vmferry page order 1';
/** The most lines. */
const maxOrderLines = 1_000_000;

/** Writes an order. Pages that follow each other in it are one line. */
export function formatOrder(ranges: readonly PageRange[]): string {
  const lines = [head];
  let open: PageRange | undefined;
  const close = () => {
    if (open === undefined) return;
    const { block, first, end } = open;
    const [start, length] = [first * block.pageSize, (end - first) * block.pageSize];
    lines.push(`0x${start.toString(16)} 0x${length.toString(16)} ${block.idstr}`);
  };
  for (const range of ranges) {
    if (open !== undefined && open.block.idstr === range.block.idstr && open.end === range.first) {
      open = { ...open, end: range.end };
      continue;
    }
    close();
    open = { ...range };
  }
  close();
  return `${lines.join('\n')}\n`;
}

/** A line of an order. */
export interface OrderLine {
  /** Bytes. */
  start: number;
  length: number;
  idstr: string;
}

/** @throws RangeError that names the line, for what is not an order */
export function parseOrder(text: string): OrderLine[] {
  const lines = text.split(/\r?\n/);
  if (lines[0] !== head) throw new RangeError(`expected "${head}" in line 1 of the order`);
  const order: OrderLine[] = [];
  for (const [i, line] of lines.entries()) {
    if (line === '' || line.startsWith('#')) continue;
    const match = /^(0x[0-9a-f]+) (0x[0-9a-f]+) (.+)$/i.exec(line);
    const [start, length] = [Number(match?.[1]), Number(match?.[2])];
    if (match === null || !Number.isSafeInteger(start + length)) {
      throw new RangeError(
        `expected begin, length and block in line ${i + 1} of the order, got "${line.slice(0, 80)}"`,
      );
    }
    if (order.length === maxOrderLines) throw new RangeError(`expected at most ${maxOrderLines} lines in the order`);
    order.push({ start, length, idstr: match[3] as string });
  }
  return order;
}

/** The pages of an order that these blocks have. An order of an earlier VM may name more. */
export function pagesInOrder(order: readonly OrderLine[], blocks: readonly RamBlock[]): PageRange[] {
  const byName = new Map(blocks.map((block) => [block.idstr, block]));
  const ranges: PageRange[] = [];
  for (const { start, length, idstr } of order) {
    const block = byName.get(idstr);
    if (block === undefined) continue;
    const first = Math.floor(start / block.pageSize);
    const end = Math.min(Math.ceil((start + length) / block.pageSize), pageCount(block));
    if (first < end) ranges.push({ block, first, end });
  }
  return ranges;
}
