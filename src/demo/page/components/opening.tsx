/** Shows the progress while a file is opened, and its map as far as it is known. */
import { printable } from '../../../words/format.ts';
import { leave, opening, openingFile } from '../session.ts';
import { OpeningMap } from './opening-map.tsx';
import { ProgressLine } from './task-line.tsx';

export function Opening({ name }: { name: string }) {
  const state = opening.state.value;
  const progress = state.kind === 'running' ? state.progress : undefined;
  const file = openingFile.value;
  return (
    <section class="panel">
      <h2>
        Opening <span class="file-name">{printable(name)}</span>
      </h2>
      <ProgressLine what="opening" progress={progress} onCancel={leave} />
      {file === undefined ? null : <OpeningMap file={file} done={progress?.done ?? 0} />}
    </section>
  );
}
