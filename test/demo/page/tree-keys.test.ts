import { describe, expect, it } from 'vitest';
import type { TreeRow } from '../../../src/demo/page/device-tree.ts';
import { treeAction } from '../../../src/demo/page/tree-keys.ts';

const row = (path: number[], children: number, isOpen = false): TreeRow => ({
  node: { path, label: '', type: '', text: '', offset: undefined, length: undefined, children },
  depth: path.length,
  isOpen,
  position: 1,
  siblings: 1,
  cut: [],
});
/** An open device with two fields. The second is closed and has children. */
const rows = [row([0], 2, true), row([0, 0], 0), row([0, 1], 3)];
const go = (at: number) => ({ kind: 'go', row: rows[at] });

describe('the keys of the tree', () => {
  it.each([
    ['ArrowDown', 0, go(1)],
    ['ArrowDown', 2, go(3)],
    ['ArrowUp', 2, go(1)],
    ['Home', 2, go(0)],
    ['End', 0, go(2)],
    ['ArrowRight', 0, go(1)],
    ['ArrowRight', 1, go(-1)],
    ['ArrowRight', 2, { kind: 'open', node: rows[2]?.node }],
    ['ArrowLeft', 0, { kind: 'close', node: rows[0]?.node }],
    ['ArrowLeft', 2, go(0)],
    ['ArrowLeft', 1, go(0)],
    ['Enter', 1, { kind: 'show-bytes', node: rows[1]?.node }],
    [' ', 1, { kind: 'show-bytes', node: rows[1]?.node }],
    ['a', 0, undefined],
  ])('%j on row %i', (key, at, action) => {
    expect(treeAction(key, rows, at)).toEqual(action);
  });

  it('do nothing in an empty tree', () => {
    expect(treeAction('ArrowDown', [], 0)).toBeUndefined();
  });
});
