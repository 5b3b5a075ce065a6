/**
 * A guest that is kept while it passes by, in a mapped-ram file.
 *
 *     items of a Flow ──→ Settler ──→ MappedRamStore ──→ content by address, and at the end a whole file
 */
import { type ByteSource, type ByteStore, placeIn } from '../io/byte-source.ts';
import { PageSlots, pageSlotsArenaBytes } from '../kernel/page-slots.ts';
import { flowBatchCapacity } from '../read/flow-reader.ts';
import type { LiveFlow } from '../read/live-flow.ts';
import { MappedRamStore } from '../store/mapped-ram-store.ts';
import { bitmapBytes, type PageBits } from '../store/page-bits.ts';
import { encodeRecoveryRecord, pageBitsIn, type RecoveryRecord } from '../store/recovery-record.ts';
import { type Settled, Settler } from '../store/settle.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { markIncomplete } from '../wire/vm-description.ts';
import { defaultRules } from '../write/passes.ts';
import { encodeOpening } from './recovery-opening.ts';

/** Bytes of arena that a {@link GuestFile} takes. */
export const guestFileArenaBytes = pageSlotsArenaBytes(flowBatchCapacity);

/** Reserved for the devices and what a recovery needs besides the bitmaps, in bytes. */
const reservedBytes = 2 << 20;

/** How a guest is kept. */
export interface GuestFileOptions {
  /** Blocks that the source left out are accepted. Default false. */
  partial?: boolean;
  /** The file has come so far in postcopy. Its source says again what stands in this record. */
  record?: RecoveryRecord | undefined;
}

export class GuestFile {
  readonly store: MappedRamStore;
  readonly #file: ByteStore;
  readonly #settler: Settler;
  readonly #flow: LiveFlow;
  readonly #record: RecoveryRecord | undefined;
  /** Offset behind what is kept in the file. Undefined: nothing is. */
  #keptEnd: number | undefined;
  /** Something has come that is not kept. */
  #hasNews = false;
  #isComplete = false;

  /** Allocates page slots in `kernel`, which has the pages of `flow`. `source` is the main connection, for places. */
  constructor(file: ByteStore, flow: LiveFlow, source: ByteSource, { partial = false, record }: GuestFileOptions = {}) {
    this.#file = file;
    this.#flow = flow;
    this.#record = record;
    this.#keptEnd = record?.end;
    const isLaidOut = record !== undefined;
    this.store = new MappedRamStore(file, new PageSlots(flow.kernel, flowBatchCapacity), { isLaidOut });
    const input = {
      source,
      offset: 0,
      get channels() {
        return flow.channels;
      },
    };
    this.#settler = new Settler(input, this.store, { devices: true, partial });
  }

  /** @throws MigrationError for what cannot be kept; whatever the file throws */
  take(item: FlowItem): Promise<void> | void {
    if (item.kind === 'pages' || item.kind === 'dirty-bitmap') this.#hasNews = true;
    const taken = this.#settler.take(item);
    if (item.kind === 'blocks-end' && this.#record !== undefined) this.#restore(this.#record);
    return taken;
  }

  /** Takes over which pages are in the file. */
  #restore(record: RecoveryRecord): void {
    const { blocks } = this.store;
    const bits = pageBitsIn(record, blocks);
    if (bits === undefined) {
      const place = placeIn(this.#file, record.end);
      throw new MigrationError('mismatched-source', 'the record of what has come is about other RAM blocks', place);
    }
    for (const [i, block] of blocks.entries()) {
      const pages = bits[i] as PageBits;
      this.store.restore(block, pages);
      const { dataPages, zeroPages } = this.store.countPages(block);
      if (dataPages + zeroPages > 0) this.#settler.take({ kind: 'bitmap', block, firstPage: 0, bits: pages.data });
    }
  }

  /** Takes the space that a break in postcopy needs: a disk that is full then must not cost the pages that came. */
  reserve(): Promise<void> {
    const bitmaps = this.store.blocks.reduce((sum, block) => sum + 3 * bitmapBytes(block), 0);
    return this.store.reserve(reservedBytes + bitmaps);
  }

  /** Everything was taken. @throws MigrationError for evidence that memory is missing */
  settle(): Settled {
    return this.#settler.finish();
  }

  /** Completes the file. `description` replaces that of the stream. @throws whatever the file throws */
  async complete(settled: Settled, description = settled.description): Promise<void> {
    // What marks the file as incomplete goes only when all that makes it complete is there for good.
    if (this.#keptEnd !== undefined) await this.#file.sync();
    await this.store.finish(settled.devices, description, {
      framing: this.#framing,
      iterables: this.#flow.iterables,
    });
    this.#isComplete = true;
  }

  get #framing() {
    const { configuration, framing } = this.#settler.soFar;
    return { footers: framing.footers, switchoverStart: defaultRules({ configuration, framing }).switchoverStart };
  }

  /**
   * Makes durable what has come in postcopy, with all that is needed to go on later. `why` marks the file, and `advice` is
   * that of the source. @throws whatever the file throws
   */
  async keep(why: string, advice: Uint8Array): Promise<void> {
    if (this.#isComplete || (!this.#hasNews && this.#keptEnd !== undefined)) return;
    const end = await this.#writeCut(why);
    await this.#file.sync();
    const { configuration, devices, blocks, framing } = this.#settler.soFar;
    const opening = encodeOpening({
      ...{ configuration, devices, blocks, framing, advice },
      iterables: this.#flow.iterables,
    });
    const bits = this.store.blocks.map((block) => this.store.pageBits(block));
    // Only behind the last one: until this one is whole, that one counts.
    const record = encodeRecoveryRecord({ opening, bits }, end);
    await this.#file.write(record, end);
    await this.#file.truncate(end + record.length);
    await this.#file.sync();
    this.#keptEnd = end + record.length;
    this.#hasNews = false;
  }

  /** Makes a file that lacks what did not come, and cannot go on. `why` marks it. @throws whatever the file throws */
  async keepCut(why: string): Promise<void> {
    if (this.#isComplete || this.#keptEnd !== undefined) return;
    await this.#file.truncate(await this.#writeCut(why));
  }

  /** Writes what a reader needs who takes the file as it is. Returns the offset behind everything. */
  async #writeCut(why: string): Promise<number> {
    if (this.#keptEnd !== undefined) {
      await this.store.writeBitmaps();
      return this.#keptEnd;
    }
    const { devices } = this.#settler.soFar;
    const description = markIncomplete(undefined, why);
    // The source still has the state of the devices, but perhaps not all pages.
    const checkpoint = this.store.checkpoint(devices, description, this.#framing);
    return checkpoint.catch(() => this.store.checkpoint([], description, this.#framing));
  }
}
