/**
 * A background snapshot: a guest is sent as it was at one moment, while it runs on.
 *
 *     source                                                        destination
 *       header, configuration, START of RAM ───────────────────────→
 *       the guest is stopped: RAM is frozen, the devices are saved
 *       the guest runs on ╌╌╌ what it overwrites is kept
 *       one PART: every page as it was ────────────────────────────→   no limit of bandwidth, no sync, no END of RAM
 *       devices as they were, EOF, description ────────────────────→
 *
 * Into a mapped-ram file go its bitmaps, too. (Those that QEMU 10.0 writes lack them, and load as a guest without content.)
 * There is no return path. The guest stays at the source, whatever becomes of the stream.
 */
import type { Clock } from '../io/clock.ts';
import type { Guest } from '../vm/guest.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { SavedDevices } from '../vm/saved-vm.ts';
import type { Passes, VmWriter } from '../write/passes.ts';
import type { MigrationProgress } from './progress.ts';

/** How a guest that runs on is sent. `GuestRam.freeze` of a `SyntheticGuest` freezes its RAM. */
export interface SendBackground {
  /** Freezes RAM. The guest is stopped. The result is read once, page by page, and closed. */
  freeze: () => RamReader;
  /** Lets the guest run on, if it ran before. */
  cont: () => void;
  /** The member `expected-downtime` until it is known. In ms; default 300, as in QEMU. */
  downtimeLimit?: number;
  /** Called once, with a function that returns the present state. */
  onStart?: ((look: () => MigrationProgress) => void) | undefined;
}

const defaultDowntimeLimit = 300;

/** One snapshot of a guest. */
export class BackgroundSnapshot {
  /** The guest for {@link Passes}: its devices are those of the moment. */
  readonly guest: Guest;
  readonly #source: Guest;
  readonly #background: SendBackground;
  readonly #clock: Clock;
  #devices: SavedDevices = { devices: [] };
  #downtime: number | undefined;

  constructor(guest: Guest, background: SendBackground, clock: Clock) {
    this.#source = guest;
    this.#background = background;
    this.#clock = clock;
    this.guest = {
      ...{ configuration: guest.configuration, blocks: guest.blocks, ram: guest.ram },
      ...(guest.ignored === undefined ? {} : { ignored: guest.ignored }),
      ...(guest.framing === undefined ? {} : { framing: guest.framing }),
      syncDirty() {},
      stop() {},
      saveDevices: () => this.#devices,
    };
  }

  /** Members of `query-migrate`, besides `ram`. In ms. */
  get members(): Pick<MigrationProgress, 'downtime' | 'expected-downtime'> {
    const { downtimeLimit = defaultDowntimeLimit } = this.#background;
    return this.#downtime === undefined ? { 'expected-downtime': downtimeLimit } : { downtime: this.#downtime };
  }

  /** Stops the guest for a moment, and sends it as it is then. */
  async send(passes: Passes, writer: Pick<VmWriter, 'omitRamEnd'>): Promise<void> {
    const frozen = await this.#freeze();
    try {
      await passes.sendAll(frozen);
    } finally {
      await frozen.close();
    }
    await writer.omitRamEnd();
    await passes.finishDevices();
  }

  async #freeze(): Promise<RamReader> {
    const start = this.#clock.now();
    try {
      await this.#source.stop();
      this.#devices = await this.#source.saveDevices();
      return this.#background.freeze();
    } finally {
      this.#background.cont();
      this.#downtime = Math.round(this.#clock.now() - start);
    }
  }
}
