/**
 * Reads the return path of a live migration, message by message, as soon as they come (docs/formats/postcopy.md, "The
 * return path"). It has a window of its own, because messages are short and rare.
 */
import type { ByteSource } from '../io/byte-source.ts';
import { PeerError } from '../io/connection.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { ByteWindow, type Need } from '../wire/byte-window.ts';
import { decodeReturnPath, type ReturnMessage } from '../wire/return-path.ts';

/** More than the longest message that is decoded at once. */
const windowBytes = 4096;

/**
 * Ends when the peer ends its direction. `keepsBits`: bitmaps come with their bits.
 * @throws PeerError for a line that broke, and for anything but a message
 */
export async function* readReturnPath(line: ByteSource, keepsBits = false): AsyncGenerator<ReturnMessage, void> {
  const window = new ByteWindow(new Uint8Array(windowBytes), line.name);
  const decoder = decodeReturnPath(window, keepsBits);
  try {
    for (let step = decoder.next(); step.done !== true; step = decoder.next()) {
      if ('kind' in step.value) await fill(window, line, step.value);
      else yield step.value;
    }
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    throw new PeerError(`return path: ${error.detail}`, { cause: error });
  }
}

/** Makes the bytes available that the decoder needs, or sets `ended`. */
async function fill(window: ByteWindow, line: ByteSource, need: Need): Promise<void> {
  const { bytes } = window;
  const wanted = need.kind === 'more' ? need.bytes : 1;
  bytes.copyWithin(0, window.position, window.limit);
  window.base += window.position;
  window.limit -= window.position;
  window.position = 0;
  while (window.limit < wanted && !window.ended) {
    const count = await line.read(bytes.subarray(window.limit), window.base + window.limit);
    window.limit += count;
    window.ended = count === 0;
  }
}
