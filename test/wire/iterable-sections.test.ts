import { describe, expect, it } from 'vitest';
import { counted, EOF, end, footer, hex, join, none, part, start, u32, u64 } from '../oracle/build.ts';
import { codesOf, decodeChunked, errorOf, itemsOf, ofKind } from './decoding.ts';

const bodies: [name: string, version: number, first: string, last: string][] = [
  [
    'dirty-bitmap',
    1,
    '1c 02 6e30 03 626d31 00010000 00 14 03 626d30 00010000 01 01',
    `46 03 626d31 0000000000000000 00100000 42 0000000000100000 00100000
     44 03 626d30 0000000000000000 00001400 0000000000000005 7e00000003 20 01`,
  ],
  [
    'spapr/htab',
    1,
    '00000018',
    '00000000 00000007 0001 0002 7e000000030000000000000000000000 00000009 0000 0001 00000000 0000 0000',
  ],
  ['spapr/htab', 1, 'ffffffff', 'ffffffff'],
  [
    's390-storage_attributes',
    0,
    '0000000000000001',
    '0000000000001002 0000000000000005 7e00000003 0000000000000008 0000000000000001',
  ],
  ['block', 1, '0000000000000002', '0000000000000209 02 6430 0000000000000c04 0000000000000002'],
];

const vfio = {
  end: hex('ffffffffef100001'),
  config: hex('ffffffffef100002'),
  setup: hex('ffffffffef100003'),
  data: (bytes: Uint8Array) => join(hex('ffffffffef100004'), u64(bytes.length), bytes),
};
/** Data that contains the footer of the section and what may follow it. */
const misleading = join('x', footer(3), part(3), EOF, 'y');

describe('sections that state their lengths', () => {
  it('passes over records of VFIO by their lengths', () => {
    const first = start(3, '0000:00:05.0/vfio', 1, vfio.setup, vfio.end);
    const last = end(3, vfio.data(misleading), vfio.data(new Uint8Array()), vfio.end);
    const items = itemsOf(join(none, first, part(3, vfio.data(misleading), vfio.end), last, EOF));
    expect(ofKind(items, 'section-end').map(({ section }) => section.kind)).toEqual(['start', 'part', 'end']);
    expect(codesOf(items)).toEqual([]);
  });

  it('finds the end of the configuration of VFIO, which has no length', () => {
    const first = start(3, 'vfio', 1, vfio.setup, vfio.end);
    const last = end(3, vfio.data(misleading), vfio.config, 'pci configuration', vfio.end);
    expect(codesOf(itemsOf(join(none, first, last, EOF)))).toEqual([]);
  });

  it('passes over pbs-state by its length', () => {
    const items = itemsOf(join(none, start(3, 'pbs-state', 1, u64(misleading.length), misleading), EOF));
    expect(ofKind(items, 'section-end')).toHaveLength(1);
    expect(codesOf(items)).toEqual([]);
  });
});

describe('bodies of other iterables', () => {
  it.each(bodies)(
    '%s (version %i) ends by itself, even if its data contains a footer',
    (name, version, first, last) => {
      const bytes = join(none, start(3, name, version, hex(first)), part(3, hex(last)), end(3, hex(last)), EOF);
      const items = itemsOf(bytes);
      expect(ofKind(items, 'section-end').map(({ section }) => [section.kind, section.length])).toEqual([
        ['start', start(3, name, version, hex(first)).length],
        ['part', part(3, hex(last)).length],
        ['end', end(3, hex(last)).length],
      ]);
      expect(codesOf(items)).toEqual([]);
    },
  );

  it.each(bodies)('%s (version %i) is truncated wherever it is cut', (name, version, first, last) => {
    const before = join(none, start(3, name, version, hex(first)));
    const bytes = join(before, end(3, hex(last)));
    for (let length = none.length + 15 + name.length; length < bytes.length; length++) {
      if (length === before.length) continue;
      const error = errorOf(bytes.subarray(0, length));
      expect(error, `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: length } });
    }
  });

  it('skips a disk block of 1 MiB', () => {
    const disk = join(u64(0x201), counted('ide0'), new Uint8Array(1 << 20).fill(2), u64(2));
    expect(lengthOf(join(none, start(3, 'block', 1, u64(2)), part(3, disk), EOF))).toBe(part(3, disk).length);
  });

  it('skips 65535 htab entries', () => {
    const group = join(u32(0), u32(1), [0xff, 0xff], [0, 0], new Uint8Array(65535 * 16).fill(3), u64(0));
    expect(lengthOf(join(none, start(3, 'spapr/htab', 1, u32(24)), part(3, group), EOF))).toBe(part(3, group).length);
  });

  it("accepts an instance other than 0, and a device with an iterable's name, by its footer", () => {
    const bytes = join(none, [4], u32(3), counted('block'), u32(1), u32(1), 'anything', hex('7e00000003'), EOF);
    expect(ofKind(itemsOf(bytes), 'device').map(({ device }) => device.data.length)).toEqual([8]);
  });

  it.each([
    ['dirty-bitmap', 'start', '80', 'flags that go on in another byte'],
    ['dirty-bitmap', 'start', '00', 'a chunk of no kind'],
    ['spapr/htab', 'part', '00000001', 'another header'],
    ['s390-storage_attributes', 'start', '0000000000000004', 'the ERROR flag'],
    ['s390-storage_attributes', 'start', '0000000000000000', 'no flag'],
    ['s390-storage_attributes', 'start', '0000000000001002 0020000000000000', 'a length of 2^53'],
    [
      'dirty-bitmap',
      'start',
      '1c 0161 0162 00010000 00 40 0000000000000000 00000001 ffffffffffffffff 01',
      'a length of 2^64 - 1',
    ],
    ['block', 'start', '0000000000000010', 'an unknown flag'],
    ['block', 'start', '0000000000000000', 'no flag'],
  ])('refuses %s, %s %s: %s', (name, kind, body) => {
    const bytes =
      kind === 'start'
        ? join(none, start(3, name, 1, hex(body)), EOF)
        : join(none, start(3, name, 1, hex('00000018')), part(3, hex(body)), EOF);
    expect(errorOf(bytes)).toMatchObject({ code: 'bad-iterable', place: { section: name } });
  });

  it('reports a length beyond the end as truncated, without allocating memory', () => {
    const body = join(u64(0x1002), u64(2 ** 50));
    expect(errorOf(join(none, start(3, 's390-storage_attributes', 0, body))).code).toBe('truncated');
  });
});

/** Length of the second section, under one chunking. */
function lengthOf(bytes: Uint8Array): number | undefined {
  const { items, error } = decodeChunked(bytes, 65536);
  expect(error).toBeUndefined();
  return ofKind(items, 'section-end')[1]?.section.length;
}
