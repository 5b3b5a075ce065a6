import { SlowReaderError } from './cursor.ts';

/**
 * Applies an XBZRLE delta to `page` in place: runs of bytes to keep and runs of new bytes alternate.
 * `at` is the delta's offset in the file, for errors.
 */
export function applyDelta(page: Uint8Array, delta: Uint8Array, at: number): void {
  let from = 0;
  let to = 0;
  const fail = (what: string): never => {
    throw new SlowReaderError(`XBZRLE: ${what}`, at + from);
  };
  /** One or two bytes of ULEB128; two bytes must be present even for a short count. */
  const count = (): number => {
    if (delta.length - from < 2) fail('the delta ends inside a count');
    const low = delta[from++]!;
    if (low < 0x80) return low;
    const high = delta[from++]!;
    if (high >= 0x80) fail('a count has more than two bytes');
    return (low & 0x7f) | (high << 7);
  };

  while (from < delta.length) {
    const isFirst = from === 0;
    const keep = count();
    if (keep === 0 && !isFirst) fail('an empty run of equal bytes that is not the first');
    to += keep;
    if (to > page.length) fail('a run of equal bytes passes the end of the page');

    const fresh = count();
    if (fresh === 0) fail('an empty run of new bytes');
    if (to + fresh > page.length) fail('a run of new bytes passes the end of the page');
    if (from + fresh > delta.length) fail('the delta ends inside a run of new bytes');
    page.set(delta.subarray(from, from + fresh), to);
    from += fresh;
    to += fresh;
  }
}
