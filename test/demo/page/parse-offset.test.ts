import { describe, expect, it } from 'vitest';
import { parseOffset } from '../../../src/demo/page/parse-offset.ts';

describe('typed offsets', () => {
  it.each([
    ['0', 0],
    ['0x7C00', 0x7c00],
    [' 4096 ', 4096],
    ['1M', 1 << 20],
    ['0x10k', 16 << 10],
    ['2G', 2 ** 31],
    ['12 MiB', 12 << 20],
  ])('reads %j', (text, offset) => expect(parseOffset(text)).toBe(offset));

  it.each(['', 'x', '-1', '1.5', '0x', '12 Mib', '99999999999999999999'])('refuses %j', (text) => {
    expect(parseOffset(text)).toBeUndefined();
  });
});
