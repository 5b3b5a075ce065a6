/** RAM as a list of seeds, one per page: the content of generated VMs. */
import { pageCount, type RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';

/** A page: never sent, zero, or bytes generated from a number. */
export type Seed = 'absent' | number;

export interface ListedBlock {
  idstr: string;
  seeds: readonly Seed[];
}

export class PageListRam implements RamReader {
  readonly blocks: readonly RamBlock[];
  readonly #seeds: readonly (readonly Seed[])[];

  constructor(blocks: readonly ListedBlock[], pageSize: number) {
    this.blocks = blocks.map(({ idstr, seeds }, index) => {
      return { index, idstr, usedLength: seeds.length * pageSize, pageSize };
    });
    this.#seeds = blocks.map(({ seeds }) => seeds);
  }

  state({ index }: RamBlock, page: number): 'absent' | 'zero' | 'data' {
    const seed = this.#seeds[index]?.[page];
    return seed === 'absent' ? 'absent' : seed === 0 ? 'zero' : 'data';
  }

  isAbsent(block: RamBlock, page: number): boolean {
    return this.state(block, page) === 'absent';
  }

  async read({ index, pageSize }: RamBlock, page: number, target: Uint8Array): Promise<void> {
    target.fill(0);
    for (let i = 0; i < target.length / pageSize; i++) {
      const seed = this.#seeds[index]?.[page + i];
      if (typeof seed === 'number' && seed > 0) target.fill(seed, i * pageSize + seed, i * pageSize + 2 * seed);
    }
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const pages = pageCount(block);
    let first = page;
    while (first < pages && this.state(block, first) !== 'data') first++;
    let end = first;
    while (end < Math.min(pages, first + limit) && this.state(block, end) === 'data') end++;
    return { first, end };
  }

  async close(): Promise<void> {}
}
