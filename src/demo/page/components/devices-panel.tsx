/** The devices' state as a tree that can be searched. */
import { Fragment } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { formatCount, formatHex, plural, printable } from '../../../words/format.ts';
import type { DeviceMatch, DeviceNode } from '../../protocol.ts';
import { announce } from '../announce.ts';
import { DeviceTree, type TreeRow } from '../device-tree.ts';
import { bringIntoSight } from '../jump.ts';
import { failureOf, Task } from '../task.ts';
import { FailureNote } from './failure-note.tsx';
import { useMachine } from './machine-context.ts';
import { TaskLine } from './task-line.tsx';

/** Rows of the tree that exist at once. */
const rowsAtOnce = 2000;

/** Nodes that a search lists. */
const limit = 200;

export function DevicesPanel() {
  const { viewer, file } = useMachine();
  const tree = useMemo(() => new DeviceTree(viewer, file.id), [viewer, file]);
  useEffect(() => void tree.start(), [tree]);
  const [current, setCurrent] = useState('');
  const failure = tree.failure.value;
  const reveal = async (node: DeviceNode) => {
    await tree.reveal(node.path);
    setCurrent(node.path.join('.'));
  };
  return (
    <section class="panel" id="devices" aria-labelledby="devices-title">
      <div class="panel-head">
        <h3 id="devices-title">Devices</h3>
      </div>
      {failure === undefined ? null : <FailureNote failure={failureOf(failure)} />}
      {tree.rows.value.length === 0 ? (
        <p class="empty">No device state was reached.</p>
      ) : (
        <>
          <DeviceSearch onChoose={(node) => void reveal(node)} />
          <Tree tree={tree} current={current} onCurrent={setCurrent} />
        </>
      )}
    </section>
  );
}

function DeviceSearch({ onChoose }: { onChoose(node: DeviceNode): void }) {
  const { viewer, file } = useMachine();
  const task = useMemo(() => new Task<DeviceMatch[]>(), []);
  const [text, setText] = useState('');
  const find = async (next: string) => {
    setText(next);
    if (next.trim() === '') return task.cancel();
    const query = { file: file.id, text: next.trim(), limit };
    const found = await task.run((options) => viewer.findDevices(query, options));
    if (found !== undefined) announce(found.length === 0 ? 'nothing found' : `${found.length} found`);
  };
  const found = task.state.value.kind === 'done' ? task.state.value.result : undefined;
  return (
    <div class="search">
      <label class="row">
        <span>Find a device, field or value</span>
        <input
          type="search"
          class="grow"
          value={text}
          placeholder="rip, cmos, 0x1234"
          spellcheck={false}
          autocomplete="off"
          data-test="device-search"
          onInput={({ currentTarget }) => void find(currentTarget.value)}
        />
      </label>
      <TaskLine task={task} what="searching" />
      {found === undefined ? null : found.length === 0 ? (
        <p class="empty">No device, field or value is called so.</p>
      ) : (
        <ol class="matches" data-test="device-matches" aria-label="Found in the devices' state">
          {found.map(({ node, labels }) => (
            <li key={node.path.join('.')}>
              <button type="button" class="link mono" onClick={() => onChoose(node)}>
                {printable(labels.join(' › '))}
              </button>{' '}
              <span class="mono">{printable(node.text)}</span>
            </li>
          ))}
          {found.length === limit ? <li class="note">and perhaps more</li> : null}
        </ol>
      )}
    </div>
  );
}

function Tree(props: { tree: DeviceTree; current: string; onCurrent(key: string): void }) {
  const { tree, current, onCurrent } = props;
  const machine = useMachine();
  const list = useRef<HTMLDivElement>(null);
  const rows = tree.rows.value;
  const at = Math.max(
    0,
    rows.findIndex(({ node }) => node.path.join('.') === current),
  );
  const isToFocus = useRef(false);
  const focus = (row: TreeRow | undefined) => {
    if (row === undefined) return;
    isToFocus.current = true;
    onCurrent(row.node.path.join('.'));
  };
  const [first, setFirst] = useState(0);
  // The current row is always there, also when it was far away before.
  const [seen, setSeen] = useState(current);
  let from = Math.min(first, Math.max(0, rows.length - 1));
  if (seen !== current) {
    if (at < from || at >= from + rowsAtOnce) from = Math.max(0, at - rowsAtOnce / 2);
    setSeen(current);
    setFirst(from);
  }
  useLayoutEffect(() => {
    if (current === '') return;
    list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }, [current]);
  useLayoutEffect(() => {
    if (!isToFocus.current) return;
    isToFocus.current = false;
    (list.current?.querySelector('[tabindex="0"]') as HTMLElement | null)?.focus();
  });
  const showBytes = ({ offset, length, source }: DeviceNode) => {
    if (offset === undefined) return;
    machine.showFile({ offset, ...(source === undefined ? {} : { source }) }, length ?? 0);
    bringIntoSight('bytes');
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const row = rows[at];
    if (row === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    const { node, isOpen } = row;
    if (event.key === 'ArrowDown') focus(rows[at + 1]);
    else if (event.key === 'ArrowUp') focus(rows[at - 1]);
    else if (event.key === 'Home') focus(rows[0]);
    else if (event.key === 'End') focus(rows.at(-1));
    else if (event.key === 'Enter' || event.key === ' ') showBytes(node);
    else if (event.key === 'ArrowRight') {
      if (isOpen) focus(rows[at + 1]);
      else if (node.children > 0) void tree.setOpen(node.path, true);
    } else if (event.key === 'ArrowLeft') {
      if (isOpen) void tree.setOpen(node.path, false);
      else focus(rows.find((each) => each.node.path.join('.') === node.path.slice(0, -1).join('.')));
    } else return;
    event.preventDefault();
  };
  return (
    <>
      <div ref={list} class="tree" role="tree" aria-label="State of the devices" data-test="tree" onKeyDown={onKeyDown}>
        <OtherRows count={from} where="above" onShow={() => setFirst(Math.max(0, from - rowsAtOnce / 2))} />
        {rows.slice(from, from + rowsAtOnce).map((row, i) => (
          <Fragment key={row.node.path.join('.')}>
            <TreeItem
              row={row}
              isCurrent={from + i === at}
              onToggle={() => {
                onCurrent(row.node.path.join('.'));
                if (row.node.children > 0) void tree.setOpen(row.node.path, !row.isOpen);
              }}
              onBytes={() => showBytes(row.node)}
            />
            {row.cut.map(({ path, left, depth }) => (
              <button
                key={path.join('.')}
                type="button"
                class="link tree-more"
                style={{ marginLeft: `${(depth - 1) * 16 + 26}px` }}
                onClick={() => void tree.loadMore(path)}
              >
                Show more: {formatCount(left)} are not listed
              </button>
            ))}
          </Fragment>
        ))}
        <OtherRows
          count={rows.length - from - rowsAtOnce}
          where="below"
          onShow={() => setFirst(from + rowsAtOnce / 2)}
        />
      </div>
      <p class="note">
        {plural(tree.total, 'device')}. Arrows open and close, <kbd>Enter</kbd> shows the bytes.
      </p>
    </>
  );
}

/** Rows that are open, but not shown at the moment. */
function OtherRows({ count, where, onShow }: { count: number; where: 'above' | 'below'; onShow(): void }) {
  if (count <= 0) return null;
  return (
    <button type="button" class="link tree-more" style={{ marginLeft: '26px' }} onClick={onShow}>
      {plural(count, 'row')} {where}
    </button>
  );
}

function TreeItem(props: { row: TreeRow; isCurrent: boolean; onToggle(): void; onBytes(): void }) {
  const { row, isCurrent, onToggle, onBytes } = props;
  const { node, depth, isOpen, position, siblings } = row;
  const { label, type, text, offset, problem, children } = node;
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the tree takes the keys
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
      data-path={node.path.join('.')}
      onClick={onToggle}
    >
      <span class="twist" aria-hidden="true">
        {children > 0 ? (isOpen ? '▾' : '▸') : ''}
      </span>
      <span class="label">{printable(label)}</span>
      <span class="value">{printable(text)}</span>
      {problem === undefined ? null : <span class="problem">not decoded: {printable(problem)}</span>}
      {type === '' ? null : <span class="type">{type}</span>}
      {offset === undefined ? null : (
        // biome-ignore lint/a11y/useKeyWithClickEvents: Enter does it
        // biome-ignore lint/a11y/noStaticElementInteractions: a shortcut for the mouse
        <span
          class="offset"
          title="show the bytes there"
          onClick={(event) => {
            event.stopPropagation();
            onBytes();
          }}
        >
          {formatHex(offset)}
        </span>
      )}
    </div>
  );
}
