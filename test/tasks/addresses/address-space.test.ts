/** Captures of machines that translate addresses (test/qemu/paging.test.ts): what is mapped is what the QEMU's CPU saw. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import {
  type AddressSpace,
  type AddressSpaceOptions,
  openAddressSpace,
} from '../../../src/tasks/addresses/address-space.ts';
import { searchSpace } from '../../../src/tasks/addresses/search-space.ts';
import { openSpaceRange } from '../../../src/tasks/addresses/space-range.ts';
import { fixturePath } from '../../fixture-files.ts';
import { collect } from '../../support/collect.ts';
import { opened } from '../../support/opened.ts';

interface Truth {
  paging: string;
  /** Address, length, SHA-256 of the bytes. */
  runs: [string, number, string][];
  /** The guest-physical address of virtual ones; null: not RAM. */
  translations: [string, number | null][];
}

const names = readdirSync(fixturePath('paging'))
  .filter((name) => name.endsWith('.json'))
  .map((name) => name.slice(0, -'.json'.length));
const truthOf = (name: string): Truth => JSON.parse(readFileSync(fixturePath(`paging/${name}.json`), 'utf8'));
const makeScratch = () => new MemoryFile('scratch');

async function openSpace(name: string, options: Partial<AddressSpaceOptions> = {}): Promise<AddressSpace> {
  const file = await opened(gunzipSync(readFileSync(fixturePath(`paging/${name}.bin.gz`))), 'file');
  return openAddressSpace(file, { kind: 'virtual', makeScratch, ...options });
}

/** The bytes of a range, and where its first byte is. */
async function readRange(space: AddressSpace, address: bigint, length?: number) {
  const range = await openSpaceRange(space, address, length);
  const bytes = Buffer.alloc(range.length);
  let at = 0;
  for await (const piece of range.pieces()) {
    if (piece.bytes !== undefined) bytes.set(piece.bytes, at);
    at += piece.length;
  }
  return { bytes, length: range.length, first: range.first };
}

describe.each(names)('%s', (name) => {
  const truth = truthOf(name);

  it("has the runs of its CPU's addresses, with their bytes", async () => {
    await using space = await openSpace(name);
    expect(space.paging).toBe(truth.paging);
    const runs: Truth['runs'] = [];
    for await (const run of space.runs()) {
      const bytes = new Uint8Array(run.usedLength);
      await space.ram.read(run, 0, bytes);
      runs.push([`0x${run.address.toString(16)}`, run.usedLength, createHash('sha256').update(bytes).digest('hex')]);
    }
    expect(runs).toEqual(truth.runs);
  });

  it('translates as its CPU does', async () => {
    await using space = await openSpace(name);
    const found: Truth['translations'] = [];
    for (const [address] of truth.translations) {
      const first = await readRange(space, BigInt(address), 1).then(
        ({ first: place }) => place,
        () => undefined,
      );
      const range = space.layout.ranges.filter(
        ({ block, offset, length }) =>
          block === first?.block && offset <= first.offset && first.offset < offset + length,
      );
      // The BIOS is at two addresses, of which the tables have the upper one.
      const [start, offset] = [range.at(-1)?.start ?? 0, range.at(-1)?.offset ?? 0];
      found.push([address, first === undefined ? null : start + first.offset - offset]);
    }
    expect(found).toEqual(truth.translations);
    expect(found.filter(([, at]) => at === null).length).toBeGreaterThan(3);
  });
});

describe('a range', () => {
  it('crosses pages that are apart in RAM, and ends where the contiguous memory ends', async () => {
    await using space = await openSpace('x86-64-10.0');
    const at = 0xffff_8880_0000_2ff0n;
    const { bytes } = await readRange(space, at, 0x20);
    // The last bytes of page 7, the first of page 1.
    expect(bytes.readUInt32LE(12)).toBe(0x7001);
    expect(bytes.readUInt32LE(16)).toBe(0x1000);
    expect((await readRange(space, 0xffff_8880_0000_6f80n)).length).toBe(0x80);
    expect((await readRange(space, 0xffff_8880_0000_6000n)).length).toBe(256);
    expect((await readRange(space, 0xffff_8880_0000_6000n, 0)).length).toBe(0);
  });

  it('is refused if some of it is not memory, with the first address that is not', async () => {
    await using space = await openSpace('x86-64-10.0');
    await expect(readRange(space, 0x1000n)).rejects.toThrow(
      new RangeError('expected a virtual address that the CPU maps to memory, got 0x1000'),
    );
    await expect(readRange(space, 0xffff_8880_0000_6f80n, 0x81)).rejects.toThrow(
      /got 0xffff888000007000, 128 bytes behind the first$/,
    );
    // Not canonical.
    await expect(readRange(space, 0x8880_0000_6f80n)).rejects.toThrow(/got 0x888000006f80$/);
    await using physical = await openSpace('x86-64-10.0', { kind: 'physical' });
    await expect(readRange(physical, 0x80_0000n)).rejects.toThrow(
      'expected a guest-physical address that is memory, got 0x800000',
    );
    expect((await readRange(physical, 0xf_ff00n, 0x200)).first.block.idstr).toBe('pc.bios');
  });

  it('ignores the top byte of a tagged address', async () => {
    // The fixtures' upper range ignores it (TBI1), the lower one does not.
    await using space = await openSpace('aarch64-4k');
    const plain = await readRange(space, 0xffff_ffff_ffff_f000n, 16);
    const tagged = await readRange(space, 0xabff_ffff_ffff_f000n, 16);
    expect(tagged).toEqual(plain);
    await expect(readRange(space, 0xab00_0000_8000_0000n, 16)).rejects.toThrow(/got 0xab00000080000000$/);
  });
});

describe('search', () => {
  const found = async (space: AddressSpace, pattern: string) => {
    const list: [string, string, number][] = [];
    for await (const { address, place } of searchSpace(space, new TextEncoder().encode(pattern))) {
      list.push([`0x${address.toString(16)}`, place.block.idstr, place.offset]);
    }
    return list;
  };

  it('finds a page at each of its addresses, ascending', async () => {
    await using space = await openSpace('x86-64-10.0');
    expect(await found(space, 'page 30 of')).toEqual([
      ['0x41e064', 'pc.ram', 0x21_e064],
      ['0xffff888000009064', 'pc.ram', 0x21_e064],
      ['0xffff88800000b064', 'pc.ram', 0x21_e064],
      ['0xffffc9000021e064', 'pc.ram', 0x21_e064],
    ]);
    await using physical = await openSpace('aarch64-4k', { kind: 'physical' });
    expect(await found(physical, 'page 3 of')).toEqual([['0x40203064', 'mach-virt.ram', 0x20_3064]]);
  });

  it('finds what crosses two pages that are apart', async () => {
    await using space = await openSpace('x86-64-10.0');
    const across = new Uint8Array([0x01, 0x70, 0, 0, 0x00, 0x10, 0, 0]);
    const list: bigint[] = [];
    for await (const { address } of searchSpace(space, across)) list.push(address);
    expect(list).toEqual([0xffff_8880_0000_2ffcn]);
  });
});

describe('page tables of the caller', () => {
  it("replace the CPU's own", async () => {
    await using own = await openSpace('x86-64-10.0');
    // The root is the first page of the tables. An empty page has no entries.
    await using same = await openSpace('x86-64-10.0', { cr3: 0x10_0000n });
    await using none = await openSpace('x86-64-10.0', { cr3: 0x40_0000n });
    const count = async (space: AddressSpace) => (await collect(space.runs())).length;
    expect(await count(same)).toBe(await count(own));
    expect(await count(none)).toBe(0);
  });
});

it('a CPU that does not exist is refused', async () => {
  await expect(openSpace('x86-64-10.0', { cpu: 1 })).rejects.toThrow(
    new RangeError('expected a CPU from 0 to 0, got 1'),
  );
});
