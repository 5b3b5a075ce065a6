/** Shows the progress while a file is opened. */
import { printable } from '../../../words/format.ts';
import { leave, opening } from '../session.ts';
import { ProgressLine } from './task-line.tsx';

export function Opening({ name }: { name: string }) {
  const state = opening.state.value;
  const progress = state.kind === 'running' ? state.progress : undefined;
  return (
    <section class="panel">
      <h2>
        Opening <span class="file-name">{printable(name)}</span>
      </h2>
      <ProgressLine what="opening" progress={progress} onCancel={leave} />
    </section>
  );
}
