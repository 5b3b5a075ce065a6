/** The sample files of the page: a PC that was migrated with XBZRLE, and the same PC a little earlier. */
import earlierUrl from '../../../test/fixtures/pc-plain-10.0.bin?url';
import laterUrl from '../../../test/fixtures/pc-xbzrle-10.0.bin?url';
import { type FileInput, ViewerError } from '../protocol.ts';
import { fail, type OpenHow, openInput } from './session.ts';
import { failureOf } from './task.ts';

export async function openSample(history: OpenHow['history'] = 'push'): Promise<void> {
  try {
    await openInput(await fetchFile(laterUrl), { earlier: () => fetchFile(earlierUrl), kind: 'sample', history });
  } catch (error) {
    fail('the sample', undefined, failureOf(error), () => void openSample(history));
  }
}

/** Fetches a whole sample. That works with any web server, even without range requests. @throws ViewerError */
async function fetchFile(url: string): Promise<FileInput> {
  const { href, pathname } = new URL(url, document.baseURI);
  const failed = (why: string) =>
    new ViewerError({ kind: 'network', message: `the sample could not be fetched from this page's server: ${why}` });
  try {
    const response = await fetch(href);
    if (!response.ok) throw failed(`it answered ${response.status} ${response.statusText}`);
    return { files: [new File([await response.blob()], pathname.split('/').at(-1) ?? 'sample')] };
  } catch (error) {
    if (error instanceof ViewerError) throw error;
    throw failed('it cannot be reached');
  }
}
