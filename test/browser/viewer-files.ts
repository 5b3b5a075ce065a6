/** Files for the viewer's tests that are too large for fixtures. The library makes them in Node. */
import { createHash } from 'node:crypto';
import { appendTo } from '../../src/io/byte-source.ts';
import { OutputFile } from '../../src/io/node/output-file.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { writeMappedRam } from '../../src/write/write-mapped-ram.ts';
import { writeStream } from '../../src/write/write-stream.ts';

const pageSize = 4096;
export const configuration = { machine: 'none', capabilities: [] };

/** A page whose bytes encode its number. */
function pageOf(page: number): Uint8Array {
  const bytes = new Uint8Array(pageSize);
  const words = new Uint32Array(bytes.buffer);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(page * 1024 + i + 1, 2654435761);
  return bytes;
}

/** One block in which some pages have data. */
export class SparseRam implements RamReader {
  readonly blocks: readonly RamBlock[];
  readonly #hasData: (page: number) => boolean;
  readonly #content: (page: number) => Uint8Array;

  constructor(pages: number, hasData: (page: number) => boolean, content = pageOf) {
    this.blocks = [{ index: 0, idstr: 'ram', usedLength: pages * pageSize, pageSize }];
    this.#hasData = hasData;
    this.#content = content;
  }

  state(_: RamBlock, page: number): 'data' | 'zero' {
    return this.#hasData(page) ? 'data' : 'zero';
  }

  async read(_: RamBlock, page: number, target: Uint8Array): Promise<void> {
    target.fill(0);
    for (let at = 0; at < target.length; at += pageSize) {
      const number = page + at / pageSize;
      if (this.#hasData(number)) target.set(this.#content(number), at);
    }
  }

  async nextData({ usedLength }: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const pages = usedLength / pageSize;
    let first = page;
    while (first < pages && !this.#hasData(first)) first++;
    let end = first;
    while (end < pages && end < first + limit && this.#hasData(end)) end++;
    return { first, end };
  }

  async close(): Promise<void> {}
}

/** Writes a mapped-ram file of 2 GiB, nearly all of it holes: pages 0, 1 and the last have data. */
export async function writeSparse(path: string): Promise<void> {
  const pages = 2 ** 31 / pageSize;
  const output = new OutputFile(path);
  await writeMappedRam(
    { configuration, ram: new SparseRam(pages, (page) => page < 2 || page === pages - 1) },
    output.file,
  );
  await output.commit();
}

/** Writes a stream of two passes, the second with deltas. All pages have data. Returns the sha256 of its RAM. */
export async function writeTwoPasses(path: string, pages: number): Promise<string> {
  const changed = (page: number) => {
    const bytes = pageOf(page);
    if (page % 3 === 0) bytes[page % pageSize] = (bytes[page % pageSize] as number) ^ 0xff;
    return bytes;
  };
  const all = () => true;
  const output = new OutputFile(path);
  const base = new SparseRam(pages, all);
  await writeStream({ configuration, ram: new SparseRam(pages, all, changed) }, appendTo(output.file), { base });
  await output.commit();
  const hash = createHash('sha256');
  for (let page = 0; page < pages; page++) hash.update(changed(page));
  return hash.digest('hex');
}
