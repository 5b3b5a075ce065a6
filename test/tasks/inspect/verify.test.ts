import { describe, expect, it } from 'vitest';
import type { OpenOptions } from '../../../src/index.ts';
import { FindingLog } from '../../../src/read/finding-log.ts';
import { verify } from '../../../src/tasks/inspect/verify.ts';
import {
  type FindingCode,
  findingCodes,
  incompleteCodes,
  makeFinding,
  verdictOf,
} from '../../../src/vm/migration-error.ts';
import {
  bare,
  blockList,
  capabilities,
  channelHello,
  command,
  compressedPage,
  configuration,
  counted,
  deltaPage,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  footer,
  full,
  header,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  packaged,
  packet,
  part,
  ramEnd,
  ramStart,
  start,
  subsection,
  syncPacket,
  u32,
  u64,
  vmdescription,
  zeroPage,
} from '../../oracle/build.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { mappedRamFile } from '../../wire/mapped-ram-file.ts';

const pages = (...records: Uint8Array[]) => join(none, ramStart, part(7, ...records, EOS), ramEnd, EOF);
const device = (version: number, size: number, name = 'timer') => ({
  name,
  instance_id: 0,
  version,
  fields: [{ name: 'data', size, type: 'buffer' }],
});
const described = (...devices: unknown[]) => vmdescription({ page_size: KIB4, devices });
const everyPage = Array.from({ length: 16 }, (_, page) => zeroPage(page * KIB4, page === 0 ? 'ram' : undefined));

const devicePacket = join(hex('11223344 00000001 00000040'), 'vfio', new Uint8Array(252), u32(3), u32(5), 'state');

/** A stream whose first two pages are discarded at the switchover, followed by these pages. */
const switched = (...records: Uint8Array[]) =>
  join(
    ...[none, ramStart, part(7, ...everyPage, EOS), command(6, [0], counted('ram'), [0], u64(0), u64(2 * KIB4))],
    ...[packaged(command(4), command(5)), part(7, ...records, EOS), ramEnd, EOF],
  );

/** The flag of a packet whose pages are compressed with qatzip. */
const qatzip = 32;

/** The other files of the migration. */
const parts: { [code in FindingCode]?: OpenOptions<Uint8Array> } = {
  'bad-return-path': { returnPath: hex('0009 0000') },
  'return-path-error': { returnPath: hex('0001 0004 00000001') },
  'return-path-open': { returnPath: hex('0002 0004 00000001') },
  'bad-channel': { channels: filled(0) },
  'bad-packet': { channels: join(channelHello(0), filled(0)) },
  'sync-mismatch': { channels: join(channelHello(0), ...Array<Uint8Array>(9).fill(syncPacket)) },
  'sync-missing': { channels: join(channelHello(0), syncPacket) },
  'pages-unread': {
    channels: join(
      channelHello(0),
      packet({ flags: qatzip | 1, normal: [0], payload: 'x' }),
      ...Array<Uint8Array>(1).fill(syncPacket),
    ),
  },
  unsupported: { channels: join(channelHello(0), devicePacket, ...Array<Uint8Array>(2).fill(syncPacket)) },
  'broken-off': { resumeOf: switched().subarray(0, -15) },
};
/** What is said of the file around a stream: see container.test.ts. */
type OfContainers =
  | 'bad-libvirt-header'
  | 'incomplete-save'
  | 'bad-compression'
  | 'bad-archive'
  | 'bad-disk-image'
  | 'unclean-image'
  | 'ambiguous-snapshot'
  | 'no-vm-state';
/** The findings about the dump of a target: see vmstate-dump.test.ts. */
type OfDumps = 'bad-vmstate-dump';
/** The findings about changes and their base: see changes.test.ts. */
type OfChanges = 'bad-changes' | 'wrong-base';
type OfStreams = Exclude<FindingCode, OfContainers | OfDumps | OfChanges>;

/** One small stream for each finding. */
const streams: { [code in OfStreams]: Uint8Array } = {
  'not-a-migration-stream': hex('7f454c46 02010100 00000000'),
  'unsupported-version': hex('5145564d 00000002 00'),
  truncated: join(none, ramStart),
  'bad-configuration': join(header, configuration('none', subsection('configuration/new', u32(1))), EOF),
  'changes-only': join(
    ...[
      header,
      configuration(
        'none',
        capabilities('mapped-ram', 'vmferry-changes'),
        subsection('configuration/vmferry-changes', new Uint8Array(16)),
      ),
    ],
    EOF,
  ),
  'unknown-section-type': join(none, [9]),
  'bad-section': join(none, part(7, EOS), EOF),
  'bad-footer': join(none, bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS), footer(8), EOF),
  'bad-command': join(none, command(99), EOF),
  'bad-package': join(none, command(7, u32(3)), command(4), EOF),
  'bad-device-section': join(none, ramStart, packaged(bare.full(1, 'timer', 'x')), ramEnd, EOF),
  'bad-iterable': join(none, start(3, 'dirty-bitmap', 1, [0x80]), EOF),
  'bad-description': join(pages(), [6], u32(2), '{{'),
  'bad-block-list': join(none, start(7, 'ram', 4, blockList(['', KIB4]), EOS), EOF),
  'bad-ram-record': pages(join(u64(0x80))),
  'unknown-block': pages(zeroPage(0, 'rom')),
  'page-out-of-range': pages(zeroPage(16 * KIB4, 'ram')),
  'bad-zero-page': pages(join(u64(2), counted('ram'), [7])),
  'bad-delta': pages(zeroPage(0, 'ram'), deltaPage(KIB4, hex('8080'))),
  'bad-channel': pages(join(FLUSH)),
  'bad-packet': pages(join(FLUSH)),
  'sync-mismatch': pages(join(FLUSH)),
  'sync-missing': pages(join(FLUSH)),
  'missing-channels': pages(join(FLUSH)),
  'pages-unread': pages(join(FLUSH)),
  'marked-incomplete': join(pages(...everyPage), vmdescription({ vmferry_incomplete: 'a page' })),
  'bad-compressed-data': pages(compressedPage(0, hex('789c'), 'ram')),
  'bad-mapped-ram-header': mappedRamFile({ version: 2 }),
  'bad-bitmap': mappedRamFile({ bitmap: [0xff] }),
  'untrusted-bitmap': mappedRamFile({ hasEnd: false }),
  'limit-exceeded': join(none, start(7, 'ram', 4, blockList(['ram', 2 ** 47]), EOS), EOF),
  unsupported: join(
    none,
    start(7, 'ram', 4, blockList(['ram', 16 * KIB4]), FLUSH, EOS),
    part(7, FLUSH, EOS),
    ramEnd,
    EOF,
  ),
  'pages-lost': switched(zeroPage(0, 'ram')),
  'mismatched-source': join(none, ramStart, command(10, counted('rom')), ramEnd, EOF),
  'bad-return-path': pages(),
  'return-path-error': pages(),
  'return-path-open': pages(),
  'block-ignored': join(
    header,
    configuration('none', capabilities('x-ignore-shared')),
    start(7, 'ram', 4, blockList(['ram', KIB4, u64(0)]), EOS),
    ramEnd,
    EOF,
  ),
  'broken-off': join(command(9), part(7, zeroPage(0, 'ram'), zeroPage(KIB4), EOS), ramEnd, EOF),
  'order-violation': join(none, ramStart, ramEnd, start(9, 'spapr/htab', 1, u32(0)), EOF),
  'delta-without-base': pages(deltaPage(0, hex('000101'), 'ram')),
  'description-mismatch': join(none, full(1, 'timer', 'body'), EOF, described(device(1, 5))),
  'description-missing': pages(),
  'no-footers': join(none, bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS), bare.end(7, EOS), EOF),
  'guessed-boundary': join(
    none,
    bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS),
    bare.end(7, EOS),
    bare.full(3, 'one', 'body'),
    EOF,
  ),
  'no-ram-end': join(none, ramStart, EOF),
  'pages-absent': pages(normalPage(0, filled(1), 'ram')),
  'zero-data-page': pages(normalPage(0, filled(0), 'ram')),
  'unknown-capability': join(header, configuration('none', capabilities('later')), EOF),
  'unaligned-pages': mappedRamFile(),
  'unknown-section': join(none, start(9, 'vfio', 1, 'x'), EOF),
  'trailing-data': join(pages(), described(), 'x'),
  'trailing-zeros': join(pages(), described(), [0]),
};

describe.each(kindsOfSource)('verifying a %s', (kind) => {
  it.each(Object.keys(streams) as OfStreams[])('finds %s', async (code) => {
    const verification = await verify(await opened(streams[code], kind, parts[code]));
    const found = verification.findings.find((finding) => finding.code === code);
    expect(found, JSON.stringify(verification.findings)).toBeDefined();
    // Content that is valid but not decoded is reported without a verdict on the file.
    const severity = code === 'unsupported' ? 'warning' : findingCodes[code][0];
    expect(found?.severity).toBe(severity);
    expect(verification.verdict).toBe(verdictOf(verification.findings));
    expect(verification.ok, JSON.stringify(verification.findings)).toBe(
      severity !== 'error' && !incompleteCodes.has(code),
    );
    expect(found?.place).toMatchObject({ source: 'memory', coordinate: 'file' });
    const { channels, resumeOf } = parts[code] ?? {};
    const lengths = [streams[code], channels, resumeOf].map((bytes) => (bytes as Uint8Array | undefined)?.length ?? 0);
    expect(found?.place.offset).toBeLessThanOrEqual(Math.max(...lengths));
  });

  it('finds nothing in a sound stream, and summarizes it', async () => {
    const stream = join(
      none,
      ramStart,
      part(7, ...everyPage, EOS),
      ramEnd,
      full(1, 'timer', 'body'),
      EOF,
      described(device(1, 4)),
    );
    expect(await verify(await opened(stream, kind))).toEqual({
      source: 'memory',
      format: 'stream',
      verdict: 'ok',
      ok: true,
      machine: 'none',
      ramBytes: 16 * KIB4,
      pageRecords: 16,
      sections: 4,
      length: stream.length,
      findings: [],
    });
  });

  it('summarizes a truncated file', async () => {
    const stream = join(none, ramStart, part(7, ...everyPage, EOS));
    expect(await verify(await opened(stream, kind))).toMatchObject({
      ok: false,
      pageRecords: 16,
      sections: 2,
      length: undefined,
    });
    expect(await verify(await opened(new Uint8Array(), kind))).toMatchObject({
      ok: false,
      machine: undefined,
      ramBytes: 0,
    });
  });

  it('continues after errors that it can read past, and finds them all', async () => {
    const stream = join(
      none,
      ramStart,
      part(7, ...everyPage, zeroPage(99 * KIB4), deltaPage(0, hex('00')), join(u64(KIB4 + 0x22), [1]), EOS),
      ramEnd,
      EOF,
    );
    const { findings, length } = await verify(await opened(stream, kind));
    expect(findings.filter(({ severity }) => severity === 'error').map(({ code }) => code)).toEqual([
      'page-out-of-range',
      'bad-delta',
      'bad-zero-page',
    ]);
    expect(length).toBe(stream.length);
  });

  it('reads streams that begin at an offset', async () => {
    const stream = pages(...everyPage);
    const { ok, length, findings } = await verify(await opened(join(filled(9, 5000), stream), kind, { offset: 5000 }));
    expect([ok, length]).toEqual([true, stream.length]);
    expect(findings.map(({ code }) => code)).toEqual(['description-missing']);
  });
});

describe('verifying', () => {
  const codesOf = async (bytes: Uint8Array) => (await verify(await opened(bytes))).findings.map(({ code }) => code);

  it('groups like findings, with the first and the last place', async () => {
    const records = [0, 1, 2, 3].map((page) => normalPage(page * KIB4, filled(0), page === 0 ? 'ram' : undefined));
    const { findings } = await verify(await opened(pages(...records)));
    const at = none.length + ramStart.length + 5;
    expect(findings).toContainEqual({
      severity: 'info',
      code: 'zero-data-page',
      message: 'zero pages that were sent in full',
      count: 4,
      place: { source: 'memory', offset: at, coordinate: 'file', section: 'ram', block: 'ram', page: 0 },
      last: {
        source: 'memory',
        offset: at + join(...records.slice(0, 3)).length,
        coordinate: 'file',
        section: 'ram',
        block: 'ram',
        page: 3,
      },
    });
    expect(findings).toContainEqual(expect.objectContaining({ code: 'pages-absent', count: 12 }));
  });

  it('counts findings of different blocks separately', async () => {
    const blocks = start(7, 'ram', 4, blockList(['a', KIB4], ['b', KIB4]), EOS);
    const stream = join(none, blocks, part(7, zeroPage(9 * KIB4, 'a'), zeroPage(9 * KIB4, 'b'), EOS), end(7, EOS), EOF);
    const { findings } = await verify(await opened(stream));
    const errors = findings.filter(({ code }) => code === 'page-out-of-range');
    expect(errors.map(({ count, place }) => [place.block, count])).toEqual([
      ['a', 1],
      ['b', 1],
    ]);
  });

  it('finds the one delta of many that does not decode', async () => {
    const records = everyPage.map((_, page) => deltaPage(page * KIB4, page === 11 ? hex('00 02 01') : hex('00 01 01')));
    const { findings } = await verify(await opened(pages(...everyPage, ...records)));
    expect(findings[0]).toMatchObject({ code: 'bad-delta', count: 1, place: { page: 11, block: 'ram' } });
    expect(findings[0]?.message).toContain('literalBeyondInput');
  });

  it('accepts a page that was sent as zero, data or delta as the base of a delta', async () => {
    const stream = pages(
      zeroPage(0, 'ram'),
      normalPage(KIB4, filled(1)),
      deltaPage(0, hex('000101')),
      deltaPage(KIB4, hex('000102')),
      deltaPage(0, hex('000103')),
    );
    expect(await codesOf(stream)).not.toContain('delta-without-base');
  });

  it('accepts pages after the end of all other iterables in postcopy', async () => {
    const stream = join(
      none,
      ramStart,
      start(9, 'spapr/htab', 1, u32(0)),
      end(9, u32(0xffffffff)),
      packaged(command(4), full(1, 'timer', 'x'), command(5)),
      part(7, ...everyPage, EOS),
      ramEnd,
      EOF,
    );
    expect(await codesOf(stream)).toEqual([]);
  });

  it('finds a part after the end of another iterable', async () => {
    const stream = join(
      none,
      ramStart,
      start(9, 'spapr/htab', 1, u32(0)),
      end(9, u32(0xffffffff)),
      part(7, EOS),
      ramEnd,
      EOF,
    );
    expect(await codesOf(stream)).toContain('order-violation');
  });

  it('calls a multifd stream without its channels incomplete', async () => {
    const stream = join(
      none,
      start(7, 'ram', 4, blockList(['ram', KIB4]), FLUSH, EOS),
      part(7, FLUSH, EOS),
      end(7, EOS),
      EOF,
    );
    const { verdict, ok, findings } = await verify(await opened(stream));
    expect([verdict, ok]).toEqual(['incomplete', false]);
    expect(findings[0]).toMatchObject({ severity: 'error', code: 'missing-channels' });
  });

  describe('compared with the description', () => {
    const mismatch = async (kind: 'file' | 'pipe', devices: Uint8Array[], description: unknown[]) => {
      const { findings } = await verify(await opened(join(none, ...devices, EOF, described(...description)), kind));
      return findings.filter(({ code }) => code === 'description-mismatch').map(({ message }) => message);
    };

    it.each(kindsOfSource)('finds wrong sizes, versions, names and numbers of devices of a %s', async (kind) => {
      expect(await mismatch(kind, [full(1, 'timer', 'body')], [device(1, 4)])).toEqual([]);
      expect(await mismatch(kind, [full(1, 'timer', 'body')], [device(1, 5)])).toEqual([
        expect.stringMatching(/4.*5|5.*4/),
      ]);
      expect(await mismatch(kind, [full(1, 'timer', 'body')], [device(2, 4)])).toEqual([
        'expected version 2 by the description, got 1',
      ]);
      expect(await mismatch(kind, [full(1, 'timer', 'body')], [device(1, 4, 'cpu')])).toHaveLength(1);
      expect(await mismatch(kind, [full(1, 'timer', 'body')], [])).toEqual([
        expect.stringMatching(/^the file has 1 device sections, the description 0$/),
      ]);
      expect(await mismatch(kind, [], [device(1, 4)])).toEqual([
        expect.stringMatching(/^the file has 0 device sections, the description 1$/),
      ]);
    });

    it('accepts devices of unknown size', async () => {
      const odd = { name: 'timer', instance_id: 0, version: 1, fields: [{ name: 'data' }] };
      expect(await mismatch('file', [full(1, 'timer', 'body')], [odd])).toEqual([]);
    });

    it('finds a wrong size even if zeros follow the description', async () => {
      const stream = join(none, full(1, 'timer', 'body'), EOF, described(device(1, 5)), new Uint8Array(65536));
      expect(await codesOf(stream)).toEqual(['description-mismatch', 'trailing-zeros']);
    });
  });

  it('reports how many bytes follow the end', async () => {
    const stream = join(pages(...everyPage), described());
    for (const kind of kindsOfSource) {
      for (const [rest, code] of [
        [new Uint8Array(300_000), 'trailing-zeros'],
        [join(new Uint8Array(200_000), 'x'), 'trailing-data'],
        [join('x'), 'trailing-data'],
      ] as const) {
        const { findings, length } = await verify(await opened(join(stream, rest), kind));
        expect(findings.map((finding) => finding.code)).toEqual([code]);
        expect(findings[0]?.place.offset).toBe(stream.length);
        if (kind === 'file') expect(findings[0]?.message).toContain(String(rest.length));
        expect(length).toBe(stream.length);
      }
    }
  });

  it('always ends with a verdict, even for hostile descriptions', async () => {
    for (const devices of [
      [{ name: { toString: 1, valueOf: 1 } }],
      [null],
      [[]],
      'x',
      [{ fields: [{ size: 1e308 }] }],
    ]) {
      const stream = join(pages(...everyPage), vmdescription({ page_size: {}, devices }));
      expect(await verify(await opened(stream))).toMatchObject({ ok: true });
    }
  });
});

describe('a log of findings', () => {
  const finding = (code: FindingCode, offset: number, block?: string) =>
    makeFinding(code, `at ${offset}`, {
      source: 's',
      offset,
      coordinate: 'file',
      ...(block === undefined ? {} : { block }),
    });

  it('lists the most severe first, otherwise in order of appearance', () => {
    const log = new FindingLog();
    for (const code of ['no-footers', 'trailing-data', 'bad-delta', 'no-ram-end', 'bad-section'] as const)
      log.add(finding(code, 1));
    expect(log.list().map(({ code }) => code)).toEqual([
      'bad-delta',
      'bad-section',
      'trailing-data',
      'no-footers',
      'no-ram-end',
    ]);
    expect([log.has('no-footers'), log.has('truncated')]).toEqual([true, false]);
  });

  it('has no last place for a single finding', () => {
    const log = new FindingLog();
    log.add(finding('bad-delta', 5, 'a'), 3);
    expect(log.list()).toEqual([{ ...finding('bad-delta', 5, 'a'), count: 3 }]);
  });

  it('stays small, whatever blocks a hostile file names', () => {
    const log = new FindingLog();
    for (let i = 0; i < 50_000; i++) log.add(finding('page-out-of-range', i, `block ${i}`));
    const list = log.list();
    expect(list.length).toBeLessThanOrEqual(1100);
    expect(list.reduce((sum, { count }) => sum + count, 0)).toBe(50_000);
  });
});
