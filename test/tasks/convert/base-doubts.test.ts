import { describe, expect, it } from 'vitest';
import { doubtsAbout } from '../../../src/tasks/convert/base-doubts.ts';
import { PageListRam } from '../../support/page-list-ram.ts';

const vm = (machine: string | undefined, uuid: string | undefined, blocks: Record<string, number>) => ({
  configuration:
    machine === undefined ? undefined : { machine, capabilities: [], ...(uuid === undefined ? {} : { uuid }) },
  ram: new PageListRam(
    Object.entries(blocks).map(([idstr, pages]) => ({ idstr, seeds: new Array<number>(pages).fill(1) })),
    4096,
  ),
});
const [one, two] = ['0123456789abcdef0123456789abcdef', 'f123456789abcdef0123456789abcdef'];
const much = { base: 100, same: 90 };
const now = vm('pc-q35-10.0', one, { ram: 8, rom: 2 });

describe('a base', () => {
  it('raises no doubt if it is of the same VM, or says nothing about it', () => {
    expect(doubtsAbout(now, now, much)).toEqual([]);
    expect(doubtsAbout(vm('pc-q35-10.0', one.toUpperCase(), { ram: 8, rom: 2, more: 1 }), now, much)).toEqual([]);
    expect(doubtsAbout(vm('pc-q35-10.0', undefined, { ram: 8, rom: 2 }), now, much)).toEqual([]);
    expect(doubtsAbout(vm(undefined, undefined, { ram: 8, rom: 2 }), now, much)).toEqual([]);
  });

  it.each([
    [vm('pc-q35-9.2', one, { ram: 8, rom: 2 }), 'the base is of the machine type pc-q35-9.2, not pc-q35-10.0'],
    [
      vm('pc-q35-10.0', two, { ram: 8, rom: 2 }),
      'the base is of the VM with the UUID f1234567-89ab-cdef-0123-456789abcdef, not 01234567-89ab-cdef-0123-456789abcdef',
    ],
    [vm('pc-q35-10.0', one, { rom: 2 }), 'the base lacks RAM blocks: ram'],
    [vm('pc-q35-10.0', one, { ram: 9, rom: 3 }), 'the base has RAM blocks of another size: ram, rom'],
  ])('is doubted with the reason: %#', (base, reason) => {
    expect(doubtsAbout(base, now, much)).toEqual([reason]);
  });

  it('is doubted if next to none of its pages is unchanged, unless it has few', () => {
    const doubts = ['only 1 of the 200 pages of the base that are not zero are unchanged'];
    expect(doubtsAbout(now, now, { base: 200, same: 1 })).toEqual(doubts);
    expect(doubtsAbout(now, now, { base: 200, same: 2 })).toEqual([]);
    expect(doubtsAbout(now, now, { base: 15, same: 0 })).toEqual([]);
    expect(doubtsAbout(now, now, { base: 0, same: 0 })).toEqual([]);
  });
});
