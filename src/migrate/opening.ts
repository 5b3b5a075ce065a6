/**
 * Tells a connection by its first bytes. Nothing else announces it.
 *
 *     QEVM          stream      the main connection of a migration
 *     08000a        recovery    the main connection of a recovery of postcopy, which begins with RECV_BITMAP
 *     11223344      channel     a multifd channel, with its number in byte 24
 *     0000          page        a preempt channel: the offset of a page comes first
 *     other         other       a stranger
 */
import { multifdMagic, numberOfHello } from '../wire/multifd-packet.ts';
import { SectionType } from '../wire/section-type.ts';
import { recoveryStart, streamMagic } from '../wire/stream.ts';

/** What a connection begins with. */
export type Opening = 'stream' | 'recovery' | 'channel' | 'page' | 'other';

/** Bytes that are enough to tell a connection, with the number of a channel. */
export const openingBytes = 25;

/** The upper half of the offset of a page is below this: blocks are smaller than 2^48 bytes. */
const maxUpperHalf = 1 << 16;

/** Undefined: there are too few bytes so far. */
export function openingOf(head: Uint8Array): Opening | undefined {
  if (head[0] === SectionType.command) {
    // The first byte decides what a break means. The next ones tell a stranger.
    const isOther = head.length > 2 && ((head[1] as number) << 8) + (head[2] as number) !== (recoveryStart & 0xffff);
    return isOther ? 'other' : 'recovery';
  }
  if (head.length < 4) return undefined;
  const magic = new DataView(head.buffer, head.byteOffset).getUint32(0);
  if (magic === streamMagic) return 'stream';
  if (magic !== multifdMagic) return magic < maxUpperHalf ? 'page' : 'other';
  return numberOfHello(head) === undefined ? undefined : 'channel';
}
