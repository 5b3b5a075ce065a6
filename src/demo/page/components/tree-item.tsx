/** One row of the tree of devices. */
import { formatHex, printable } from '../../../words/format.ts';
import { pathKey, type TreeRow } from '../device-tree.ts';

interface Props {
  row: TreeRow;
  isCurrent: boolean;
  onToggle(): void;
  onBytes(): void;
}

export function TreeItem({ row, isCurrent, onToggle, onBytes }: Props) {
  const { node, depth, isOpen, position, siblings } = row;
  const { label, type, text, offset, problem, children } = node;
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the tree handles the keys
    <div
      role="treeitem"
      tabIndex={isCurrent ? 0 : -1}
      aria-level={depth}
      aria-posinset={position}
      aria-setsize={siblings}
      aria-selected={isCurrent}
      {...(children > 0 ? { 'aria-expanded': isOpen } : {})}
      class={`tree-item${depth === 1 ? ' is-device' : ''}`}
      style={{ paddingLeft: `${(depth - 1) * 16 + 4}px` }}
      data-path={pathKey(node.path)}
      onClick={onToggle}
    >
      <span class="twist" aria-hidden="true">
        {children > 0 ? (isOpen ? '▾' : '▸') : ''}
      </span>
      <span class="label">{printable(label)}</span>
      <span class="value">{printable(text)}</span>
      {problem === undefined ? null : <span class="problem">not decoded: {printable(problem)}</span>}
      {type === '' ? null : <span class="type">{type}</span>}
      {offset === undefined ? null : <OffsetLink offset={offset} onBytes={onBytes} />}
    </div>
  );
}

function OffsetLink({ offset, onBytes }: { offset: number; onBytes(): void }) {
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Enter does the same in the tree
    // biome-ignore lint/a11y/noStaticElementInteractions: a shortcut for the mouse
    <span
      class="offset"
      title="Show these bytes"
      onClick={(event) => {
        event.stopPropagation();
        onBytes();
      }}
    >
      {formatHex(offset)}
    </span>
  );
}
