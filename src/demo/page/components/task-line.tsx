/** The progress of a task with a button to cancel it, or its failure with a remedy. Otherwise nothing. */
import { formatBytes } from '../../../words/format.ts';
import type { Progress } from '../../protocol.ts';
import type { Task } from '../task.ts';
import { FailureNote, type RemedyTarget } from './failure-note.tsx';

interface Props<Result> extends RemedyTarget {
  task: Task<Result>;
  what: string;
  /** Default: cancels the task. */
  onCancel?: () => void;
}

export function TaskLine<Result>({ task, what, onCancel, ...target }: Props<Result>) {
  const state = task.state.value;
  if (state.kind === 'failed') return <FailureNote failure={state.failure} {...target} />;
  if (state.kind !== 'running') return null;
  return <ProgressLine what={what} progress={state.progress} onCancel={onCancel ?? (() => task.cancel())} />;
}

export function ProgressLine(props: { what: string; progress: Progress | undefined; onCancel(): void }) {
  const { what, progress, onCancel } = props;
  const share = progress?.total === undefined || progress.total === 0 ? undefined : progress.done / progress.total;
  return (
    <div class="progress-line">
      <progress {...(share === undefined ? {} : { value: share, max: 1 })} aria-label={what} />
      <span>{progress === undefined ? what : `${progress.doing} ${amount(progress)}`}</span>
      <button type="button" onClick={onCancel}>
        Cancel
      </button>
    </div>
  );
}

function amount({ done, total }: Progress): string {
  return total === undefined ? formatBytes(done) : `${formatBytes(done)} of ${formatBytes(total)}`;
}
