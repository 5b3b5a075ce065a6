/** The tree of devices. Of a very long tree only some rows exist at once, with buttons for the rows above and below. */
import { Fragment } from 'preact';
import { useRef } from 'preact/hooks';
import { formatCount, plural } from '../../../words/format.ts';
import type { DeviceNode } from '../../protocol.ts';
import { type DeviceTree, pathKey, type TreeRow } from '../device-tree.ts';
import { bringIntoSight } from '../jump.ts';
import { hasModifier } from '../keys.ts';
import { treeAction } from '../tree-keys.ts';
import { useMachine } from './machine-context.ts';
import { useRowWindow } from './row-window.ts';
import { useTreeFocus } from './tree-focus.ts';
import { TreeItem } from './tree-item.tsx';

interface Props {
  tree: DeviceTree;
  /** Key of the current row. */
  current: string;
  onCurrent(key: string): void;
}

export function TreeView({ tree, current, onCurrent }: Props) {
  const list = useRef<HTMLDivElement>(null);
  const rows = tree.rows.value;
  const found = rows.findIndex(({ node }) => pathKey(node.path) === current);
  const at = Math.max(0, found);
  const { from, to, showAbove, showBelow } = useRowWindow(rows.length, current, at);
  const onKeyDown = useTreeKeys({ tree, current, onCurrent }, at, useTreeFocus(list, current));
  const showBytes = useShowBytes();
  const toggle = ({ node, isOpen }: TreeRow) => {
    onCurrent(pathKey(node.path));
    if (node.children > 0) void tree.setOpen(node.path, !isOpen);
  };
  return (
    <>
      <div ref={list} class="tree" role="tree" aria-label="State of the devices" data-test="tree" onKeyDown={onKeyDown}>
        <OtherRows count={from} where="above" onShow={showAbove} />
        {rows.slice(from, to).map((row, i) => (
          <Fragment key={pathKey(row.node.path)}>
            <TreeItem
              row={row}
              isCurrent={from + i === at}
              onToggle={() => toggle(row)}
              onBytes={() => showBytes(row.node)}
            />
            <MoreSiblings row={row} tree={tree} />
          </Fragment>
        ))}
        <OtherRows count={rows.length - to} where="below" onShow={showBelow} />
      </div>
      <p class="note">
        {plural(tree.total, 'device')}. The arrow keys open and close, <kbd>Enter</kbd> shows the bytes.
      </p>
    </>
  );
}

/** Shows the bytes of a node, if it has a place in the file. */
function useShowBytes(): (node: DeviceNode) => void {
  const machine = useMachine();
  return ({ offset, length, source }) => {
    if (offset === undefined) return;
    machine.showFile({ offset, ...(source === undefined ? {} : { source }) }, length ?? 0);
    bringIntoSight('bytes');
  };
}

/** The handler for keys. `focus` moves the focus to the next current row. */
function useTreeKeys({ tree, onCurrent }: Props, at: number, focus: () => void) {
  const showBytes = useShowBytes();
  return (event: KeyboardEvent) => {
    const action = hasModifier(event) ? undefined : treeAction(event.key, tree.rows.peek(), at);
    if (action === undefined) return;
    event.preventDefault();
    switch (action.kind) {
      case 'go':
        if (action.row === undefined) return;
        focus();
        return onCurrent(pathKey(action.row.node.path));
      case 'open':
      case 'close':
        return void tree.setOpen(action.node.path, action.kind === 'open');
      case 'show-bytes':
        return showBytes(action.node);
    }
  };
}

/** Buttons for lists that end at this row and have more nodes than were loaded. */
function MoreSiblings({ row, tree }: { row: TreeRow; tree: DeviceTree }) {
  return (
    <>
      {row.cut.map(({ path, left, depth }) => (
        <button
          key={pathKey(path)}
          type="button"
          class="link tree-more"
          style={{ marginLeft: `${(depth - 1) * 16 + 26}px` }}
          onClick={() => void tree.loadMore(path)}
        >
          Show more ({formatCount(left)} not listed)
        </button>
      ))}
    </>
  );
}

/** A button for rows that are open but do not exist at the moment. */
function OtherRows({ count, where, onShow }: { count: number; where: 'above' | 'below'; onShow(): void }) {
  if (count <= 0) return null;
  return (
    <button type="button" class="link tree-more" style={{ marginLeft: '26px' }} onClick={onShow}>
      {plural(count, 'row')} {where}
    </button>
  );
}
