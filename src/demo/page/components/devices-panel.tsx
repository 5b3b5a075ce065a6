/** The state of the devices as a tree, with a search. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import type { DeviceNode } from '../../protocol.ts';
import { DeviceTree, pathKey } from '../device-tree.ts';
import { failureOf } from '../task.ts';
import { DeviceSearch } from './device-search.tsx';
import { FailureNote } from './failure-note.tsx';
import { useMachine } from './machine-context.ts';
import { TreeView } from './tree-view.tsx';

export function DevicesPanel() {
  const { viewer, file } = useMachine();
  const tree = useMemo(() => new DeviceTree(viewer, file.id), [viewer, file]);
  useEffect(() => void tree.start(), [tree]);
  const [current, setCurrent] = useState('');
  const failure = tree.failure.value;
  const reveal = async (node: DeviceNode) => {
    await tree.reveal(node.path);
    setCurrent(pathKey(node.path));
  };
  return (
    <section class="panel" id="devices" aria-labelledby="devices-title">
      <div class="panel-head">
        <h3 id="devices-title">Devices</h3>
      </div>
      {failure === undefined ? null : <FailureNote failure={failureOf(failure)} retry={() => void tree.retry()} />}
      {tree.rows.value.length === 0 ? (
        failure === undefined ? (
          <p class="empty">No device state was reached.</p>
        ) : null
      ) : (
        <>
          <DeviceSearch onChoose={(node) => void reveal(node)} />
          <TreeView tree={tree} current={current} onCurrent={setCurrent} />
        </>
      )}
    </section>
  );
}
