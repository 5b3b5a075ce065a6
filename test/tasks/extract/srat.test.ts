import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findAcpiMemory } from '../../../src/tasks/extract/acpi-memory.ts';
import { type Entry, srat } from './srat-table.ts';

const findMemoryAffinity = (tables: Uint8Array) => findAcpiMemory(tables)?.affinity;

const MiB = 2 ** 20;

const two: Entry[] = [
  { node: 1, base: 0x4000_0000, length: 0x4000_0000 },
  { node: 0, base: 0, length: 0xa0000 },
  { node: 0, base: MiB, length: 0x3ff0_0000 },
  { node: 1, base: 2 ** 32, length: 0xc000_0000 },
  { node: 1, base: 0x1_c000_0000, length: 0x1000, flags: 3 },
  { node: 2, base: 0, length: 0x1000, flags: 0 },
];

describe('the memory nodes of an SRAT', () => {
  it('are in the order of their addresses, with all their RAM, wherever the table is', () => {
    const nodes = [
      { node: 0, base: 0, length: 0x4000_0000 },
      { node: 1, base: 0x4000_0000, length: 0x1_0000_0000 },
    ];
    const deviceMemory = { base: 0x1_c000_0000, length: 0x1000 };
    const nonVolatile = [{ base: 0x1_8000_0000, length: 0x2000 }];
    const affinity = { nodes, below4g: 0x8000_0000, above4g: 2 ** 32, deviceMemory, nonVolatile };
    const table = srat([...two, { node: 0, ...nonVolatile[0]!, flags: 5 }]);
    expect(findMemoryAffinity(table)).toEqual(affinity);
    expect(findMemoryAffinity(Buffer.concat([Buffer.from('....SRAT?FACP'), table, Buffer.alloc(99)]))).toEqual(
      affinity,
    );
  });

  it('are found between other entries', () => {
    expect(findMemoryAffinity(srat(two.slice(0, 1), [0, 16, ...new Array(14).fill(0), 2, 2]))?.nodes.length).toBe(1);
  });

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['zeros', Buffer.alloc(4096)],
    ['a name alone', Buffer.from('SRAT')],
    ['a table that is cut', srat(two).subarray(0, 200)],
    ['an entry of no length', srat(two, [9, 0])],
    ['an entry that is cut', srat(two, [9, 3])],
    ['half an entry', srat(two, [9])],
    ['no memory', srat([])],
  ])('are none in %s', (_, bytes) => {
    expect(findMemoryAffinity(bytes)).toBeUndefined();
  });

  it('are found in bounded time in bytes that are full of the name', () => {
    const bytes = Buffer.alloc(2 * MiB, 'SRAT\x00\x00\x01\x00');
    expect(findMemoryAffinity(bytes)).toBeUndefined();
  });

  it('never throw', () => {
    const noise = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(noise, noise, (before, after) => void findMemoryAffinity(Buffer.concat([before, srat(two), after]))),
    );
    fc.assert(
      fc.property(fc.nat(250), fc.nat(255), (at, value) => {
        const table = srat(two);
        table[at] = value;
        findMemoryAffinity(table);
      }),
    );
  });
});
