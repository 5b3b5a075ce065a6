import { describe, expect, it } from 'vitest';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeFooter, encodeSectionHead } from '../../src/wire/section.ts';
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
  part,
  ramEnd,
  ramStart,
  u32,
  zeroPage,
} from '../oracle/build.ts';
import { codesOf, decodeChunked, errorOf, itemsOf, ofKind } from './decoding.ts';

const list = blockList(['ram', 16 * KIB4]);

describe('section heads', () => {
  it('names the parts of a section after its start, and measures each to the end of its footer', () => {
    const items = itemsOf(join(none, ramStart, part(7, zeroPage(0, 'ram'), EOS), ramEnd, EOF));
    const common = { id: 7, name: 'ram', instanceId: 0, versionId: 4, packaged: false };
    const partAt = none.length + ramStart.length;
    const endAt = partAt + 5 + 13 + 8 + 5;
    expect(ofKind(items, 'section-end').map(({ section }) => section)).toEqual([
      { ...common, kind: 'start', offset: none.length, length: ramStart.length },
      { ...common, kind: 'part', offset: partAt, length: endAt - partAt },
      { ...common, kind: 'end', offset: endAt, length: 18 },
    ]);
    expect(ofKind(items, 'section').map(({ section }) => [section.kind, section.offset])).toEqual([
      ['start', none.length],
      ['part', partAt],
      ['end', endAt],
    ]);
  });

  it('accepts ids of 32 bits, names of 255 bytes and names that are not ASCII', () => {
    const name = `\u00e9${'x'.repeat(254)}`;
    const bytes = join(none, [4], u32(0xffff_ffff), [255], Buffer.from(name, 'latin1'), u32(0xffff_fffe), u32(3));
    const [device] = ofKind(itemsOf(join(bytes, 'body', footer(0xffff_ffff), EOF)), 'device');
    expect(device?.device).toMatchObject({ id: 0xffff_ffff, name, instanceId: 0xffff_fffe, versionId: 3 });
  });

  it('accepts the same device twice, and two instances of one name with two ids', () => {
    const twice = join(none, full(1, 'dma', 'a'), full(1, 'dma', 'b'), EOF);
    expect(ofKind(itemsOf(twice), 'device').map(({ device }) => [device.id, device.data.length])).toEqual([
      [1, 1],
      [1, 1],
    ]);
    const second = join([4], u32(2), counted('dma'), u32(1), u32(1), 'b', footer(2));
    expect(
      ofKind(itemsOf(join(none, full(1, 'dma', 'a'), second, EOF)), 'device').map(({ device }) => device.instanceId),
    ).toEqual([0, 1]);
  });

  const rejected: [string, Uint8Array, string, number][] = [
    ['a part of an id never started', join(part(8, EOS), EOF), 'bad-section', 0],
    ['an end of an id never started', join(end(8, EOS), EOF), 'bad-section', 0],
    ['a part after the end', join(ramEnd, part(7, EOS)), 'bad-section', ramEnd.length],
    ['a second end', join(ramEnd, ramEnd), 'bad-section', ramEnd.length],
    ['an id taken by another name', full(7, 'timer', 'x'), 'bad-section', 0],
    ['an id taken by another instance', join([1], u32(7), counted('ram'), u32(1), u32(4)), 'bad-section', 0],
    ['version 3 of ram', bare.start(7, 'ram', 3, EOS), 'bad-section', 0],
    ['version 5 of ram', bare.start(7, 'ram', 5, EOS), 'bad-section', 0],
    ['instance 1 of ram', join([1], u32(9), counted('ram'), u32(1), u32(4)), 'bad-section', 0],
    ['a type that nothing has', [9] as unknown as Uint8Array, 'unknown-section-type', 0],
    ['a subsection outside a body', [5] as unknown as Uint8Array, 'unknown-section-type', 0],
    ['a second configuration', [7] as unknown as Uint8Array, 'unknown-section-type', 0],
    ['a description before EOF', [6] as unknown as Uint8Array, 'unknown-section-type', 0],
  ];
  it.each(rejected)('refuses %s, and names the place', (_, rest, code, at) => {
    const before = join(none, ramStart);
    expect(errorOf(join(before, rest, EOF))).toMatchObject({ code, place: { offset: before.length + at } });
  });

  it('accepts a part of a section that began as FULL, by its footer', () => {
    const bytes = join(none, full(3, 'vfio', 'x'), part(3, 'more'), end(3, 'rest'), EOF);
    expect(ofKind(itemsOf(bytes), 'section-end').map(({ section }) => section.kind)).toEqual(['full', 'part', 'end']);
  });

  it('refuses more than 16384 ids', () => {
    const devices = Array.from({ length: 16_385 }, (_, id) => full(id, 'dma', 'x'));
    const { items, error } = decodeChunked(join(none, ...devices, EOF), 1 << 16);
    expect([ofKind(items, 'device').length, error?.code]).toEqual([16_384, 'limit-exceeded']);
  });

  it('encodes what it decodes', () => {
    const out = new ByteWriter();
    encodeSectionHead(out, { kind: 'start', id: 7, name: 'ram', instanceId: 0, versionId: 4 });
    out.raw(join(list, EOS));
    encodeFooter(out, 7);
    encodeSectionHead(out, { kind: 'end', id: 7, name: 'ram', instanceId: 0, versionId: 4 });
    out.raw(Uint8Array.from(EOS));
    encodeFooter(out, 7);
    expect(out.bytes()).toEqual(join(ramStart, ramEnd));
  });
});

describe('section footers', () => {
  it('refuses the footer of another section, naming both', () => {
    const bytes = join(none, bare.start(7, 'ram', 4, list, EOS), footer(8), EOF);
    const error = errorOf(bytes);
    expect(error).toMatchObject({ code: 'bad-footer', place: { offset: bytes.length - 6, section: 'ram' } });
    expect(error.detail).toMatch(/section 7, got that of 8/);
  });

  it('refuses a missing footer if other sections have one', () => {
    const bytes = join(none, ramStart, bare.part(7, EOS), ramEnd, EOF);
    expect(errorOf(bytes)).toMatchObject({ code: 'bad-footer', place: { section: 'ram' } });
  });

  it('refuses a first section that nothing can follow', () => {
    const bytes = join(none, bare.start(7, 'ram', 4, list, EOS), hex('ffff ffff ffff ffff'));
    expect(errorOf(bytes)).toMatchObject({ code: 'bad-footer', place: { offset: bytes.length - 8 } });
  });

  it.each([1, 2, 3, 4])('reports a footer cut after %i bytes as truncated', (length) => {
    const bytes = join(none, bare.start(7, 'ram', 4, list, EOS), footer(7).subarray(0, length));
    expect(errorOf(bytes)).toMatchObject({ code: 'truncated', place: { offset: bytes.length } });
  });

  it('refuses a footer if sections have none', () => {
    expect(errorOf(join(none, bare.start(7, 'ram', 4, list, EOS), ramEnd, EOF)).code).toBe('unknown-section-type');
  });

  it.each([
    ['a part', bare.part(7, EOS)],
    ['an end', new Uint8Array()],
    ['a command', command(11)],
    ['another start', bare.start(9, 'spapr/htab', 1, u32(1))],
    ['a device', bare.full(9, 'timer', 'x')],
  ])('reads a stream without footers whose first section is followed by %s, and reports it once', (_, next) => {
    const first = bare.start(7, 'ram', 4, list, EOS);
    const bytes = join(header, first, next, bare.end(7, EOS), EOF);
    const items = itemsOf(bytes);
    expect(codesOf(items).filter((code) => code === 'no-footers')).toHaveLength(1);
    expect(ofKind(items, 'section-end')[0]?.section).toMatchObject({ offset: 8, length: first.length });
    expect(items.at(-1)).toEqual({ kind: 'end', offset: bytes.length });
  });

  it('reads a stream without footers that consists of the block list', () => {
    const bytes = join(header, bare.start(7, 'ram', 4, list, EOS), EOF);
    expect(codesOf(itemsOf(bytes))).toEqual(['no-footers', 'no-ram-end']);
  });
});
