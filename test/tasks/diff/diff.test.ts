/** The differences between two files, in the same form or not. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { appendTo } from '../../../src/io/byte-source.ts';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { NodeCodecs, open } from '../../../src/node.ts';
import type { MigrationFile } from '../../../src/read/open.ts';
import { RawRam } from '../../../src/store/raw-ram.ts';
import { convertToMappedRam, convertToStream } from '../../../src/tasks/convert/convert.ts';
import { type DiffOptions, diff, type VmDiff } from '../../../src/tasks/diff/diff.ts';
import { diffRam, isSameRam } from '../../../src/tasks/diff/diff-ram.ts';
import { type Fixture, loadFixtures } from '../../fixture-files.ts';
import {
  blockList,
  capabilities,
  configuration,
  EOF,
  EOS,
  end,
  filled,
  full,
  header,
  join,
  KIB4,
  normalPage,
  part,
  start,
  u64,
  zeroPage,
} from '../../oracle/build.ts';
import { opened } from '../../support/opened.ts';
import { savedFile, word, words } from '../../support/saved-files.ts';

const makeScratch = () => new MemoryFile('scratch');
const differ = async (old: MigrationFile, now: MigrationFile, options: DiffOptions = {}): Promise<VmDiff> =>
  diff(old, now, { makeScratch, ...options });

describe('the same VM', () => {
  const fixtures = loadFixtures().filter(({ name }) =>
    /^(pc|q35|none)-(xbzrle|multifd-zstd|smp|mapped-ram)/.test(name),
  );
  const openIt = ({ bytes, channels, offset }: Fixture) => open(bytes, { offset, channels, codecs: new NodeCodecs() });

  it.each(fixtures)('$name does not differ from itself as a stream and as a mapped-ram file', async (fixture) => {
    const [stream, mapped] = [new MemoryFile('stream'), new MemoryFile('mapped-ram')];
    await (await convertToStream(await openIt(fixture), appendTo(stream), { makeScratch })).close();
    await (await convertToMappedRam(await openIt(fixture), mapped)).close();
    for (const other of [stream, mapped]) {
      const { same, ram, devices } = await differ(await openIt(fixture), await open(other));
      expect(same).toBe(true);
      expect(ram?.blocks.map(({ same, pages }) => same - pages)).toEqual(fixture.truth.map(() => 0));
      expect(ram?.blocks.every(({ ranges }) => ranges.length === 0)).toBe(true);
      expect([devices?.changed, devices?.removed, devices?.added]).toEqual([[], [], []]);
    }
  });
});

/** A stream of one block with these records. */
const stream = (pages: number, ...records: Uint8Array[]) =>
  join(
    ...[header, configuration('none'), start(7, 'ram', 4, blockList(['ram', pages * KIB4]), EOS)],
    ...[part(7, ...records, EOS), end(7, EOS), full(9, 'odd', [1, 2, 3]), EOF],
  );

describe('RAM', () => {
  it('differs in pages that changed, became zero, or became data; pages never sent are zeros', async () => {
    const old = stream(
      8,
      normalPage(0, filled(1), 'ram'),
      normalPage(KIB4, filled(2)),
      normalPage(2 * KIB4, filled(3)),
    );
    const now = stream(
      8,
      ...[normalPage(0, filled(1), 'ram'), normalPage(KIB4, filled(9)), zeroPage(2 * KIB4)],
      ...[zeroPage(3 * KIB4), normalPage(4 * KIB4, filled(5)), normalPage(5 * KIB4, new Uint8Array(KIB4))],
    );
    for (const kind of ['file', 'pipe'] as const) {
      const { same, ram } = await differ(await opened(old, kind), await opened(now));
      expect(same).toBe(false);
      expect(ram?.blocks).toEqual([
        {
          ...{ idstr: 'ram', pageSize: KIB4, oldLength: 8 * KIB4, newLength: 8 * KIB4, pages: 8, same: 5, missing: 0 },
          ...{
            changes: { changed: 1, becameZero: 1, becameData: 1 },
            oldAbsent: 5,
            newAbsent: 2,
            notCompared: undefined,
          },
          ranges: [
            { first: 1, count: 2, changed: 2 },
            { first: 4, count: 1, changed: 1 },
          ],
          areRangesExact: true,
          map: Array.from({ length: 8 }, (_, page) => ({
            ...{ pages: 1, changed: page === 1 ? 1 : 0 },
            ...{ becameZero: page === 2 ? 1 : 0, becameData: page === 4 ? 1 : 0 },
          })),
        },
      ]);
    }
  });

  it('is matched by block name; different lengths are reported, and the common part is compared', async () => {
    const ramOf = (...blocks: [idstr: string, ...pages: number[]][]) =>
      new RawRam(
        blocks.map(([idstr, ...seeds]) => {
          return { idstr, source: new MemoryFile(idstr, join(...seeds.map((seed) => filled(seed)))) };
        }),
      );
    const result = await diffRam(
      ramOf(['a', 1, 2], ['gone', 1], ['b', 3, 4, 5]),
      ramOf(['b', 3, 9], ['a', 1, 2], ['new', 7]),
    );
    expect(isSameRam(result)).toBe(false);
    expect(result).toMatchObject({
      blocks: [
        { idstr: 'b', pages: 2, same: 1, oldLength: 3 * KIB4, newLength: 2 * KIB4, changes: { changed: 1 } },
        { idstr: 'a', pages: 2, same: 2 },
      ],
      onlyOld: [{ idstr: 'gone', length: KIB4 }],
      onlyNew: [{ idstr: 'new', length: KIB4 }],
    });
    expect(isSameRam(await diffRam(ramOf(['a', 1, 2]), ramOf(['a', 1])))).toBe(false);
  });

  it('is not compared if page sizes differ, or if shared memory was left out', async () => {
    const raw = (pageSize: number) =>
      new RawRam([{ idstr: 'ram', source: new MemoryFile('', new Uint8Array(8192)) }], pageSize);
    const result = await diffRam(raw(4096), raw(8192));
    expect([isSameRam(result), result.blocks[0]?.notCompared]).toEqual([false, 'page-size']);
    const list = blockList(['ram', KIB4, u64(0)], ['shared', KIB4, u64(0x1000_0000)]);
    const page = normalPage(0, filled(1), 'ram');
    const shares = join(
      ...[header, configuration('none', capabilities('x-ignore-shared')), start(7, 'ram', 4, list, EOS)],
      ...[part(7, page, EOS), end(7, EOS), EOF],
    );
    const whole = join(
      ...[header, configuration('none'), start(7, 'ram', 4, blockList(['ram', KIB4], ['shared', KIB4]), EOS)],
      ...[part(7, page, zeroPage(0, 'shared'), EOS), end(7, EOS), EOF],
    );
    const reasons = async (a: Uint8Array, b: Uint8Array) => {
      await expect(differ(await opened(a), await opened(b))).rejects.toMatchObject({ code: 'block-ignored' });
      const { same, ram } = await differ(await opened(a), await opened(b), { partial: true });
      return [same, ...(ram?.blocks.map(({ notCompared }) => notCompared) ?? [])];
    };
    expect(await reasons(shares, shares)).toEqual([true, undefined, 'both-ignored']);
    expect(await reasons(shares, whole)).toEqual([false, undefined, 'old-ignored']);
    expect(await reasons(whole, shares)).toEqual([false, undefined, 'new-ignored']);
  });

  it('has the counts and ranges of a plain comparison, for any contents', async () => {
    const run = fc.record({ old: fc.nat(2), now: fc.nat(2), pages: fc.integer({ min: 1, max: 90 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(run, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 40 }),
        async (runs, cells) => {
          const pages = runs.flatMap(({ pages, ...both }) => new Array<typeof both>(pages).fill(both));
          const ramOf = (which: 'old' | 'now') =>
            new RawRam([
              { idstr: 'ram', source: new MemoryFile('', join(...pages.map((page) => filled(page[which])))) },
            ]);
          const { blocks } = await diffRam(ramOf('old'), ramOf('now'), { mapCells: cells });
          const count = (test: (page: { old: number; now: number }) => boolean) => pages.filter(test).length;
          expect(blocks[0]).toMatchObject({
            pages: pages.length,
            same: count(({ old, now }) => old === now),
            changes: {
              changed: count(({ old, now }) => old !== now && old !== 0 && now !== 0),
              becameZero: count(({ old, now }) => old !== 0 && now === 0),
              becameData: count(({ old, now }) => old === 0 && now !== 0),
            },
          });
          const inRanges = blocks[0]?.ranges.flatMap(({ first, count }) =>
            Array.from({ length: count }, (_, i) => first + i),
          );
          expect(inRanges).toEqual(pages.flatMap(({ old, now }, i) => (old === now ? [] : [i])));
          const map = blocks[0]?.map ?? [];
          expect(map.length).toBe(Math.min(cells, pages.length));
          let page = 0;
          for (const cell of map) {
            const inside = pages.slice(page, page + cell.pages);
            expect(cell.changed + cell.becameZero + cell.becameData).toBe(
              inside.filter(({ old, now }) => old !== now).length,
            );
            page += cell.pages;
          }
          expect(page).toBe(pages.length);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('devices and configuration', () => {
  const device = (name: string, value: number, instance = 0) => ({
    instance,
    state: { name, version: 1, fields: [word('a', 1), words('list', [1, value])] },
  });
  const of = (saved: Parameters<typeof savedFile>[0]) => opened(savedFile(saved));

  it('differ by name and instance, field by field', async () => {
    const { same, devices, ram } = await differ(
      await of({ devices: [device('disk', 1), device('disk', 2, 1), device('gone', 0)] }),
      await of({ devices: [device('disk', 3, 1), device('disk', 1), device('new', 0)] }),
    );
    expect(same).toBe(false);
    expect(ram?.blocks.every(({ same, pages }) => same === pages)).toBe(true);
    expect(devices).toEqual({
      same: 1,
      changed: [
        {
          ...{ name: 'disk', instanceId: 1, changeCount: 1, problem: undefined },
          changes: [{ path: 'list[1]', kind: 'value', type: 'uint32', old: 2, new: 3 }],
        },
      ],
      removed: [{ name: 'gone', instanceId: 0 }],
      added: [{ name: 'new', instanceId: 0 }],
    });
  });

  it('are compared alone, or omitted', async () => {
    const [old, now] = [{ devices: [device('d', 1)] }, { devices: [device('d', 2)] }];
    expect(await differ(await of(old), await of(now), { devices: false })).toMatchObject({
      same: true,
      devices: undefined,
    });
    expect(await differ(await of(old), await of(now), { ram: false })).toMatchObject({ same: false, ram: undefined });
  });

  it('report how the machines differ, but not how they were sent or what only one states', async () => {
    const uuid = '0123456789abcdef0123456789abcdef';
    const facts = async (old: Parameters<typeof savedFile>[0], now: Parameters<typeof savedFile>[0]) => {
      const { same, facts } = await differ(await of(old), await of(now));
      return [same, ...facts.map(({ what, old, new: now, counts }) => `${what} ${old} ${now} ${counts}`)];
    };
    expect(await facts({}, {})).toEqual([true]);
    expect(await facts({}, { machine: 'pc-q35-10.0' })).toEqual([false, 'machine pc-i440fx-10.0 pc-q35-10.0 true']);
    expect(await facts({}, { machine: undefined })).toEqual([
      true,
      'machine pc-i440fx-10.0 undefined false',
      'capabilities  undefined false',
    ]);
    expect(await facts({ uuid }, { uuid: uuid.replace('0', '9') })).toEqual([
      false,
      expect.stringMatching(/^uuid .* true$/),
    ]);
    expect(await facts({ uuid }, {})).toEqual([true, expect.stringMatching(/^uuid .* undefined false$/)]);
    expect(await facts({ capabilities: ['future'] }, {})).toEqual([true, 'capabilities future  false']);
  });
});
