/** What keys do in the tree of devices: move, open, close, and show bytes. */
import type { DeviceNode } from '../protocol.ts';
import { pathKey, type TreeRow } from './device-tree.ts';

type TreeAction =
  /** `row` undefined: there is no row in that direction. */
  { kind: 'go'; row: TreeRow | undefined } | { kind: 'open' | 'close' | 'show-bytes'; node: DeviceNode };

/** `at` is the number of the current row. Undefined if the tree does not use the key. */
export function treeAction(key: string, rows: readonly TreeRow[], at: number): TreeAction | undefined {
  const row = rows[at];
  if (row === undefined) return undefined;
  const { node, isOpen } = row;
  switch (key) {
    case 'ArrowDown':
      return { kind: 'go', row: rows[at + 1] };
    case 'ArrowUp':
      return { kind: 'go', row: rows[at - 1] };
    case 'Home':
      return { kind: 'go', row: rows[0] };
    case 'End':
      return { kind: 'go', row: rows.at(-1) };
    case 'Enter':
    case ' ':
      return { kind: 'show-bytes', node };
    case 'ArrowRight':
      if (!isOpen && node.children > 0) return { kind: 'open', node };
      return { kind: 'go', row: isOpen ? rows[at + 1] : undefined };
    case 'ArrowLeft':
      return isOpen ? { kind: 'close', node } : { kind: 'go', row: parentOf(rows, node) };
    default:
      return undefined;
  }
}

function parentOf(rows: readonly TreeRow[], { path }: DeviceNode): TreeRow | undefined {
  const parent = pathKey(path.slice(0, -1));
  return rows.find(({ node }) => pathKey(node.path) === parent);
}
