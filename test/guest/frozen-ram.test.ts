/** What is frozen stays as it was, whatever is written, wherever old pages are kept, and in whatever order things happen. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import type { ByteStore } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PageListRam, type Seed } from '../support/page-list-ram.ts';

const pageSize = 1024;
const pages = 24;

/** A store whose reads and writes take turns of the event loop. */
class SlowFile extends MemoryFile {
  override read(target: Uint8Array, position: number): never {
    return new Promise<number>((resolve) => {
      setImmediate(() => resolve(super.read(target, position)));
    }) as never;
  }

  override write(bytes: Uint8Array, position: number): never {
    const copy = bytes.slice();
    return new Promise<void>((resolve) => {
      setImmediate(() => resolve(super.write(copy, position)));
    }) as never;
  }
}

const seed: fc.Arbitrary<Seed> = fc.oneof(fc.constant('absent' as const), fc.integer({ min: 0, max: 4 }));
const fill = (value: number, count: number) => new Uint8Array(count * pageSize).fill(value);

describe('frozen RAM', () => {
  it('reads as it was when it was frozen, while pages are written before, during and after each read', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(seed, { minLength: pages, maxLength: pages }),
        fc.array(fc.tuple(fc.nat(pages - 1), fc.integer({ min: 1, max: 6 })), { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: pages, maxLength: pages }),
        fc.nat(6),
        async (seeds, writes, runs, memoryPages) => {
          const base = new PageListRam([{ idstr: 'ram', seeds }], pageSize);
          const ram = new GuestRam(new SlowFile(), base);
          const [block] = ram.blocks as [(typeof ram.blocks)[0]];
          await ram.write(block, 3, fill(0x33, 2));
          const before = new Uint8Array(pages * pageSize);
          await ram.read(block, 0, before);
          const states = await Promise.all(seeds.map((_, page) => ram.state(block, page)));
          const options = { memoryBytes: memoryPages * pageSize, makeScratch: () => new SlowFile('scratch') };
          const frozen = ram.freeze(options);
          const after = before.slice();
          const writing: (Promise<void> | void)[] = [];
          const writeOne = () => {
            const [page, count] = writes[writing.length] ?? [0, 0];
            const bytes = fill(0x80 + writing.length, Math.min(count, pages - page));
            after.set(bytes, page * pageSize);
            writing.push((writing.at(-1) ?? Promise.resolve()).then(() => ram.write(block, page, bytes)));
          };
          const got = new Uint8Array(pages * pageSize);
          for (let page = 0, i = 0; page < pages; i++) {
            writeOne();
            const count = Math.min(runs[i] as number, pages - page);
            const target = got.subarray(page * pageSize, (page + count) * pageSize);
            for (let at = page; at < page + count; at++) {
              expect(frozen.isAbsent(block, at)).toBe(states[at] === 'absent');
              // A page that was zero may have been written; then it reads as zeros.
              if ((await frozen.state(block, at)) !== 'data') expect(states[at]).not.toBe('data');
            }
            const reading = frozen.read(block, page, target);
            writeOne();
            await reading;
            page += count;
          }
          await Promise.all(writing);
          expect(Buffer.compare(got, before)).toBe(0);
          expect(frozen.keptBytes).toBeLessThanOrEqual(memoryPages * pageSize);
          await frozen.close();
          const now = new Uint8Array(pages * pageSize);
          await ram.read(block, 0, now);
          expect(Buffer.compare(now, after)).toBe(0);
        },
      ),
    );
  });

  const makeRam = () => {
    const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: pages * pageSize }], pageSize);
    const [block] = ram.blocks as [(typeof ram.blocks)[0]];
    void ram.write(block, 0, fill(1, pages));
    return { ram, block };
  };

  it('keeps no page that was read, and nothing once it is closed', async () => {
    const { ram, block } = makeRam();
    const frozen = ram.freeze();
    await frozen.read(block, 0, fill(0, 8));
    await ram.write(block, 0, fill(2, 12));
    expect(frozen.keptBytes).toBe(4 * pageSize);
    const old = fill(0, 4);
    await frozen.read(block, 8, old);
    expect(Buffer.compare(old, fill(1, 4))).toBe(0);
    expect(frozen.keptBytes).toBe(0);
    await expect(frozen.read(block, 0, fill(0, 1))).rejects.toThrow(new RangeError('page 0 of "ram" was read before'));
    await ram.write(block, 12, fill(2, 12));
    await frozen.close();
    expect(frozen.keptBytes).toBe(0);
  });

  it('of two moments is independent', async () => {
    const { ram, block } = makeRam();
    const one = ram.freeze();
    await ram.write(block, 5, fill(2, 1));
    const two = ram.freeze();
    await ram.write(block, 5, fill(3, 1));
    const read = async (frozen: typeof one) => {
      const bytes = fill(0, 1);
      await frozen.read(block, 5, bytes);
      await frozen.close();
      return bytes[0];
    };
    expect([await read(one), await read(two)]).toEqual([1, 2]);
  });

  it('fails to be read if its scratch file fails, and the guest writes on', async () => {
    const { ram, block } = makeRam();
    const full = new Error('ENOSPC: no space left on device, write');
    const scratch: ByteStore = Object.assign(new MemoryFile('scratch'), { write: () => Promise.reject(full) });
    const frozen = ram.freeze({ memoryBytes: 0, makeScratch: () => scratch });
    await ram.write(block, 5, fill(2, 1));
    const now = fill(0, 1);
    await ram.read(block, 5, now);
    expect(now[0]).toBe(2);
    await expect(frozen.read(block, 5, now)).rejects.toBe(full);
    await frozen.close();
  });
});
