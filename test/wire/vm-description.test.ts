import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseVmDescription } from '../../src/devices/device-description.ts';
import type { VmDescription } from '../../src/vm/description.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeDescription, findDescription, readDeviceSizes } from '../../src/wire/vm-description.ts';
import { cpuTime } from '../cpu-time.ts';
import { EOF, hex, join, none, ramEnd, ramStart, u32, vmdescription } from '../oracle/build.ts';
import { decodeChunked, errorOf, itemsOf, ofKind } from './decoding.ts';

const parse = (value: unknown) => parseVmDescription(JSON.stringify(value))?.description as VmDescription;

const stream = join(none, ramStart, ramEnd, EOF);

const maxDescription = 32 << 20;

/** The finding of a stream that breaks off in its description. */
const cutOf = (bytes: Uint8Array) => ofKind(itemsOf(bytes), 'finding').at(-1)?.finding;

describe('the VM description in the stream', () => {
  it('reports how much of it exists if it is truncated', () => {
    const whole = join(stream, vmdescription({ page_size: 4096 }));
    const length = whole.length - stream.length - 5;
    expect(cutOf(whole.subarray(0, -7))?.message).toContain(
      `expected ${length} bytes of the VM description, got ${length - 7} before the end`,
    );
  });

  it('comes with its place, its text and its value', () => {
    const value = { page_size: 4096, devices: [{ name: 'timer', instance_id: 0 }] };
    const text = JSON.stringify(value);
    const items = itemsOf(join(stream, vmdescription(value)));
    expect(ofKind(items, 'description')).toEqual([
      {
        kind: 'description',
        description: { offset: stream.length, length: text.length, text, value, parsed: parse(value) },
      },
    ]);
    expect(items.at(-1)).toEqual({ kind: 'end', offset: stream.length + 5 + text.length });
  });

  it('may be absent: the stream ends after EOF', () => {
    for (const rest of ['', 'junk', [0, 0, 0, 0]]) {
      const items = itemsOf(join(stream, rest));
      expect(ofKind(items, 'description')).toEqual([]);
      expect(items.at(-1)).toEqual({ kind: 'end', offset: stream.length });
    }
  });

  it.each([
    ['an unclosed object', '{"devices":['],
    ['nothing', ''],
    ['bytes after the JSON', '{}x'],
    ['a NUL after the JSON', '{}\0'],
    ['nesting that would hurt a parser', `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
    ['nesting of arrays and objects in turn', `${'[{"a":'.repeat(40)}1${'}]'.repeat(40)}`],
  ])('that is %s has no value, and gives a warning', (_, text) => {
    const bytes = join(stream, [6], u32(text.length), text);
    const { error, items } = decodeChunked(bytes, 4096);
    expect(error).toBeUndefined();
    expect(ofKind(items, 'finding').map(({ finding }) => finding)).toMatchObject([
      { code: 'bad-description', severity: 'warning', place: { offset: stream.length } },
    ]);
    expect(ofKind(items, 'description')[0]?.description).toMatchObject({ length: text.length, value: undefined });
  });

  it('beyond the limit is refused before it is read', () => {
    const error = errorOf(join(stream, [6], u32(maxDescription + 1), '{}'));
    expect(error).toMatchObject({ code: 'limit-exceeded', place: { offset: stream.length } });
    expect(cutOf(join(stream, [6], u32(maxDescription), '{}'))).toMatchObject({ code: 'bad-description' });
  });

  it('may break off anywhere: QEMU does not need it', () => {
    const bytes = join(stream, vmdescription({ page_size: 4096 }));
    for (let length = stream.length + 1; length < bytes.length; length++) {
      expect(cutOf(bytes.subarray(0, length))).toMatchObject({
        severity: 'warning',
        code: 'bad-description',
        place: { offset: length },
      });
    }
  });

  it('is encoded as it is decoded, in UTF-8', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5, stringUnit: 'grapheme' }), (json) => {
        const text = `{"\u00e9":${json}}`;
        const out = new ByteWriter();
        encodeDescription(out, text);
        const { items } = decodeChunked(join(stream, out.bytes()), 7);
        expect(ofKind(items, 'description')[0]?.description).toMatchObject({ text, value: JSON.parse(text) });
      }),
      { numRuns: 30 },
    );
  });
});

describe('finding the description from the end', () => {
  const value = { page_size: 8192, devices: [] };

  it('finds it behind any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (before) => {
        expect(findDescription(join(before, vmdescription(value)))).toMatchObject({
          index: before.length,
          parsed: parse(value),
        });
      }),
    );
  });

  it('finds one whose length has the byte of a brace', () => {
    const long = { text: 'x'.repeat(0x7b7b - 11) };
    expect(JSON.stringify(long).length).toBe(0x7b7b);
    expect(findDescription(join('before', vmdescription(long)))?.index).toBe(6);
  });

  it('finds the shortest one', () => {
    expect(findDescription(vmdescription({}))).toMatchObject({ index: 0, parsed: parse({}) });
  });

  it('ignores a length that does not reach the end, and text that is not JSON', () => {
    expect(findDescription(join(vmdescription(value), [0]))).toBeUndefined();
    expect(findDescription(vmdescription(value).subarray(0, -1))).toBeUndefined();
    expect(findDescription(hex('06 00000002 7b7b'))).toBeUndefined();
    expect(findDescription(new Uint8Array())).toBeUndefined();
    expect(findDescription(hex('00 06 00 00'))).toBeUndefined();
  });

  it('takes the later of two that reach the end', () => {
    const inner = vmdescription(value);
    const bytes = join([6], u32(3 + inner.length), '{, ', inner);
    expect(findDescription(bytes)).toMatchObject({ index: 8, parsed: parse(value) });
  });

  it('takes time in proportion to the bytes, whatever they are', () => {
    const count = 40_000;
    const hostile = new Uint8Array(count * 6 + 2);
    const view = new DataView(hostile.buffer);
    for (let i = 0; i < count; i++) {
      hostile[i * 6] = 6;
      view.setUint32(i * 6 + 1, hostile.length - i * 6 - 5);
      hostile[i * 6 + 5] = 0x7b;
    }
    const from = cpuTime();
    expect(findDescription(hostile)).toBeUndefined();
    expect(cpuTime() - from).toBeLessThan(2000);
  });
});

describe('sizes in the description', () => {
  const sizeOf = (device: object) => readDeviceSizes(parse({ devices: [{ name: 'd', ...device }] })).devices[0]?.size;
  const field = (size: unknown, extra: object = {}) => ({ name: 'f', type: 'uint8', size, ...extra });

  it('adds up fields, and arrays by their length', () => {
    expect(sizeOf({ fields: [field(1), field(4), field(8, { array_len: 3 })] })).toBe(29);
    expect(sizeOf({ fields: [field(5, { array_len: 0 })] })).toBe(0);
    expect(sizeOf({ fields: [] })).toBe(0);
    expect(sizeOf({})).toBe(0);
  });

  it('takes the size of a struct as a whole, including its subsections', () => {
    const struct = { vmsd_name: 's', fields: [field(4)], subsections: [{ vmsd_name: 's/t', fields: [field(100)] }] };
    expect(sizeOf({ fields: [field(4, { type: 'struct', struct }), field(1, { index: 2 })] })).toBe(5);
  });

  it('adds subsections with their heads, even nested ones', () => {
    const nested = { vmsd_name: 'd/s/t', version: 1, fields: [field(1)] };
    const subsections = [{ vmsd_name: 'd/s', version: 1, fields: [field(2)], subsections: [nested] }];
    expect(sizeOf({ fields: [field(4)], subsections })).toBe(4 + (6 + 3 + 2) + (6 + 5 + 1));
  });

  it.each([
    ['a field without a size', { fields: [{ name: 'f' }] }],
    ['a negative size', { fields: [field(-1)] }],
    ['half a byte', { fields: [field(0.5)] }],
    ['a size as text', { fields: [field('8')] }],
    ['a size beyond 2^53', { fields: [field(2 ** 53)] }],
    ['a sum beyond 2^53', { fields: [field(2 ** 52), field(2 ** 52)] }],
    ['a product beyond 2^53', { fields: [field(2 ** 30, { array_len: 2 ** 30 })] }],
    ['a bad array length', { fields: [field(1, { array_len: '2' })] }],
    ['a field that is not an object', { fields: [8] }],
    ['fields that are not list', { fields: {} }],
    ['subsections that are not list', { fields: [], subsections: 1 }],
    ['a subsection that is not an object', { fields: [], subsections: [null] }],
    ['a subsection without a name', { fields: [], subsections: [{ fields: [] }] }],
    ['a subsection without sizes', { fields: [], subsections: [{ vmsd_name: 'd/s', fields: [{}] }] }],
  ])('knows no size with %s', (_, device) => {
    expect(sizeOf(device)).toBeUndefined();
  });

  it('gives names, instances and versions in order', () => {
    const devices = [
      { name: 'dma', instance_id: 0, version: 1, fields: [field(1)] },
      { name: 'dma', instance_id: 1, version: 2, size: 9, fields: [{ name: 'data', size: 9, type: 'buffer' }] },
      { name: 'x' },
    ];
    expect(readDeviceSizes(parse({ page_size: 4096, devices }))).toEqual({
      pageSize: 4096,
      devices: [
        { name: 'dma', instanceId: 0, version: 1, size: 1 },
        { name: 'dma', instanceId: 1, version: 2, size: 9 },
        { name: 'x', instanceId: 0, version: undefined, size: 0 },
      ],
    });
  });

  it.each([512, 131072, 4097, 0, -4096, '4096', null, 1.5])('does not accept %j as a page size', (page_size) => {
    expect(readDeviceSizes(parse({ page_size })).pageSize).toBeUndefined();
  });

  it.each([null, 1, 'x', [], [{}], { devices: {} }, { devices: [1, null, []] }])('reads nothing from %j', (value) => {
    expect(readDeviceSizes(parse(value))).toEqual({ pageSize: undefined, devices: [] });
  });

  it('never throws, whatever the JSON', () => {
    const odd = fc.constantFrom({ toString: 1, valueOf: 1 }, null, -1, 1e300, '', [], { fields: [] });
    const device = fc.record({ name: odd, instance_id: odd, version: odd, fields: fc.oneof(odd, fc.array(odd)) });
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(device).map((devices) => ({ devices })),
          fc.jsonValue(),
        ),
        (value) => {
          readDeviceSizes(parse(value));
        },
      ),
    );
  });

  it('takes time in proportion to the devices, even if they are all the same', () => {
    const sizes = readDeviceSizes(parse({ devices: Array.from({ length: 200_000 }, () => ({})) }));
    const from = cpuTime();
    decodeChunked(stream, stream.length, { sizes });
    expect(cpuTime() - from).toBeLessThan(2000);
  });
});
