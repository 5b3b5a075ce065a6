/** JSON as QEMU reads and writes it: exact integers, any boundary, bounded. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { JsonMessage } from '../../src/qmp/json-parser.ts';
import { JsonReader, parseJson } from '../../src/qmp/json-reader.ts';
import { JsonDouble, type JsonValue, printJson } from '../../src/qmp/json-value.ts';
import { brokenTexts } from './broken-json.ts';

const limits = { depth: 8, tokens: 64, bytes: 256 };

function readAll(chunks: readonly Uint8Array[], some?: typeof limits): JsonMessage[] {
  const messages: JsonMessage[] = [];
  const reader = new JsonReader((message) => messages.push(message), some);
  for (const chunk of chunks) reader.push(chunk);
  return messages;
}

const bytes = (text: string) => new TextEncoder().encode(text);

const text = fc
  .string({ unit: 'grapheme' })
  .filter((value) => !/[\p{Surrogate}\p{Noncharacter_Code_Point}]/u.test(value));
const integer = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }).map((value) => {
  const isExact = value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER);
  return isExact ? Number(value) : value;
});
const values = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    ...[fc.constant(null), fc.boolean(), integer, text],
    fc.array(tie('value')),
    fc.dictionary(text, tie('value')),
  ),
})).value;

describe('reading', () => {
  it('takes back what was printed, in chunks of any size', () => {
    fc.assert(
      fc.property(values, fc.integer({ min: 1, max: 20 }), (value, size) => {
        const all = bytes(`${printJson(value)}\n`);
        const chunks = Array.from({ length: Math.ceil(all.length / size) }, (_, i) =>
          all.subarray(i * size, (i + 1) * size),
        );
        expect(readAll(chunks)).toEqual([{ value }]);
      }),
    );
  });

  it('gives the same for broken texts, whole or byte by byte', () => {
    for (const broken of brokenTexts(100)) {
      const one = readAll([broken]);
      expect(readAll([...broken].map((byte) => Uint8Array.of(byte)))).toEqual(one);
    }
  });

  it('tells integers from doubles', () => {
    expect(parseJson('[1, 1.0, 1e3, 18446744073709551615, 18446744073709551616, -9223372036854775808]')).toEqual([
      ...[1, new JsonDouble(1), new JsonDouble(1000), 18446744073709551615n, new JsonDouble(2 ** 64)],
      -9223372036854775808n,
    ]);
  });

  it('keeps a member that is called __proto__', () => {
    const value = parseJson('{"__proto__": {"a": 1}}') as object;
    expect(Object.entries(value)).toEqual([['__proto__', { a: 1 }]]);
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
  });

  it.each([
    ['[[[[[[[[[', 'JSON nesting depth limit exceeded'],
    [`[${'1,'.repeat(40)}`, 'JSON token count limit exceeded'],
    [`["${'x'.repeat(300)}`, 'JSON token size limit exceeded'],
    [`[${'"xxxxxxxxxxxxxxxxxxxxxxxxxxx",'.repeat(10)}`, 'JSON token size limit exceeded'],
  ])('gives up a message that is too large: %s', (large, error) => {
    const [first, ...more] = readAll([bytes(large), Uint8Array.of(0xff), bytes('\n"good"')], limits);
    expect(first).toEqual({ error });
    expect(more.at(-1)).toEqual({ value: 'good' });
  });

  it('never throws, whatever comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (any) => {
        readAll([any], limits);
        // 0xFF ends everything that had begun.
        expect(readAll([any, Uint8Array.of(0xff, 0x0a), bytes('"good"\n')], limits).at(-1)).toEqual({
          value: 'good',
        });
      }),
    );
  });

  it.each(['', '1 2', '{"a": 1', '"a'])('takes exactly one text, not %j', (wrong) => {
    expect(() => parseJson(wrong)).toThrow(SyntaxError);
  });
});

describe('printing', () => {
  it.each([
    [0.1, '0.10000000000000001'],
    [1e-7, '9.9999999999999995e-08'],
    [504.30096, '504.30095999999998'],
    [new JsonDouble(1e16), '10000000000000000'],
    [new JsonDouble(1e22), '1e+22'],
    [new JsonDouble(-0), '-0'],
    [new JsonDouble(Number.POSITIVE_INFINITY), 'inf'],
    [2 ** 63, '9223372036854775808'],
    [{ a: undefined, b: 'é\u007f' }, '{"b": "\\u00E9\\u007F"}'],
  ])('%s', (value, printed) => {
    expect(printJson(value)).toBe(printed);
  });

  it('refuses what JSON does not have', () => {
    expect(() => printJson({ a: () => {} })).toThrow(TypeError);
  });
});
