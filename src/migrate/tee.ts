/**
 * Keeps a guest that passes by in a mapped-ram file, as of the moment when the target has it.
 *
 *     source ══ ring ═════════════════→ target
 *                 ║
 *                 ╚══ tap ──→ LiveFlow ──→ Settler ──→ MappedRamStore
 *
 * Bytes are passed on at the pace of the slower one of the target and the file. A file that cannot be written does not end
 * the migration: from then on nobody reads the taps.
 */
import type { ByteStore } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { Tap } from '../io/tap.ts';
import { loadKernelFor } from '../kernel/kernel.ts';
import { PageSlots, pageSlotsArenaBytes } from '../kernel/page-slots.ts';
import { flowBatchCapacity } from '../read/flow-reader.ts';
import { LiveFlow, liveFlowArenaBytes } from '../read/live-flow.ts';
import { MappedRamStore } from '../store/mapped-ram-store.ts';
import { Settler } from '../store/settle.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { defaultRules } from '../write/passes.ts';

/** Where the guest is kept. */
export interface TeeTarget {
  /** An empty file. */
  file: ByteStore;
  /** Makes the whole file durable and visible. */
  commit(): Promise<void>;
}

export interface TeeOptions {
  codecs: PageCodecs;
  /** Resolves when all channels that the source has opened so far were added. */
  channelsKnown: () => Promise<void>;
}

export class Tee {
  readonly #target: TeeTarget;
  readonly #flow: LiveFlow;
  readonly #store: MappedRamStore;
  readonly #taps: Tap[] = [];
  #reading: Promise<void> = Promise.resolve();
  #settler: Settler | undefined;
  #failure: { error: unknown } | undefined;

  private constructor(target: TeeTarget, flow: LiveFlow) {
    this.#target = target;
    this.#flow = flow;
    this.#store = new MappedRamStore(target.file, new PageSlots(flow.kernel, flowBatchCapacity));
  }

  static async open(target: TeeTarget, { codecs, channelsKnown }: TeeOptions): Promise<Tee> {
    const kernel = await loadKernelFor([liveFlowArenaBytes(), pageSlotsArenaBytes(flowBatchCapacity)]);
    return new Tee(target, new LiveFlow(kernel, { codecs, channelsKnown, drainsPreempt: true }));
  }

  /** Why there is no file. */
  get failure(): { error: unknown } | undefined {
    return this.#failure;
  }

  /** Adds a connection of the source, first the main one. Its bytes are to be written to the result. */
  add(role: 'main' | 'preempt' | number): Tap {
    const tap = new Tap(typeof role === 'number' ? `channel ${role}` : role);
    this.#taps.push(tap);
    if (role === 'main') this.#reading = this.#read(tap).catch((error: unknown) => this.fail(error));
    try {
      if (role === 'preempt') this.#flow.addPreempt(tap);
      else if (role !== 'main') this.#flow.addChannel(tap);
    } catch (error) {
      this.fail(error);
    }
    if (this.#failure !== undefined) void tap.close();
    return tap;
  }

  /** The stream is one that cannot be kept. */
  refuse(why: string): void {
    this.fail(new MigrationError('unsupported', why, { source: 'main', coordinate: 'file', offset: 0 }));
  }

  /** There will be no file. */
  fail(error: unknown): void {
    // The stream is good for the target, so it is not what failed.
    const cause =
      error instanceof MigrationError ? Object.assign(new Error(error.message), { code: error.code }) : error;
    this.#failure ??= { error: cause };
    for (const tap of this.#taps) void tap.close();
  }

  /** Ends the work of a migration that has not come to its end. The caller removes the file. */
  abandon(): void {
    for (const tap of this.#taps) void tap.close();
    this.#flow.close();
  }

  /** Completes the file, now that the target has the guest. Never throws: see {@link failure}. */
  async finish(): Promise<void> {
    for (const tap of this.#taps) tap.end();
    await this.#reading;
    try {
      if (this.#failure === undefined) await this.#write();
    } catch (error) {
      this.fail(error);
    }
  }

  async #read(main: Tap): Promise<void> {
    const flow = this.#flow;
    const input = {
      source: main,
      offset: 0,
      get channels() {
        return flow.channels;
      },
    };
    const settler = new Settler(input, this.#store, { devices: true });
    this.#settler = settler;
    for await (const item of flow.read(main)) {
      const taken = settler.take(item);
      if (taken !== undefined) await taken;
    }
  }

  async #write(): Promise<void> {
    const settled = (this.#settler as Settler).finish();
    const { switchoverStart } = defaultRules(settled);
    await this.#store.finish(settled.devices, settled.description, {
      framing: { footers: settled.framing.footers, switchoverStart },
      iterables: this.#flow.iterables,
    });
    await this.#target.commit();
  }
}
