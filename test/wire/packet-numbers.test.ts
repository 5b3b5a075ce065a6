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
  it('lose nothing if all below the highest are there, in any order', () => {
    expect(new PacketNumbers().lost()).toBeUndefined();
    expect(numbersOf(3, 0, 2, 1).lost()).toBeUndefined();
    expect(numbersOf(...Array.from({ length: 50_000 }, (_, i) => 49_999 - i)).lost()).toBeUndefined();
  });

  it('say how many are lost, and which is the first', () => {
    expect(numbersOf(1, 2).lost()).toEqual({ first: 0, count: 1, of: 3 });
    expect(numbersOf(0, 1, 20_000).lost()).toEqual({ first: 2, count: 19_998, of: 20_001 });
  });

  it('say nothing if one came again, as in 7.2, or none was counted', () => {
    expect(numbersOf(0, 2, 2).lost()).toBeUndefined();
    expect(numbersOf(0, 0, 0).lost()).toBeUndefined();
  });

  it('say nothing of senders before 9.0, nor when muted, nor beyond what is kept', () => {
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
