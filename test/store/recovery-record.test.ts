/** The record that a broken-off postcopy leaves: the last whole one counts, whatever follows it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PageKind } from '../../src/kernel/page-batch.ts';
import { pageBitsOf, setStates } from '../../src/store/page-bits.ts';
import { encodeRecoveryRecord, pageBitsIn, readRecoveryRecord } from '../../src/store/recovery-record.ts';
import { discardedState, PageStates } from '../../src/vm/page-states.ts';

const block = (index: number, pages: number) => ({
  ...{ index, idstr: `block-${index}`, usedLength: pages * 4096, pageSize: 4096 },
});
const states = [PageKind.absent, PageKind.zero, PageKind.data, discardedState];

/** Blocks with a state for each page. */
const guests = fc.array(fc.array(fc.constantFrom(...states), { minLength: 1, maxLength: 300 }), {
  minLength: 1,
  maxLength: 4,
});

function statesOf(list: readonly number[]): PageStates {
  const all = new PageStates();
  for (const [page, state] of list.entries()) if (state !== PageKind.absent) all.set(page, state);
  return all;
}

it('the states of all pages come back', async () => {
  await fc.assert(
    fc.asyncProperty(guests, fc.uint8Array({ maxLength: 50 }), fc.nat(5000), async (lists, opening, offset) => {
      const blocks = lists.map((list, i) => block(i, list.length));
      const bits = lists.map((list, i) => pageBitsOf(blocks[i]!, statesOf(list)));
      const file = new MemoryFile('kept', new Uint8Array(offset).fill(0x76));
      file.write(encodeRecoveryRecord({ opening, bits }, offset), offset);
      const record = await readRecoveryRecord(file);
      expect(record?.end).toBe(file.size);
      expect(record?.opening).toEqual(opening);
      const found = pageBitsIn(record!, blocks) ?? [];
      expect(found).toHaveLength(blocks.length);
      for (const [i, list] of lists.entries()) {
        const restored = new PageStates();
        setStates(blocks[i]!, restored, found[i]!);
        expect(list.map((_, page) => restored.get(page))).toEqual(list);
      }
      expect(pageBitsIn(record!, blocks.slice(1))).toBeUndefined();
    }),
  );
});

describe('after a power cut', () => {
  const record = (opening: number, offset: number) =>
    encodeRecoveryRecord({ opening: Uint8Array.of(opening), bits: [] }, offset);

  it('a record that was being written does not count, and the one before does', async () => {
    const first = record(1, 100);
    const second = record(2, 100 + first.length);
    for (let length = 0; length <= second.length; length++) {
      const file = new MemoryFile('kept', new Uint8Array(100));
      file.write(first, 100);
      file.write(second.subarray(0, length), file.size);
      expect((await readRecoveryRecord(file))?.opening).toEqual(Uint8Array.of(length === second.length ? 2 : 1));
    }
  });

  it('a record with a wrong byte does not count', async () => {
    const whole = record(1, 100);
    for (let at = 0; at < whole.length; at++) {
      const file = new MemoryFile('kept', new Uint8Array(100));
      file.write(whole, 100);
      file.write(Uint8Array.of((whole[at] as number) ^ 0x40), 100 + at);
      expect(await readRecoveryRecord(file)).toBeUndefined();
    }
  });

  it('zeros of any length may follow', async () => {
    const file = new MemoryFile('kept', new Uint8Array(100));
    file.write(record(1, 100), 100);
    for (const zeros of [1, 1000, (1 << 20) - 20, (1 << 20) - 8, 1 << 20, 3 << 20]) {
      file.truncate(file.size + zeros);
      expect((await readRecoveryRecord(file))?.opening).toEqual(Uint8Array.of(1));
    }
  });

  it.each([0, 1, 27, 28, 100])('a file of %d bytes has none', async (length) => {
    expect(await readRecoveryRecord(new MemoryFile('kept', new Uint8Array(length)))).toBeUndefined();
  });
});
