/**
 * A guest that is kept while it passes by, in a mapped-ram file.
 *
 *     items of a Flow ──→ Settler ──→ MappedRamStore ──→ content by address, and at the end a whole file
 */
import type { ByteSource, ByteStore } from '../io/byte-source.ts';
import { PageSlots, pageSlotsArenaBytes } from '../kernel/page-slots.ts';
import { flowBatchCapacity } from '../read/flow-reader.ts';
import type { LiveFlow } from '../read/live-flow.ts';
import { MappedRamStore } from '../store/mapped-ram-store.ts';
import { type Settled, Settler } from '../store/settle.ts';
import type { FlowItem } from '../vm/flow.ts';
import { markIncomplete } from '../wire/vm-description.ts';
import { defaultRules } from '../write/passes.ts';

/** Bytes of arena that a {@link GuestFile} takes. */
export const guestFileArenaBytes = pageSlotsArenaBytes(flowBatchCapacity);

/** How a guest is kept. */
export interface GuestFileOptions {
  /** Blocks that the source left out are accepted. Default false. */
  partial?: boolean;
}

export class GuestFile {
  readonly store: MappedRamStore;
  readonly #settler: Settler;
  readonly #flow: LiveFlow;

  /** Allocates page slots in `kernel`, which has the pages of `flow`. `source` is the main connection, for places. */
  constructor(file: ByteStore, flow: LiveFlow, source: ByteSource, { partial = false }: GuestFileOptions = {}) {
    this.#flow = flow;
    this.store = new MappedRamStore(file, new PageSlots(flow.kernel, flowBatchCapacity));
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
    return this.#settler.take(item);
  }

  /** Everything was taken. @throws MigrationError for evidence that memory is missing */
  settle(): Settled {
    return this.#settler.finish();
  }

  /** Completes the file. `description` replaces that of the stream. @throws whatever the file throws */
  async complete(settled: Settled, description = settled.description): Promise<void> {
    const { switchoverStart } = defaultRules(settled);
    await this.store.finish(settled.devices, description, {
      framing: { footers: settled.framing.footers, switchoverStart },
      iterables: this.#flow.iterables,
    });
  }

  /** Completes a file that lacks what did not come. `why` marks it. @throws whatever the file throws */
  async completeCut(why: string): Promise<void> {
    const { devices } = this.#settler.soFar;
    const description = markIncomplete(undefined, why);
    // The source still has the state of the devices, but perhaps not all pages.
    await this.store.finish(devices, description).catch(() => this.store.finish([], description));
  }
}
