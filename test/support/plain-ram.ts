/** RAM as an array of bytes, and the plainest search in it. */
import { maxMatchBytes, type SearchPattern, toPattern } from '../../src/tasks/search/pattern.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';

/** One block of content whose zero pages are holes. Counts the pages that are read. */
export class PlainRam implements RamReader {
  readonly block: RamBlock;
  readonly blocks: readonly RamBlock[];
  readonly content: Uint8Array;
  pagesRead = 0;

  constructor(content: Uint8Array, pageSize: number) {
    this.content = content;
    this.block = { index: 0, idstr: 'ram', usedLength: content.length, pageSize };
    this.blocks = [this.block];
  }

  state(_: RamBlock, page: number): 'zero' | 'data' {
    const { pageSize } = this.block;
    return this.content.subarray(page * pageSize, (page + 1) * pageSize).every((byte) => byte === 0) ? 'zero' : 'data';
  }

  async read({ pageSize }: RamBlock, page: number, target: Uint8Array): Promise<void> {
    this.pagesRead += target.length / pageSize;
    target.set(this.content.subarray(page * pageSize, page * pageSize + target.length));
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const pages = this.content.length / block.pageSize;
    let first = page;
    while (first < pages && this.state(block, first) === 'zero') first++;
    let end = first;
    while (end < pages && end < first + limit && this.state(block, end) === 'data') end++;
    return { first, end };
  }

  async close(): Promise<void> {}
}

const toText = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

/** Where a pattern matches, by the documented rule: place by place, without overlaps. */
export function plainSearch(content: Uint8Array, wanted: SearchPattern): { offset: number; length: number }[] {
  const pattern = toPattern(wanted);
  const text = toText(content);
  const lengthAt = (at: number): number => {
    if ('values' in pattern) {
      const { values, masks } = pattern;
      const fits =
        at + values.length <= content.length && values.every((value, k) => (content[at + k]! & masks[k]!) === value);
      return fits ? values.length : 0;
    }
    const sticky = new RegExp(pattern.source, `${pattern.flags.replace(/[gy]/g, '')}y`);
    const begin = Math.max(0, at - maxMatchBytes);
    sticky.lastIndex = at - begin;
    return sticky.exec(text.slice(begin, at + maxMatchBytes))?.[0].length ?? 0;
  };
  const found: { offset: number; length: number }[] = [];
  for (let at = 0; at < content.length; ) {
    const length = lengthAt(at);
    if (length > 0) found.push({ offset: at, length });
    at += Math.max(1, length);
  }
  return found;
}
