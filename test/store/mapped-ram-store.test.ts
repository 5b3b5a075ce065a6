import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseVmDescription } from '../../src/devices/device-description.ts';
import { open } from '../../src/index.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import { PageSlots, pageSlotsArenaBytes } from '../../src/kernel/page-slots.ts';
import { MappedRamPages } from '../../src/store/mapped-ram-pages.ts';
import { MappedRamReader } from '../../src/store/mapped-ram-reader.ts';
import { MappedRamStore } from '../../src/store/mapped-ram-store.ts';
import type { Configuration, Description, DeviceSection } from '../../src/vm/flow.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { slowRead } from '../oracle/slow-reader.ts';
import { BlockModel, Feeder, type Pass, passes } from '../support/pages.ts';
import { RecordingFile } from '../support/recording-file.ts';

const feeder = await Feeder.make();

interface Shape {
  pageSize: number;
  offset: number;
  blocks: { idstr: string; pages: number; passes: Pass[] }[];
}

const shapes: fc.Arbitrary<Shape> = fc.constantFrom(1024, 2048, 4096, 8192, 16384, 65536).chain((pageSize) => {
  const block = fc.integer({ min: 1, max: pageSize > 8192 ? 20 : 150 }).chain((pages) =>
    fc.record({
      idstr: fc.oneof(
        fc.constantFrom('pc.ram', '/rom@etc/acpi/tables'),
        fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' }),
        fc.constant('\u00e9'.repeat(255)),
      ),
      pages: fc.constant(pages),
      passes: passes(pages),
    }),
  );
  return fc.record({
    pageSize: fc.constant(pageSize),
    offset: fc.constantFrom(0, 0, 1, 12345, 4096),
    blocks: fc.uniqueArray(block, { minLength: 1, maxLength: 3, selector: ({ idstr }) => idstr }),
  });
});

const timer: DeviceSection = {
  kind: 'full',
  id: 3,
  name: 'timer',
  instanceId: 2,
  versionId: 5,
  offset: 0,
  length: 0,
  packaged: false,
  data: new TextEncoder().encode('state of the timer'),
  boundary: 'footer',
};
const descriptionOf = (pageSize: number): Description => {
  const fields = [{ name: 'data', size: 18, type: 'buffer' }];
  const value = { page_size: pageSize, devices: [{ name: 'timer', instance_id: 2, version: 5, fields }] };
  const text = JSON.stringify(value);
  return { offset: 0, length: 0, text, parsed: parseVmDescription(text)?.description, value };
};

async function build(shape: Shape, file: MemoryFile): Promise<{ store: MappedRamStore; models: BlockModel[] }> {
  const configuration: Configuration = {
    machine: 'pc-q35-10.0',
    capabilities: ['x-ignore-shared'],
    targetPageBits: Math.log2(shape.pageSize),
    uuid: '0123456789abcdef0123456789abcdef',
  };
  const store = new MappedRamStore(file, feeder.pageSlots, { offset: shape.offset, configuration });
  const models: BlockModel[] = [];
  for (const [index, { idstr, pages, passes: list }] of shape.blocks.entries()) {
    const { pageSize } = shape;
    const block = await store.addBlock({ index, idstr, usedLength: pages * pageSize, pageSize });
    const model = new BlockModel(block);
    for (const { wishes, gap } of list)
      await store.apply(
        block,
        feeder.batch(
          wishes.map((wish) => model.change(wish)),
          gap,
        ),
      );
    models.push(model);
  }
  return { store, models };
}

/** Requires that a reader has the content of the models, when read in pieces of several sizes. */
async function expectContent(ram: RamReader, models: readonly BlockModel[]): Promise<void> {
  expect(ram.blocks.map(({ idstr, usedLength }) => [idstr, usedLength])).toEqual(
    models.map(({ block }) => [block.idstr, block.usedLength]),
  );
  for (const [i, model] of models.entries()) {
    const block = ram.blocks[i] as RamBlock;
    const pages = model.states.length;
    for (const step of [1, 7, pages]) {
      for (let page = 0; page < pages; page += step) {
        const count = Math.min(step, pages - page);
        const target = new Uint8Array(count * block.pageSize).fill(0xee);
        await ram.read(block, page, target);
        const expected = model.content.subarray(page * block.pageSize, (page + count) * block.pageSize);
        if (Buffer.compare(target, expected) !== 0) expect.fail(`pages ${page}..${page + count} of ${block.idstr}`);
      }
    }
    for (const limit of [1, 5, pages]) {
      for (const page of [0, Math.floor(pages / 2), pages - 1]) {
        expect(await ram.nextData(block, page, limit)).toEqual(model.nextData(page, limit));
      }
    }
  }
}

describe('a mapped-ram store', () => {
  it('has the content and the states of a plain model after any passes, before and after finish', async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const { store, models } = await build(shape, new MemoryFile());
        await expectContent(store, models);
        for (const { block, states } of models) {
          expect(states.map((_, page) => store.state(block, page))).toEqual(states);
        }
        await store.finish([timer], descriptionOf(shape.pageSize));
        await expectContent(store, models);
      }),
      { numRuns: 60 },
    );
  });

  it('writes a file that the slow reader reads to the same content', async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const file = new RecordingFile();
        const { store, models } = await build(shape, file);
        await store.finish([timer], descriptionOf(shape.pageSize));
        const bytes = file.content();
        const result = slowRead(bytes, shape.offset);
        expect(result).toMatchObject({
          format: 'mapped-ram',
          machine: 'pc-q35-10.0',
          capabilities: ['mapped-ram'],
          complete: true,
          end: bytes.length,
        });
        expect(result.sections.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
          'start ram',
          'end ram',
          'full timer',
        ]);
        expect(result.sections[2]).toMatchObject({ instanceId: 2, versionId: 5 });
        expect(result.vmdescription).toEqual(descriptionOf(shape.pageSize).value);
        expect(result.blocks).toHaveLength(models.length);
        for (const [i, model] of models.entries()) {
          const slow = result.blocks[i];
          expect([slow?.idstr, slow?.pageSize]).toEqual([model.block.idstr, shape.pageSize]);
          expect(Buffer.compare(slow?.content ?? new Uint8Array(), model.content)).toBe(0);
          expect([...(slow?.last ?? [])]).toEqual(model.states.map((state) => (state === 'data' ? 2 : 1)));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('writes a file that a mapped-ram reader reads to the same content', async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const file = new MemoryFile();
        const { store, models } = await build(shape, file);
        await store.finish([], undefined);
        const blocks: RamBlock[] = [];
        const opened = await open(file, { offset: shape.offset });
        for await (const item of opened.flow({ read: 'bitmaps' })) {
          if (item.kind === 'block') blocks.push(item.block);
          if (item.kind === 'finding') expect.fail(item.finding.message);
        }
        const ram = new MappedRamReader(file, blocks);
        await expectContent(ram, models);
        for (const [i, { states }] of models.entries()) {
          const known = await Promise.all(states.map((_, page) => ram.state(blocks[i] as RamBlock, page)));
          expect(known).toEqual(states.map((state) => (state === 'data' ? 'data' : 'zero')));
        }
      }),
      { numRuns: 40 },
    );
  });

  it('places page areas at MiB boundaries of the file, and the next entry right after them', async () => {
    const file = new MemoryFile();
    const { models } = await build(
      { pageSize: 4096, offset: 12345, blocks: ['a', 'b'].map((idstr) => ({ idstr, pages: 3, passes: [] })) },
      file,
    );
    const [first, second] = models.map(({ block }) => block.mapped);
    expect(first?.pagesOffset).toBe(0x100000);
    expect(second).toMatchObject({ bitmapOffset: 0x100000 + 3 * 4096 + 2 + 8 + 28, pagesOffset: 0x200000 });
  });

  it('does not look complete before it is finished', async () => {
    const file = new RecordingFile();
    await build({ pageSize: 4096, offset: 0, blocks: [{ idstr: 'ram', pages: 3, passes: [] }] }, file);
    expect(() => slowRead(file.content())).toThrow();
  });

  it('cuts off the rest of an older, longer file', async () => {
    const file = new RecordingFile('old', new Uint8Array(3 << 20).fill(0xff));
    file.truncate(0);
    file.truncate(3 << 20);
    const { store } = await build(
      { pageSize: 4096, offset: 0, blocks: [{ idstr: 'ram', pages: 3, passes: [] }] },
      file,
    );
    await store.finish([], undefined);
    expect(slowRead(file.content()).end).toBe(file.size);
  });

  it('accepts a guest without RAM', async () => {
    const file = new RecordingFile();
    const store = new MappedRamStore(file, feeder.pageSlots);
    await store.finish([timer], undefined);
    expect(slowRead(file.content())).toMatchObject({ blocks: [], machine: 'none', complete: true });
  });

  it('accepts the configuration before the first block, not after it', async () => {
    const file = new RecordingFile();
    const store = new MappedRamStore(file, feeder.pageSlots);
    store.configure({ machine: 'virt-7.2', capabilities: ['mapped-ram'] });
    await store.addBlock({ index: 0, idstr: 'ram', usedLength: 4096, pageSize: 4096 });
    expect(() => store.configure({ machine: 'none', capabilities: [] })).toThrow(/before the first block/);
    await store.finish([], undefined);
    expect(slowRead(file.content())).toMatchObject({ machine: 'virt-7.2', capabilities: ['mapped-ram'] });
  });

  it('refuses a block of another store', async () => {
    const store = new MappedRamStore(new MemoryFile(), feeder.pageSlots);
    expect(() => store.state({ index: 0, idstr: 'other', usedLength: 4096, pageSize: 4096 }, 0)).toThrow(RangeError);
  });

  it('refuses a name over 255 bytes', async () => {
    const store = new MappedRamStore(new MemoryFile(), feeder.pageSlots);
    const block = { index: 0, idstr: 'x'.repeat(256), usedLength: 4096, pageSize: 4096 };
    await expect(store.addBlock(block)).rejects.toThrow(RangeError);
  });

  it('closes its file', async () => {
    const file = new RecordingFile();
    await new MappedRamStore(file, feeder.pageSlots).close();
    expect(file.closed).toBe(1);
  });
});

describe('a mapped-ram reader', () => {
  it('reads a block without a place in the file as zeros', async () => {
    const block: RamBlock = { index: 0, idstr: 'shared', usedLength: 8192, pageSize: 4096, guestAddress: 0n };
    const ram = new MappedRamReader(new MemoryFile('f', new Uint8Array(10_000).fill(9)), [block]);
    const target = new Uint8Array(8192).fill(0xee);
    await ram.read(block, 0, target);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(await ram.nextData(block, 0, 9)).toEqual({ first: 2, end: 2 });
    expect(await ram.state(block, 1)).toBe('zero');
  });

  it('reads no piece of a bitmap after the requested pages', async () => {
    const pages = 2_000_000;
    const mapped = { bitmapOffset: 100, bitmapLength: pages / 8, pagesOffset: 1 << 20 };
    const block: RamBlock = { index: 0, idstr: 'ram', usedLength: pages * 4096, pageSize: 4096, mapped };
    const file = new MemoryFile('f', new Uint8Array(1 << 20));
    const asked: number[][] = [];
    const read = file.read.bind(file);
    file.read = (bytes, at) => {
      asked.push([at, bytes.length]);
      return read(bytes, at);
    };
    const target = new Uint8Array(8192).fill(0xee);
    await new MappedRamReader(file, [block]).read(block, 7, target);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(asked).toEqual([[100, 64 << 10]]);
  });

  it('searches bitmaps of many pieces', async () => {
    const pages = 2_000_000;
    const file = new MemoryFile();
    const mapped = { bitmapOffset: 100, bitmapLength: pages / 8, pagesOffset: 1 << 20 };
    const block: RamBlock = { index: 0, idstr: 'ram', usedLength: pages * 4096, pageSize: 4096, mapped };
    const set = [0, 524_287, 524_288, 524_289, 1_048_576, 1_999_999];
    for (const page of set) {
      const byte = new Uint8Array(1);
      file.read(byte, 100 + (page >> 3));
      file.write(Uint8Array.of((byte[0] ?? 0) | (1 << (page & 7))), 100 + (page >> 3));
    }
    const ram = new MappedRamReader(file, [block]);
    const runs: number[][] = [];
    for (let page = 0; page < pages; ) {
      const { first, end } = await ram.nextData(block, page, 1 << 20);
      if (first < pages) runs.push([first, end]);
      page = Math.max(end, first);
    }
    expect(runs).toEqual([
      [0, 1],
      [524_287, 524_290],
      [1_048_576, 1_048_577],
      [1_999_999, 2_000_000],
    ]);
  });
});

describe('a mapped-ram store', () => {
  const plain = { index: 0, idstr: 'ram', usedLength: 4 * 4096, pageSize: 4096 };
  const laidOut = async (configuration: Configuration = { machine: 'none', capabilities: [] }) => {
    const file = new RecordingFile();
    const store = new MappedRamStore(file, feeder.pageSlots, { configuration });
    return { file, store, block: await store.addBlock(plain) };
  };
  const page = (page: number, length = 4096) => ({
    page,
    kind: PageKind.data,
    payload: new Uint8Array(length).fill(7),
  });

  it('refuses pages beyond the block, which would overwrite those of others', async () => {
    const { file, store, block } = await laidOut();
    const { writes } = file;
    const before = writes.length;
    const zero = { page: 4, kind: PageKind.zero, payload: new Uint8Array() };
    for (const wrong of [page(4), page(-1), page(0.5), zero, page(0, 100)]) {
      await expect(store.apply(block, feeder.batch([page(1), wrong], 0))).rejects.toThrow('"ram", which has 4, got');
    }
    const pages = new MappedRamPages(file, feeder.pageSlots, store.blocks);
    await expect(pages.apply(block, feeder.batch([page(4)], 0))).rejects.toThrow('"ram", which has 4, got');
    expect(writes.length).toBe(before);
  });

  const zeroPage = (page: number) => ({ page, kind: PageKind.zero, payload: new Uint8Array() });
  const bytesOf = (file: RecordingFile, { mapped }: RamBlock, page: number) => {
    const at = (mapped?.pagesOffset as number) + page * 4096;
    return file.content().subarray(at, at + 4096);
  };

  it('finishes with zeros in the place of a page that became zero, and a clear bit', async () => {
    const { file, store, block } = await laidOut();
    await store.apply(block, feeder.batch([page(1), page(2), page(3)], 0));
    await store.apply(block, feeder.batch([zeroPage(1), zeroPage(3)], 0));
    await store.apply(block, feeder.batch([page(3)], 0));
    expect(bytesOf(file, block, 1).every((byte) => byte === 7)).toBe(true);
    await store.finish([], undefined);
    expect([0, 1, 2, 3].map((each) => bytesOf(file, block, each)[0])).toEqual([0, 0, 7, 7]);
    expect(bytesOf(file, block, 1).every((byte) => byte === 0)).toBe(true);
    expect(file.content()[block.mapped?.bitmapOffset as number]).toBe(0b1100);
  });

  it('does so for the pages of workers, and for what it took over', async () => {
    const { file, store, block } = await laidOut();
    const pages = new MappedRamPages(file, feeder.pageSlots, store.blocks);
    await pages.apply(block, feeder.batch([page(0), page(1), page(2)], 0));
    await pages.apply(block, feeder.batch([zeroPage(0)], 0));
    expect(bytesOf(file, block, 0).every((byte) => byte === 0)).toBe(true);
    store.note(pages.take());
    await pages.apply(block, feeder.batch([zeroPage(1)], 0));
    store.note(pages.take());
    store.restore(block, store.pageBits(block));
    await store.apply(block, feeder.batch([zeroPage(2), page(3)], 0));
    await store.checkpoint([], { text: '{}' }, undefined);
    expect([0, 1, 2, 3].map((each) => bytesOf(file, block, each)[0])).toEqual([0, 0, 0, 7]);
  });

  it('refuses blocks that cannot follow the others', async () => {
    const { store } = await laidOut();
    await expect(store.addBlock(plain)).rejects.toThrow('different names, got "ram" twice');
    await expect(store.addBlock({ ...plain, idstr: 'b', pageSize: 1024 })).rejects.toThrow('pages of 4096 bytes');
    await expect(store.addBlock({ ...plain, idstr: 'b', usedLength: 100 })).rejects.toThrow('whole pages of 4096');
    const bits = { machine: 'none', capabilities: [], targetPageBits: 14 };
    await expect(laidOut(bits)).rejects.toThrow('pages of 16384 bytes, as 14 target page bits has it, got 4096');
  });

  it('refuses more whole pages at a time than it has slots for', async () => {
    const kernel = await loadKernel({ arenaBytes: pageSlotsArenaBytes(16) + (1 << 20) });
    const pageSlots = new PageSlots(kernel, 16);
    const store = new MappedRamStore(new MemoryFile(), pageSlots);
    const block = await store.addBlock({ ...plain, usedLength: 4096 * 4096 });
    const batch = new PageBatch(kernel, 1025);
    for (let page = 0; page < 1025; page++) batch.push(PageKind.data, page, 0, 0, 0, 4096);
    await expect(store.apply(block, batch)).rejects.toThrow('a batch of at most 1024 whole pages, got more');
  });

  it.each([undefined, { write() {} }, 'out.mapped-ram'])('cannot be made in %s', (file) => {
    const make = () => new MappedRamStore(file as unknown as MemoryFile, feeder.pageSlots);
    expect(make).toThrow(new TypeError('expected a ByteStore, whose bytes can be written anywhere, and be read'));
  });

  it('refuses an empty last block', async () => {
    const { store } = await laidOut();
    await store.addBlock({ ...plain, index: 1, idstr: 'b', usedLength: 0 });
    await expect(store.finish([], undefined)).rejects.toThrow('does not end with an empty one ("b")');
  });

  it('refuses everything after finish', async () => {
    const { file, store, block } = await laidOut();
    await store.finish([], undefined);
    const finished = file.content();
    const more = [
      () => store.apply(block, feeder.batch([page(0)], 0)),
      () => store.addBlock({ ...plain, idstr: 'b' }),
      () => store.finish([timer], undefined),
    ];
    for (const each of more) await expect(each()).rejects.toThrow('the file is finished');
    expect(Buffer.compare(file.content(), finished)).toBe(0);
  });
});
