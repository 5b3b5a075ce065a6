import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PageKind } from '../../src/kernel/page-batch.ts';
import { MappedRamPages } from '../../src/store/mapped-ram-pages.ts';
import { MappedRamStore } from '../../src/store/mapped-ram-store.ts';
import { Feeder } from '../support/pages.ts';

const feeder = await Feeder.make();
const plain = { index: 0, idstr: 'ram', usedLength: 10 * 4096, pageSize: 4096 };
const data = (page: number) => ({ page, kind: PageKind.data, payload: new Uint8Array(4096).fill(page + 1) });
const zero = (page: number) => ({ page, kind: PageKind.zero, payload: new Uint8Array() });

async function laidOut() {
  const file = new MemoryFile();
  const store = new MappedRamStore(file, feeder.pageSlots);
  const block = await store.addBlock(plain);
  return { file, store, block, pages: () => new MappedRamPages(file, feeder.pageSlots, store.blocks) };
}

describe('the pages of a mapped-ram file with several workers', () => {
  it('have the state that the store was told last', async () => {
    const { store, block, pages } = await laidOut();
    const [a, b] = [pages(), pages()];
    await a.apply(block, feeder.batch([data(1), data(2)], 0));
    store.note(a.take());
    await b.apply(block, feeder.batch([zero(2), data(5)], 0));
    expect(a.take()).toEqual([]);
    expect(store.state(block, 5)).toBe('absent');
    store.note(b.take());
    const states = Array.from({ length: 7 }, (_, page) => store.state(block, page));
    expect(states).toEqual(['absent', 'data', 'zero', 'absent', 'absent', 'data', 'absent']);
    const read = new Uint8Array(4096);
    for (const [page, byte] of [
      [1, 2],
      [2, 0],
      [5, 6],
    ] as const) {
      await store.read(block, page, read);
      expect(read.every((each) => each === byte)).toBe(true);
    }
  });

  it('must not be deltas, because another worker may have the previous page', async () => {
    const { block, pages } = await laidOut();
    const delta = { page: 1, kind: PageKind.delta, payload: Uint8Array.of(0, 1, 7) };
    await expect(pages().apply(block, feeder.batch([data(0), delta], 0))).rejects.toThrow(/expected whole pages/);
  });

  it('need blocks that the store laid out', async () => {
    const { file, store } = await laidOut();
    expect(() => new MappedRamPages(file, feeder.pageSlots, [plain])).toThrow(
      /expected a block with a place, got "ram"/,
    );
    const other = { ...plain, index: 3 };
    const pages = new MappedRamPages(file, feeder.pageSlots, store.blocks);
    await expect(pages.apply(other, feeder.batch([data(0)], 0))).rejects.toThrow(/expected a block of the store/);
    expect(() => store.note([{ block: 3, firstPage: 0, states: new Uint8Array(1) }])).toThrow(/got number 3/);
  });
});
