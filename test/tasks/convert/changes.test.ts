/** Files of changes: their content, that nothing takes them for other files, and that merging restores the VM. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { appendTo } from '../../../src/io/byte-source.ts';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { type MigrationFile, open } from '../../../src/node.ts';
import { openSavedVm } from '../../../src/store/ram-content.ts';
import { convertToChanges, type SavedChanges } from '../../../src/tasks/convert/changes.ts';
import { CopyError } from '../../../src/tasks/convert/check-copy.ts';
import { type Conversion, convertToMappedRam, convertToStream } from '../../../src/tasks/convert/convert.ts';
import { mergeToMappedRam, mergeToStream, openMerged } from '../../../src/tasks/convert/merge.ts';
import { diff, diffVms } from '../../../src/tasks/diff/diff.ts';
import { inspect } from '../../../src/tasks/inspect/inspect.ts';
import { verify } from '../../../src/tasks/inspect/verify.ts';
import { search } from '../../../src/tasks/search/search.ts';
import { writeStream } from '../../../src/write/write-stream.ts';
import { fixturePath, loadFixtures } from '../../fixture-files.ts';
import { slowRead } from '../../oracle/slow-reader.ts';
import { type ListedBlock, PageListRam, type Seed } from '../../support/page-list-ram.ts';
import { RecordingFile } from '../../support/recording-file.ts';

const makeScratch = () => new MemoryFile('scratch');
const scratch = { makeScratch };

/** A stream of a VM with this RAM and one device. */
async function streamOf(blocks: readonly ListedBlock[], pageSize: number, state: number): Promise<Uint8Array> {
  const output = new RecordingFile();
  const ram = new PageListRam(blocks, pageSize);
  const devices = [
    { kind: 'full' as const, id: 9, name: 'timer', instanceId: 0, versionId: 1, data: Uint8Array.of(1, 2, state) },
  ];
  const configuration = { machine: 'none', capabilities: [], targetPageBits: Math.log2(pageSize) };
  const description = { text: JSON.stringify({ page_size: pageSize, devices: [], state }) };
  await writeStream({ configuration, ram, devices, description }, appendTo(output));
  return output.content();
}

async function changesOf(
  now: MigrationFile,
  base: MigrationFile,
): Promise<{ bytes: Uint8Array; changes: SavedChanges }> {
  const output = new RecordingFile('changes');
  const changes = await convertToChanges(now, base, output, scratch);
  expect(changes.length).toBe(output.size);
  await changes.check(await open(output));
  await changes.close();
  return { bytes: output.content(), changes };
}

/** Merges into both forms, and checks the outputs. */
async function merged(
  base: () => Promise<MigrationFile>,
  changes: Uint8Array,
): Promise<{ stream: Uint8Array; mapped: Uint8Array }> {
  const [stream, mapped] = [new RecordingFile('stream'), new RecordingFile('mapped-ram')];
  const check = async (conversion: Conversion, output: RecordingFile) => {
    await conversion.check(await open(output));
    await conversion.close();
  };
  await check(await mergeToStream(await base(), await open(changes), appendTo(stream), scratch), stream);
  await check(await mergeToMappedRam(await base(), await open(changes), mapped, scratch), mapped);
  return { stream: stream.content(), mapped: mapped.content() };
}

async function expectSame(bytes: Uint8Array, other: MigrationFile): Promise<void> {
  const { same, ram, devices, facts } = await diff(await open(bytes), other, scratch);
  expect({ same, ram, devices, facts }).toMatchObject({ same: true });
}

describe('changes of generated VMs', () => {
  const seed = fc.oneof<fc.Arbitrary<Seed>[]>(fc.constant('absent'), fc.constant(0), fc.constantFrom(1, 2, 200));
  const idstr = fc.oneof(
    fc.constantFrom('pc.ram', 'vga.vram'),
    fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' }),
  );
  const shapes = fc.constantFrom(1024, 4096, 65536).chain((pageSize) => {
    const run = fc.record({ old: seed, now: seed, pages: fc.integer({ min: 1, max: pageSize > 4096 ? 4 : 70 }) });
    const block = fc.record({
      idstr,
      runs: fc.array(run, { minLength: 1, maxLength: 5 }),
      /** Pages that only one of them has. */
      longer: fc.integer({ min: -3, max: 3 }),
      where: fc.constantFrom('both', 'both', 'both', 'old', 'new'),
    });
    const blocks = fc.uniqueArray(block, { minLength: 1, maxLength: 4, selector: (each) => each.idstr });
    return fc.record({ pageSize: fc.constant(pageSize), blocks });
  });

  it('are empty between a VM and itself, and merge to the new VM in RAM, devices and description', async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ pageSize, blocks }) => {
        const listed = (side: 'old' | 'new'): ListedBlock[] => {
          const own = blocks.filter(({ where }) => where === 'both' || where === side);
          return own.map(({ idstr, runs, longer }) => {
            const seeds = runs.flatMap(({ pages, old, now }) =>
              new Array<Seed>(pages).fill(side === 'old' ? old : now),
            );
            const more = side === 'new' ? longer : -longer;
            return { idstr, seeds: [...seeds, ...new Array<Seed>(Math.max(0, more)).fill(200)] };
          });
        };
        // A stream without data is taken for the main stream of a multifd migration.
        const hasData = (list: ListedBlock[]) =>
          list.some(({ seeds }) => seeds.some((one) => one !== 'absent' && one !== 0));
        fc.pre(hasData(listed('new')) && hasData(listed('old')));
        const [old, now] = [await streamOf(listed('old'), pageSize, 1), await streamOf(listed('new'), pageSize, 2)];
        for (const bytes of [old, now]) {
          const { same } = await diff(await open(bytes), await open(bytes), scratch);
          expect(same).toBe(true);
        }
        const { bytes, changes } = await changesOf(await open(now), await open(old));
        const { stream, mapped } = await merged(() => open(old), bytes);
        const expected = slowRead(now);
        for (const result of [stream, mapped]) {
          await expectSame(result, await open(now));
          const slow = slowRead(result);
          expect(slow.complete).toBe(true);
          slow.blocks.forEach(({ content }, i) => {
            expect(Buffer.compare(content, expected.blocks[i]?.content as Uint8Array)).toBe(0);
          });
        }
        // The file contains only what changed.
        const before = new Map(listed('old').map((block) => [block.idstr, block.seeds]));
        const isZero = (one: Seed | undefined) => one === undefined || one === 'absent' || one === 0;
        listed('new').forEach(({ idstr, seeds }, i) => {
          const were = before.get(idstr) ?? [];
          const differ = seeds.filter((one, page) => one !== were[page] && !(isZero(one) && isZero(were[page])));
          const counts = { changedPages: differ.length, zeroPages: differ.filter(isZero).length, pages: seeds.length };
          expect(changes.blocks[i]).toMatchObject({ idstr, ...counts });
        });
      }),
      { numRuns: 8 },
    );
  });

  it('form chains: the result of a merge is the base of the next changes', async () => {
    const states = [0, 1, 2, 3].map((step) => [
      {
        idstr: 'ram',
        seeds: Array.from({ length: 200 }, (_, page): Seed => (page % 4 <= step ? (page % 3) * step : 7)),
      },
    ]);
    const files = await Promise.all(states.map((blocks, step) => streamOf(blocks, 4096, step)));
    let base = files[0] as Uint8Array;
    for (const now of files.slice(1)) {
      const current = base;
      // Made against the original, merged onto an earlier result of merge.
      const { bytes } = await changesOf(await open(now), await open(current));
      const { mapped } = await merged(() => open(current), bytes);
      await expectSame(mapped, await open(now));
      base = mapped;
    }
  });
});

describe('changes of a real VM', () => {
  const now = fixturePath('pc-xbzrle-10.0.bin');
  const base = fixturePath('pc-plain-10.0.bin');

  it('merge onto the base in any form', async () => {
    const { bytes } = await changesOf(await open(now), await open(base));
    const [stream, mapped] = [new MemoryFile(), new MemoryFile()];
    await (await convertToStream(await open(base), appendTo(stream), scratch)).close();
    await (await convertToMappedRam(await open(base), mapped)).close();
    for (const form of [stream, mapped]) {
      const result = await merged(() => open(form), bytes);
      await expectSame(result.stream, await open(now));
      await expectSame(result.mapped, await open(now));
      const text = async (file: MigrationFile) => (await openSavedVm(file, scratch)).description?.text;
      expect(await text(await open(result.mapped))).toBe(await text(await open(now)));
    }
  });

  it('are recognized by inspect and verify', async () => {
    const { bytes, changes } = await changesOf(await open(now), await open(base));
    const { inspection } = await inspect(await open(bytes));
    expect(inspection).toMatchObject({ format: 'mapped-ram', complete: false, changes: changes.ids });
    expect(inspection.ram.blocks.map(({ pages }) => pages.normal)).toEqual([24, 0, 0]);
    const { verdict, findings } = await verify(await open(bytes));
    expect([verdict, findings.map(({ code }) => code)]).toEqual(['incomplete', ['changes-only']]);
  });

  it('are never accepted as a VM', async () => {
    const { bytes } = await changesOf(await open(now), await open(base));
    const refused = expect.objectContaining({ code: 'changes-only' });
    const file = () => open(bytes);
    await expect(convertToMappedRam(await file(), new MemoryFile())).rejects.toEqual(refused);
    await expect(convertToStream(await file(), appendTo(new MemoryFile()), scratch)).rejects.toEqual(refused);
    await expect(diff(await file(), await file(), scratch)).rejects.toEqual(refused);
    await expect(search(await file(), 'x', scratch).next()).rejects.toEqual(refused);
    await expect(convertToChanges(await file(), await open(base), new MemoryFile(), scratch)).rejects.toEqual(refused);
    await expect(convertToChanges(await open(now), await file(), new MemoryFile(), scratch)).rejects.toEqual(refused);
    await expect(openMerged(await file(), await file(), scratch)).rejects.toEqual(refused);
  });

  it('do not merge onto another base, even if it differs in one byte', async () => {
    const { bytes } = await changesOf(await open(now), await open(base));
    const other = new RecordingFile();
    const vm = await openSavedVm(await open(base), { ...scratch, devices: true });
    const { ram } = vm;
    const page = 40;
    const altered = {
      blocks: ram.blocks,
      state: () => 'data' as const,
      nextData: ram.nextData.bind(ram),
      close: async () => {},
      read: async (block: (typeof ram.blocks)[number], first: number, target: Uint8Array) => {
        await ram.read(block, first, target);
        const at = (page - first) * block.pageSize + 5;
        if (block.index === 0 && at >= 0 && at < target.length) target[at] = (target[at] as number) ^ 1;
      },
    };
    expect((await diffVms(vm, { ...vm, ram: altered })).ram?.blocks[0]).toMatchObject({ same: 511 });
    await writeStream({ ...vm, ram: altered }, appendTo(other));
    const wrong = expect.objectContaining({ code: 'wrong-base' });
    await expect(openMerged(await open(other.content()), await open(bytes), scratch)).rejects.toEqual(wrong);
    await expect(openMerged(await open(now), await open(bytes), scratch)).rejects.toEqual(wrong);
    const [none] = loadFixtures().filter(({ name }) => name === 'none-plain-10.0');
    await expect(openMerged(await open(none?.bytes as Uint8Array), await open(bytes), scratch)).rejects.toEqual(wrong);
  });

  it('do not merge if they are damaged (a page, the ids, the end) or are not changes', async () => {
    const { bytes } = await changesOf(await open(now), await open(base));
    const merge = async (changes: MigrationFile) => openMerged(await open(base), changes, scratch);
    const damaged = (at: number, mask = 0x10) => {
      const copy = bytes.slice();
      copy[at] = (copy[at] as number) ^ mask;
      return open(copy);
    };
    const { ram, description } = await openSavedVm(await open(bytes), { ...scratch, changes: true });
    const [block] = ram.blocks;
    const { pagesOffset = 0, bitmapOffset = 0 } = block?.mapped ?? {};
    const bad = expect.objectContaining({ code: 'bad-changes' });
    await expect(merge(await damaged(pagesOffset + 259 * 4096 + 100))).rejects.toEqual(bad);
    // The bitmap denies a page that changed, or claims a page that did not.
    await expect(merge(await damaged(bitmapOffset + 33))).rejects.toEqual(bad);
    await expect(merge(await damaged(bitmapOffset + 34, 1))).rejects.toEqual(bad);
    const ids = Buffer.from(bytes).indexOf('configuration/vmferry-changes') + 29 + 4;
    await expect(merge(await damaged(ids + 3))).rejects.toMatchObject({ code: 'wrong-base' });
    await expect(merge(await damaged(ids + 12))).rejects.toEqual(bad);
    for (const length of [(description?.offset ?? 0) - 1, pagesOffset + 300 * 4096, pagesOffset - 10, 60]) {
      await expect(merge(await open(bytes.subarray(0, length)))).rejects.toMatchObject({ code: 'truncated' });
    }
    await expect(merge(await open(now))).rejects.toEqual(bad);
    const whole = new MemoryFile();
    await (await convertToMappedRam(await open(now), whole)).close();
    await expect(merge(await open(whole))).rejects.toEqual(bad);
  });

  it('are refused if some of their marks are missing', async () => {
    const { bytes } = await changesOf(await open(now), await open(base));
    const copy = Buffer.from(bytes);
    copy.write('vmferry-chances', copy.indexOf('vmferry-changes'));
    const { inspection } = await inspect(await open(new Uint8Array(copy)));
    expect(inspection.error).toMatchObject({ code: 'bad-configuration' });
  });

  it('are checked after they are written', async () => {
    const output = new RecordingFile();
    const changes = await convertToChanges(await open(now), await open(base), output, scratch);
    const copy = output.content();
    const [block] = (await openSavedVm(await open(copy), { ...scratch, changes: true })).ram.blocks;
    const at = (block?.mapped?.pagesOffset ?? 0) + 259 * 4096;
    copy[at] = (copy[at] as number) ^ 1;
    await expect(changes.check(await open(copy))).rejects.toThrow(CopyError);
    await changes.close();
  });

  it('need a base with pages of the same size', async () => {
    const [old, now] = [
      await streamOf([{ idstr: 'ram', seeds: [1, 2, 3, 4] }], 1024, 1),
      await streamOf([{ idstr: 'ram', seeds: [1] }], 4096, 1),
    ];
    await expect(convertToChanges(await open(now), await open(old), new MemoryFile(), scratch)).rejects.toThrow(
      /expected pages of 4096 bytes in "ram" of the base, got 1024/,
    );
  });
});
