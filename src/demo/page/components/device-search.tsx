/** Finds devices, fields and values by text. */
import { useMemo, useState } from 'preact/hooks';
import { printable } from '../../../words/format.ts';
import type { DeviceMatch, DeviceNode } from '../../protocol.ts';
import { announce } from '../announce.ts';
import { pathKey } from '../device-tree.ts';
import { Task } from '../task.ts';
import { useMachine } from './machine-context.ts';
import { TaskLine } from './task-line.tsx';

/** Matches that are listed at most. */
const limit = 200;

export function DeviceSearch({ onChoose }: { onChoose(node: DeviceNode): void }) {
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
      <TaskLine task={task} what="searching" retry={() => void find(text)} />
      {task.result === undefined ? null : <DeviceMatches found={task.result} onChoose={onChoose} />}
    </div>
  );
}

function DeviceMatches({ found, onChoose }: { found: readonly DeviceMatch[]; onChoose(node: DeviceNode): void }) {
  if (found.length === 0) return <p class="empty">No device, field or value contains this text.</p>;
  return (
    <ol class="matches" data-test="device-matches" aria-label="Matches in the state of the devices">
      {found.map(({ node, labels }) => (
        <li key={pathKey(node.path)}>
          <button type="button" class="link mono" onClick={() => onChoose(node)}>
            {printable(labels.join(' › '))}
          </button>{' '}
          <span class="mono">{printable(node.text)}</span>
        </li>
      ))}
      {found.length === limit ? <li class="note">The list ends here. There may be more matches.</li> : null}
    </ol>
  );
}
