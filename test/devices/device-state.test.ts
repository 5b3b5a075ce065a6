import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeDevice, isStruct, type StateStruct, type StateValue } from '../../src/devices/device-state.ts';
import { counted, hex, join, subsection, u32, u64 } from '../oracle/build.ts';
import { decodeBy, decodeField, field, sectionOf } from './devices.ts';

/** A value without its lazy parts. Structs become objects of their fields. */
function plain(value: StateValue | undefined): unknown {
  if (isStruct(value)) {
    const fields = Object.fromEntries(value.fields.map((each) => [each.name, plain(each.value)]));
    const parts = Object.fromEntries(value.subsections.map((each) => [`/${each.vmsdName}`, plain(each)]));
    return { ...fields, ...parts };
  }
  return Array.isArray(value) ? value.map(plain) : value;
}

const read = (json: string, data: Uint8Array) => plain(decodeField(json, data).state?.fields[0]?.value);
const problemOf = (json: string, data: Uint8Array) => decodeField(json, data).problem;
const struct = (name: string, ...fields: string[]) => ({
  struct: { vmsd_name: name, version: 1, fields: fields.map((each) => JSON.parse(each)) },
});

describe('a field', () => {
  it.each<[string, number, string, unknown]>([
    ['bool', 1, '01', true],
    ['bool', 1, '00', false],
    ['int8', 1, 'ff', -1],
    ['int16', 2, 'fffe', -2],
    ['int32', 4, 'fffffffd', -3],
    ['int64', 8, 'fffffffffffffffc', -4],
    ['int64', 8, '8000000000000000', -(2n ** 63n)],
    ['uint8', 1, 'ff', 255],
    ['uint16', 2, '0102', 0x0102],
    ['uint32', 4, 'fffffffe', 0xfffffffe],
    ['uint64', 8, '001fffffffffffff', 2 ** 53 - 1],
    ['uint64', 8, '0020000000000000', 2n ** 53n],
    ['uint8 equal', 1, '80', 0x80],
    ['uint16 equal', 2, '8000', 0x8000],
    ['uint32 equal', 4, '80000000', 0x80000000],
    ['int32 equal', 4, 'ffffffff', -1],
    ['int32 le', 4, '00000001', 1],
    ['int64 equal', 8, 'ffffffffffffffff', 2n ** 64n - 1n],
    ['timer', 8, 'ffffffffffffffff', -1],
    ['timer', 8, '000000003b9aca00', 1e9],
    ['float64', 8, '3ff8000000000000', 0x3ff8000000000000n],
    ['CPU_Double_U', 8, '0000000000000007', 7],
    ['nullptr', 1, '30', null],
    ['cpsr', 4, '800001d3', 0x800001d3],
    ['buffer', 3, '0a0b0c', hex('0a0b0c')],
    ['unused_buffer', 2, '0000', hex('0000')],
    ['pci config', 4, 'f41a0110', hex('f41a0110')],
    ['bitmap', 8, '0000000000000103', hex('03 01 00 00 00 00 00 00')],
    ['unheard-of', 2, '1234', hex('1234')],
  ])('of type %s and %i bytes %s is %s', (type, size, bytes, value) => {
    expect(read(field('f', type, size), hex(bytes))).toEqual(value);
  });

  it('of a known type with another size is bytes', () => {
    const device = decodeField(field('f', 'uint32', 3), hex('010203'));
    expect(device.state?.fields[0]?.value).toEqual(hex('010203'));
    expect(device.undecodedBytes).toBe(3);
  });

  it('knows its place in the body, and the body knows its place in the file', () => {
    const device = decodeBy(`"fields": [${field('a', 'uint16', 2)}, ${field('b', 'uint8', 1)}]`, hex('000102'));
    expect(device).toMatchObject({ offset: 100 + 1 + 4 + 1 + 3 + 8, length: 3, undecodedBytes: 0, problem: undefined });
    expect(device.state?.fields.map(({ name, offset, length }) => [name, offset, length])).toEqual([
      ['a', 0, 2],
      ['b', 2, 1],
    ]);
  });

  it('described once is an array of numbers, of any length', () => {
    const json = (array_len: number) => field('f', 'uint16', 2, { array_len });
    expect(read(json(3), hex('000100020003'))).toEqual([1, 2, 3]);
    expect(read(json(0), hex(''))).toEqual([]);
    expect(read(field('f', 'buffer', 2, { array_len: 2 }), hex('01020304'))).toEqual([hex('0102'), hex('0304')]);
  });

  it('gives back integers of any width as they were written', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { minLength: 1 }), (numbers) => {
        const json = field('f', 'uint64', 8, { array_len: numbers.length });
        const values = read(json, join(...numbers.map(u64))) as (number | bigint)[];
        expect(values.map(BigInt)).toEqual(numbers);
      }),
    );
  });
});

describe('a struct', () => {
  const pair = struct('pair', field('a', 'uint8', 1), field('b', 'uint16', 2));

  it('has the fields of its description', () => {
    expect(read(field('s', 'struct', 3, pair), hex('010002'))).toEqual({ a: 1, b: 2 });
  });

  it('is an array of structs, described once', () => {
    expect(read(field('s', 'struct', 3, { array_len: 2, ...pair }), hex('010002 030004'))).toEqual([
      { a: 1, b: 2 },
      { a: 3, b: 4 },
    ]);
  });

  it.each(['vstruct', 'tmp'])('of type %s has its description in the field itself', (type) => {
    expect(read(field('s', type, 3, pair.struct), hex('010002'))).toEqual({ a: 1, b: 2 });
  });

  it('may have subsections, in the middle of its parent', () => {
    const json = `{"name": "s", "type": "struct", "size": 12, "struct": {"vmsd_name": "s", "version": 1,
      "fields": [${field('a', 'uint8', 1)}],
      "subsections": [{"vmsd_name": "s/x", "version": 1, "fields": [${field('b', 'uint16', 2)}]}]}}`;
    const data = join([7], subsection('s/x', [1, 2]), [9]);
    const device = decodeBy(`"fields": [${json}, ${field('after', 'uint8', 1)}]`, data);
    expect(plain(device.state)).toEqual({ s: { a: 7, '/s/x': { b: 0x102 } }, after: 9 });
    const inner = device.state?.fields[0]?.value as StateStruct | undefined;
    const [part] = inner?.subsections ?? [];
    expect(part).toMatchObject({ vmsdName: 's/x', version: 1, offset: 1, length: 11 });
    expect(part?.fields[0]).toMatchObject({ offset: 10, length: 2 });
  });

  it('without fields is NULL pointers, if all bytes agree (QEMU 7.2)', () => {
    const json = field('p', 'struct', 1, { array_len: 3, struct: {} });
    expect(read(json, hex('303030'))).toEqual([null, null, null]);
    expect(problemOf(json, hex('303130'))).toMatch(/expected 0x30 for a NULL pointer in field p, got 0x31, at 0x76/);
  });

  it('takes the bytes that other fields leave, if it is an array of pointers with some NULL (QEMU 7.2)', () => {
    const pointers = field('p', 'struct', 1, { array_len: 3, struct: {} });
    const json = `"fields": [${field('a', 'uint8', 1)}, ${pointers}, ${field('b', 'uint16', 2)}]`;
    const device = decodeBy(json, hex('07 30 aabbcc 30 0102'));
    expect(plain(device.state)).toEqual({ a: 7, p: hex('30 aabbcc 30'), b: 0x102 });
    expect(device).toMatchObject({ problem: undefined, undecodedBytes: 5 });
    const two = decodeBy(`"fields": [${pointers}, ${pointers}]`, hex('30 aabbcc 30 303030'));
    expect(two.problem).toMatch(/NULL pointer in field p, got 0xaa/);
  });

  it('without fields and bytes is empty', () => {
    expect(read(field('s', 'struct', 0, { struct: {} }), hex(''))).toEqual({});
  });
});

describe('a list', () => {
  const element = `"vmsd_name": "e", "version": 1, "fields": [${field('n', 'uint16', 2)}]`;
  const list = (type: string, size: number, elements: number) =>
    `{"name": "l", "type": "${type}", ${`${element}, `.repeat(elements)}"size": ${size}}`;

  it.each(['qtailq', 'qlist'])('of type %s has all its elements', (type) => {
    expect(read(list(type, 7, 2), hex('01 0001 01 0002 00'))).toEqual([{ n: 1 }, { n: 2 }]);
    expect(read(list(type, 1, 0), hex('00'))).toEqual([]);
  });

  it('describes later elements like the last described one', () => {
    expect(read(list('qtailq', 7, 1), hex('01 0001 01 0002 00'))).toEqual([{ n: 1 }, { n: 2 }]);
  });

  it.each([
    ['an element that is not described', list('qtailq', 4, 0), '01 0001 00', /is not described/],
    ['a mark that is neither', list('qtailq', 4, 1), '02 0001 00', /expected 1 or 0 .* got 2/],
    ['an element beyond its size', list('qtailq', 4, 1), '01 0001 01', /field n of 2 bytes ends beyond/],
    ['an end before its size', list('qtailq', 4, 1), '00 0000 00', /has 1 bytes, the description says 4/],
  ])('does not fit with %s', (_, json, bytes, problem) => {
    expect(problemOf(json, hex(bytes))).toMatch(problem);
  });

  it('of pairs (a tree) has a key and a value in each element', () => {
    const json = list('gtree', 4 + 11 + 11 + 1, 2);
    const data = join(u32(2), [1], u64(5), [0, 1], [1], u64(6), [0, 2], [0]);
    expect(read(json, data)).toEqual([
      { key: 5, value: { n: 1 } },
      { key: 6, value: { n: 2 } },
    ]);
  });

  it('of pairs may have keys that are structs', () => {
    const data = join(u32(1), [1], [0, 7], [0, 8], [0]);
    expect(read(list('gtree', 10, 2), data)).toEqual([{ key: { n: 7 }, value: { n: 8 } }]);
  });

  it('of pairs must have as many as it states', () => {
    expect(problemOf(list('gtree', 5, 0), join(u32(1), [0]))).toMatch(/expected 1 elements in field l, got 0/);
  });
});

describe('a description that does not fit', () => {
  const one = field('f', 'uint8', 1);

  it.each([
    ['ends before the body', `"fields": [${one}]`, '0102', /ends here, 1 bytes before the body.*at 0x76 \(0x1 /],
    ['ends after it', `"fields": [${one}, ${one}]`, '01', /ends beyond the body/],
    ['has a size that overflows', `"fields": [${field('f', 'uint8', 2 ** 52, { array_len: 4 })}]`, '01', /beyond/],
    ['has no size', '"fields": [{"name": "f", "type": "uint8"}]', '01', /no size of field f/],
    ['has an array of 2^53', `"fields": [${field('f', 'uint8', 1, { array_len: 2 ** 53 - 1 })}]`, '01', /at most/],
    ['has an array of nothing', `"fields": [${field('f', 'uint8', 0, { array_len: 1e9 })}]`, '', /at most 1024/],
    [
      'has an array of empty structs',
      `"fields": [${field('f', 'struct', 0, { array_len: 1e9, ...struct('s', field('g', 'uint8', 0)) })}]`,
      '',
      /at most 1024/,
    ],
    ['has a struct of another size', `"fields": [${field('f', 'struct', 2, struct('s', one))}]`, '0102', /has 1 bytes/],
    ['misses a subsection', '"subsections": [{"vmsd_name": "d/s", "version": 1}]', '', /expected the subsection d\/s/],
  ])('leaves the bytes if it %s', (_, json, bytes, problem) => {
    const data = hex(bytes);
    expect(decodeBy(json, data)).toMatchObject({
      ...{ state: undefined, data, undecodedBytes: data.length },
      problem: expect.stringMatching(problem),
    });
  });

  it('is reported for the version of a subsection', () => {
    const json = '"fields": [], "subsections": [{"vmsd_name": "dev/s", "version": 2, "fields": []}]';
    expect(decodeBy(json, subsection('dev/s')).problem).toMatch(/expected version 2 .* got 1/);
  });

  it('never makes the decoder throw, or take long', () => {
    const type = fc.constantFrom('uint8', 'uint32', 'struct', 'qtailq', 'gtree', 'tmp', 'nullptr', 'virtio', 'odd');
    const count = fc.oneof(fc.nat(8), fc.constantFrom(2 ** 20, 2 ** 53 - 1));
    const leaf = fc.record({ name: fc.string(), type, size: count, array_len: fc.option(count, { nil: undefined }) });
    const { node } = fc.letrec<{ node: unknown }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 3 },
        leaf,
        fc.record({
          name: fc.string(),
          type,
          size: count,
          array_len: fc.option(count, { nil: undefined }),
          struct: fc.record({ vmsd_name: fc.string(), fields: fc.array(tie('node'), { maxLength: 4 }) }),
        }),
      ),
    }));
    fc.assert(
      fc.property(fc.array(node, { maxLength: 4 }), fc.uint8Array({ maxLength: 64 }), (fields, data) => {
        const device = decodeBy(`"fields": ${JSON.stringify(fields)}`, data);
        plain(device.state);
        expect(device.state === undefined).toBe(device.problem !== undefined);
      }),
    );
  });
});

describe('a device', () => {
  it('of the old style is bytes, which count as undecoded', () => {
    const section = sectionOf(hex('0102'));
    const fields = [{ name: 'data', type: 'buffer', size: 2, arrayLength: undefined, index: undefined, nested: [] }];
    const old = { name: 'dev', instanceId: 0, vmsdName: '', version: undefined, fields, subsections: [] };
    expect(decodeDevice(section, old)).toMatchObject({ undecodedBytes: 2, problem: undefined });
  });

  it('without a description is bytes', () => {
    expect(decodeDevice(sectionOf(hex('0102')), undefined)).toMatchObject({
      ...{ state: undefined, undecodedBytes: 2 },
      problem: 'there is no description',
    });
  });

  it('with a fixed layout needs no description', () => {
    const data = join(u64(1), u64(0), u64(2_500_000_000));
    const timer = decodeDevice(sectionOf(data, { name: 'timer', versionId: 2 }), undefined);
    expect(plain(timer.state)).toMatchObject({ cpu_ticks_offset: 1, cpu_clock_offset: 2_500_000_000 });
    const other = decodeDevice(sectionOf(data, { name: 'timer', versionId: 3 }), undefined);
    expect(other.problem).toBe('there is no description');
    const text = join(u32(8), counted('running').subarray(1), new Uint8Array(93));
    const globalState = decodeDevice(sectionOf(text, { name: 'globalstate' }), undefined);
    expect(globalState).toMatchObject({ problem: undefined, undecodedBytes: 68 });
  });
});
