import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ByteStore } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PageKind } from '../../src/kernel/page-batch.ts';
import { PageArea } from '../../src/store/page-area.ts';
import { MigrationError } from '../../src/vm/migration-error.ts';
import { pageCount, type RamBlock } from '../../src/vm/ram-block.ts';
import { BlockModel, Feeder, passes } from '../support/pages.ts';
import { RecordingFile } from '../support/recording-file.ts';

const feeder = await Feeder.make();
const blockOf = (pages: number, pageSize = 4096): RamBlock => ({
  index: 0,
  idstr: 'ram',
  usedLength: pages * pageSize,
  pageSize,
});
const areaOf = (file: ByteStore, block: RamBlock, origin = 0, erase = true) =>
  new PageArea(file, block, feeder.pageSlots, { origin, erase });

const contentOf = (file: MemoryFile, from: number, length: number) => {
  const bytes = new Uint8Array(length);
  file.read(bytes, from);
  return bytes;
};

const cases = fc.constantFrom(1024, 4096, 16384, 65536).chain((pageSize) => {
  const pages = pageSize >= 16384 ? 20 : 70;
  return fc.record({ pageSize: fc.constant(pageSize), pages: fc.constant(pages), passes: passes(pages) });
});

describe('a page area', () => {
  it('does not look at pages after the requested ones, however many zero pages follow', async () => {
    const block = blockOf(100_000);
    const area = areaOf(new MemoryFile(), block);
    for (let page = 0; page < 100_000; page++) area.states.set(page, PageKind.zero);
    const ends: number[] = [];
    const { states } = area;
    const nextSet = states.nextSet.bind(states);
    states.nextSet = (first, end) => {
      ends.push(end);
      return nextSet(first, end);
    };
    const target = new Uint8Array(8 * 4096).fill(1);
    await area.read(40, target);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(ends.length).toBeGreaterThan(0);
    for (const end of ends) expect(end).toBeLessThanOrEqual(48);
    expect(area.nextData(40, 1)).toEqual({ first: 100_000, end: 100_000 });
  });

  it('has the content and the states of a plain model after any passes', async () => {
    await fc.assert(
      fc.asyncProperty(
        cases,
        fc.boolean(),
        fc.constantFrom(0, 12345),
        async ({ pageSize, pages, passes: list }, erase, origin) => {
          const block = blockOf(pages, pageSize);
          const model = new BlockModel(block);
          const file = new MemoryFile();
          const area = areaOf(file, block, origin, erase);
          for (const { wishes, gap } of list) {
            await area.apply(
              feeder.batch(
                wishes.map((wish) => model.change(wish)),
                gap,
              ),
            );
          }
          const read = new Uint8Array(block.usedLength).fill(0xee);
          await area.read(0, read);
          expect(Buffer.compare(read, model.content)).toBe(0);
          const states = model.states.map((_, page) => ['absent', 'zero', 'data'][area.states.get(page)]);
          expect(states).toEqual(model.states);
          if (!erase) return;
          expect(Buffer.compare(contentOf(file, origin, block.usedLength), model.content)).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('reads any run of pages', async () => {
    const block = blockOf(70);
    const model = new BlockModel(block);
    const area = areaOf(new MemoryFile(), block, 0, false);
    for (let page = 0; page < 70; page += 3)
      await area.apply(feeder.batch([model.change({ page, as: 'data', seed: page + 1 })], 0));
    for (const [page, count] of [
      [0, 70],
      [1, 2],
      [69, 1],
      [3, 1],
      [4, 1],
      [10, 50],
    ] as const) {
      const target = new Uint8Array(count * 4096).fill(0xee);
      await area.read(page, target);
      expect(
        Buffer.compare(target, model.content.subarray(page * 4096, (page + count) * 4096)),
        `${count} at ${page}`,
      ).toBe(0);
    }
  });

  it('finds the same next data as a plain model', async () => {
    const pages = 40;
    await fc.assert(
      fc.asyncProperty(passes(pages), async (list) => {
        const model = new BlockModel(blockOf(pages, 1024));
        const area = areaOf(new MemoryFile(), model.block);
        for (const { wishes, gap } of list)
          await area.apply(
            feeder.batch(
              wishes.map((wish) => model.change(wish)),
              gap,
            ),
          );
        for (let page = 0; page <= pages; page++) {
          for (const limit of [1, 2, pages]) expect(area.nextData(page, limit)).toEqual(model.nextData(page, limit));
        }
      }),
      { numRuns: 20 },
    );
  });

  it('leaves pages that are zero and were never data as holes', async () => {
    const file = new RecordingFile();
    const block = blockOf(6);
    const model = new BlockModel(block);
    const area = areaOf(file, block);
    await area.apply(
      feeder.batch(
        [
          model.change({ page: 0, as: 'zero', seed: 1 }),
          model.change({ page: 1, as: 'zeros in full', seed: 1 }),
          model.change({ page: 2, as: 'data', seed: 1 }),
        ],
        0,
      ),
    );
    expect(file.writes).toEqual([{ position: 2 * 4096, length: 4096 }]);
  });

  it('erases data that became zero on request, and does not touch it otherwise', async () => {
    for (const erase of [true, false]) {
      for (const as of ['zero', 'zeros in full'] as const) {
        const file = new RecordingFile();
        const model = new BlockModel(blockOf(2));
        const area = areaOf(file, model.block, 0, erase);
        await area.apply(feeder.batch([model.change({ page: 1, as: 'data', seed: 1 })], 0));
        await area.apply(feeder.batch([model.change({ page: 1, as, seed: 1 })], 0));
        expect(file.writes).toHaveLength(erase ? 2 : 1);
        expect(contentOf(file, 4096, 4096).every((byte) => byte === 0)).toBe(erase);
        const target = new Uint8Array(4096).fill(0xee);
        await area.read(1, target);
        expect(target.every((byte) => byte === 0)).toBe(true);
      }
    }
  });

  it('removes the bytes of pages that became zero or were discarded, and of no others', async () => {
    await fc.assert(
      fc.asyncProperty(cases, fc.boolean(), fc.constantFrom(0, 12345), async (shape, punches, origin) => {
        const block = blockOf(shape.pages, shape.pageSize);
        const model = new BlockModel(block);
        const file = new RecordingFile();
        if (!punches) Object.defineProperty(file, 'punch', { value: undefined });
        const area = areaOf(file, block, origin, false);
        for (const { wishes, gap } of shape.passes) {
          await area.apply(
            feeder.batch(
              wishes.map((wish) => model.change(wish)),
              gap,
            ),
          );
        }
        area.discard(3, 2);
        model.content.fill(0, 3 * shape.pageSize, 5 * shape.pageSize);
        await area.eraseStale();
        expect(Buffer.compare(contentOf(file, origin, block.usedLength), model.content)).toBe(0);
        const { length } = file.writes;
        await area.eraseStale();
        expect(file.writes).toHaveLength(length);
      }),
      { numRuns: 60 },
    );
  });

  it('does not erase a page that has data again', async () => {
    const model = new BlockModel(blockOf(3));
    const file = new RecordingFile();
    const area = areaOf(file, model.block, 0, false);
    for (const [as, seed] of [
      ['data', 9],
      ['zero', 1],
      ['data', 13],
    ] as const) {
      await area.apply(feeder.batch([model.change({ page: 1, as, seed })], 0));
    }
    await area.eraseStale();
    expect(Buffer.compare(contentOf(file, 0, 3 * 4096), model.content)).toBe(0);
    expect(file.writes).toHaveLength(2);
  });

  it('does not use stale data as the base of a delta', async () => {
    const model = new BlockModel(blockOf(2));
    const area = areaOf(new MemoryFile(), model.block, 0, false);
    for (const [as, seed] of [
      ['data', 9],
      ['zero', 1],
      ['delta', 13],
    ] as const) {
      await area.apply(feeder.batch([model.change({ page: 1, as, seed })], 0));
    }
    const target = new Uint8Array(2 * 4096).fill(0xee);
    await area.read(0, target);
    expect(Buffer.compare(target, model.content)).toBe(0);
  });

  it('writes adjacent neighbouring pages at once, and collects others', async () => {
    const write = async (gap: number) => {
      const file = new RecordingFile();
      const model = new BlockModel(blockOf(200));
      const wishes = Array.from({ length: 100 }, (_, i) => ({ page: 50 + i, as: 'data' as const, seed: i + 1 }));
      await areaOf(file, model.block).apply(
        feeder.batch(
          wishes.map((wish) => model.change(wish)),
          gap,
        ),
      );
      expect(
        Buffer.compare(
          contentOf(file, 0, model.content.length).subarray(0, 150 * 4096),
          model.content.subarray(0, 150 * 4096),
        ),
      ).toBe(0);
      return file.writes;
    };
    expect(await write(0)).toEqual([{ position: 50 * 4096, length: 100 * 4096 }]);
    expect(await write(64)).toEqual([{ position: 50 * 4096, length: 100 * 4096 }]);
  });

  it('accepts more scattered pages than there are slots', async () => {
    const model = new BlockModel(blockOf(60, 65536));
    const area = areaOf(new MemoryFile(), model.block);
    for (let round = 0; round < 3; round++) {
      const wishes = Array.from({ length: 30 }, (_, i) => ({ page: i * 2, as: 'delta' as const, seed: i + round + 1 }));
      await area.apply(
        feeder.batch(
          wishes.map((wish) => model.change(wish)),
          64,
        ),
      );
    }
    const read = new Uint8Array(model.content.length);
    await area.read(0, read);
    expect(Buffer.compare(read, model.content)).toBe(0);
  });

  it('refuses a delta that does not decode, naming the page and the record', async () => {
    const area = areaOf(new MemoryFile(), blockOf(9));
    const pages = [2, 5, 7].map((page) => ({
      page,
      kind: PageKind.delta,
      payload: Uint8Array.of(0, page === 5 ? 0 : 1, 9),
    }));
    await expect(area.apply(feeder.batch(pages, 8))).rejects.toThrow(MigrationError);
    await expect(areaOf(new MemoryFile(), blockOf(9)).apply(feeder.batch(pages, 8))).rejects.toMatchObject({
      code: 'bad-delta',
      place: { source: 'test.bin', offset: 1001, section: 'ram', block: 'ram', page: 5 },
    });
  });

  it('treats pages that were compressed in the source as data', async () => {
    const area = areaOf(new MemoryFile(), blockOf(9));
    const payload = new Uint8Array(area.block.pageSize).fill(7);
    await area.apply(feeder.batch([{ page: 3, kind: PageKind.compressed, payload }], 0));
    const content = new Uint8Array(payload.length);
    await area.read(3, content);
    expect(content).toEqual(payload);
    expect(area.states.get(3)).toBe(PageKind.data);
  });

  it('passes on errors of its file', async () => {
    const failing = Object.assign(new MemoryFile(), {
      write: () => {
        throw new Error('no space left');
      },
    });
    const model = new BlockModel(blockOf(2));
    const applying = areaOf(failing, model.block).apply(
      feeder.batch([model.change({ page: 0, as: 'data', seed: 1 })], 0),
    );
    await expect(applying).rejects.toThrow('no space left');
  });

  it('has no pages if the block has none', () => {
    const area = areaOf(new MemoryFile(), blockOf(0));
    expect(pageCount(area.block)).toBe(0);
    expect(area.nextData(0, 10)).toEqual({ first: 0, end: 0 });
  });
});
