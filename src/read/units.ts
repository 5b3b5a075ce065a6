/**
 * Sizes, rates and times as people write them, for the command line and the page (docs/support.md, "Units").
 *
 *     4096  0x1000        bytes; of a rate, bytes per second
 *     4K 4M 4G 4T 4P      powers of 1,024, as QEMU reads its own options
 *     4KiB 4Ki 4GiB       powers of 1,024
 *     4kB 4MB 4GB         powers of 1,000
 *     4Gb 4Gbit 4Gib      bits, of a rate only
 *     4GB/s 4Gbps         a rate may say that it is per second
 *     10ms 2s 1.5min 1h   times
 *
 * Prefixes may be in either case. `b` means bits and `B` bytes, so these are never confused.
 */

const prefixes = ['', 'k', 'm', 'g', 't', 'p'];
const pattern = /^(0x[\da-f]+|\d+(?:\.\d+)?) ?(?:([kmgtp])(i?))?(b|bits?|bytes?)?$/i;

/** A number with its unit. */
interface Quantity {
  number: number;
  /** Bytes or bits of the unit. */
  multiplier: number;
  isBits: boolean;
  hasUnit: boolean;
}

function parseQuantity(text: string): Quantity | undefined {
  const [, digits, prefix = '', binary, unit = ''] = pattern.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const isDecimal = unit !== '' && binary !== 'i' && binary !== 'I';
  return {
    number: Number(digits),
    multiplier: (isDecimal ? 1000 : 1024) ** prefixes.indexOf(prefix.toLowerCase()),
    isBits: unit === 'b' || /^bits?$/i.test(unit),
    hasUnit: prefix !== '' || unit !== '',
  };
}

const sizeExamples = '4096, 0x1000, 64K, 64KiB or 1.5GB';

/**
 * Parses a size, an offset or an address, to bytes.
 * @throws RangeError with an example
 */
export function parseSize(text: string): number {
  const quantity = parseQuantity(text);
  if (quantity === undefined) throw new RangeError(`expected a number of bytes such as ${sizeExamples}, got "${text}"`);
  if (quantity.isBits) {
    const inBytes = (end: string) =>
      text.replace(/([kmgtp]?)i?b\w*$/i, (_, prefix: string) => prefix.toUpperCase() + end);
    const [bytes, binary] = [inBytes('B'), inBytes('iB')];
    const either = /[kmgtp]i?b\w*$/i.test(text) ? `${bytes} (powers of 1,000) or ${binary} (powers of 1,024)` : bytes;
    throw new RangeError(`expected bytes, got the bits "${text}"; for bytes write ${either}`);
  }
  const size = quantity.number * quantity.multiplier;
  if (Number.isSafeInteger(size)) return size;
  const what = Number.isInteger(size) ? 'below 2^53' : 'without a fraction';
  throw new RangeError(`expected a number of bytes ${what}, such as ${sizeExamples}, got "${text}"`);
}

/**
 * Parses a rate, to bytes per second. A bare number counts `bare` bytes per second.
 * @throws RangeError with an example
 */
export function parseRate(text: string, bare = 1): number {
  const quantity = parseQuantity(text.replace(/\/s$|(?<=[bB])ps$/, ''));
  if (quantity !== undefined) {
    const { number, multiplier, isBits, hasUnit } = quantity;
    const rate = Math.round(number * (hasUnit ? multiplier : bare) * (isBits ? 1 / 8 : 1));
    if (Number.isSafeInteger(rate)) return rate;
  }
  throw new RangeError(`expected a rate such as 128M (MiB/s), 125MB/s, 1Gbit/s or 1Gbps, got "${text}"`);
}

const milliseconds: Record<string, number> = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 };

/**
 * Parses a time above 0, to ms. A bare number is in `bare` units.
 * @throws RangeError with an example
 */
export function parseDuration(text: string, bare: 'ms' | 's'): number {
  const [, digits, unit = bare] = /^(\d+(?:\.\d+)?) ?(ms|s|min|h)?$/.exec(text) ?? [];
  const ms = Math.round(Number(digits) * (milliseconds[unit] as number));
  if (ms >= 1 && Number.isSafeInteger(ms)) return ms;
  throw new RangeError(`expected a time above 0, such as 500ms, 2s, 1.5min or 1h, got "${text}"`);
}
