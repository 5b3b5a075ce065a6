/**
 * The preempt channel of postcopy (docs/formats/postcopy.md, "The preempt channel"): only page records, without a
 * header or sections. CONTINUE refers to the channel's own latest block. QEMU 7.2 ends the channel with an EOS record;
 * later versions just close it. So a capture that was cut between two records looks complete.
 */
import type { PageBatch } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type ByteWindow, has, type Need, need } from './byte-window.ts';
import { RamFlag, type RamState, recordError } from './ram-record.ts';
import { decodePages } from './ram-section.ts';

/** Decodes the channel to its end. `ram` is the state of the main channel, which has the blocks that the pages name. */
export function* decodePreemptChannel(
  window: ByteWindow,
  ram: RamState,
  batch: PageBatch,
): Generator<Need | FlowItem, void> {
  const channel: RamState = { ...ram, current: undefined, scan: { block: -1, page: -1 }, postcopy: true };
  yield* decodePages(window, channel, batch, 'bare');
  if (!(yield* has(window, 1))) return;
  yield* need(window, 8, 'a RAM record');
  const word = window.view.getBigUint64(window.position);
  if (word !== BigInt(RamFlag.eos)) {
    throw recordError(window, 'bad-ram-record', `expected a page record or EOS, got word 0x${word.toString(16)}`);
  }
  window.position += 8;
  if (!(yield* has(window, 1))) return;
  throw recordError(window, 'bad-ram-record', 'expected nothing after the EOS of a preempt channel');
}
