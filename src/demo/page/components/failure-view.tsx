/** A file could not be opened. Of a qcow2 image without a snapshot's name: which there are. */
import { formatBytes, printable } from '../../../words/format.ts';
import type { Failure, FileInput } from '../../protocol.ts';
import { isOutOfReach, remotePageFor } from '../remote.ts';
import { leave, openInput } from '../session.ts';
import { FailureNote } from './failure-note.tsx';
import { OffsetForm } from './offset-form.tsx';
import { PartsForm } from './parts-form.tsx';

export function FailureView({ name, input, failure }: { name: string; input: FileInput; failure: Failure }) {
  const { snapshots, parts } = failure;
  if (parts !== undefined) {
    return (
      <section class="panel">
        <h2>How do these files belong together?</h2>
        <PartsForm input={input} parts={parts} onOpen={(chosen) => void openInput(chosen)} />
        <button type="button" onClick={leave}>
          Open another file
        </button>
      </section>
    );
  }
  return (
    <section class="panel">
      <h2>
        {snapshots === undefined ? 'Could not open ' : 'Which snapshot of '}
        <span class="file-name">{printable(name)}</span>
        {snapshots === undefined ? '' : '?'}
      </h2>
      {snapshots === undefined ? (
        <FailureNote failure={failure} />
      ) : (
        <ul class="snapshots">
          {snapshots.map((snapshot) => (
            <li key={snapshot.id}>
              <button
                type="button"
                disabled={snapshot.vmStateSize === 0}
                onClick={() => void openInput({ ...input, snapshot: snapshot.id })}
              >
                {printable(snapshot.name)}
              </button>{' '}
              {snapshot.vmStateSize === 0 ? 'of the disk alone' : `${formatBytes(snapshot.vmStateSize)} of VM state`}
            </li>
          ))}
        </ul>
      )}
      {'url' in input && isOutOfReach(input.url) ? <OnAnotherServer url={input.url} /> : null}
      {failure.code === 'not-a-migration-stream' ? <BeginElsewhere input={input} /> : null}
      <button type="button" onClick={leave}>
        Open another file
      </button>
    </section>
  );
}

/** For a URL that this page may not ask. */
function OnAnotherServer({ url }: { url: string }) {
  return (
    <p data-test="elsewhere">
      This page may fetch only from the server that it came from, so that nothing can leave it.{' '}
      <a href={remotePageFor(url)}>Open it on the page that may ask other servers</a>: the same page, which sends
      requests for the file, and nothing else.
    </p>
  );
}

/** For a stream with something before it. */
function BeginElsewhere({ input }: { input: FileInput }) {
  return (
    <div class="begin-elsewhere">
      <p>If something comes before the stream, say where the stream begins:</p>
      <OffsetForm placeholder="4096" button="Open there" onOffset={(offset) => void openInput({ ...input, offset })} />
    </div>
  );
}
