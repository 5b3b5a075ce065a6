import { describe, expect, it } from 'vitest';
import { PageBitmap } from '../../src/vm/page-bitmap.ts';
import { readDiscard, spansOf } from '../../src/wire/postcopy.ts';
import { discardsOf, encodeAdvise, widenToHostPages } from '../../src/write/postcopy-switch.ts';

const block = { index: 0, idstr: 'pc.ram', usedLength: 300 * 4096, pageSize: 4096 };
const huge = { ...block, usedLength: 1024 * 4096, hostPageSize: 512 * 4096 };

/** The pages of all discards, and how many ranges each has. */
function read(payloads: Iterable<Uint8Array>) {
  const pages: number[] = [];
  const ranges: number[] = [];
  let from = 0;
  for (const payload of payloads) {
    const discard = readDiscard(payload);
    if (typeof discard === 'string') throw new Error(discard);
    expect(discard.idstr).toBe('pc.ram');
    ranges.push(discard.ranges.length);
    for (const { firstPage, pages: count } of spansOf(discard, block, from) ?? []) {
      for (let page = firstPage; page < firstPage + count; page++) pages.push(page);
      from = (firstPage + count) * 4096;
    }
  }
  return { pages, ranges };
}

describe('discards', () => {
  it('name every dirty page once, in ascending ranges, at most 12 in a command', () => {
    const dirty = new PageBitmap(block);
    const expected: number[] = [];
    for (let page = 0; page < 300; page++) {
      if (page % 11 > 2 || page > 290) continue;
      dirty.set(page);
      expected.push(page);
    }
    const { pages, ranges } = read(discardsOf(block, dirty));
    expect(pages).toEqual(expected);
    expect(ranges).toEqual([12, 12, 3]);
    expect(dirty.count).toBe(expected.length);
  });

  it('are not needed for a block without dirty pages, and one is enough for a whole block', () => {
    const dirty = new PageBitmap(block);
    expect(read(discardsOf(block, dirty)).ranges).toEqual([]);
    dirty.fill();
    expect(read(discardsOf(block, dirty))).toEqual({ pages: Array.from({ length: 300 }, (_, i) => i), ranges: [1] });
  });

  it('name whole host pages', () => {
    const dirty = new PageBitmap(huge);
    dirty.set(700);
    widenToHostPages(huge, dirty);
    expect([dirty.nextSet(0), dirty.nextClear(512), dirty.count]).toEqual([512, 1024, 512]);
    const small = new PageBitmap(block);
    small.set(7);
    widenToHostPages(block, small);
    expect(small.count).toBe(1);
  });
});

describe('the advice', () => {
  it('has the page sizes of all blocks, and that of the target', () => {
    const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
    expect(hex(encodeAdvise([block], 4096))).toBe('00000000000010000000000000001000');
    expect(hex(encodeAdvise([block, { ...huge, index: 1, idstr: 'mem' }], 4096))).toBe(
      '00000000002010000000000000001000',
    );
  });
});
