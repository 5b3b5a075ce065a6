/** The start page: ways to open a file. */
import { useState } from 'preact/hooks';
import { printable } from '../../../words/format.ts';
import { isRemotePage } from '../remote.ts';
import { openSample } from '../sample.ts';
import { type Lost, openInput } from '../session.ts';
import { FileButton, FileDrop } from './file-drop.tsx';

export function OpenPanel({ lost }: { lost: Lost | undefined }) {
  return (
    <div class="open-panel">
      {lost === undefined ? null : <LostFile lost={lost} />}
      <FileDrop />
      <div class="open-others">
        <UrlForm />
        <section class="panel">
          <h2>No file at hand?</h2>
          <p>
            The sample is a small PC with 2 MiB of memory. QEMU 10.0 migrated it while it ran. An earlier state of the
            same PC is included for comparison.
          </p>
          <button type="button" class="primary" onClick={() => void openSample()}>
            Open the sample
          </button>
        </section>
      </div>
      <section class="panel">
        <h2>Supported files</h2>
        <ul class="what-it-reads">
          <li>
            <b>Migration streams</b> from <code>migrate "exec:…"</code> or <code>migrate file:</code>, precopy and
            postcopy, with XBZRLE or compressed pages
          </li>
          <li>
            <b>Mapped-ram files</b>
          </li>
          <li>
            <b>Migrations in several files</b>: multifd channels, postcopy recoveries, preempt channels and return
            paths. Choose or drop all files together.
          </li>
          <li>
            <b>Libvirt save images</b> from <code>virsh save</code>, and <b>snapshots in qcow2 images</b>
          </li>
          <li>Any of these compressed with gzip, zstd or xz, or in a zip archive</li>
        </ul>
        <p class="note">
          Files can have any size, since the page reads them in slices. Temporary data stays in the private storage of
          this browser until you close the file.
        </p>
      </section>
    </div>
  );
}

/** A file that the page lost when it was loaded again. */
function LostFile({ lost: { name, files, reopen, choices } }: { lost: Lost }) {
  return (
    <section class="panel" data-test="lost">
      <h2>
        <span class="file-name">{printable(name)}</span> was open here
      </h2>
      <p>
        {reopen === undefined
          ? 'The browser does not let a page that was loaded again read the file. Choose it again.'
          : 'The browser asks before a page that was loaded again may read the file.'}
      </p>
      {reopen === undefined ? (
        <FileButton
          label={files > 1 ? 'Choose the files again' : 'Choose the file again'}
          test="lost-files"
          isPrimary
          onFiles={(chosen) => void openInput({ files: chosen, ...choices }, { history: 'replace' })}
        />
      ) : (
        <button type="button" class="primary" onClick={() => void reopen()}>
          Open it again
        </button>
      )}
    </section>
  );
}

function UrlForm() {
  const [url, setUrl] = useState('');
  const [isWrong, setWrong] = useState(false);
  const open = (event: Event) => {
    event.preventDefault();
    if (url.trim() === '') return;
    const isValid = URL.canParse(url.trim(), document.baseURI);
    setWrong(!isValid);
    if (isValid) void openInput({ url: new URL(url.trim(), document.baseURI).href });
  };
  return (
    <section class="panel">
      <h2>{isRemotePage ? 'From a server' : 'From this server'}</h2>
      <form onSubmit={open} class="row">
        <label>
          <span>URL</span>
          <input
            type="text"
            inputMode="url"
            value={url}
            placeholder="guest.migration"
            spellcheck={false}
            autocomplete="off"
            onInput={({ currentTarget }) => setUrl(currentTarget.value)}
          />
        </label>
        <button type="submit">Open</button>
      </form>
      {isWrong ? <p class="wrong">This is not a URL.</p> : null}
      <p class="note">
        If the server supports range requests, the page fetches only the parts that it needs.
        {isRemotePage ? ' Other servers must allow this page to read from them (CORS).' : ''}
      </p>
    </section>
  );
}
