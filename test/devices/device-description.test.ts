import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseVmDescription } from '../../src/devices/device-description.ts';

const parse = (text: string) => parseVmDescription(text)?.description;
const problemsOf = (value: unknown) => parseVmDescription(JSON.stringify(value))?.problems;
const field = (more: object = {}) => ({ name: 'f', type: 'uint8', size: 1, ...more });
const described = {
  name: 'f',
  type: 'uint8',
  size: 1,
  arrayLength: undefined,
  index: undefined,
  nested: [],
};

describe('the description', () => {
  it('becomes devices with their fields and subsections, in order', () => {
    const sub = { vmsd_name: 'd/s', version: 3, fields: [field({ index: 2 })] };
    const device = { name: 'x', instance_id: 7, vmsd_name: 'd', version: 2, fields: [field({ array_len: 4 })] };
    expect(parse(JSON.stringify({ page_size: 4096, devices: [{ ...device, subsections: [sub] }] }))).toEqual({
      pageSize: 4096,
      configuration: undefined,
      devices: [
        {
          name: 'x',
          instanceId: 7,
          vmsdName: 'd',
          version: 2,
          fields: [{ ...described, arrayLength: 4 }],
          subsections: [{ vmsdName: 'd/s', version: 3, fields: [{ ...described, index: 2 }], subsections: [] }],
        },
      ],
    });
  });

  it('leaves out what it does not know, whatever it contains', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (extra) => {
        const device = { name: 'x', fields: [{ ...field(), extra }], extra };
        expect(parse(JSON.stringify({ extra, devices: [device] }))?.devices).toMatchObject([
          { name: 'x', fields: [described] },
        ]);
      }),
    );
  });

  it('has each element of a list, although their keys repeat', () => {
    const element = (n: number) => `"vmsd_name": "e", "version": ${n}, "fields": [${JSON.stringify(field())}]`;
    const list = `{"name": "l", "type": "qtailq", ${element(1)}, ${element(2)}, ${element(3)}, "size": 7}`;
    const [found] = parse(`{"devices": [{"name": "x", "fields": [${list}]}]}`)?.devices[0]?.fields ?? [];
    expect(found).toMatchObject({ name: 'l', type: 'qtailq', size: 7 });
    expect(found?.nested.map(({ version, fields }) => [version, fields.length])).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
    ]);
  });

  it('has the struct of a field, even an empty one', () => {
    const struct = { vmsd_name: 's', version: 1, fields: [field()] };
    const fields = [field({ type: 'struct', struct }), field({ type: 'struct', struct: {} })];
    expect(parse(JSON.stringify({ devices: [{ fields }] }))?.devices[0]?.fields.map(({ nested }) => nested)).toEqual([
      [{ vmsdName: 's', version: 1, fields: [described], subsections: [] }],
      [{ vmsdName: '', version: undefined, fields: [], subsections: [] }],
    ]);
  });

  it('has the configuration, if QEMU describes it', () => {
    const configuration = { vmsd_name: 'configuration', version: 1, fields: [field()] };
    expect(parse(JSON.stringify({ configuration }))?.configuration).toMatchObject({ vmsdName: 'configuration' });
    expect(parse('{}')?.configuration).toBeUndefined();
  });
});

describe('JSON of any kind', () => {
  it('is accepted if and only if JSON.parse accepts it', () => {
    const isJson = (text: string) => {
      try {
        JSON.parse(text);
        return true;
      } catch {
        return false;
      }
    };
    const mutated = fc
      .tuple(
        fc.json({ maxDepth: 4 }),
        fc.nat(),
        fc.constantFrom('', ',', '"', '\\', '}', ']', '0', '-', '.', 'e', '\t', '\u0001', '//', '/**/'),
      )
      .map(([json, at, insert]) => json.slice(0, at % (json.length + 1)) + insert + json.slice(at % (json.length + 1)));
    fc.assert(
      fc.property(fc.oneof(mutated, fc.json(), fc.string()), (text) => {
        expect(parseVmDescription(text) !== undefined).toBe(isJson(text));
      }),
      { numRuns: 2000 },
    );
  });

  it('gives the same texts as JSON.parse, including lone surrogates', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.boolean(), (name, isEscaped) => {
        const escaped = (text: string) =>
          text.replace(/[\s\S]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
        const text = isEscaped ? `"${escaped(name)}"` : JSON.stringify(name);
        expect(parse(`{"devices":[{"name":${text}}]}`)?.devices[0]?.name).toBe(JSON.parse(text));
      }),
    );
    expect(parse('{"devices":[{"name":"\\ud800x"}]}')?.devices[0]?.name).toBe('\ud800x');
  });

  it('never throws, and has only possible sizes', () => {
    const odd = fc.constantFrom<unknown>(null, -1, 0.5, 2 ** 53, 1e300, '', [], {}, [{}], { fields: [] }, true, 3);
    const node = fc.dictionary(
      fc.constantFrom('name', 'type', 'size', 'array_len', 'index', 'struct', 'fields', 'subsections', 'vmsd_name'),
      odd,
    );
    fc.assert(
      fc.property(fc.array(node), (fields) => {
        const result = parse(JSON.stringify({ devices: [{ name: 'x', fields }] }));
        for (const { size, arrayLength, index } of result?.devices[0]?.fields ?? []) {
          for (const count of [size, arrayLength, index])
            expect(count === undefined || (Number.isSafeInteger(count) && count >= 0)).toBe(true);
        }
      }),
    );
  });
});

describe('impossible values', () => {
  it.each([
    ['size', -1],
    ['size', 1.5],
    ['size', 2 ** 53],
    ['size', '8'],
    ['size', null],
    ['array_len', -1],
    ['array_len', true],
    ['index', 0.1],
    ['type', 1],
  ])('are reported, and the size of the field is unknown: %s %j', (key, value) => {
    const device = { name: 'x', fields: [{ ...field(), [key]: value }] };
    const parsed = parseVmDescription(JSON.stringify({ devices: [device] }));
    expect(parsed?.problems).toEqual([`field f: ${key} has the impossible value ${JSON.stringify(value)}`]);
    expect(parsed?.description.devices[0]?.fields[0]?.size).toBeUndefined();
  });

  it.each([
    ['fields that are an object', { fields: {} }],
    ['fields that are a number', { fields: 1 }],
    ['a field that is a number', { fields: [8] }],
    ['a field that is a list', { fields: [[]] }],
    ['subsections that are a text', { subsections: 'x' }],
    ['a subsection that is null', { subsections: [null] }],
  ])('make the size of the device unknown: %s', (_, device) => {
    expect(problemsOf({ devices: [device] })).toHaveLength(1);
    const { fields } = parse(JSON.stringify({ devices: [device] }))?.devices[0] ?? {};
    expect(fields?.some(({ size }) => size === undefined)).toBe(true);
  });

  it('are reported one by one up to 20, followed by "and more"', () => {
    const problems = problemsOf({ devices: [{ fields: Array.from({ length: 100 }, () => field({ size: -1 })) }] });
    expect(problems).toHaveLength(21);
    expect(problems?.at(-1)).toBe('and more');
  });
});

describe('input that would hurt a parser', () => {
  it.each([
    ['nesting deeper than 64', `{"a":${'['.repeat(64)}${']'.repeat(64)}}`],
    ['nesting of millions', '['.repeat(3_000_000)],
    ['a string of more than a mebi-character', JSON.stringify({ a: 'x'.repeat((1 << 20) + 1) })],
    ['as many escapes', `{"a":"${'\\n'.repeat((1 << 20) + 1)}"}`],
    ['as much white space', `{${' '.repeat((1 << 20) + 1)}}`],
  ])('is refused: %s', (_, text) => {
    expect(parseVmDescription(text)).toBeUndefined();
  });

  it('is not confused with input that only looks like it', () => {
    const deep = `{"a":${'['.repeat(63)}${']'.repeat(63)}}`;
    const braces = JSON.stringify({ name: `\\"${'['.repeat(1000)}`, 'a"b': '{'.repeat(1000) });
    for (const text of [deep, braces]) expect(parseVmDescription(text)).toBeDefined();
  });

  it('leaves out all devices after too many fields', () => {
    const small = '{"name":"x","fields":[{"size":1}]}';
    const large = `{"name":"y","fields":[${'{},'.repeat(200_000)}{}]}`;
    const parsed = parseVmDescription(`{"devices":[${small},${large},${small}]}`);
    expect(parsed?.description.devices.map(({ name }) => name)).toEqual(['x']);
    expect(parsed?.problems).toEqual([expect.stringContaining('expected at most')]);
  });

  it('leaves out devices beyond 16,384', () => {
    const parsed = parseVmDescription(`{"devices":[${'{},'.repeat(20_000)}{}]}`);
    expect(parsed?.description.devices).toHaveLength(16_384);
    expect(parsed?.problems).toHaveLength(1);
  });
});
