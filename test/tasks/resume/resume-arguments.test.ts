/** `resumeArguments`: what QEMU maps from a mapped-ram file, and the small stream with everything else. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { appendTo } from '../../../src/io/byte-source.ts';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { open } from '../../../src/node.ts';
import { type MigrationFile, openFile } from '../../../src/read/open.ts';
import { MappedRamReader } from '../../../src/store/mapped-ram-reader.ts';
import { openSavedVm } from '../../../src/store/ram-content.ts';
import { chooseMapped } from '../../../src/tasks/resume/mapped-blocks.ts';
import { type Resume, type ResumeOptions, resumeArguments } from '../../../src/tasks/resume/resume-arguments.ts';
import { pageCount, type RamBlock } from '../../../src/vm/ram-block.ts';
import { type Fixture, loadFixtures } from '../../fixture-files.ts';

const makeScratch = () => new MemoryFile('scratch');
const fixtures = loadFixtures().filter(({ name }) => name.includes('mapped-ram'));
const fixtureOf = (name: string) => fixtures.find((each) => each.name === name) as Fixture;
const pc = fixtureOf('pc-mapped-ram-multifd-10.0');
const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/**
 * The bytes of a fixture, with stale bytes in every `step`-th zero page of its main block, besides those that QEMU itself has
 * left there. `pages` are all stale pages.
 */
async function planted({ bytes, offset, truth }: Fixture, step: number) {
  const copy = bytes.slice();
  const file = await openFile(new MemoryFile('fixture', copy), { offset });
  const { ram } = await openSavedVm(file, { makeScratch });
  const block = ram.blocks.find(({ idstr }) => idstr === truth[0]?.idstr) as RamBlock;
  const reader = new MappedRamReader(file.content, ram.blocks);
  const pages: number[] = [];
  let zeros = 0;
  for (let page = 0; page < pageCount(block); page++) {
    if ((await reader.state(block, page)) !== 'zero') continue;
    const at = (block.mapped?.pagesOffset ?? 0) + page * block.pageSize;
    if (zeros++ % step === 0) copy[at + (page % block.pageSize)] = 0xee;
    if (copy.subarray(at, at + block.pageSize).some((byte) => byte !== 0)) pages.push(page);
  }
  return { bytes: copy, pages, block };
}

/** The small stream of a file. */
async function small(resume: Resume): Promise<MigrationFile> {
  const stream = new MemoryFile('small');
  const { length } = await resume.writeStream(appendTo(stream));
  expect(length).toBe(stream.size);
  return openFile(stream);
}

/** The records of a stream: pages by block, and their kinds. */
async function recordsIn(file: MigrationFile): Promise<Map<string, { zero: number[]; data: number[] }>> {
  const found = new Map<string, { zero: number[]; data: number[] }>();
  for await (const item of file.flow()) {
    if (item.kind === 'finding') expect(item.finding.severity).not.toBe('error');
    if (item.kind === 'block') found.set(item.block.idstr, { zero: [], data: [] });
    if (item.kind !== 'pages') continue;
    const { batch, block } = item;
    for (let i = 0; i < batch.count; i++) {
      const list = found.get(block.idstr) as { zero: number[]; data: number[] };
      (batch.length[i] === 0 ? list.zero : list.data).push(batch.page[i] as number);
    }
  }
  return found;
}

describe.each(fixtures.map((fixture) => [fixture.name, fixture] as const))('%s', (_, fixture) => {
  it.each([1, 3])(
    'has a ZERO record for each stale page, and no others of the mapped block (every %i.)',
    async (step) => {
      const { bytes, pages, block } = await planted(fixture, step);
      expect(pages.length).toBeGreaterThan(10);
      const before = hash(bytes);
      const file = await openFile(new MemoryFile('guest', bytes), { offset: fixture.offset });
      const resume = await resumeArguments(file);
      const records = await recordsIn(await small(resume));
      expect(records.get(block.idstr)).toEqual({ zero: pages, data: [] });
      expect([...records.keys()]).toEqual(resume.blocks.map(({ idstr }) => idstr));
      expect(hash(bytes)).toBe(before);
      // What QEMU has in the end.
      const [mapped] = resume.mapped;
      const memory = bytes.slice(mapped?.offset, (mapped?.offset ?? 0) + (mapped?.length ?? 0));
      for (const page of pages) memory.fill(0, page * block.pageSize, (page + 1) * block.pageSize);
      expect(hash(memory)).toBe(fixture.truth.find(({ idstr }) => idstr === block.idstr)?.sha256);
    },
  );

  it('has the other blocks and the devices as the file has them', async () => {
    const file = await openFile(new MemoryFile('guest', fixture.bytes), { offset: fixture.offset });
    const resume = await resumeArguments(file);
    const vm = await openSavedVm(file, { makeScratch, devices: true });
    const loaded = await openSavedVm(await small(resume), { makeScratch, devices: true });
    const devices = (list: typeof vm.devices) => list.map(({ name, instanceId, data }) => ({ name, instanceId, data }));
    expect(devices(loaded.devices)).toEqual(devices(vm.devices));
    expect(loaded.description?.text).toBe(vm.description?.text);
    expect(loaded.configuration).toEqual({ ...vm.configuration, capabilities: [] });
    for (const { idstr, sha256, length } of fixture.truth.slice(1)) {
      const block = loaded.ram.blocks.find((each) => each.idstr === idstr) as RamBlock;
      const content = new Uint8Array(length);
      await loaded.ram.read(block, 0, content);
      expect(hash(content), idstr).toBe(sha256);
    }
  });
});

describe('the small stream', () => {
  it('is the same each time it is written', async () => {
    const { bytes } = await planted(pc, 2);
    const resume = await resumeArguments(await openFile(new MemoryFile('guest', bytes)));
    const [one, other] = [new MemoryFile('one'), new MemoryFile('other')];
    await Promise.all([resume.writeStream(appendTo(one)), resume.writeStream(appendTo(other))]);
    const read = async (file: MemoryFile) => {
      const content = new Uint8Array(file.size);
      await file.read(content, 0);
      return hash(content);
    };
    expect(await read(other)).toBe(await read(one));
  });

  it('reads nothing that is in a hole', async () => {
    const { bytes, block, pages } = await planted(pc, 2);
    const source = new MemoryFile('guest', bytes);
    const start = block.mapped?.pagesOffset ?? 0;
    const end = start + block.usedLength;
    let asked = 0;
    const findData = (position: number) => {
      asked++;
      return position < end ? end : position;
    };
    const all = await resumeArguments(await openFile(source));
    expect((await all.writeStream({ write() {} })).stalePages).toBe(pages.length);
    const none = await resumeArguments(await openFile(source), { findData });
    expect((await none.writeStream({ write() {} })).stalePages).toBe(0);
    // One hole, which is asked about once.
    expect(asked).toBe(1);
  });

  it('finds the stale pages between holes', async () => {
    const { bytes, pages, block } = await planted(pc, 2);
    const at = (block.mapped?.pagesOffset ?? 0) + (pages[5] as number) * block.pageSize;
    const findData = (position: number) => (position <= at + 7 ? Math.max(position, at + 7) : Number.POSITIVE_INFINITY);
    const resume = await resumeArguments(await openFile(new MemoryFile('guest', bytes)), { findData });
    const { zero } = (await recordsIn(await small(resume))).get('pc.ram') as { zero: number[] };
    expect(zero).toContain(pages[5]);
    expect(zero.every((page) => page >= (pages[5] as number))).toBe(true);
  });

  it('ends when the signal says so', async () => {
    const resume = await resumeArguments(await openFile(new MemoryFile('guest', pc.bytes)));
    const reason = new Error('enough');
    await expect(resume.writeStream({ write() {} }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect((await resume.writeStream({ write() {} })).stalePages).toBeGreaterThanOrEqual(0);
  });
});

describe('the arguments', () => {
  const argumentsFor = async (options: ResumeOptions, bytes = pc.bytes) =>
    (await resumeArguments(await openFile(new MemoryFile('guest', bytes)), options)).arguments;

  it('map the main block, copy on write', async () => {
    expect(await argumentsFor({ path: '/run/a,b', incoming: 'file:/run/small' })).toEqual([
      '-object',
      'memory-backend-file,id=pc.ram,mem-path=/run/a,,b,offset=1048576,size=2097152,share=off,readonly=on,rom=off',
      ...['-machine', 'memory-backend=pc.ram', '-incoming', 'file:/run/small'],
    ]);
  });

  it('map what is named instead', async () => {
    const words = await argumentsFor({ blocks: ['pc.rom'] });
    expect(words.filter((word) => word.startsWith('memory-backend-file'))).toEqual([
      expect.stringMatching(/^memory-backend-file,id=pc\.rom,mem-path=guest,offset=\d+,size=131072,/),
    ]);
    await expect(argumentsFor({ blocks: ['pc.ram', 'nope'] })).rejects.toThrow(
      /a RAM block of a memory backend, got "nope"/,
    );
  });

  it('refuses a file of another form', async () => {
    const stream = loadFixtures().find(({ name }) => name === 'pc-plain-10.0') as Fixture;
    const file = await open(new Uint8Array(stream.bytes));
    await expect(resumeArguments(file)).rejects.toMatchObject({ code: 'unsupported' });
  });
});

describe('the blocks that are mapped', () => {
  const source = new MemoryFile('guest', new Uint8Array(8 << 20));
  const blocksOf = (...names: string[]): RamBlock[] =>
    names.map((idstr, index) => ({
      ...{ index, idstr, usedLength: 1 << 20, pageSize: 4096 },
      mapped: { bitmapOffset: 100, bitmapLength: 32, pagesOffset: (index + 1) << 20 },
    }));
  const choose = (blocks: readonly RamBlock[], pageSize = 4096) =>
    chooseMapped(source, blocks, undefined, pageSize).map(({ block, id }) => [block.idstr, id]);

  it('are the main block, or else the memory backends', () => {
    expect(choose(blocksOf('pc.ram', 'dimm0', 'vga.vram', 'pc.bios'))).toEqual([['pc.ram', 'pc.ram']]);
    expect(
      choose(blocksOf('m0', '/objects/m1', 'isa-vga.vram', '0000:00:02.0/vga.vram', '/rom@etc/acpi/tables')),
    ).toEqual([
      ['m0', 'm0'],
      ['/objects/m1', 'm1'],
    ]);
    expect(() => choose(blocksOf('0000:00:02.0/vga.vram'))).toThrow(/the machine's memory, got 0000:00:02.0\/vga.vram/);
  });

  it('must be in whole pages of the host, and within the file', () => {
    const [block] = blocksOf('pc.ram') as [RamBlock];
    const at = (pagesOffset: number) => [{ ...block, mapped: { bitmapOffset: 100, bitmapLength: 32, pagesOffset } }];
    expect(choose(at(0x201000))).toEqual([['pc.ram', 'pc.ram']]);
    expect(() => choose(at(0x200800))).toThrow(/in whole pages of 4096 bytes/);
    expect(() => choose(at(0x201000), 65536)).toThrow(/in whole pages of 65536 bytes/);
    expect(() => choose(at(0x7ff000))).toThrow(/expected the block to end at 9433088, got a file of 8388608 bytes/);
    expect(() => choose([{ index: 0, idstr: 'pc.ram', usedLength: 4096, pageSize: 4096 }])).toThrow(/got one without/);
  });
});
