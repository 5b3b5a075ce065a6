import { describe, expect, it } from 'vitest';
import { describedItems } from '../../../src/tasks/check/check-items.ts';
import type { FieldDescription, StateDescription } from '../../../src/vm/description.ts';

const state = (fields: FieldDescription[]): StateDescription => ({
  ...{ vmsdName: 'element', version: 1, fields, subsections: [] },
});
const element = (name: string, index: number): FieldDescription => ({
  ...{ name, type: 'struct', size: 4, arrayLength: undefined, index, nested: [state([])] },
});

describe('the compared fields', () => {
  it('are arrays if elements are described one by one, however many, and the description stays unchanged', () => {
    const fields = Array.from({ length: 50_000 }, (_, i) => element('a', i));
    const items = describedItems(state([...fields, element('b', 0)]));
    expect(items.map(({ name, count, bytes, nested, index }) => [name, count, bytes, nested.length, index])).toEqual([
      ['a', 50_000, 200_000, 50_000, 0],
      ['b', 1, 4, 1, 50_000],
    ]);
    expect(fields[0]?.nested.length).toBe(1);
  });
});
