import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  blockList,
  capabilities,
  command,
  configuration,
  counted,
  deltaPage,
  EOF,
  EOS,
  end,
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
} from '../oracle/build.ts';
import { SlowReaderError, slowRead } from '../oracle/slow-reader.ts';
import {
  codesOf,
  decode,
  decodeChunked,
  errorOf,
  itemsOf,
  ofKind,
  type PlainItem,
  pagesOf,
  silencesBefore,
} from './decoding.ts';

const kindsOf = (bytes: Uint8Array) => itemsOf(bytes).map(({ kind }) => kind);

/** The smallest stream with pages of every kind that real QEMU loads. */
const minimal = join(
  hex('5145564d 00000003 07 00000004 6e6f6e65'),
  hex(
    '01 00000007 03 72616d 00000000 00000004 0000000001000004 03 72616d 0000000001000000 0000000000000010 7e 00000007',
  ),
  hex('02 00000007 0000000000003008 03 72616d'),
  filled(0x11),
  hex('0000000000004022 00 0000000000000010 7e 00000007'),
  hex('02 00000007 0000000000003060 01 0003 00 01 ee 0000000000000010 7e 00000007'),
  hex('03 00000007 0000000000000010 7e 00000007'),
  hex('00'),
);

describe('a stream', () => {
  it('is decoded item by item', () => {
    expect(itemsOf(minimal).filter(({ kind }) => !['section', 'section-end'].includes(kind))).toEqual([
      { kind: 'header', version: 3, offset: 0 },
      { kind: 'configuration', configuration: { machine: 'none', capabilities: [] }, offset: 8, length: 9 },
      { kind: 'block', block: { index: 0, idstr: 'ram', usedLength: 1 << 24, pageSize: 4096 } },
      { kind: 'blocks-end', totalBytes: 1 << 24, pageSizeFrom: 'pages' },
      { kind: 'page', block: 'ram', page: 3, is: 'data', offset: 72, size: 12 + KIB4, payload: filled(0x11) },
      { kind: 'page', block: 'ram', page: 4, is: 'zero', offset: 4180, size: 9, payload: new Uint8Array() },
      { kind: 'pass-end', offset: 4207 },
      { kind: 'page', block: 'ram', page: 3, is: 'delta', offset: 4207, size: 14, payload: hex('0001ee') },
      { kind: 'eof', offset: 4252 },
      { kind: 'end', offset: 4253 },
    ]);
  });

  it('gives a section before its content, and its length afterwards', () => {
    expect(kindsOf(minimal)).toEqual([
      'header',
      'configuration',
      ...['section', 'block', 'blocks-end', 'section-end'],
      ...['section', 'page', 'page', 'section-end'],
      ...['section', 'pass-end', 'page', 'section-end'],
      ...['section', 'section-end'],
      'eof',
      'end',
    ]);
  });

  it('is truncated at every cut except after EOF, and gives what came before', () => {
    const whole = join(minimal, vmdescription({ page_size: KIB4, devices: [] }));
    // The bytes that show the page size may be cut off. The size itself is the same.
    const same = (items: PlainItem[]) =>
      items.map((item) => (item.kind === 'blocks-end' ? { ...item, pageSizeFrom: 'pages' } : item));
    const all = same(itemsOf(whole));
    let given = 0;
    for (let length = 0; length < whole.length; length += length > 100 && length < 4170 ? 511 : 1) {
      const { items, error } = decodeChunked(whole.subarray(0, length), 4096);
      const sound = items.filter(({ kind }) => kind !== 'finding');
      expect(same(sound).slice(0, -1), `${length} bytes`).toEqual(all.slice(0, Math.max(0, sound.length - 1)));
      expect(sound.length, `${length} bytes`).toBeGreaterThanOrEqual(given);
      given = sound.length;
      if (length === minimal.length) expect(items.at(-1)).toEqual({ kind: 'end', offset: minimal.length });
      else if (length > minimal.length) {
        expect(items.slice(-2), `${length} bytes`).toMatchObject([
          { kind: 'finding', finding: { severity: 'warning', code: 'bad-description', place: { offset: length } } },
          { kind: 'end' },
        ]);
      } else expect(error, `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: length } });
      if (length === minimal.length) given--;
    }
  });

  it('begins at an offset, and counts places from the start of the source', () => {
    const items = itemsOf(join(new Uint8Array(1000).fill(7), minimal), { offset: 1000 });
    expect(items[0]).toEqual({ kind: 'header', version: 3, offset: 1000 });
    expect(ofKind(items, 'page').map(({ offset }) => offset)).toEqual([1072, 5180, 5207]);
    expect(items.at(-1)).toEqual({ kind: 'end', offset: 1000 + minimal.length });
    const error = errorOf(join(new Uint8Array(1000), 'nothing here'), { offset: 1000 });
    expect(error).toMatchObject({ code: 'not-a-migration-stream', place: { offset: 1000 } });
  });

  it('ends after its description, whatever follows', () => {
    const whole = join(minimal, vmdescription({}));
    expect(itemsOf(join(whole, minimal)).at(-1)).toEqual({ kind: 'end', offset: whole.length });
  });

  it.each([
    ['another magic', hex('5145564e 00000003 00'), 'not-a-migration-stream', 0],
    ['version 2', hex('5145564d 00000002 00'), 'unsupported-version', 4],
    ['version 4', hex('5145564d 00000004 00'), 'unsupported-version', 4],
    ['no bytes', new Uint8Array(), 'truncated', 0],
    ['7 bytes', hex('5145564d 000000'), 'truncated', 7],
    ['a header only', header, 'truncated', 8],
  ])('with %s is refused', (_, bytes, code, offset) => {
    expect(errorOf(bytes)).toMatchObject({ code, place: { offset } });
  });

  it('may have no configuration, as machines before 2.4 send none', () => {
    const items = itemsOf(join(header, ramStart, ramEnd, EOF));
    expect(ofKind(items, 'configuration')).toEqual([]);
    expect(items.at(-1)?.kind).toBe('end');
  });

  it('may have no RAM', () => {
    expect(codesOf(itemsOf(join(none, full(1, 'timer', 'body'), EOF)))).toEqual([]);
    expect(kindsOf(join(none, EOF))).toEqual(['header', 'configuration', 'eof', 'end']);
  });

  it('of a background snapshot has no RAM end, which is reported', () => {
    const bytes = join(none, ramStart, part(7, zeroPage(0, 'ram'), EOS), full(1, 'timer', 'x'), EOF);
    const [finding] = ofKind(itemsOf(bytes), 'finding');
    expect(finding?.finding).toMatchObject({
      severity: 'info',
      code: 'no-ram-end',
      place: { offset: bytes.length - 1 },
    });
  });

  it('may mix the parts of several iterables', () => {
    const bytes = join(
      none,
      ramStart,
      start(9, 'spapr/htab', 1, u32(24)),
      part(9, u32(0xffffffff)),
      part(7, zeroPage(0, 'ram'), EOS),
      part(9, u32(0xffffffff)),
      command(11),
      end(9, u32(0xffffffff)),
      ramEnd,
      EOF,
    );
    const items = itemsOf(bytes);
    expect(ofKind(items, 'section-end').map(({ section }) => `${section.kind} ${section.name}`)).toEqual([
      'start ram',
      'start spapr/htab',
      'part spapr/htab',
      'part ram',
      'part spapr/htab',
      'end spapr/htab',
      'end ram',
    ]);
    expect(codesOf(items)).toEqual([]);
  });
});

describe('the target page size', () => {
  const bits = (count: number) => subsection('configuration/target-page-bits', u32(count));
  const ofPages = (pageSize: number, ...subsections: Uint8Array[]) =>
    join(
      header,
      configuration('none', ...subsections),
      start(7, 'ram', 4, blockList(['ram', 16384]), EOS),
      part(7, normalPage(pageSize, filled(1, pageSize), 'ram'), EOS),
      ramEnd,
      EOF,
    );
  const pageSizeOf = (bytes: Uint8Array, pageSize?: number) => {
    const sizes = pageSize === undefined ? undefined : { pageSize, devices: [] };
    const items = itemsOf(bytes, { sizes });
    expect(ofKind(items, 'page')[0]?.page).toBe(1);
    return ofKind(items, 'block')[0]?.block.pageSize;
  };

  it('comes from the configuration, otherwise from the description, otherwise it is 4096', () => {
    expect(pageSizeOf(ofPages(8192, bits(13)))).toBe(8192);
    expect(pageSizeOf(ofPages(8192), 8192)).toBe(8192);
    expect(pageSizeOf(ofPages(4096))).toBe(4096);
    expect(pageSizeOf(ofPages(1024, bits(10)), 1024)).toBe(1024);
  });

  it('comes from the configuration if the description contradicts it, which is reported', () => {
    const items = itemsOf(ofPages(8192, bits(13)), { sizes: { pageSize: 4096, devices: [] } });
    expect(codesOf(items)).toEqual(['description-mismatch']);
    expect(ofKind(items, 'block')[0]?.block.pageSize).toBe(8192);
  });
});

describe('capabilities', () => {
  it('that are not known to change the format are reported, one by one', () => {
    const bytes = join(header, configuration('none', capabilities('zstd', 'x-ignore-shared', 'later')), EOF);
    const findings = ofKind(itemsOf(bytes), 'finding').map(({ finding }) => finding);
    expect(findings.map(({ code, message }) => [code, /"(.*)"/.exec(message)?.[1]])).toEqual([
      ['unknown-capability', 'zstd'],
      ['unknown-capability', 'later'],
    ]);
    expect(findings[0]?.place.offset).toBe(8);
  });
});

describe('postcopy', () => {
  const ping = (value: number): Uint8Array => command(2, u32(value));
  const before = join(
    none,
    command(1),
    ping(1),
    command(3, u64(KIB4), u64(KIB4)),
    ramStart,
    part(7, normalPage(0, filled(1), 'ram'), normalPage(KIB4, filled(2)), EOS),
    command(6, [0], counted('ram'), [0], u64(KIB4), u64(KIB4)),
    ping(2),
  );
  const inside = packaged(command(4), full(1, 'timer', 'body'), full(2, 'cpu', 'more'), ping(3), command(5));
  const after = join(ping(4), part(7, normalPage(KIB4, filled(3), 'ram'), zeroPage(2 * KIB4), EOS), ramEnd, EOF);
  const bytes = join(before, inside, after);

  it('is decoded with its package as part of the flow', () => {
    const items = itemsOf(bytes);
    const names = items.flatMap((item) =>
      item.kind === 'command' ? [item.command.name] : item.kind === 'device' ? [item.device.name] : [],
    );
    expect(names).toEqual([
      ...['OPEN_RETURN_PATH', 'PING', 'POSTCOPY_ADVISE', 'POSTCOPY_RAM_DISCARD', 'PING', 'PACKAGED'],
      ...['POSTCOPY_LISTEN', 'timer', 'cpu', 'PING', 'POSTCOPY_RUN', 'PING'],
    ]);
    expect(pagesOf(items)).toEqual(['ram:0 data', 'ram:1 data', 'ram:1 data', 'ram:2 zero']);
    expect(codesOf(items)).toEqual([]);
    const sections = ofKind(items, 'section-end').map(({ section }) => [section.name, section.packaged]);
    expect(sections.filter(([, isPackaged]) => isPackaged)).toEqual([
      ['timer', true],
      ['cpu', true],
    ]);
  });

  it('is decoded up to RUN without a byte behind the package, since the guest may ask for that byte', () => {
    expect(silencesBefore('POSTCOPY_RUN', join(before, inside))).toBe(0);
  });

  it('has places in the source also inside the package', () => {
    const [device] = ofKind(itemsOf(bytes), 'device');
    expect(device?.device.offset).toBe(before.length + 9 + 5);
  });

  it('names the block again: a CONTINUE after RUN is refused', () => {
    const continued = join(before, inside, ping(4), part(7, normalPage(KIB4, filled(3)), EOS), ramEnd, EOF);
    expect(errorOf(continued)).toMatchObject({ code: 'bad-ram-record' });
  });

  it('ends at EOF: the following bytes are not a description', () => {
    const items = itemsOf(join(bytes, vmdescription({ page_size: KIB4 })));
    expect(ofKind(items, 'description')).toEqual([]);
    expect(items.at(-1)).toEqual({ kind: 'end', offset: bytes.length });
  });

  it('reads nothing after EOF, because the source may keep the connection open', () => {
    const { items, error } = decodeChunked(bytes, 1);
    expect([items.at(-1)?.kind, error]).toEqual(['end', undefined]);
  });

  it('is truncated wherever it is cut', () => {
    for (let length = before.length + 1; length < bytes.length; length += length < bytes.length - 100 ? 7 : 1) {
      const { error } = decodeChunked(bytes.subarray(0, length), 4096);
      expect(error, `${length} bytes`).toMatchObject({ code: 'truncated' });
    }
  });

  it('takes an empty package', () => {
    expect(itemsOf(join(none, ramStart, packaged(), ramEnd, EOF)).at(-1)?.kind).toBe('end');
  });

  it.each([
    ['a package inside a package', packaged(packaged(command(4))), 'bad-package'],
    ['an item across its end', join(command(7, u32(3)), command(4)), 'bad-package'],
    ['a section across its end', join(command(7, u32(20)), full(1, 'timer', 'body')), 'bad-device-section'],
    ['EOF inside', packaged(command(4), EOF), 'unknown-section-type'],
    ['an unknown command inside', packaged(command(99)), 'bad-command'],
  ])('refuses %s', (_, item, code) => {
    expect(errorOf(join(none, ramStart, item, ramEnd, EOF)).code).toBe(code);
  });

  it('refuses a package beyond the end of the source', () => {
    expect(errorOf(join(none, ramStart, command(7, u32(0xffff_ffff)), command(4)))).toMatchObject({
      code: 'truncated',
    });
  });
});

describe('any bytes', () => {
  const base = join(
    none,
    command(1),
    start(7, 'ram', 4, blockList(['ram', 4 * KIB4], ['rom', KIB4]), EOS),
    part(7, zeroPage(0, 'ram'), zeroPage(KIB4), deltaPage(2 * KIB4, hex('000101')), zeroPage(0, 'rom'), EOS),
    start(9, 'dirty-bitmap', 1, hex('1c 02 6e30 03 626d30 00010000 01 01')),
    command(11),
    end(9, hex('44 03 626d30 0000000000000000 00000800 0000000000000002 ffff 01')),
    end(7, zeroPage(0, 'ram'), EOS),
    full(1, 'timer', 'body of timer'),
    packaged(full(2, 'cpu', 'more'), command(2, u32(1))),
    EOF,
    vmdescription({ page_size: KIB4, devices: [] }),
  );
  const mutation = fc.record({
    // After the first section: without any section, the slow reader guesses more boldly whether there are footers.
    at: fc.integer({ min: base.indexOf(0x7e) + 5, max: base.length - 1 }),
    kind: fc.constantFrom('set', 'flip', 'delete', 'insert', 'cut'),
    value: fc.oneof(fc.constantFrom(0, 1, 4, 7, 0x7e, 0xff), fc.nat(255)),
  });
  const mutated = fc.array(mutation, { minLength: 1, maxLength: 3 }).map((mutations) =>
    mutations.reduce<Uint8Array>((bytes, { at, kind, value }) => {
      const head = bytes.subarray(0, at);
      if (kind === 'set') return join(head, [value], bytes.subarray(at + 1));
      if (kind === 'flip') return join(head, [(bytes[at] ?? 0) ^ (1 << (value & 7))], bytes.subarray(at + 1));
      if (kind === 'delete') return join(head, bytes.subarray(at + 1 + (value & 3)));
      if (kind === 'insert') return join(head, [value], bytes.subarray(at));
      return head;
    }, base),
  );

  it('are read to an end or to a MigrationError, the same in chunks of any size', () => {
    expect(codesOf(itemsOf(base))).toEqual([]);
    fc.assert(
      fc.property(mutated, (bytes) => void decode(bytes)),
      { numRuns: 500 },
    );
    const noise = fc.uint8Array({ maxLength: 200 }).map((rest) => join(none, rest));
    fc.assert(
      fc.property(noise, (bytes) => void decode(bytes)),
      { numRuns: 200 },
    );
  });

  it('that the slow reader accepts give the same sections and RAM blocks', () => {
    fc.assert(
      fc.property(mutated, (bytes) => {
        let slow: ReturnType<typeof slowRead>;
        try {
          slow = slowRead(bytes);
        } catch (error) {
          if (error instanceof SlowReaderError) return;
          throw error;
        }
        const { items, error } = decodeChunked(bytes, bytes.length);
        expect(error).toBeUndefined();
        expect(items.at(-1)).toEqual({ kind: 'end', offset: slow.end });
        expect(
          ofKind(items, 'section-end').map(({ section }) => [section.name, section.offset, section.length]),
        ).toEqual(slow.sections.map(({ name, offset, length }) => [name, offset, length]));
        expect(ofKind(items, 'block').map(({ block }) => [block.idstr, block.usedLength])).toEqual(
          slow.blocks.map(({ idstr, usedLength }) => [idstr, usedLength]),
        );
      }),
      { numRuns: 3000, seed: 1 },
    );
  });
});
