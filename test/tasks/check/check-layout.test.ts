import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { align, type LayoutItem } from '../../../src/tasks/check/check-layout.ts';

const item = (name: string, bytes: number | undefined = 4, more: Partial<LayoutItem> = {}): LayoutItem => ({
  name,
  bytes,
  isConditional: false,
  mayBeEmpty: false,
  ...more,
});
const maybe = (name: string, bytes?: number) => item(name, bytes, { isConditional: true });
const isSame = (a: LayoutItem, b: LayoutItem) => a.name === b.name && a.bytes === b.bytes;
const alignment = (source: LayoutItem[], target: LayoutItem[]) => align(source, target, isSame, () => false);
const kinds = (source: LayoutItem[], target: LayoutItem[]) => alignment(source, target)?.gaps.map(({ kind }) => kind);

describe('align', () => {
  it('pairs equal lists without gaps', () => {
    const list = [item('a'), item('b'), item('c')];
    expect(alignment(list, list)).toMatchObject({ pairs: [{}, {}, {}], gaps: [], mayShift: false });
  });

  it('matches a field with another name and the same number of bytes', () => {
    expect(kinds([item('a'), item('old'), item('z')], [item('a'), item('new'), item('z')])).toEqual(['same-bytes']);
  });

  it('matches a field that was split into the same number of bytes', () => {
    expect(kinds([item('text', 100)], [item('text', 32), item('flag', 1), item('unused', 67)])).toEqual(['same-bytes']);
  });

  it('finds an extra field on either side', () => {
    expect(kinds([item('a')], [item('a'), item('b')])).toEqual(['differs']);
    expect(kinds([item('a'), item('b')], [item('a')])).toEqual(['differs']);
  });

  it('ignores conditions that may be false, and uses those that must be true', () => {
    expect(kinds([item('a')], [maybe('x'), item('a'), maybe('y', 2)])).toEqual(['skipped', 'skipped']);
    expect(kinds([item('old', 6)], [maybe('x', 2), maybe('y', 3), item('z', 4)])).toEqual(['conditional']);
    expect(kinds([item('old', 5)], [maybe('x', 2), maybe('y', 3), item('z', 4)])).toEqual(['differs']);
  });

  it('reports an extra array that must be empty, and an unknown size', () => {
    const array = item('log', 0, { bytes: undefined, mayBeEmpty: true });
    expect(kinds([item('a')], [item('a'), array])).toEqual(['empty']);
    expect(kinds([item('b', 8)], [array])).toEqual(['unknown']);
    expect(kinds([item('b', 0, { bytes: undefined })], [item('c')])).toEqual(['unknown']);
  });

  it('reports fields that could be mistaken for each other', () => {
    // QEMU 7.2 reads an am53c974 that 10.0 saved like this: it takes lun for ti_cmd, and drq_state for lun.
    const source = [item('lun', 1), item('drq_state', 1)];
    expect(alignment(source, [maybe('ti_cmd', 1), maybe('lun', 1)])?.mayShift).toBe(true);
    expect(alignment([item('a', 1)], [item('a', 1), item('b', 1)])?.mayShift).toBe(false);
  });

  it('distinguishes fields of one name by their position', () => {
    const twice = [item('unused', 2), item('a'), item('unused', 2)];
    expect(alignment(twice, twice)?.pairs.map(({ target }) => twice.indexOf(target))).toEqual([0, 1, 2]);
  });

  it('gives up on lists that are too long to compare', () => {
    const long = (prefix: string) => Array.from({ length: 2500 }, (_, i) => item(`${prefix}${i}`));
    expect(alignment(long('a'), long('b'))).toBeUndefined();
  });

  const names = fc.constantFrom('a', 'b', 'c', 'd', 'e');
  const items = fc.array(fc.record({ name: names, bytes: fc.constantFrom(1, 2, 4), isConditional: fc.boolean() }), {
    maxLength: 12,
  });
  const full = (list: { name: string; bytes: number; isConditional: boolean }[]) =>
    list.map((each) => ({ ...each, mayBeEmpty: false }));

  it('puts every item in exactly one pair or gap, in order', () => {
    fc.assert(
      fc.property(items, items, (a, b) => {
        const [source, target] = [full(a), full(b)];
        const { pairs, gaps } = alignment(source, target) ?? { pairs: [], gaps: [] };
        const positions = (
          list: LayoutItem[],
          of: (part: { source: LayoutItem[]; target: LayoutItem[] }) => LayoutItem[],
        ) =>
          [...pairs.map(({ source, target }) => ({ source: [source], target: [target] })), ...gaps]
            .flatMap(of)
            .map((each) => list.indexOf(each))
            .sort((x, y) => x - y);
        expect(positions(source, (part) => part.source)).toEqual(source.map((_, i) => i));
        expect(positions(target, (part) => part.target)).toEqual(target.map((_, i) => i));
        expect(pairs.every(({ source, target }) => isSame(source, target))).toBe(true);
      }),
    );
  });

  it('finds no difference if some conditions make the target read exactly the fields', () => {
    const withChoice = fc.array(
      fc.record({ bytes: fc.constantFrom(1, 2, 4), isConditional: fc.boolean(), holds: fc.boolean() }),
    );
    fc.assert(
      fc.property(withChoice, (list) => {
        const target = list.map(({ bytes, isConditional }, i) => item(`f${i}`, bytes, { isConditional }));
        const source = target.filter((_, i) => list[i]?.isConditional === false || list[i]?.holds);
        expect(alignment(source, target)?.gaps.filter(({ kind }) => kind !== 'skipped')).toEqual([]);
      }),
    );
  });
});
