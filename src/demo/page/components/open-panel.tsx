/** Nothing is open: how to open something. */
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
          <p>A small PC with 2 MiB of memory, migrated by QEMU 10.0 while it ran, and the same PC a little earlier.</p>
          <button type="button" class="primary" onClick={() => void openSample()}>
            Open the sample
          </button>
        </section>
      </div>
      <section class="panel">
        <h2>What it reads</h2>
        <ul class="what-it-reads">
          <li>
            <b>migration streams</b>, of <code>migrate "exec:…"</code> or <code>file:</code>, precopy and postcopy, with
            XBZRLE or compressed pages
          </li>
          <li>
            <b>mapped-ram files</b>
          </li>
          <li>
            <b>migrations in several files</b>: multifd channels, postcopy recoveries, preempt channels and return
            paths; choose or drop all of them together
          </li>
          <li>
            <b>libvirt saves</b>, of <code>virsh save</code>, and <b>snapshots in qcow2 images</b>
          </li>
          <li>any of these compressed with gzip, zstd or xz</li>
        </ul>
        <p class="note">
          Any size: files are read in slices, and what must be set aside is kept in this browser's private storage until
          the file is closed.
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
        Only what is looked at is fetched, if the server answers range requests.
        {isRemotePage ? ' Another server must allow this page to read from it (CORS).' : ''}
      </p>
    </section>
  );
}
