/** Two contents side by side, compared with the plainest implementation. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/kernel.ts';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { type BlockPair, matchBlocks, PagePairs, pagePairsArenaBytes } from '../../src/store/page-pairs.ts';
import { isBitSet } from '../../src/vm/bits.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { PlainRam } from '../support/plain-ram.ts';

const load = () => loadKernel({ arenaBytes: pagePairsArenaBytes + (64 << 10) });

/** Pages generated from seeds; 0 is zero. */
const contentOf = (seeds: readonly number[], pageSize: number): Uint8Array => {
  const content = new Uint8Array(seeds.length * pageSize);
  seeds.forEach((seed, page) => {
    if (seed > 0) content[page * pageSize + (seed % 2 === 0 ? pageSize - 1 : (seed * 37) % pageSize)] = seed;
  });
  return content;
};

const pairOf = (old: PlainRam, now: PlainRam): BlockPair => ({ oldBlock: old.block, newBlock: now.block });

/** The result for each page: the letters c, o, n for changed, zero in the old, zero in the new; or a gap. */
async function judge(kernel: Kernel, old: PlainRam, now: PlainRam): Promise<string[]> {
  const pages: string[] = [];
  for await (const span of new PagePairs(kernel).spans(old, now, pairOf(old, now))) {
    expect(span.first).toBe(pages.length);
    expect(span.count).toBeGreaterThan(0);
    if (span.isGap) {
      pages.push(...new Array<string>(span.count).fill('gap'));
      continue;
    }
    const { pageSize } = now.block;
    expect(span.count * pageSize).toBeLessThanOrEqual(1 << 20);
    const bytesAt = (ram: PlainRam) =>
      ram.content.subarray(span.first * pageSize, (span.first + span.count) * pageSize);
    for (const [ram, at] of [
      [old, span.old],
      [now, span.new],
    ] as const) {
      expect(Buffer.compare(kernel.bytes.subarray(at, at + span.count * pageSize), bytesAt(ram))).toBe(0);
    }
    let changed = 0;
    for (let i = 0; i < span.count; i++) {
      const [isChanged, oldZero, newZero] = [span.changed, span.oldZero, span.newZero].map((bits) => isBitSet(bits, i));
      if (isChanged === true) changed++;
      pages.push(`${isChanged ? 'c' : ''}${oldZero ? 'o' : ''}${newZero ? 'n' : ''}`);
    }
    expect(span.changedCount).toBe(changed);
  }
  return pages;
}

describe('pairs of pages', () => {
  it('give the results of a plain comparison for every common page, once and in order', async () => {
    const seed = fc.constantFrom(0, 0, 1, 2, 3);
    const shapes = fc.constantFrom(1024, 4096, 65536).chain((pageSize) => {
      const run = fc.record({ old: seed, now: seed, pages: fc.integer({ min: 1, max: pageSize > 4096 ? 20 : 400 }) });
      return fc.record({
        pageSize: fc.constant(pageSize),
        runs: fc.array(run, { minLength: 1, maxLength: 6 }),
        less: fc.nat(5),
      });
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ pageSize, runs, less }) => {
        const seeds = runs.flatMap(({ pages, ...both }) => new Array(pages).fill(both) as typeof runs);
        const old = new PlainRam(
          contentOf(
            seeds.map((each) => each.old),
            pageSize,
          ),
          pageSize,
        );
        const common = seeds.slice(0, Math.max(1, seeds.length - less));
        const now = new PlainRam(
          contentOf(
            common.map((each) => each.now),
            pageSize,
          ),
          pageSize,
        );
        const expected = common.map((each) => {
          return `${each.old === each.now ? '' : 'c'}${each.old === 0 ? 'o' : ''}${each.now === 0 ? 'n' : ''}`;
        });
        const said = await judge(await load(), old, now);
        expect(said.map((what) => (what === 'gap' ? 'on' : what))).toEqual(expected);
        // A hole at the beginning, or after as much data as a hole, is not read.
        const leading = expected.findIndex((what) => what !== 'on');
        expect(said.slice(0, leading === -1 ? said.length : leading).every((what) => what === 'gap')).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('read nothing where neither has data, and each page once where one has', async () => {
    const seeds = [...new Array(1100).fill(0), ...new Array(300).fill(1), ...new Array(1100).fill(0)];
    const old = new PlainRam(contentOf(new Array(seeds.length).fill(0), 4096), 4096);
    const now = new PlainRam(contentOf(seeds, 4096), 4096);
    const said = await judge(await load(), old, now);
    expect(said.filter((what) => what === 'co').length).toBe(300);
    expect(now.pagesRead).toBe(512);
    expect(old.pagesRead).toBe(0);
  });

  it('do not look up the next data again while it is still ahead', async () => {
    const empty = new PlainRam(new Uint8Array(4096 * 2000), 4096);
    let asked = 0;
    const old: RamReader = {
      blocks: empty.blocks,
      state: (block, page) => empty.state(block, page),
      read: (block, page, target) => empty.read(block, page, target),
      nextData: (block) => {
        asked++;
        return Promise.resolve({ first: 2000, end: block.usedLength / block.pageSize });
      },
      close: async () => {},
    };
    const now = new PlainRam(contentOf(new Array(2000).fill(1), 4096), 4096);
    const spans = new PagePairs(await load()).spans(old, now, { oldBlock: empty.block, newBlock: now.block });
    for await (const span of spans) expect(span.isGap).toBe(false);
    expect(asked).toBe(1);
  });

  it('are none for blocks of different page sizes', async () => {
    const [old, now] = [new PlainRam(new Uint8Array(8192), 4096), new PlainRam(new Uint8Array(8192), 8192)];
    await expect(judge(await load(), old, now)).rejects.toThrow(
      /ram: expected pages of 4096 bytes in both contents, got pages of 8192/,
    );
  });

  it('fail if reading fails, and leave no read pending if they are left early', async () => {
    const ram = new PlainRam(contentOf(new Array(1000).fill(1), 4096), 4096);
    const kernel = await load();
    const pairs = new PagePairs(kernel);
    let reading = 0;
    const slow: RamReader = {
      blocks: ram.blocks,
      state: (block, page) => ram.state(block, page),
      nextData: (block, page, limit) => ram.nextData(block, page, limit),
      read: async (block, page, target) => {
        if (page >= 512) throw new Error('gone');
        reading++;
        await new Promise((resolve) => setTimeout(resolve, 5));
        await ram.read(block, page, target);
        reading--;
      },
      close: async () => {},
    };
    for await (const span of pairs.spans(slow, ram, pairOf(ram, ram))) {
      expect(span.first).toBe(0);
      break;
    }
    expect(reading).toBe(0);
    const all = async () => {
      for await (const span of pairs.spans(slow, ram, pairOf(ram, ram))) expect(span.first).toBeLessThan(512);
    };
    await expect(all()).rejects.toThrow('gone');
  });
});

describe('blocks of two contents', () => {
  it('are matched by name, at any position in the lists', () => {
    const block = (index: number, idstr: string, pages: number): RamBlock => ({
      ...{ index, idstr, usedLength: pages * 4096, pageSize: 4096 },
    });
    const olds = [block(0, 'pc.ram', 8), block(1, 'gone', 1), block(2, 'vga', 4)];
    const news = [block(0, 'vga', 4), block(1, 'pc.ram', 9), block(2, 'added', 1)];
    expect(matchBlocks(olds, news)).toEqual({
      pairs: [
        { oldBlock: olds[2], newBlock: news[0] },
        { oldBlock: olds[0], newBlock: news[1] },
      ],
      onlyOld: [olds[1]],
      onlyNew: [news[2]],
    });
  });
});
