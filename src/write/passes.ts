/**
 * Writes a guest as a stream in passes, while it runs (docs/formats/ram.md, "What is sent when"): all pages; what was
 * written meanwhile, again and again, until that is little; and the rest with the guest stopped, before the states of its
 * devices. With XBZRLE what is sent again is sent as deltas where it can, by QEMU's policy (`xbzrle-cache.ts`).
 *
 * It sends as fast as the output takes it, and knows nothing of a destination.
 */
import type { ByteSink } from '../io/byte-source.ts';
import { loadKernel } from '../kernel/kernel.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { Guest, GuestBlock } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { CommandCode } from '../wire/command.ts';
import { requireBlocks, requireVm } from '../wire/require-vm.ts';
import { RamScan, ramScanArenaBytes, type ScannedBlock } from './ram-scan.ts';
import { StreamWriter, writerArenaBytes } from './stream-writer.ts';
import { defaultRules, endStream, startStream } from './write-stream.ts';
import { XbzrleCache, type XbzrleCacheOptions, type XbzrleStatistics, xbzrleArenaBytes } from './xbzrle-cache.ts';

export interface WriteGuestOptions {
  /** Sends deltas; `true`: with QEMU's default cache of 64 MiB. Default false. */
  xbzrle?: boolean | Pick<XbzrleCacheOptions, 'cacheSize'>;
  /** The guest is stopped when no more than so many bytes of pages are dirty. Default 0. */
  threshold?: number;
  /** It is stopped at the latest after so many passes, the first among them. Default 30. */
  maxPasses?: number;
  /** A PART ends with the batch of pages by which it has so many bytes; by default, with the pass. */
  partBytes?: number;
  /** Time in ms, from any beginning. Without it the rates of XBZRLE stay 0. */
  now?: () => number;
  /** What the version of QEMU that is to load it expects. Default: by the machine type, and by `framing`. */
  rules?: ReleaseRules;
}

export interface WrittenGuest {
  /** Bytes of the stream. */
  length: number;
  /** Bitmap syncs: one for each pass, and one when the guest was stopped. */
  dirtySyncCount: number;
  /** Records of whole pages, and of zero pages. */
  normal: number;
  duplicate: number;
  xbzrle?: XbzrleStatistics;
}

/** Rates are those of a period, which ends with the first sync after more than so many ms. */
const periodLength = 1000;

/**
 * Writes a guest, in order.
 * @example
 * const { length, xbzrle } = await writeGuest(guest, appendTo(output), { xbzrle: { cacheSize: 1 << 20 } });
 *
 * @throws RangeError for a guest that no stream can hold (see `writeStream`), RAM addresses that overlap, options that there
 *   cannot be, and a cache that does not fit into 4 GiB. What the guest throws comes through, and ends the writing.
 */
export async function writeGuest(
  guest: Guest,
  output: ByteSink,
  options: WriteGuestOptions = {},
): Promise<WrittenGuest> {
  const { threshold = 0, maxPasses = 30, rules } = options;
  if (!(threshold >= 0)) throw new RangeError(`expected a threshold in bytes, got ${threshold}`);
  if (!(Number.isInteger(maxPasses) && maxPasses >= 1)) throw new RangeError(`expected passes, got ${maxPasses}`);
  const { configuration, ram } = guest;
  const vm = { ram, configuration, ...(guest.framing === undefined ? {} : { framing: guest.framing }) };
  requireVm(vm);
  requireGuestBlocks(guest);
  const passes = await Passes.make(guest, output, options);
  const { writer } = passes;
  const hasRam = await startStream(writer, writer, vm);
  await passes.sync();
  passes.dirtyAll();
  do {
    await passes.sendDirty();
    await writer.endPart();
    await passes.sync();
  } while (passes.dirtyBytes > threshold && passes.syncs <= maxPasses);
  await guest.stop();
  await passes.sync();
  if ((rules ?? defaultRules(vm)).switchoverStart) await writer.command(CommandCode.switchoverStart);
  if (hasRam) {
    await writer.beginEnd();
    await passes.sendDirty(true);
    await writer.endRam();
  }
  await endStream(writer, await guest.saveDevices());
  const { syncs, normal, duplicate, xbzrle } = passes;
  const counts = { length: writer.length, dirtySyncCount: syncs, normal, duplicate };
  return xbzrle === undefined ? counts : { ...counts, xbzrle };
}

/**
 * Requires the blocks of a guest to be those of its RAM, each at a place of its own: the page cache goes by places.
 * @throws RangeError
 */
function requireGuestBlocks({ blocks, ram }: Guest): void {
  const list = (of: readonly RamBlock[]) =>
    of.map(({ idstr, usedLength }) => `"${idstr}" of ${usedLength} bytes`).join(', ');
  if (list(blocks) !== list(ram.blocks)) {
    throw new RangeError(`expected the blocks of the guest's RAM (${list(ram.blocks)}), got ${list(blocks)}`);
  }
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

/** Which pages are to be sent, and how they are sent. */
class Passes {
  readonly writer: StreamWriter;
  syncs = 0;
  normal = 0;
  duplicate = 0;
  readonly #guest: Guest;
  readonly #replay: RamScan;
  readonly #cache: XbzrleCache | undefined;
  readonly #dirty: readonly PageBitmap[];
  readonly #partBytes: number;
  readonly #now: (() => number) | undefined;
  #isFirstRound = true;
  /** Pages sent in all, and when and with how many the latest period began. */
  #sent = 0;
  #period: { start: number; sent: number } | undefined;

  static async make(guest: Guest, output: ByteSink, options: WriteGuestOptions): Promise<Passes> {
    const { xbzrle = false } = options;
    const cacheOptions = xbzrle === true ? {} : xbzrle || undefined;
    const cacheBytes = cacheOptions === undefined ? 0 : xbzrleArenaBytes(cacheOptions.cacheSize);
    const kernel = await loadKernel({ arenaBytes: (64 << 10) + writerArenaBytes + ramScanArenaBytes + cacheBytes });
    const writer = new StreamWriter(kernel, output, guest.framing);
    const pageSize = guest.blocks[0]?.pageSize ?? 4096;
    const cache = cacheOptions === undefined ? undefined : new XbzrleCache(kernel, { ...cacheOptions, pageSize });
    return new Passes(guest, writer, new RamScan(kernel), cache, options);
  }

  constructor(
    guest: Guest,
    writer: StreamWriter,
    replay: RamScan,
    cache: XbzrleCache | undefined,
    { partBytes = Number.POSITIVE_INFINITY, now }: WriteGuestOptions,
  ) {
    if (!(partBytes > 0)) throw new RangeError(`expected bytes of a PART, got ${partBytes}`);
    this.#guest = guest;
    this.writer = writer;
    this.#replay = replay;
    this.#cache = cache;
    this.#partBytes = partBytes;
    this.#now = now;
    this.#dirty = guest.blocks.map((block) => new PageBitmap(block));
  }

  /** Bytes of the pages that are to be sent. */
  get dirtyBytes(): number {
    return this.#sentBlocks.reduce((sum, { index, pageSize }) => sum + this.#bitmap(index).count * pageSize, 0);
  }

  get xbzrle(): XbzrleStatistics | undefined {
    return this.#cache?.statistics;
  }

  /** Every page of the blocks that are sent. */
  dirtyAll(): void {
    for (const { index } of this.#sentBlocks) this.#bitmap(index).fill();
  }

  /** Takes in what the guest has written. */
  async sync(): Promise<void> {
    this.syncs++;
    await this.#guest.syncDirty(this.#dirty);
    const now = this.#now?.();
    if (now === undefined) return;
    this.#period ??= { start: now, sent: 0 };
    if (now <= this.#period.start + periodLength) return;
    this.#cache?.endPeriod(this.#sent - this.#period.sent);
    this.#period = { start: now, sent: this.#sent };
  }

  /** Sends all that is dirty, once, block by block. */
  async sendDirty(isLastStage = false): Promise<void> {
    const { writer } = this;
    let start = writer.length;
    for (const block of this.#sentBlocks) {
      const counts: ScannedBlock = { block, dataPages: 0, zeroPages: 0, absentPages: 0, records: 0 };
      const most = Math.max(1, Math.floor(this.#partBytes / block.pageSize));
      for await (const batch of this.#replay.pages(this.#guest.ram, counts, this.#bitmap(block.index), most)) {
        for (const records of this.#encode(block, batch, isLastStage)) {
          await writer.pages(block, records);
          this.#count(records);
        }
        if (isLastStage || writer.length - start < this.#partBytes) continue;
        await writer.endPart();
        start = writer.length;
      }
    }
    this.#isFirstRound = false;
  }

  #encode(block: GuestBlock, batch: PageBatch, isLastStage: boolean): Iterable<PageBatch> {
    if (this.#cache === undefined || this.#isFirstRound) return [batch];
    return this.#cache.encode(block, batch, {
      ...{ generation: this.syncs, isLastStage },
      isNamed: this.writer.names(block),
    });
  }

  #count({ count, kind }: PageBatch): void {
    this.#sent += count;
    for (let i = 0; i < count; i++) {
      if (kind[i] === PageKind.data) this.normal++;
      else if (kind[i] === PageKind.zero) this.duplicate++;
    }
  }

  #bitmap(index: number): PageBitmap {
    return this.#dirty[index] as PageBitmap;
  }

  get #sentBlocks(): readonly GuestBlock[] {
    const { blocks, ignored = [] } = this.#guest;
    return blocks.filter(({ index }) => !ignored.some((each) => each.index === index));
  }
}
