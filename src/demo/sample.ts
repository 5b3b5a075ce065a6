/** The files that come with the page: a PC that was migrated with XBZRLE, and the same PC a little earlier. */

import earlier from '../../test/fixtures/pc-plain-10.0.bin?url';
import later from '../../test/fixtures/pc-xbzrle-10.0.bin?url';
import type { FileInput } from './protocol.ts';
import { openInput } from './session.ts';

export async function openSample(): Promise<void> {
  await openInput({ url: new URL(later, document.baseURI).href }, earlierSample);
}

async function earlierSample(): Promise<FileInput> {
  return { url: new URL(earlier, document.baseURI).href };
}
