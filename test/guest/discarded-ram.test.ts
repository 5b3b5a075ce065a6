/** Pages that are discarded are zeros, whatever was below them, until they are written again. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PageListRam, type Seed } from '../support/page-list-ram.ts';

const pageSize = 1024;
const pages = 24;
const seed: fc.Arbitrary<Seed> = fc.oneof(fc.constant('absent' as const), fc.integer({ min: 0, max: 4 }));
const step = fc.tuple(fc.boolean(), fc.nat(pages - 1), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 9 }));

describe('RAM of which pages are discarded', () => {
  it.each([true, false])('reads like a model of it (with a base: %s)', async (hasBase) => {
    await fc.assert(
      fc.asyncProperty(fc.array(seed, { minLength: pages, maxLength: pages }), fc.array(step), async (seeds, steps) => {
        const base = new PageListRam([{ idstr: 'ram', seeds }], pageSize);
        const ram = hasBase
          ? new GuestRam(new MemoryFile(), base)
          : new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: pages * pageSize }], pageSize);
        const [block] = ram.blocks as [(typeof ram.blocks)[0]];
        const model = new Uint8Array(pages * pageSize);
        await ram.read(block, 0, model);
        for (const [isWrite, first, count, value] of steps) {
          const end = Math.min(pages, first + count);
          const bytes = model.subarray(first * pageSize, end * pageSize).fill(isWrite ? value : 0);
          if (isWrite) await ram.write(block, first, bytes);
          else await ram.discard(block, first, end);
        }
        const read = new Uint8Array(model.length);
        await ram.read(block, 0, read);
        expect(Buffer.compare(read, model)).toBe(0);
        // Whatever is not among the data is zero, and is found to be.
        const data = new Set<number>();
        for (let page = 0; page < pages; ) {
          const run = await ram.nextData(block, page, 3);
          for (let each = run.first; each < run.end; each++) data.add(each);
          page = Math.max(page + 1, run.end);
        }
        for (let page = 0; page < pages; page++) {
          const isZero = model.subarray(page * pageSize, (page + 1) * pageSize).every((byte) => byte === 0);
          const state = await ram.state(block, page);
          if (!data.has(page)) expect([isZero, state === 'data']).toEqual([true, false]);
          else expect(state).toBe('data');
          if (ram.isAbsent(block, page)) expect(isZero).toBe(true);
        }
        for await (const { first, end } of ram.absentRuns(block)) {
          for (let page = first; page < end; page++) expect(ram.isAbsent(block, page)).toBe(true);
        }
      }),
    );
  });

  it('takes no memory', async () => {
    const store = new MemoryFile();
    const ram = new GuestRam(store, [{ idstr: 'ram', size: 1 << 20 }]);
    const [block] = ram.blocks as [(typeof ram.blocks)[0]];
    await ram.write(block, 0, new Uint8Array(1 << 20).fill(7));
    expect(store.storedBytes).toBe(1 << 20);
    for (let page = 0; page < 200; page++) await ram.discard(block, page, page + 1);
    expect(store.storedBytes).toBe((1 << 20) - 12 * (64 << 10));
    await ram.discard(block, 200, 256);
    expect(store.storedBytes).toBe(0);
  });
});
