import { describe, expect, it } from 'vitest';
import { PageKind } from '../../../src/kernel/page-batch.ts';
import { settle } from '../../../src/store/settle.ts';
import { inspect, mapPages } from '../../../src/tasks/inspect/inspect.ts';
import type { FlowItem } from '../../../src/vm/flow.ts';
import { PageStates } from '../../../src/vm/page-states.ts';
import {
  blockList,
  capabilities,
  command,
  compressedPage,
  configuration,
  deltaPage,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  full,
  header,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  packaged,
  part,
  ramEnd,
  ramStart,
  start,
  subsection,
  u32,
  u64,
  vmdescription,
  zeroPage,
} from '../../oracle/build.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { firstHeader, mappedRamFile } from '../../wire/mapped-ram-file.ts';

const inspectBytes = async (bytes: Uint8Array, options = {}) =>
  (await inspect(await opened(bytes), options)).inspection;

const description = vmdescription({
  page_size: KIB4,
  devices: [{ name: 'timer', instance_id: 0, fields: [{ size: 4 }] }],
});
const head = join(header, configuration('pc', subsection('configuration/uuid', new Uint8Array(16).fill(0xab))));
const beginning = join(head, command(2, u32(1)), ramStart);
const passes = join(
  part(7, zeroPage(0, 'ram'), normalPage(KIB4, filled(1)), normalPage(2 * KIB4, filled(2)), zeroPage(3 * KIB4), EOS),
  part(7, deltaPage(KIB4, hex('000107')), zeroPage(2 * KIB4), EOS),
);
const stream = join(
  beginning,
  passes,
  command(11),
  end(7, zeroPage(0), EOS),
  full(1, 'timer', 'body'),
  EOF,
  description,
);

describe.each(kindsOfSource)('inspecting a %s', (kind) => {
  it('shows everything in a stream', async () => {
    const { inspection } = await inspect(await opened(stream, kind));
    const sectionAt = (n: number) => inspection.sections[n]?.offset ?? -1;
    expect(inspection).toEqual({
      source: 'memory',
      containers: [],
      format: 'stream',
      version: 3,
      machine: 'pc',
      uuid: 'ab'.repeat(16),
      capabilities: [],
      complete: true,
      ram: {
        totalBytes: 16 * KIB4,
        pageSizeFrom: kind === 'file' ? 'stream' : 'machine',
        passes: 3,
        blocks: [
          {
            idstr: 'ram',
            usedLength: 16 * KIB4,
            pageSize: KIB4,
            pages: { zero: 3, normal: 0, xbzrle: 1, compressed: 0, absent: 12 },
          },
        ],
        records: {
          zero: { records: 4, bytes: 13 + 9 + 9 + 9 },
          normal: { records: 2, bytes: 2 * (8 + KIB4) },
          xbzrle: { records: 1, bytes: 8 + 3 + 3 },
          compressed: { records: 0, bytes: 0 },
        },
        multifdSyncs: 0,
      },
      multifd: undefined,
      sections: [
        ['start', 'ram', 7, beginning.length - ramStart.length, ramStart.length],
        ['part', 'ram', 7, beginning.length, sectionAt(2) - beginning.length],
        ['part', 'ram', 7, sectionAt(2), beginning.length + passes.length - sectionAt(2)],
        ['end', 'ram', 7, beginning.length + passes.length + 5, 27],
        ['full', 'timer', 1, sectionAt(4), full(1, 'timer', 'body').length],
      ].map(([sectionKind, name, id, offset, length]) => ({
        name,
        instanceId: 0,
        versionId: name === 'ram' ? 4 : 1,
        kind: sectionKind,
        id,
        offset,
        length,
        packaged: false,
        ...(name === 'timer' ? { boundary: kind === 'file' ? 'description' : 'footer' } : {}),
      })),
      sectionsOmitted: 0,
      commands: [
        { name: 'PING', offset: head.length },
        { name: 'SWITCHOVER_START', offset: beginning.length + passes.length },
      ],
      description: {
        offset: stream.length - description.length,
        length: description.length - 5,
        pageSize: KIB4,
        devices: 1,
      },
      length: stream.length,
      dirtyBitmaps: [],
      returnPaths: [],
      findings: [],
      error: undefined,
    });
  });

  it('shows everything in a mapped-ram file', async () => {
    const { inspection } = await inspect(await opened(mappedRamFile({ offset: 12345 }), kind, { offset: 12345 }));
    expect(inspection).toMatchObject({
      format: 'mapped-ram',
      complete: true,
      ram: {
        totalBytes: 6 * KIB4,
        passes: 0,
        blocks: [
          {
            idstr: 'a',
            pages: { zero: 1, normal: 2, xbzrle: 0, compressed: 0, absent: 0 },
            bitmapOffset: firstHeader(12345) + 28,
          },
          { idstr: 'b', pages: { zero: 2, normal: 1 } },
        ],
        records: { zero: { records: 0 }, normal: { records: 3, bytes: 3 * KIB4 } },
      },
    });
    expect(inspection.length).toBe(mappedRamFile({ offset: 12345 }).length - 12345);
  });

  it.each([
    ['in its header', 5, { version: undefined, machine: undefined, complete: false }],
    ['in its configuration', 10, { version: 3, machine: undefined }],
    ['before its RAM', head.length, { machine: 'pc', uuid: 'ab'.repeat(16) }],
    [
      'in its first pass',
      beginning.length + 40,
      { ram: { passes: 1, records: { zero: { records: 1 }, normal: { records: 0 } } } },
    ],
    [
      'in its second pass',
      beginning.length + passes.length - 5,
      { ram: { passes: 2, records: { xbzrle: { records: 1 } } } },
    ],
    ['in its devices', stream.length - description.length - 3, { complete: false }],
  ])('that ends %s shows what was read, and where it ends', async (_, length, expected) => {
    const { inspection } = await inspect(await opened(stream.subarray(0, length), kind));
    expect(inspection).toMatchObject({ ...expected, complete: false, length: undefined });
    expect(inspection.error).toMatchObject({
      severity: 'error',
      code: 'truncated',
      place: { source: 'memory', offset: length },
    });
  });
});

describe('inspecting', () => {
  it('keeps the kind of the last record of each page on request', async () => {
    const { states } = await inspect(await opened(stream), { pages: true });
    const kinds = Array.from({ length: 5 }, (_, page) => states[0]?.states.get(page));
    expect(kinds).toEqual([PageKind.zero, PageKind.delta, PageKind.zero, PageKind.zero, PageKind.absent]);
    const mapped = await inspect(await opened(mappedRamFile()), { pages: true });
    expect([0, 1, 2].map((page) => mapped.states[0]?.states.get(page))).toEqual([
      PageKind.data,
      PageKind.absent,
      PageKind.data,
    ]);
  });

  it('is incomplete without EOF, or if bitmaps were never written', async () => {
    expect((await inspectBytes(mappedRamFile({ hasEnd: false }))).complete).toBe(false);
    const snapshot = await inspectBytes(join(none, ramStart, part(7, normalPage(0, filled(1), 'ram'), EOS), EOF));
    expect(snapshot.complete).toBe(true);
    expect(snapshot.findings.map(({ code }) => code)).toEqual(['no-ram-end']);
  });

  it('shows guest addresses and host page sizes if they are stated', async () => {
    const shared = join(
      header,
      configuration('pc', capabilities('x-ignore-shared')),
      command(3, u64(0x201000), u64(KIB4)),
    );
    const list = blockList(['m', 2 ** 21, u64(2 ** 21), u64(0xfffc0000)], ['n', KIB4, u64(0)]);
    const { ram, capabilities: names } = await inspectBytes(
      join(shared, start(7, 'ram', 4, list, EOS), end(7, EOS), EOF),
    );
    expect(ram.blocks).toMatchObject([{ hostPageSize: 2 ** 21, guestAddress: '0xfffc0000' }, { guestAddress: '0x0' }]);
    expect(ram.blocks[1]).not.toHaveProperty('hostPageSize');
    expect(names).toEqual(['x-ignore-shared']);
  });

  it('counts syncs, compressed pages and sections of a package', async () => {
    const bytes = join(
      none,
      ramStart,
      part(7, FLUSH, FLUSH, compressedPage(0, hex('789c'), 'ram'), EOS),
      packaged(command(4), full(1, 'timer', 'x'), command(5)),
      ramEnd,
      EOF,
    );
    const inspection = await inspectBytes(bytes);
    expect(inspection.ram).toMatchObject({
      multifdSyncs: 2,
      records: { compressed: { records: 1, bytes: 12 + 4 + 2 } },
      passes: undefined,
    });
    expect(inspection.sections.find(({ name }) => name === 'timer')).toMatchObject({
      packaged: true,
      boundary: 'footer',
    });
    expect(inspection.commands.map(({ name }) => name)).toEqual(['PACKAGED', 'POSTCOPY_LISTEN', 'POSTCOPY_RUN']);
  });

  it('feeds a sink at the same time, for sources that can be read only once', async () => {
    const sink = () => {
      const pages: string[] = [];
      return {
        pages,
        async take(item: FlowItem) {
          if (item.kind !== 'pages') return;
          const { block, batch } = item;
          for (const page of batch.page.slice(0, batch.count)) pages.push(`${block.idstr}:${page}`);
        },
      };
    };
    const inspected = sink();
    const settled = sink();
    const { inspection } = await inspect(await opened(mappedRamFile(), 'pipe'), { sink: inspected });
    await settle(await opened(mappedRamFile()), settled);
    expect(inspected.pages).toEqual(settled.pages);
    expect(inspection.ram).toMatchObject({
      passes: 0,
      blocks: [{ pages: { zero: 1, normal: 2 } }, { pages: { zero: 2, normal: 1 } }],
    });
  });

  it('passes errors on that are not the file’s', async () => {
    const sink = { take: () => Promise.reject(new Error('no space left')) };
    await expect(inspect(await opened(stream), { sink })).rejects.toThrow('no space left');
  });

  it('shows a hostile description as it is', async () => {
    for (const value of [null, 7, 'x', [], { page_size: 'x', devices: 7 }]) {
      const text = JSON.stringify(value);
      const bytes = join(none, EOF, [6], u32(text.length), text);
      expect((await inspectBytes(bytes)).description).toEqual({
        offset: 18,
        length: text.length,
        pageSize: undefined,
        devices: 0,
      });
    }
  });

  it('lists at most 100,000 sections', async () => {
    const parts = new Uint8Array(100_010 * 18);
    const one = part(7, EOS);
    for (let i = 0; i < 100_010; i++) parts.set(one, i * 18);
    const inspection = await inspectBytes(join(none, ramStart, parts, ramEnd, EOF));
    expect([inspection.sections.length, inspection.sectionsOmitted]).toEqual([100_000, 12]);
  });
});

describe('a map of pages', () => {
  const block = { index: 0, idstr: 'ram', usedLength: 10 * KIB4, pageSize: KIB4 };
  const states = new PageStates();
  for (const [page, kind] of [
    [0, PageKind.zero],
    [1, PageKind.data],
    [2, PageKind.data],
    [9, PageKind.delta],
  ] as const) {
    states.set(page, kind);
  }

  it('counts the pages of each kind in equal ranges', () => {
    expect(mapPages(block, states, 2)).toEqual([
      [2, 1, 2, 0, 0],
      [4, 0, 0, 1, 0],
    ]);
    expect(mapPages(block, states, 1)).toEqual([[6, 1, 2, 1, 0]]);
  });

  it('has at most one cell per page', () => {
    const cells = mapPages(block, states, 100);
    expect(cells).toHaveLength(10);
    expect(cells.every((counts) => counts.reduce((sum, n) => sum + n, 0) === 1)).toBe(true);
  });

  it('covers all pages, whatever the number of cells', () => {
    for (let count = 1; count <= 10; count++) {
      expect(
        mapPages(block, states, count)
          .flat()
          .reduce((sum, n) => sum + n, 0),
      ).toBe(10);
    }
    expect(mapPages({ ...block, usedLength: 0 }, states, 5)).toEqual([]);
  });
});
