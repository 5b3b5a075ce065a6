/** Saves one output at a time: shows the dialog or starts the download, and shows the progress and the result. */
import { useEffect, useMemo, useRef } from 'preact/hooks';
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
  /** Saves what failed again. */
  retry(): void;
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
  const last = useRef(() => {});
  const saving: Saving = {
    task,
    retry: () => last.current(),
    write: async (name, work) => {
      onStart();
      last.current = () => void saving.write(name, work);
      // Also the choice can fail.
      const chosen = await chooseTarget(name).catch((error: unknown) => ({ error }));
      if (chosen === undefined) return;
      const output = await task.run(async (options) => {
        if (chosen !== 'file' && 'error' in chosen) throw chosen.error;
        const saved = await work(chosen, options);
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
      last.current = () => void saving.give(name, content);
      await task.run(async () => {
        const blob = await content();
        download(blob, name);
        return { name, bytes: blob.size, isChecked: false };
      });
    },
  };
  return saving;
}

export function SavingLine({ saving: { task, retry } }: { saving: Saving }) {
  const state = task.state.value;
  if (state.kind !== 'done') return <TaskLine task={task} what="saving" retry={retry} />;
  const { name, bytes, isChecked } = state.result;
  return (
    <span class="note" data-test="saved">
      {printable(name)}: {formatBytes(bytes)}
      {isChecked ? ', read back and verified' : ''}
    </span>
  );
}
