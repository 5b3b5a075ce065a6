import { describe, expect, it } from 'vitest';
import { forFileName, stemOf } from '../../../src/demo/page/file-names.ts';

describe('names of saved files', () => {
  it.each([
    ['guest.migration', 'guest'],
    ['guest.bin', 'guest'],
    ['captures.zip#folder/guest.stream', 'guest'],
    ['guest', 'guest'],
    ['.gz', 'guest'],
  ])('begin for %s with %s', (name, stem) => {
    expect(stemOf(name)).toBe(stem);
  });

  it('have no characters that file systems forbid, and are short enough', () => {
    expect(forFileName('/a:b\u0000c\u202ed')).toBe('_a_b_c_d');
    expect(forFileName('x'.repeat(255))).toHaveLength(80);
  });
});
