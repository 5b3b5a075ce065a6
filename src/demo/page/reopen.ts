/** Opens what the address or the history names: when the page is loaded, and on Back and Forward. */
import { keptFor, readKept } from './kept-files.ts';
import { inputOf, recalled } from './recall.ts';
import { wantedUrl } from './remote.ts';
import { openSample } from './sample.ts';
import { close, openInput } from './session.ts';

export async function reopen(): Promise<void> {
  const last = recalled();
  const known = last === undefined ? undefined : inputOf(last.entry);
  if (last?.kind === 'sample') return openSample('none');
  if (known !== undefined) return openInput(known, { history: 'none' });
  const url = wantedUrl();
  if (url !== undefined) return openInput({ url, ...last?.choices }, { history: 'replace' });
  // Other fragments name nothing.
  if (last === undefined) return location.hash === '' ? close() : undefined;
  if (last.kind === 'url') return openInput({ url: last.name, ...last.choices }, { history: 'replace' });
  const { name, files, choices } = last;
  const items = await keptFor(last.entry);
  const found = items === undefined ? undefined : await readKept(items, false);
  // Meanwhile, the user may have gone on.
  if (recalled()?.entry !== last.entry) return;
  const lost = { name, files, choices };
  if (items === undefined) return close({ ...lost, reopen: undefined });
  const handles = Promise.resolve(items.map((item) => (item instanceof File ? undefined : item)));
  const open = (chosen: readonly File[]) => openInput({ files: chosen, ...choices }, { history: 'replace', handles });
  if (found !== undefined) return open(found);
  const again = async () => {
    const allowed = await readKept(items, true);
    if (allowed === undefined) close({ ...lost, reopen: undefined });
    else await open(allowed);
  };
  close({ ...lost, reopen: again });
}
