/** One content overlaid with another, and a content with the blocks of another VM, compared with plain arrays. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NextData } from '../../src/store/next-data.ts';
import { OverlayRam } from '../../src/store/overlay-ram.ts';
import { ResizedRam } from '../../src/store/resized-ram.ts';
import { pageCount, type RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { PageListRam, type Seed } from '../support/page-list-ram.ts';

const pageSize = 1024;

async function readAll(ram: RamReader, block: RamBlock, page: number, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count * pageSize).fill(0xee);
  await ram.read(block, page, bytes);
  return bytes;
}

/** Every run of data that `nextData` returns. */
async function dataPages(ram: RamReader, block: RamBlock, limit: number): Promise<number[]> {
  const pages: number[] = [];
  for (let page = 0; page < pageCount(block); ) {
    const { first, end } = await ram.nextData(block, page, limit);
    expect(first).toBeGreaterThanOrEqual(page);
    expect(end - first).toBeLessThanOrEqual(limit);
    if (first === pageCount(block)) break;
    expect(end).toBeGreaterThan(first);
    for (let at = first; at < end; at++) pages.push(at);
    page = end;
  }
  return pages;
}

const seeds = fc.array(fc.constantFrom<Seed[]>('absent', 0, 1, 2), { minLength: 1, maxLength: 40 });
const ramOf = (...lists: Seed[][]) =>
  new PageListRam(
    lists.map((list, i) => ({ idstr: `b${i}`, seeds: list })),
    pageSize,
  );

describe('a content overlaid with another', () => {
  it('has each page from the changes, otherwise from the base, in whatever order ranges are read', async () => {
    const range = fc.tuple(fc.nat(39), fc.integer({ min: 1, max: 40 }));
    await fc.assert(
      fc.asyncProperty(
        seeds,
        fc.array(range, { maxLength: 6 }),
        fc.integer({ min: 1, max: 5 }),
        async (list, ranges, limit) => {
          // The data of the changes replaces the base, which has other content everywhere.
          const changes = ramOf(list);
          const base = ramOf(list.map((_, page) => (page % 3 === 0 ? 0 : 7)));
          const overlay = new OverlayRam(base, changes);
          const [block] = overlay.blocks as [RamBlock];
          const isChange = (page: number) => list[page] === 1 || list[page] === 2;
          const model = ramOf(list.map((seed, page) => (isChange(page) ? seed : page % 3 === 0 ? 0 : 7)));
          for (const [first, count] of [[0, list.length] as const, ...ranges]) {
            if (first >= list.length) continue;
            const pages = Math.min(count, list.length - first);
            const expected = await readAll(model, block, first, pages);
            expect(Buffer.compare(await readAll(overlay, block, first, pages), expected)).toBe(0);
          }
          const expected = list.flatMap((_, page) => (isChange(page) || page % 3 !== 0 ? [page] : []));
          expect(await dataPages(overlay, block, limit)).toEqual(expected);
          for (const page of list.keys())
            expect(await overlay.state(block, page)).toBe(expected.includes(page) ? 'data' : 'zero');
        },
      ),
    );
  });
});

describe('a content resized to other blocks', () => {
  it('is matched by names, cut off, and extended with zeros', async () => {
    await fc.assert(
      fc.asyncProperty(
        seeds,
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 5 }),
        async (list, pages, limit) => {
          const ram = new PageListRam(
            [
              { idstr: 'other', seeds: [1] },
              { idstr: 'ram', seeds: list },
            ],
            pageSize,
          );
          const wanted = new PageListRam(
            [
              { idstr: 'ram', seeds: new Array<Seed>(pages).fill(0) },
              { idstr: 'new', seeds: [0, 0] },
            ],
            pageSize,
          );
          const fitted = new ResizedRam(ram, wanted.blocks);
          const [block, added] = fitted.blocks as [RamBlock, RamBlock];
          const cut = Array.from({ length: pages }, (_, page): Seed => list[page] ?? 0);
          const model = ramOf(cut);
          const expected = await readAll(model, model.blocks[0] as RamBlock, 0, pages);
          expect(Buffer.compare(await readAll(fitted, block, 0, pages), expected)).toBe(0);
          expect(await dataPages(fitted, block, limit)).toEqual(
            cut.flatMap((seed, page) => (seed === 1 || seed === 2 ? [page] : [])),
          );
          expect(await dataPages(fitted, added, limit)).toEqual([]);
          expect((await readAll(fitted, added, 0, 2)).every((byte) => byte === 0)).toBe(true);
          expect(await fitted.state(added, 1)).toBe('zero');
        },
      ),
    );
  });
});

describe('the position of the next data', () => {
  it('is looked up once per hole, and again for another block or an earlier page', async () => {
    const ram = ramOf([0, 0, 0, 1, 1, 0, 0, 2], [0, 1]);
    let asked = 0;
    const counting = Object.assign(Object.create(ram) as PageListRam, {
      nextData: (block: RamBlock, page: number, limit: number) => {
        asked++;
        return ram.nextData(block, page, limit);
      },
    });
    const next = new NextData(counting);
    const [one, two] = ram.blocks as [RamBlock, RamBlock];
    for (const page of [0, 1, 3]) expect(await next.find(one, page, 9)).toEqual({ first: 3, end: 5 });
    expect(await next.find(one, 2, 1)).toEqual({ first: 3, end: 4 });
    expect(asked).toBe(1);
    expect(await next.find(one, 4, 9)).toEqual({ first: 4, end: 5 });
    expect(await next.find(one, 5, 9)).toEqual({ first: 7, end: 8 });
    expect(await next.find(two, 0, 9)).toEqual({ first: 1, end: 2 });
    expect(await next.find(one, 0, 9)).toEqual({ first: 3, end: 5 });
    expect(asked).toBe(5);
  });
});
