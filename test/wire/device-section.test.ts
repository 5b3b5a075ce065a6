import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bare,
  blockList,
  command,
  counted,
  EOF,
  EOS,
  end,
  footer,
  full,
  header,
  hex,
  join,
  KIB4,
  none,
  packaged,
  part,
  ramEnd,
  ramStart,
  start,
  u32,
  vmdescription,
} from '../oracle/build.ts';
import { codesOf, decodeChunked, errorOf, itemsOf, ofKind } from './decoding.ts';

const devicesOf = (bytes: Uint8Array, sizes?: Sizes) =>
  ofKind(itemsOf(bytes, options(sizes)), 'device').map(({ device }) => device);
type Sizes = Record<string, number | undefined>;
const options = (sizes: Sizes | undefined) =>
  sizes === undefined
    ? {}
    : {
        sizes: {
          pageSize: 4096,
          devices: Object.entries(sizes).map(([name, size]) => ({ name, instanceId: 0, version: 1, size })),
        },
      };
/** Sections of a stream that has already shown footers. */
const withFooters = (...items: Uint8Array[]): Uint8Array => join(none, ramStart, ramEnd, ...items, EOF);
/** Sections of a stream that has already shown a section without a footer. */
const withoutFooters = (...items: Uint8Array[]): Uint8Array =>
  join(none, bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS), bare.end(7, EOS), ...items, EOF);
const text = (data: Uint8Array | undefined) => Buffer.from(data ?? []).toString('latin1');

describe('a device section', () => {
  it('is as long as the description says, if the footer is there', () => {
    const body = hex('7e 00000003 00 0102'); // looks like a footer and EOF
    const [device] = devicesOf(withFooters(full(3, 'one', body)), { one: body.length });
    expect(device).toEqual({
      kind: 'full',
      id: 3,
      name: 'one',
      instanceId: 0,
      versionId: 1,
      offset: none.length + ramStart.length + ramEnd.length,
      length: full(3, 'one', body).length,
      packaged: false,
      data: body,
      boundary: 'description',
    });
  });

  it.each([0, 3, 5, 100_000])('ends at its footer if the description is wrong by %i bytes', (size) => {
    const bytes = withFooters(full(3, 'one', 'body'), full(4, 'two', 'more'));
    const items = itemsOf(bytes, options({ one: size, two: 4 }));
    expect(ofKind(items, 'device').map(({ device }) => [text(device.data), device.boundary])).toEqual([
      ['body', 'footer'],
      ['more', 'description'],
    ]);
    const [finding] = ofKind(items, 'finding');
    expect(finding?.finding).toMatchObject({ code: 'description-mismatch', place: { section: 'one' } });
  });

  it('uses the sizes of devices with one name in order', () => {
    const devices = [3, 5].map((size) => ({ name: 'dma', instanceId: 0, version: 1, size }));
    const bytes = withFooters(full(3, 'dma', 'abc'), full(3, 'dma', 'abcde'), full(3, 'dma', 'abcdefg'));
    const found = ofKind(itemsOf(bytes, { sizes: { pageSize: 4096, devices } }), 'device');
    expect(found.map(({ device }) => device.boundary)).toEqual(['description', 'description', 'footer']);
  });

  it('keeps the sizes of two instances separate', () => {
    const devices = [0, 1].map((instanceId) => ({ name: 'dma', instanceId, version: 1, size: 3 + instanceId }));
    const second = join([4], u32(4), counted('dma'), u32(1), u32(1), 'abcd', footer(4));
    const found = ofKind(
      itemsOf(withFooters(second, full(3, 'dma', 'abc')), { sizes: { pageSize: 4096, devices } }),
      'device',
    );
    expect(found.map(({ device }) => device.boundary)).toEqual(['description', 'description']);
  });

  it('without a description ends at the first footer that an item follows', () => {
    const decoys = join('a', footer(4), footer(3), 'ff', footer(3), [0x7e, 0x7e, 0], 'b');
    const bytes = withFooters(full(3, 'one', decoys), full(4, 'two', 'x'));
    expect(devicesOf(bytes).map(({ data, boundary }) => [text(data), boundary])).toEqual([
      [text(decoys), 'footer'],
      ['x', 'footer'],
    ]);
  });

  it.each([
    ['EOF', EOF],
    ['a device', full(9, 'cpu', 'x')],
    ['a start', start(9, 'spapr/htab', 1, u32(1))],
    ['a command', command(2, u32(1))],
    ['a part', part(5, u32(0xffffffff))],
    ['an end', end(5, u32(0xffffffff))],
  ])('ends at a footer followed by %s', (_, next) => {
    const before = join(none, start(5, 'spapr/htab', 1, u32(1)));
    const [device] = devicesOf(join(before, full(3, 'one', 'body'), next, EOF));
    expect(text(device?.data)).toBe('body');
  });

  it.each([
    ['a part of an unknown id', part(99, 'x')],
    ['command 0', command(0)],
    ['command 12', command(12)],
    ['a name that cannot be printed', bare.full(9, 'a\u0007', 'x')],
    ['a name of no bytes', bare.full(9, '', 'x')],
    ['a description', vmdescription({})],
    ['a configuration', [7, 0, 0, 0, 0]],
  ])('does not end at a footer followed by %s', (_, next) => {
    const decoy = join('a', footer(3), next, 'b');
    const [device] = devicesOf(withFooters(full(3, 'one', decoy), command(11)));
    expect(text(device?.data)).toBe(text(decoy));
  });

  it('may be empty', () => {
    expect(devicesOf(withFooters(full(3, 'one'))).map(({ data }) => data.length)).toEqual([0]);
    expect(devicesOf(withFooters(full(3, 'one')), { one: 0 })).toMatchObject([{ boundary: 'description' }]);
  });

  it.each([1, 70_000, 200_000])('of %i bytes is found by its footer, wherever windows end', (length) => {
    const body = Uint8Array.from({ length }, (_, i) => (i % 97 === 0 ? 0x7e : i & 0xff));
    const bytes = withFooters(full(3, 'one', body), full(4, 'two', 'x'));
    for (const chunk of [997, 65536, bytes.length]) {
      for (const sizes of [undefined, { one: length }, { one: length + 1 }]) {
        const [first, second] = ofKind(decodeChunked(bytes, chunk, options(sizes)).items, 'device');
        expect(Buffer.compare(first?.device.data ?? new Uint8Array(), body), `chunks of ${chunk}`).toBe(0);
        expect(second?.device.name).toBe('two');
      }
    }
  });

  it('without its footer is truncated, or not found', () => {
    const bytes = withFooters(bare.full(3, 'one', 'body'));
    expect(errorOf(bytes)).toMatchObject({ code: 'truncated', place: { offset: bytes.length, section: 'one' } });
    expect(errorOf(bytes, options({ one: 4 })).code).toBe('truncated');
  });

  it('with the footer of another section is not found', () => {
    expect(errorOf(withFooters(join(bare.full(3, 'one', 'body'), footer(4)))).code).toBe('truncated');
  });

  it('is found for any body that contains no footer of its own', () => {
    const bytes = fc.uint8Array({ maxLength: 600 });
    fc.assert(
      fc.property(bytes, fc.integer({ min: 1, max: 700 }), (body, chunk) => {
        const stream = withFooters(full(0x01020304, 'one', body), full(4, 'two', body));
        const [first, second] = ofKind(decodeChunked(stream, chunk).items, 'device');
        expect([first?.device.data, second?.device.data]).toEqual([body, body]);
      }),
    );
  });
});

describe('a device section in a package', () => {
  it('ends at the end of the package, or before a command', () => {
    const bytes = join(none, ramStart, packaged(full(1, 'one', 'body'), full(2, 'two', 'more')), ramEnd, EOF);
    expect(devicesOf(bytes).map(({ data, packaged: inside }) => [text(data), inside])).toEqual([
      ['body', true],
      ['more', true],
    ]);
    const commanded = join(none, ramStart, packaged(full(1, 'one', 'body'), command(5)), ramEnd, EOF);
    expect(devicesOf(commanded).map(({ data }) => text(data))).toEqual(['body']);
  });

  it('does not end beyond the package, whatever the description says', () => {
    const inner = bare.full(1, 'one', 'body');
    const bytes = join(none, ramStart, command(7, u32(inner.length)), inner, footer(1), ramEnd, EOF);
    for (const sizes of [undefined, { one: 4 }, { one: 9 }]) {
      expect(['bad-device-section', 'bad-package', 'truncated']).toContain(errorOf(bytes, options(sizes)).code);
    }
  });

  it('takes a footer at the very end of the package, but not one across it', () => {
    const body = join('a', footer(1));
    const bytes = join(none, ramStart, packaged(full(1, 'one', body)), ramEnd, EOF);
    expect(devicesOf(bytes).map(({ data }) => data)).toEqual([body]);
  });
});

describe('a device section without footers', () => {
  it('is as long as the description says', () => {
    const body = hex('04 00000063 03 616263 0000000000000000'); // a section, by its looks
    const bytes = withoutFooters(bare.full(3, 'one', body), bare.full(4, 'two', 'x'));
    const items = itemsOf(bytes, options({ one: body.length, two: 1 }));
    expect(ofKind(items, 'device').map(({ device }) => [device.data.length, device.boundary])).toEqual([
      [body.length, 'description'],
      [1, 'description'],
    ]);
    expect(codesOf(items)).toEqual(['no-footers']);
  });

  it('otherwise ends at a guess: before a head with an unused id', () => {
    const body = join('ab', hex('04 00000007 03 616263 0000000000000000 0006 0000'), 'cd');
    const bytes = withoutFooters(bare.full(3, 'one', body), bare.full(4, 'two', 'x'));
    expect(devicesOf(bytes).map(({ data, boundary }) => [text(data), boundary])).toEqual([
      [text(body), 'guess'],
      ['x', 'guess'],
    ]);
  });

  it('ends before an EOF at the end of the file, or before a description', () => {
    const body = hex('0000 0006 00 06 ffffffff 7b');
    expect(devicesOf(withoutFooters(bare.full(3, 'one', body)))[0]?.data).toEqual(body);
    const described = join(withoutFooters(bare.full(3, 'one', body)), vmdescription({ devices: [] }));
    expect(devicesOf(described)[0]?.data).toEqual(body);
  });

  it('in a package ends before a command', () => {
    const old = join(header, bare.start(7, 'ram', 4, blockList(['ram', KIB4]), EOS));
    const bytes = join(old, packaged(bare.full(1, 'acpi', 'x'), command(2, u32(3)), command(5)), bare.end(7, EOS), EOF);
    expect(devicesOf(bytes).map(({ data, boundary }) => [text(data), boundary])).toEqual([['x', 'guess']]);
  });
});

describe('a section of an unknown iterable', () => {
  it('is measured by its footer, and gives no device', () => {
    const bytes = join(none, start(9, 'vfio', 1, 'setup'), part(9, 'data'), end(9, 'rest'), EOF);
    const items = itemsOf(bytes);
    expect(ofKind(items, 'section-end').map(({ section }) => [section.kind, section.length])).toEqual([
      ['start', start(9, 'vfio', 1, 'setup').length],
      ['part', part(9, 'data').length],
      ['end', end(9, 'rest').length],
    ]);
    expect(ofKind(items, 'device')).toEqual([]);
    expect(codesOf(items)).toEqual(['unknown-section']);
  });

  it('does not use the size of a device with its name', () => {
    const bytes = join(none, start(9, 'vfio', 1, 'setup'), end(9, 'rest'), full(10, 'vfio', 'body'), EOF);
    expect(devicesOf(bytes, { vfio: 4 })).toMatchObject([{ boundary: 'description' }]);
  });
});
