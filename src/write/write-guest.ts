/**
 * Writes a guest as a stream in passes, while it runs (docs/formats/ram.md, "What is sent when"): first all pages;
 * then, repeatedly, the pages that the guest wrote in the meantime, until few are left; then, with the guest stopped,
 * the rest and the states of its devices. With XBZRLE, pages that are sent again go as deltas if possible, by QEMU's
 * policy (`xbzrle-cache.ts`).
 *
 * Pages are sent as fast as the output takes them. There is no communication with a destination.
 */

import { type Abortable, abortableSink } from '../io/abort.ts';
import type { ByteSink } from '../io/byte-source.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { Guest } from '../vm/guest.ts';
import { requireSameBlocks } from '../vm/ram-block.ts';
import { requireBlocks, requireVm } from '../wire/require-vm.ts';
import { Passes } from './passes.ts';
import { ramScanArenaBytes } from './ram-scan.ts';
import { StreamWriter, writerArenaBytes } from './stream-writer.ts';
import { XbzrleCache, type XbzrleCacheOptions, type XbzrleStatistics, xbzrleArenaBytes } from './xbzrle-cache.ts';

export interface WriteGuestOptions extends Abortable {
  /** Sends deltas; `true`: with QEMU's default cache of 64 MiB. Default false. */
  xbzrle?: boolean | Pick<XbzrleCacheOptions, 'cacheSize'>;
  /** The guest is stopped once at most this many bytes of pages are dirty. Default 0. */
  threshold?: number;
  /** The guest is stopped after at most this many passes, including the first. Default 30. */
  maxPasses?: number;
  /** A PART ends with the batch that brings it to this many bytes. Default: it ends with the pass. */
  partBytes?: number;
  /** Returns the time in ms, from any start. Without it the rates of XBZRLE stay 0. */
  now?: () => number;
  /** What the QEMU release that loads the stream expects. Default: by the machine type, and by `framing`. */
  rules?: ReleaseRules;
}

/** What was sent of a guest, with QEMU's statistics. */
export interface WrittenGuest {
  /** Bytes of the stream. */
  length: number;
  /** Bitmap syncs: one per pass, and one when the guest was stopped. */
  dirtySyncCount: number;
  /** Records of whole pages, and of zero pages. */
  normal: number;
  duplicate: number;
  xbzrle?: XbzrleStatistics;
}

/** The rates are those of a period, which ends with the first sync after more than this many ms. */
const periodLength = 1000;

/**
 * Writes a guest, in order.
 * @example
 * const { length, xbzrle } = await writeGuest(guest, appendTo(output), { xbzrle: { cacheSize: 1 << 20 } });
 *
 * @throws RangeError for a guest that no stream can contain (see `writeStream`), for overlapping RAM addresses, for
 *   options out of range, and for a cache that does not fit into 4 GiB. Errors of the guest end the writing and are
 *   passed on.
 */
export async function writeGuest(
  guest: Guest,
  output: ByteSink,
  options: WriteGuestOptions = {},
): Promise<WrittenGuest> {
  options.signal?.throwIfAborted();
  return sendGuest(guest, abortableSink(output, options.signal), options);
}

async function sendGuest(guest: Guest, output: ByteSink, options: WriteGuestOptions): Promise<WrittenGuest> {
  const { threshold = 0, maxPasses = 30, xbzrle = false, now, ...rest } = options;
  if (!(threshold >= 0)) throw new RangeError(`expected a threshold in bytes, got ${threshold}`);
  if (!(Number.isInteger(maxPasses) && maxPasses >= 1)) throw new RangeError(`expected passes, got ${maxPasses}`);
  requireVm(guest);
  requireGuestBlocks(guest);
  const cacheOptions = xbzrle === true ? {} : xbzrle || undefined;
  const cacheBytes = cacheOptions === undefined ? 0 : xbzrleArenaBytes(cacheOptions.cacheSize);
  const kernel = await loadKernelFor([writerArenaBytes, ramScanArenaBytes, cacheBytes]);
  const writer = new StreamWriter(kernel, output, guest.framing);
  const pageSize = guest.blocks[0]?.pageSize ?? 4096;
  const cache = cacheOptions === undefined ? undefined : new XbzrleCache(kernel, { ...cacheOptions, pageSize });
  const passes = new Passes(guest, writer, { ...rest, cache });
  const sync = syncInPeriods(passes, cache, now);
  await passes.begin();
  await sync();
  await passes.sendAll();
  await sync();
  while (passes.dirtyBytes > threshold && passes.syncs <= maxPasses) {
    await passes.sendDirty();
    await sync();
  }
  await guest.stop();
  await sync();
  await passes.finish();
  const { syncs, normal, duplicate } = passes;
  const counts = { length: writer.length, dirtySyncCount: syncs, normal, duplicate };
  return cache === undefined ? counts : { ...counts, xbzrle: cache.statistics };
}

/** Syncs the dirty bitmaps, and ends the cache's periods by the clock. */
function syncInPeriods(passes: Passes, cache: XbzrleCache | undefined, now: WriteGuestOptions['now']) {
  let period: { start: number; records: number } | undefined;
  return async (): Promise<void> => {
    await passes.sync();
    const time = now?.();
    if (time === undefined) return;
    period ??= { start: time, records: 0 };
    if (time <= period.start + periodLength) return;
    cache?.endPeriod(passes.records - period.records);
    period = { start: time, records: passes.records };
  };
}

/**
 * Requires that a guest's blocks are those of its RAM, and that their RAM addresses do not overlap. The page cache
 * relies on these addresses.
 * @throws RangeError
 */
function requireGuestBlocks({ blocks, ram }: Guest): void {
  requireSameBlocks(ram.blocks, blocks, 'a guest');
  requireBlocks(blocks);
  for (const { idstr, ramAddress, pageSize } of blocks) {
    if (Number.isSafeInteger(ramAddress) && ramAddress >= 0 && ramAddress % pageSize === 0) continue;
    const expected = `expected a RAM address of "${idstr}" that is a multiple of the page size`;
    throw new RangeError(`${expected}, ${pageSize}, got ${ramAddress}`);
  }
  const placed = blocks.filter(({ usedLength }) => usedLength > 0).sort((a, b) => a.ramAddress - b.ramAddress);
  for (const [i, { idstr, ramAddress, usedLength }] of placed.entries()) {
    const next = placed[i + 1];
    if (next === undefined || ramAddress + usedLength <= next.ramAddress) continue;
    throw new RangeError(`expected RAM addresses that do not overlap, got those of "${idstr}" and "${next.idstr}"`);
  }
}
