import { describe, expect, it } from 'vitest';
import { PacketNumbers } from '../../src/wire/packet-numbers.ts';

const page = { sync: false, pagesAllocated: 128 };
const sync = { sync: true, pagesAllocated: 0 };

function numbersOf(...numbers: number[]): PacketNumbers {
  const all = new PacketNumbers();
  for (const number of numbers) all.add(BigInt(number), page);
  return all;
}

describe('the numbers of packets', () => {
  it('show no loss if all below the highest exist, in any order', () => {
    expect(new PacketNumbers().lost()).toBeUndefined();
    expect(numbersOf(3, 0, 2, 1).lost()).toBeUndefined();
    expect(numbersOf(...Array.from({ length: 50_000 }, (_, i) => 49_999 - i)).lost()).toBeUndefined();
  });

  it('show how many are lost, and the first of them', () => {
    expect(numbersOf(1, 2).lost()).toEqual({ first: 0, count: 1, of: 3 });
    expect(numbersOf(0, 1, 20_000).lost()).toEqual({ first: 2, count: 19_998, of: 20_001 });
  });

  it('prove nothing if one was repeated, as in 7.2, or none was counted', () => {
    expect(numbersOf(0, 2, 2).lost()).toBeUndefined();
    expect(numbersOf(0, 0, 0).lost()).toBeUndefined();
  });

  it('prove nothing for senders before 9.0, after disable, or beyond the tracked range', () => {
    const old = numbersOf(0, 7);
    expect(old.lost()).toBeDefined();
    old.add(9n, sync);
    expect(old.lost()).toBeDefined();
    old.add(10n, { sync: true, pagesAllocated: 128 });
    expect(old.lost()).toBeUndefined();
    const muted = numbersOf(0, 7);
    muted.disable();
    expect(muted.lost()).toBeUndefined();
    expect(numbersOf(1, 2 ** 23).lost()).toBeUndefined();
    const large = new PacketNumbers();
    large.add(2n ** 64n - 1n, page);
    expect(large.lost()).toBeUndefined();
  });
});
