/** The start page: ways to open a file. */
import { useState } from 'preact/hooks';
import { isRemotePage } from '../remote.ts';
import { openSample } from '../sample.ts';
import { openInput } from '../session.ts';
import { FileDrop } from './file-drop.tsx';

export function OpenPanel() {
  return (
    <div class="open-panel">
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

function UrlForm() {
  const [url, setUrl] = useState('');
  const open = (event: Event) => {
    event.preventDefault();
    if (url.trim() !== '') void openInput({ url: new URL(url.trim(), document.baseURI).href });
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
      <p class="note">
        If the server supports range requests, the page fetches only the parts that it needs.
        {isRemotePage ? ' Other servers must allow this page to read from them (CORS).' : ''}
      </p>
    </section>
  );
}
