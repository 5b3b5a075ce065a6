import { describe, expect, it } from 'vitest';
import { parseRate, parseSize } from '../../src/cli/size.ts';

describe('sizes and rates on the command line', () => {
  it('are bytes, with or without a suffix, and rates also bits', () => {
    expect(['4096', '0x1000', '4K', '1t'].map(parseSize)).toEqual([4096, 4096, 4096, 2 ** 40]);
    expect(['128M', '1.5G', '1.5G/s', '100MiB/s', '1gbps', '2.5gbps'].map(parseRate)).toEqual([
      ...[128 << 20, 1.5 * 2 ** 30, 1.5 * 2 ** 30, 100 << 20],
      ...[125_000_000, 312_500_000],
    ]);
  });

  it('are refused with a message about sizes or rates', () => {
    for (const text of ['', '-1', '1.5', '1.5.5G', 'fast', '9999999T']) {
      expect(() => parseSize(text), text).toThrow('a number of bytes such as');
      expect(() => parseRate(text), text).toThrow('bytes per second such as');
    }
    expect(() => parseSize('1.5G')).toThrow('a number of bytes such as');
  });
});
