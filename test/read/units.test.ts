import { describe, expect, it } from 'vitest';
import { parseDuration, parseRate, parseSize } from '../../src/read/units.ts';

describe('units', () => {
  it.each<[string, number]>([
    ['0', 0],
    ['4096', 4096],
    ['0x1000', 4096],
    ['0X7c00', 0x7c00],
    ['4 B', 4],
    ['4bytes', 4],
    ['4K', 4096],
    ['4k', 4096],
    ['0x10K', 16384],
    ['1M', 2 ** 20],
    ['1G', 2 ** 30],
    ['1t', 2 ** 40],
    ['1P', 2 ** 50],
    ['1Ki', 1024],
    ['1KiB', 1024],
    ['1MiB', 2 ** 20],
    ['12 MiB', 12 * 2 ** 20],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['1.5G', 1.5 * 2 ** 30],
    ['1kB', 1000],
    ['0.3kB', 300],
    ['1KB', 1000],
    ['1MB', 1e6],
    ['1.5GB', 1.5e9],
    ['1TB', 1e12],
  ])('%s is a size', (text, bytes) => expect(parseSize(text)).toBe(bytes));

  it.each<[string, RegExp]>([
    ['', /expected a number of bytes such as 4096, 0x1000, 64K, 64KiB or 1.5GB, got ""/],
    ['-1', /such as/],
    ['1e6', /such as/],
    ['1,000', /such as/],
    ['fast', /such as/],
    ['0x', /such as/],
    ['1.5.5G', /such as/],
    ['4KK', /such as/],
    ['4i', /such as/],
    ['fee00000', /such as/],
    ['1MB/s', /such as/],
    ['1.5', /without a fraction, such as/],
    ['0.0001kB', /without a fraction/],
    ['1 mib', /for bytes write 1 MB .* or 1 MiB/],
    ['99999T', /below 2\^53, such as/],
    ['1Gb', /got the bits "1Gb"; for bytes write 1GB \(powers of 1,000\) or 1GiB \(powers of 1,024\)/],
    ['1mb', /for bytes write 1MB/],
    ['8bits', /for bytes write 8B$/],
    ['1Gibit', /for bytes write 1GB .* or 1GiB/],
  ])('%s is refused as a size', (text, message) => {
    expect(() => parseSize(text)).toThrow(RangeError);
    expect(() => parseSize(text)).toThrow(message);
  });

  it.each<[string, number]>([
    ['65536', 65536],
    ['128M', 128 * 2 ** 20],
    ['1.5G/s', 1.5 * 2 ** 30],
    ['100MiB/s', 100 * 2 ** 20],
    ['125MB/s', 125e6],
    ['1GBps', 1e9],
    ['1GB/s', 1e9],
    ['1GiBps', 2 ** 30],
    ['1Gb/s', 125e6],
    ['1gb/s', 125e6],
    ['1Gbps', 125e6],
    ['1gbps', 125e6],
    ['2.5Gbit/s', 312.5e6],
    ['10Gbit', 1.25e9],
    ['100 Mbits/s', 12.5e6],
    ['8bps', 1],
    ['1Gib/s', 2 ** 27],
    ['1Gibit/s', 2 ** 27],
    ['0x100000', 2 ** 20],
  ])('%s is a rate', (text, rate) => expect(parseRate(text)).toBe(rate));

  it.each(['', 'fast', '-1M', '1GBPS', '1Gps', '1G/h', '1Gbit/s/s', '1Gbitps/s', '1 M B', '9999999T', '1/s/s'])(
    '%s is refused as a rate',
    (text) => {
      expect(() => parseRate(text)).toThrow('expected a rate such as 128M (MiB/s), 125MB/s, 1Gbit/s or 1Gbps, got');
    },
  );

  it('counts a bare rate in the unit that is given', () => {
    expect(['120', '0.5', '120M', '8Mb/s'].map((text) => parseRate(text, 2 ** 20))).toEqual([
      120 * 2 ** 20,
      2 ** 19,
      120 * 2 ** 20,
      1e6,
    ]);
  });

  it.each<[string, 'ms' | 's', number]>([
    ['300', 'ms', 300],
    ['10', 's', 10_000],
    ['0.5', 's', 500],
    ['2s', 'ms', 2000],
    ['500ms', 's', 500],
    ['1.5 min', 's', 90_000],
    ['1h', 'ms', 3_600_000],
  ])('%s in %s is a time', (text, bare, ms) => expect(parseDuration(text, bare)).toBe(ms));

  it.each(['', '0', '-1', '0.1ms', '5m', '5M', '2S', 'soon', '1e3', '99999999999h'])(
    '%s is refused as a time',
    (text) => {
      expect(() => parseDuration(text, 'ms')).toThrow('expected a time above 0, such as 500ms, 2s, 1.5min or 1h, got');
    },
  );
});
