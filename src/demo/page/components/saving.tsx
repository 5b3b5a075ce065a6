/** Saves one output at a time: shows the dialog or starts the download, and shows the progress and the result. */
import { useEffect, useMemo } from 'preact/hooks';
import { formatBytes, printable } from '../../../words/format.ts';
import type { CallOptions, Saved, Target } from '../../protocol.ts';
import { announce } from '../announce.ts';
import { chooseTarget, download } from '../save.ts';
import { Task } from '../task.ts';
import { useMachine } from './machine-context.ts';
import { TaskLine } from './task-line.tsx';

/** A finished output. */
interface Output {
  name: string;
  bytes: number;
  /** Whether the output was read back and found correct. */
  isChecked: boolean;
}

export interface Saving {
  task: Task<Output>;
  /** Has the worker write a large output, to a file that the user chooses. */
  write(name: string, work: (target: Target, options: CallOptions) => Promise<Saved>): Promise<void>;
  /** Downloads a small output that the page makes itself. */
  give(name: string, content: () => Promise<Blob>): Promise<void>;
}

/** A download reads its scratch file for a while. Closing the migration file deletes it, too. */
const keptMs = 600_000;

/** Calls `onStart` when an output is chosen. */
export function useSaving(onStart: () => void): Saving {
  const { viewer } = useMachine();
  const task = useMemo(() => new Task<Output>(), []);
  useEffect(() => () => task.cancel(), [task]);
  return {
    task,
    write: async (name, work) => {
      onStart();
      const target = await chooseTarget(name);
      if (target === undefined) return;
      const output = await task.run(async (options) => {
        const saved = await work(target, options);
        if (saved.file !== undefined) {
          download(saved.file, name);
          setTimeout(() => void viewer.release(saved.ticket).catch(() => {}), keptMs);
        }
        return { name, bytes: saved.bytes, isChecked: saved.verification?.ok === true };
      });
      if (output !== undefined) announce(`saved ${output.name}`);
    },
    give: async (name, content) => {
      onStart();
      await task.run(async () => {
        const blob = await content();
        download(blob, name);
        return { name, bytes: blob.size, isChecked: false };
      });
    },
  };
}

export function SavingLine({ task }: { task: Task<Output> }) {
  const state = task.state.value;
  if (state.kind !== 'done') return <TaskLine task={task} what="saving" />;
  const { name, bytes, isChecked } = state.result;
  return (
    <span class="note" data-test="saved">
      {printable(name)}: {formatBytes(bytes)}
      {isChecked ? ', read back and verified' : ''}
    </span>
  );
}
