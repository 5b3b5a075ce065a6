/** The sample files of the page: a PC that was migrated with XBZRLE, and the same PC a little earlier. */
import earlierUrl from '../../../test/fixtures/pc-plain-10.0.bin?url';
import laterUrl from '../../../test/fixtures/pc-xbzrle-10.0.bin?url';
import type { FileInput } from '../protocol.ts';
import { fail, openInput } from './session.ts';
import { failureOf } from './task.ts';

export async function openSample(): Promise<void> {
  try {
    await openInput(await fetchFile(laterUrl), () => fetchFile(earlierUrl));
  } catch (error) {
    fail('the sample', { url: laterUrl }, failureOf(error));
  }
}

/** Fetches a whole sample. That works with any web server, even without range requests. */
async function fetchFile(url: string): Promise<FileInput> {
  const { href, pathname } = new URL(url, document.baseURI);
  const response = await fetch(href);
  if (!response.ok) throw new Error(`could not fetch the sample: ${response.status} ${response.statusText}`);
  return { files: [new File([await response.blob()], pathname.split('/').at(-1) ?? 'sample')] };
}
