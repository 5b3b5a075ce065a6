import { describe, expect, it } from 'vitest';
import {
  bare,
  blockList,
  capabilities,
  command,
  configuration,
  counted,
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
} from './build.ts';
import { pageOf, rejection } from './reading.ts';
import { recordBoundaries, SlowReaderError, type SlowResult, slowRead } from './slow-reader.ts';

describe('slow reader: framing', () => {
  const data = Uint8Array.from({ length: KIB4 }, (_, i) => i & 0xff);
  const minimal = join(
    hex('5145564d 00000003 07 00000004 6e6f6e65'),
    hex(
      '01 00000007 03 72616d 00000000 00000004 0000000001000004 03 72616d 0000000001000000 0000000000000010 7e 00000007',
    ),
    hex('02 00000007 0000000000003008 03 72616d'),
    data,
    hex('0000000000004022 00 0000000000000010 7e 00000007'),
    hex('02 00000007 0000000000003060 01 0003 00 01 ee 0000000000000010 7e 00000007'),
    hex('03 00000007 0000000000000010 7e 00000007 00'),
  );

  it('reads the minimal stream', () => {
    const result = slowRead(minimal);
    expect(result).toMatchObject({
      format: 'stream',
      machine: 'none',
      capabilities: [],
      vmdescription: undefined,
      complete: true,
      end: minimal.length,
    });
    expect(result.blocks.map((block) => [block.idstr, block.usedLength, block.pageSize])).toEqual([
      ['ram', 16 << 20, KIB4],
    ]);
    expect(result.sections.map((section) => [section.kind, section.offset, section.length])).toEqual([
      ['start', 17, 50],
      ['part', 67, 4135],
      ['part', 4202, 32],
      ['end', 4234, 18],
    ]);
    expect(result.sections.every((section) => section.name === 'ram' && section.versionId === 4)).toBe(true);
    const expected = data.slice();
    expected[0] = 0xee;
    expect(pageOf(result, 3)).toEqual(expected);
    expect([...result.blocks[0]!.last.subarray(0, 6)]).toEqual([0, 0, 0, 3, 1, 0]);
  });

  it('gives every item of the minimal stream as a boundary', () => {
    expect(recordBoundaries(minimal)).toEqual([
      ...[0, 4, 8, 17], // magic, version, configuration, START
      ...[34, 42, 54, 62], // block list, its entry, EOS, footer
      ...[67, 72, 4180, 4189, 4197], // PART, page, zero page, EOS, footer
      ...[4202, 4207, 4221, 4229], // PART, delta, EOS, footer
      ...[4234, 4239, 4247], // END, EOS, footer
      ...[4252, 4253], // EOF, end
    ]);
  });

  it('rejects every truncation of a stream except the one that ends with EOF', () => {
    const whole = join(minimal, vmdescription({ page_size: KIB4, devices: [] }));
    for (let length = 0; length < whole.length; length++) {
      if (length === minimal.length) expect(slowRead(whole.subarray(0, length)).complete).toBe(true);
      else expect(() => slowRead(whole.subarray(0, length)), `${length} bytes`).toThrow(SlowReaderError);
    }
    expect(slowRead(whole).vmdescription).toEqual({ page_size: KIB4, devices: [] });
  });

  it('reads from an offset and reports the end if more data follows', () => {
    const result = slowRead(join('junk', minimal, 'more'), 4);
    expect(result.end).toBe(4 + minimal.length);
    expect(result.sections[0]!.offset).toBe(4 + 17);
  });

  it('reads a stream without CONFIGURATION', () => {
    const result = slowRead(join(header, ramStart, ramEnd, EOF));
    expect(result).toMatchObject({ machine: undefined, complete: true });
  });

  it('reads all subsections of the configuration', () => {
    const bytes = join(
      header,
      configuration(
        'virt',
        subsection('configuration/target-page-bits', u32(13)),
        capabilities('x-ignore-shared', 'from-the-future'),
        subsection('configuration/uuid', new Uint8Array(16)),
      ),
      start(1, 'ram', 4, blockList(['mem', 16384, u64(0xfffc0000)], ['rom', 8192, u64(0)]), EOS),
      part(1, normalPage(8192, filled(9, 8192), 'mem'), EOS),
      end(1, EOS),
      EOF,
    );
    const result = slowRead(bytes);
    expect(result.capabilities).toEqual(['x-ignore-shared', 'from-the-future']);
    expect(result.blocks.map((block) => [block.idstr, block.pageSize, [...block.last]])).toEqual([
      ['mem', 8192, [0, 2]],
      ['rom', 8192, [0]],
    ]);
  });

  it('takes the page size from the VMDESCRIPTION, with or without padding after it', () => {
    const bytes = join(
      none,
      start(1, 'ram', 4, blockList(['ram', 16384]), EOS),
      part(1, normalPage(8192, filled(5, 8192), 'ram'), EOS),
      end(1, EOS),
      EOF,
      vmdescription({ page_size: 8192 }),
    );
    expect(slowRead(bytes).blocks[0]!.pageSize).toBe(8192);
    expect(slowRead(join(bytes, new Uint8Array(777)))).toMatchObject({ end: bytes.length, format: 'stream' });
  });

  it('reads a background snapshot, which has no END', () => {
    const result = slowRead(join(none, ramStart, part(7, zeroPage(0, 'ram'), EOS), full(1, 'timer', 'x'), EOF));
    expect(result.complete).toBe(true);
  });

  it('reads a stream without any RAM', () => {
    expect(slowRead(join(none, full(1, 'timer', 'body'), EOF))).toMatchObject({ complete: true, blocks: [] });
  });

  const rejected: [string, Uint8Array, RegExp][] = [
    ['another magic', hex('5145564e 00000003 00'), /QEVM/],
    ['version 2', hex('5145564d 00000002 00'), /version 2/],
    ['an unknown subsection', join(header, configuration('m', subsection('configuration/x')), EOF), /unknown length/],
    [
      '9 page bits',
      join(header, configuration('m', subsection('configuration/target-page-bits', u32(9))), EOF),
      /9 target page bits/,
    ],
    [
      '17 page bits',
      join(header, configuration('m', subsection('configuration/target-page-bits', u32(17))), EOF),
      /17 target page bits/,
    ],
    ['an unknown item', join(none, [0x09]), /type 0x9/],
    ['a second configuration', join(none, configuration('none'), EOF), /type 0x7/],
    ['ram version 3', join(none, start(7, 'ram', 3, blockList(['ram', KIB4]), EOS), EOF), /version 3/],
    ['ram instance 1', join(none, [1], u32(7), counted('ram'), u32(1), u32(4)), /instance 1/],
    ['a PART without a START', join(none, ramStart, part(8, EOS), EOF), /id 8 has not started/],
    ['an END without a START', join(none, ramStart, end(8, EOS), EOF), /id 8 has not started/],
    ['a PART after the END', join(none, ramStart, ramEnd, part(7, EOS), EOF), /already ended/],
    ['a second END', join(none, ramStart, ramEnd, ramEnd, EOF), /already ended/],
    ['an id used twice', join(none, ramStart, full(7, 'timer', 'x'), EOF), /is that of "ram"/],
    ['a wrong footer', join(none, bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS), hex('7e00000008')), /says 8/],
    ['a missing footer later', join(none, ramStart, bare.part(7, EOS), ramEnd, EOF), /no footer/],
    ['a footer where none are', join(none, bare.start(7, 'ram', 4, blockList(['r', KIB4]), EOS), ramEnd, EOF), /0x7e/],
    ['command 0', join(none, command(0), EOF), /command 0/],
    ['command 12', join(none, command(12), EOF), /command 12/],
    ['a PING of 2 bytes', join(none, command(2, [0, 1]), EOF), /payload of 2 bytes/],
    ['an ADVISE of 8 bytes', join(none, command(3, u64(1)), EOF), /payload of 8 bytes/],
    ['a missing package', join(none, command(7, u32(100)), EOF), /inside a package/],
    ['EOF in a package', join(none, packaged(command(4), EOF), EOF), /EOF inside/],
    ['an item across the end of its package', join(none, command(7, u32(3)), command(4), EOF), /ends inside/],
    ['a package in a package', join(none, packaged(packaged(command(4))), EOF), /inside a package/],
  ];
  it.each(rejected)('rejects %s', (_, bytes, message) => {
    expect(rejection(bytes)).toMatch(message);
  });

  it('names the offset of the error', () => {
    const bytes = join(none, ramStart, part(8, EOS), EOF);
    expect(() => slowRead(bytes)).toThrow(expect.objectContaining({ offset: none.length + ramStart.length }));
  });
});

describe('slow reader: devices', () => {
  const sizes = (result: SlowResult): [string, number][] =>
    result.sections.map((section) => [section.name, section.length]);
  /** The bytes that a section adds to its body: type, id, name, instance, version and footer. */
  const around = (name: string): number => 1 + 4 + 1 + name.length + 8 + 5;

  it('finds the footer by the item that follows it', () => {
    const decoy = join('ab', hex('7e 00000003 ff'), 'cd'); // the right id, but no item behind
    const bytes = join(none, full(3, 'one', decoy), full(4, 'two', hex('7e 00000003 00')), command(11), EOF);
    expect(sizes(slowRead(bytes))).toEqual([
      ['one', around('one') + decoy.length],
      ['two', around('two') + 6],
    ]);
  });

  it('prefers the VMDESCRIPTION to the first footer', () => {
    const body = hex('7e 00000003 00 0102'); // looks like a footer and EOF
    const stream = join(none, full(3, 'one', body), EOF);
    const fields = [
      { name: 'a', type: 'uint8', array_len: 3, size: 2 },
      { name: 'b', size: 2 },
    ];
    const devices = (...list: unknown[]): Uint8Array => join(stream, vmdescription({ devices: list }));
    expect(sizes(slowRead(devices({ name: 'one', instance_id: 0, fields })))).toEqual([['one', around('one') + 8]]);
    // Without it, the decoy does not end the stream, since more data follows its EOF.
    expect(slowRead(stream).sections[0]!.length).toBe(around('one') + 8);
  });

  it('adds up subsections, including nested ones', () => {
    const body = join(
      '1234',
      [5],
      counted('d/s'),
      u32(1),
      'xx',
      [5],
      counted('d/s/t'),
      u32(1),
      'y',
      hex('7e 00000003 00'),
    );
    const device = {
      name: 'one',
      instance_id: 0,
      vmsd_name: 'd',
      fields: [{ name: 'a', type: 'struct', size: 4, struct: { fields: [{ name: 'in', size: 4 }] } }],
      subsections: [
        {
          vmsd_name: 'd/s',
          fields: [{ name: 'b', size: 2 }],
          subsections: [
            {
              vmsd_name: 'd/s/t',
              fields: [
                { name: 'c', size: 1 },
                { name: 'decoy', size: 6 },
              ],
            },
          ],
        },
      ],
    };
    const bytes = join(none, full(3, 'one', body), EOF, vmdescription({ devices: [device] }));
    expect(sizes(slowRead(bytes))).toEqual([['one', around('one') + body.length]]);
  });

  it('falls back to the footer if the VMDESCRIPTION is wrong', () => {
    const devices = [{ name: 'one', instance_id: 0, fields: [{ name: 'css', type: 'struct', struct: {}, size: 1 }] }];
    const bytes = join(none, full(3, 'one', 'longer'), EOF, vmdescription({ devices }));
    expect(sizes(slowRead(bytes))).toEqual([['one', around('one') + 6]]);
  });

  it('reads an unknown iterable by its footers', () => {
    const bytes = join(none, start(9, 'vfio', 1, 'setup'), part(9, 'data'), end(9, 'rest'), EOF);
    expect(slowRead(bytes).sections.map((section) => section.kind)).toEqual(['start', 'part', 'end']);
  });

  it('reads an old machine without configuration, footers and description', () => {
    const bytes = join(
      header,
      bare.start(2, 'ram', 4, blockList(['pc.ram', 2 * KIB4]), EOS),
      bare.part(2, zeroPage(0, 'pc.ram'), normalPage(KIB4, filled(1)), EOS),
      bare.end(2, EOS),
      bare.full(3, 'timer', hex('0006 0000 0800')), // a zero and a six in a body are ignored
      bare.full(4, 'cpu', hex('04 00000002 03 616263 0000000000000000')), // and so is a section with an id in use
      EOF,
    );
    const result = slowRead(bytes);
    expect(result).toMatchObject({ machine: undefined, complete: true, end: bytes.length });
    expect(sizes(result).slice(3)).toEqual([
      ['timer', around('timer') - 5 + 6],
      ['cpu', around('cpu') - 5 + 17],
    ]);
    expect(result.blocks[0]!.last).toEqual(new Uint8Array([1, 2]));
  });

  it('uses the sizes in the VMDESCRIPTION without footers', () => {
    const body = hex('04 00000063 03 616263 0000000000000000'); // looks like a section
    const devices = [{ name: 'one', instance_id: 0, size: 17, fields: [{ name: 'data', size: 17, type: 'buffer' }] }];
    const bytes = join(none, bare.full(3, 'one', body), EOF, vmdescription({ devices }));
    expect(sizes(slowRead(bytes))).toEqual([['one', around('one') - 5 + 17]]);
  });

  it('rejects a device whose footer is missing', () => {
    expect(rejection(join(none, ramStart, bare.full(3, 'one', 'body'), EOF))).toMatch(/section 3 has no footer/);
  });
});

describe('slow reader: postcopy', () => {
  const ping = (value: number): Uint8Array => command(2, u32(value));
  const bytes = join(
    none,
    command(1),
    ping(1),
    command(3, u64(KIB4), u64(KIB4)),
    ramStart,
    part(7, normalPage(0, filled(1), 'ram'), normalPage(KIB4, filled(2)), EOS),
    command(6, [0], counted('ram'), [0], u64(KIB4), u64(KIB4)),
    ping(2),
    packaged(command(4), full(1, 'timer', 'body'), full(2, 'cpu', 'more'), ping(3), command(5)),
    ping(4),
    part(7, normalPage(KIB4, filled(3), 'ram'), EOS),
    ramEnd,
    EOF,
  );

  it('reads the package and the pages after it', () => {
    const result = slowRead(bytes);
    expect(result.sections.map((section) => section.name)).toEqual(['ram', 'ram', 'timer', 'cpu', 'ram', 'ram']);
    expect(pageOf(result, 1)).toEqual(filled(3));
    expect(result.end).toBe(bytes.length);
  });

  it('does not mistake data after EOF for a VMDESCRIPTION', () => {
    const result = slowRead(join(bytes, vmdescription({ page_size: KIB4 })));
    expect(result).toMatchObject({ end: bytes.length, vmdescription: undefined });
  });

  it('ends a device at the end of its package', () => {
    const result = slowRead(join(none, packaged(full(1, 'timer', 'body')), EOF));
    expect(result.sections.map((section) => section.length)).toEqual([28]);
  });

  it('ends a device without footer at a command of the package', () => {
    const old = join(header, bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS));
    const result = slowRead(join(old, packaged(bare.full(1, 'acpi', 'x'), ping(3), command(5)), EOF));
    expect(result.sections.map((section) => section.length)).toEqual([8 + 4 + 14 + 20 - 4 + 3, 19]);
  });

  it('rejects every truncation', () => {
    for (let length = 0; length < bytes.length; length++) {
      expect(() => slowRead(bytes.subarray(0, length)), `${length} bytes`).toThrow(SlowReaderError);
    }
  });
});

describe('slow reader: other iterables', () => {
  const bodies: [name: string, start: string, end: string][] = [
    [
      'dirty-bitmap',
      '1c 02 6e30 03 626d31 00010000 00 14 03 626d30 00010000 01 01',
      `46 03 626d31 0000000000000000 00100000 42 0000000000100000 00100000
       44 03 626d30 0000000000000000 00001000 0000000000000004 7e000000 20 01`,
    ],
    ['spapr/htab', '00000018', '00000000 00000007 0001 0002 7e0000000000000000000000000000 09 00000000 0000 0000'],
    ['spapr/htab', 'ffffffff', 'ffffffff'],
    [
      's390-storage_attributes',
      '0000000000000001',
      '0000000000001002 0000000000000003 000000 0000000000000008 0000000000000001',
    ],
    ['block', '0000000000000002', `0000000000000209 02 6430 0000000000000004 0000000000000002`],
  ];

  it.each(bodies)('reads %s to the footer', (name, first, last) => {
    const bytes = join(none, start(3, name, 1, hex(first)), end(3, hex(last)), EOF);
    const result = slowRead(bytes);
    expect(result.sections.map((section) => [section.name, section.kind])).toEqual([
      [name, 'start'],
      [name, 'end'],
    ]);
    expect(result).toMatchObject({ end: bytes.length, complete: true });
    const bare = bytes.subarray(0, -1);
    for (let length = 18; length < bare.length; length++) {
      expect(() => slowRead(bare.subarray(0, length)), `${length} bytes`).toThrow(SlowReaderError);
    }
  });

  it('reads the data of block migration', () => {
    const block = join(u64(0x201), counted('ide0'), new Uint8Array(1 << 20), u64(2));
    expect(slowRead(join(none, start(3, 'block', 1, u64(2)), part(3, block), EOF)).sections[1]!.kind).toBe('part');
  });

  it.each([
    ['dirty-bitmap', '80', /long flags/],
    ['dirty-bitmap', '30', /flags 0x30/],
    ['dirty-bitmap', '12', /flags 0x12/],
    ['s390-storage_attributes', '0000000000000004', /flags 0x4/],
    ['block', '0000000000000010', /flags 0x10/],
  ])('rejects %s %s', (name, body, message) => {
    expect(rejection(join(none, start(3, name, 1, hex(body)), EOF))).toMatch(message);
  });
});
