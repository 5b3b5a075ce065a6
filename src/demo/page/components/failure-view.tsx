/** Shows why a file did not open. If the user must choose a snapshot or say what each file is, asks for that. */
import { formatBytes, printable } from '../../../words/format.ts';
import type { Failure, FileInput } from '../../protocol.ts';
import { remotePageFor } from '../remote.ts';
import { leave, openInput } from '../session.ts';
import { FailureNote } from './failure-note.tsx';
import { OffsetForm } from './offset-form.tsx';
import { PartsForm } from './parts-form.tsx';

interface Props {
  name: string;
  input: FileInput | undefined;
  failure: Failure;
  retry(): void;
}

export function FailureView({ name, input, failure, retry }: Props) {
  const { snapshots, parts } = failure;
  if (parts !== undefined && input !== undefined) {
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
        <FailureNote failure={failure} input={input} retry={retry} />
      ) : (
        <ul class="snapshots">
          {snapshots.map((snapshot) => (
            <li key={snapshot.id}>
              <button
                type="button"
                disabled={snapshot.vmStateSize === 0}
                onClick={() => {
                  if (input !== undefined) void openInput({ ...input, snapshot: snapshot.id });
                }}
              >
                {printable(snapshot.name)}
              </button>{' '}
              {snapshot.vmStateSize === 0
                ? 'disk only, no VM state'
                : `${formatBytes(snapshot.vmStateSize)} of VM state`}
            </li>
          ))}
        </ul>
      )}
      {failure.kind === 'out-of-reach' && input !== undefined && 'url' in input ? (
        <OnAnotherServer url={input.url} />
      ) : null}
      {failure.code === 'not-a-migration-stream' && input !== undefined ? <BeginElsewhere input={input} /> : null}
      <button type="button" onClick={leave}>
        Open another file
      </button>
    </section>
  );
}

/** For a URL that this page must not fetch. */
function OnAnotherServer({ url }: { url: string }) {
  return (
    <p data-test="elsewhere">
      This page can fetch only from the server that it came from, so that your data cannot leave the browser.{' '}
      <a href={remotePageFor(url)}>Open the URL on the page that can fetch from other servers</a>. That page is the
      same, and sends nothing but requests for the file.
    </p>
  );
}

/** For a stream that does not begin at the start of its file. */
function BeginElsewhere({ input }: { input: FileInput }) {
  return (
    <div class="begin-elsewhere">
      <p>If the stream does not begin at the start of the file, enter its offset:</p>
      <OffsetForm placeholder="4096" button="Open there" onOffset={(offset) => void openInput({ ...input, offset })} />
    </div>
  );
}
