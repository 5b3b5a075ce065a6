/** Numbers on the command line. Commander adds the name of the option to the errors. */
import { InvalidArgumentError } from 'commander';
import * as units from '../read/units.ts';

/** A parser whose errors are refused arguments. */
const argument =
  <Value>(parse: (text: string) => Value) =>
  (text: string): Value => {
    try {
      return parse(text);
    } catch (error) {
      throw error instanceof RangeError ? new InvalidArgumentError(error.message) : error;
    }
  };

/** Parses a size, an offset or an address, to bytes. */
export const parseSize = argument(units.parseSize);

/** Parses a size above 0. */
export const parseSomeBytes = argument((text) => {
  const size = units.parseSize(text);
  if (size > 0) return size;
  throw new RangeError(`expected a number of bytes above 0, got "${text}"`);
});

/** Parses a rate, to bytes per second. */
export const parseRate = argument((text) => units.parseRate(text));

/** Parses the limit of a migration, to bytes per second. 0 means no limit. QEMU takes fewer than 10 for no limit, too. */
export const parseBandwidth = argument((text) => {
  const rate = units.parseRate(text);
  if (rate === 0 || rate >= 10) return rate;
  throw new RangeError(`expected at least 10 bytes per second, or 0 for no limit, got "${text}"`);
});

/** Parses a rate whose bare numbers are MiB/s. */
export const parseMiBRate = argument((text) => units.parseRate(text, 2 ** 20));

/** Parses a time, to ms. A bare number is ms. */
export const parseMs = argument((text) => units.parseDuration(text, 'ms'));

/** Parses a time, to ms. A bare number is seconds. */
export const parseSeconds = argument((text) => units.parseDuration(text, 's'));

/** Parses a count of at least 1. */
export const parseCount = argument((text) => {
  const count = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(count) && count > 0) return count;
  throw new RangeError(`expected a count of at least 1, got "${text}"`);
});

/** Parses a number of something that is counted from 0. */
export const parseIndex = argument((text) => {
  const index = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(index)) return index;
  throw new RangeError(`expected a number from 0, got "${text}"`);
});

/** Parses an address of up to 64 bits. */
export const parseAddress = argument((text) => {
  if (!/^(0x[\da-f]+|\d+)$/i.test(text)) return BigInt(units.parseSize(text));
  const address = BigInt(text);
  if (address < 1n << 64n) return address;
  throw new RangeError(`expected an address below 2^64, got "${text}"`);
});
