import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { KeptSource } from '../../src/io/kept-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';

const sample = Uint8Array.from({ length: 5000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);

/** A source that counts how often each byte is read, and gives at most 700 at a time. */
function counted() {
  const counts = new Uint8Array(sample.length);
  const file = new MemoryFile('remote', sample.slice());
  const source = {
    name: 'remote',
    size: sample.length,
    async read(target: Uint8Array, position: number) {
      const count = file.read(target.subarray(0, 700), position);
      for (let i = 0; i < count; i++) counts[position + i] = (counts[position + i] as number) + 1;
      return count;
    },
    close: async () => {},
  };
  return { source, most: () => Math.max(...counts), sum: () => counts.reduce((sum, count) => sum + count, 0) };
}

const reads = fc.array(fc.tuple(fc.nat(5100), fc.integer({ min: 1, max: 900 })), { maxLength: 40 });

it('reads each byte of its source at most once, even for reads at the same time', async () => {
  await fc.assert(
    fc.asyncProperty(reads, fc.boolean(), async (list, areParallel) => {
      const { source, most } = counted();
      const kept = new KeptSource(source, async () => new MemoryFile('store'));
      const check = async ([at, length]: [number, number]) => {
        const target = new Uint8Array(length);
        const count = await kept.read(target, at);
        expect([...target.subarray(0, count)]).toEqual([...sample.subarray(at, at + count)]);
        expect(count > 0).toBe(at < sample.length);
      };
      if (areParallel) await Promise.all(list.map(check));
      else for (const each of list) await check(each);
      expect(most()).toBeLessThanOrEqual(1);
      await kept.close();
    }),
    { numRuns: 60 },
  );
});

it('reads on from its source when nothing more can be kept', async () => {
  for (const fails of [false, true]) {
    const { source, sum } = counted();
    const store = Object.assign(new MemoryFile('store'), {
      write: () => {
        throw new Error('no space');
      },
    });
    const makeStore = async () => (fails ? store : new MemoryFile('store'));
    const kept = new KeptSource(source, makeStore, { maxBytes: fails ? 10_000 : 1000 });
    const target = new Uint8Array(500);
    for (const at of [0, 500, 1000, 0, 500, 1000]) {
      expect(await kept.read(target, at)).toBe(500);
      expect([...target]).toEqual([...sample.subarray(at, at + 500)]);
    }
    expect(sum()).toBe(fails ? 3000 : 2000);
  }
});
