/**
 * Keeps a guest that a relay passes on, as of the moment when the target has it.
 *
 *     source ══ ring ═════════════════→ target
 *                 ║
 *                 ╚══ tap ──→ LiveFlow ──→ GuestFile
 *
 * Bytes are passed on at the pace of the slower one of the target and the file. A file that cannot be written does not end
 * the migration: from then on nobody reads the taps.
 */
import type { ByteStore } from '../io/byte-source.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import { Tap } from '../io/tap.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { LiveFlow, liveFlowArenaBytes } from '../read/live-flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { GuestFile, guestFileArenaBytes } from './guest-file.ts';

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
  readonly #taps: Tap[] = [];
  #reading: Promise<void> = Promise.resolve();
  #guest: GuestFile | undefined;
  #failure: { error: unknown } | undefined;

  private constructor(target: TeeTarget, flow: LiveFlow) {
    this.#target = target;
    this.#flow = flow;
  }

  static async open(target: TeeTarget, { codecs, channelsKnown }: TeeOptions): Promise<Tee> {
    const kernel = await loadKernelFor([liveFlowArenaBytes(), guestFileArenaBytes]);
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
    this.#failure ??= { error: fileFailure(error) };
    for (const tap of this.#taps) void tap.close();
  }

  /** Ends the work. The caller removes a file that was not committed. */
  close(): void {
    for (const tap of this.#taps) void tap.close();
    this.#flow.close();
  }

  /** Completes the file, now that the target has the guest. Never throws: see {@link failure}. */
  async finish(): Promise<void> {
    for (const tap of this.#taps) tap.end();
    await this.#reading;
    if (this.#failure !== undefined) return;
    try {
      if (this.#guest !== undefined) await this.#guest.complete(this.#guest.settle());
      await this.#target.commit();
    } catch (error) {
      this.fail(error);
    }
  }

  async #read(main: Tap): Promise<void> {
    const guest = new GuestFile(this.#target.file, this.#flow, main);
    this.#guest = guest;
    for await (const item of this.#flow.read(main)) {
      const taken = guest.take(item);
      if (taken !== undefined) await taken;
    }
  }
}

/** The error of a file that is not written, while the migration goes on: the stream is good for the target. */
export const fileFailure = (error: unknown): unknown =>
  error instanceof MigrationError ? Object.assign(new Error(error.message), { code: error.code }) : error;
