import { describe, expect, it } from 'vitest';
import { chooseAnchors, hexPattern, literalPrefix, textPattern, toPattern } from '../../../src/tasks/search/pattern.ts';

const list = ({ values, masks }: { values: Uint8Array; masks: Uint8Array }) => [[...values], [...masks]];

describe('a pattern', () => {
  it('of hex digits has wildcards for digits, and spaces between bytes', () => {
    expect(list(hexPattern('deAD ?? e? ?f'))).toEqual([
      [0xde, 0xad, 0, 0xe0, 0x0f],
      [0xff, 0xff, 0, 0xf0, 0x0f],
    ]);
  });

  it.each(['', '  ', 'd', 'd e', 'dea d', 'xy', '0x12', 'de,ad', '??', '????'])('of hex digits is not "%s"', (text) => {
    expect(() => hexPattern(text)).toThrow(RangeError);
  });

  it('of text is UTF-8, or UTF-16LE', () => {
    expect(list(textPattern('aé'))).toEqual([
      [0x61, 0xc3, 0xa9],
      [0xff, 0xff, 0xff],
    ]);
    expect(list(textPattern('a€', { encoding: 'utf-16le' }))[0]).toEqual([0x61, 0, 0xac, 0x20]);
  });

  it('ignores case only for ASCII letters', () => {
    expect(list(textPattern('aZ@[`{1é', { ignoreCase: true }))).toEqual([
      [0x41, 0x5a, 0x40, 0x5b, 0x60, 0x7b, 0x31, 0xc3, 0xa9],
      [0xdf, 0xdf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ]);
    // U+0161 has the byte of "a", followed by a nonzero byte.
    expect(list(textPattern('a\u0161', { encoding: 'utf-16le', ignoreCase: true }))).toEqual([
      [0x41, 0, 0x61, 0x01],
      [0xdf, 0xff, 0xff, 0xff],
    ]);
  });

  it('is a string, bytes, an expression or bytes with masks, and nothing else', () => {
    expect(toPattern(/a/)).toEqual(/a/);
    expect(toPattern(Uint8Array.of(1))).toEqual({ values: Uint8Array.of(1), masks: Uint8Array.of(255) });
    expect(toPattern({ values: Uint8Array.of(0xff), masks: Uint8Array.of(0x0f) })).toEqual({
      values: Uint8Array.of(0x0f),
      masks: Uint8Array.of(0x0f),
    });
    for (const wrong of [undefined, null, 5, {}]) expect(() => toPattern(wrong as never)).toThrow(TypeError);
    expect(() => toPattern('')).toThrow(RangeError);
    expect(() => toPattern('a'.repeat(4097))).toThrow(/at most 4096 bytes, got 4097/);
    expect(() => toPattern({ values: Uint8Array.of(1, 2), masks: Uint8Array.of(255) })).toThrow(RangeError);
  });

  it('is searched for by its rarest bytes', () => {
    expect(chooseAnchors(hexPattern('00 ff ?? 9d 00 c7'))).toEqual({ first: 3, second: 5 });
    expect(chooseAnchors(hexPattern('00'))).toEqual({ first: 0, second: 0 });
  });
});

describe('the literal beginning of an expression', () => {
  it.each([
    [/abc/, 'abc'],
    [/vm\.ferry-\d+/, 'vm.ferry-'],
    [/\x7fELF[\x80\x81]/, '\x7fELF'],
    [/abc?d/, 'ab'],
    [/abc*/, 'ab'],
    [/abc{0,2}/, 'ab'],
    [/abc+d/, 'abc'],
    [/http(s)/, 'http'],
  ])('%s is found', (regex, text) => {
    expect(literalPrefix(regex)).toEqual(textPattern(text));
  });

  it('ignores case if the expression does', () => {
    expect(literalPrefix(/ab1/i)).toEqual(textPattern('ab1', { ignoreCase: true }));
  });

  it.each([/a|bcd/, /abc|d/, /^abc/, /[ab]c/, /a/, /ab?/, /(ab)/, /\babc/, /\xffab/, /éab/, /.ab/])(
    '%s is not found',
    (regex) => {
      expect(literalPrefix(regex)).toBeUndefined();
    },
  );
});
