/**
 * A guest without processors: RAM, and a workload that writes to it at a given rate.
 *
 *     running ──stop──→ stopped        time passes only while it runs; throttling makes it pass more slowly
 *        ↑───────cont──────┘
 *
 * No timer drives it. Whenever somebody looks, it does what it would have done since it was last looked at. So a guest that
 * nobody looks at costs nothing, and a guest with an injected clock does the same every time.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { MemoryFile } from '../io/memory-file.ts';
import type { Configuration } from '../vm/flow.ts';
import type { DirtyTracking, Guest, GuestBlock } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { Framing, RawSection, SavedDevices } from '../vm/saved-vm.ts';
import type { FreezeOptions } from './frozen-ram.ts';
import { GuestCheckpoints } from './guest-checkpoints.ts';
import type { GuestRam } from './guest-ram.ts';
import { Workload, type WorkloadOptions } from './workload.ts';

/** What a synthetic guest is made of. */
export interface SyntheticGuestOptions {
  ram: GuestRam;
  /** Default: it writes nothing. */
  workload?: WorkloadOptions | undefined;
  /** Default: machine `none`. `absent`: it sends none, as machine types before 2.4. */
  configuration?: Configuration | 'absent' | undefined;
  /** What its devices save, with their description. Default: it has no devices. */
  devices?: SavedDevices | undefined;
  /** Blocks that are listed but not sent (x-ignore-shared). The workload leaves them alone. Default: none. */
  ignored?: readonly RamBlock[] | undefined;
  /** How its stream is put together. Default: that of a {@link Guest}. */
  framing?: Framing | undefined;
  /** Sections of iterables other than RAM, which came with the VM and are sent on. Default: none. */
  iterables?: readonly RawSection[] | undefined;
  /** Releases what its RAM comes from, when it is closed. */
  release?: (() => Promise<void>) | undefined;
  /** Where old pages are kept while its RAM is frozen, and those of checkpoints. Default: in memory. */
  frozen?: FreezeOptions | undefined;
  /** Whether it is stopped when it is made. Default false. */
  isPaused?: boolean;
  clock?: Clock | undefined;
}

export class SyntheticGuest implements Guest {
  readonly configuration: Configuration | undefined;
  readonly ram: GuestRam;
  readonly ignored?: readonly RamBlock[];
  readonly framing?: Framing;
  readonly iterables: readonly RawSection[];
  readonly #release: SyntheticGuestOptions['release'];
  #devices: SavedDevices;
  readonly #clock: Clock;
  readonly #frozen: FreezeOptions | undefined;
  /** What the primary side of COLO sends. */
  #cache: GuestRam | undefined;
  readonly #workload: Workload | undefined;
  /** Bitmaps of everyone who tracks, by block. */
  readonly #tracked = new Set<readonly PageBitmap[]>();
  /** The tracking of the migration. */
  readonly #migration: DirtyTracking;
  /** Until when the guest has run; undefined while it is stopped. */
  #ranUntil: number | undefined;
  /** Its work is done in order, one look after another. */
  #work: Promise<void> = Promise.resolve();
  #throttle = 0;
  /** Bytes per second that a vCPU may write, where it is limited. */
  readonly #limits = new Map<number, number>();

  /** @throws RangeError for a workload that does not fit */
  constructor(options: SyntheticGuestOptions) {
    const { ram, workload, clock = systemClock, devices, ignored, framing, isPaused = false } = options;
    const { configuration = { machine: 'none', capabilities: [] } } = options;
    this.ram = ram;
    this.configuration = configuration === 'absent' ? undefined : configuration;
    this.iterables = options.iterables ?? [];
    this.#release = options.release;
    if (ignored !== undefined) this.ignored = ignored;
    if (framing !== undefined) this.framing = framing;
    this.#devices = devices ?? { devices: [] };
    this.#clock = clock;
    this.#frozen = options.frozen;
    this.#workload = workload === undefined ? undefined : new Workload(ram, workload, ignored);
    this.#ranUntil = isPaused ? undefined : clock.now();
    this.#migration = this.trackDirty();
  }

  get blocks(): readonly GuestBlock[] {
    return this.ram.blocks;
  }

  /** Whether time passes for it. */
  get isRunning(): boolean {
    return this.#ranUntil !== undefined;
  }

  /** What it does. */
  get workload(): Readonly<Required<WorkloadOptions>> | undefined {
    return this.#workload?.options;
  }

  /** Pages that the workload has written, as of the last look. */
  get pagesWritten(): number {
    return this.vcpuPagesWritten.reduce((sum, pages) => sum + pages, 0);
  }

  /** The same for each vCPU, as a dirty ring would count them. Empty without a workload. */
  get vcpuPagesWritten(): number[] {
    return this.#workload?.pagesWritten ?? [];
  }

  /** Does what the guest would have done by now. */
  look(): Promise<void> {
    const now = this.#clock.now();
    const ranUntil = this.#ranUntil;
    if (ranUntil === undefined) return this.#work;
    this.#ranUntil = now;
    const speeds = new Map(this.#limits);
    const throttle = this.#throttle;
    this.#work = this.#work.then(() => this.#run(now - ranUntil, throttle, speeds));
    return this.#work;
  }

  async #run(ms: number, throttle: number, limits: ReadonlyMap<number, number>): Promise<void> {
    const workload = this.#workload;
    if (workload === undefined) return;
    const { rate, vcpus } = workload.options;
    const speed = (vcpu: number) => {
      const limit = limits.get(vcpu);
      const share = limit === undefined || rate === 0 ? 1 : Math.min(1, limit / (rate / vcpus));
      return share * (1 - throttle / 100);
    };
    await workload.run(ms, speed, ({ index }, first, end) => {
      for (const bitmaps of this.#tracked) {
        for (let page = first; page < end; page++) bitmaps[index]?.set(page);
      }
    });
  }

  /** Stops it. When the promise resolves, RAM stands still. */
  async stop(): Promise<void> {
    const done = this.look();
    this.#ranUntil = undefined;
    await done;
  }

  /** Lets it run, from now on. */
  cont(): void {
    this.#ranUntil ??= this.#clock.now();
  }

  /** Slows the guest down by a percentage, from now on. 0: full speed. @throws RangeError */
  async throttle(percentage: number): Promise<void> {
    if (!(percentage >= 0 && percentage < 100)) throw new RangeError(`expected 0 to 99 per cent, got ${percentage}`);
    const done = this.look();
    this.#throttle = percentage;
    await done;
  }

  /** Its RAM as it is now, for a background snapshot. It must be stopped, and may run on afterwards. */
  freeze(): RamReader {
    return this.ram.freeze(this.#frozen);
  }

  /** Discards pages `[first, end)`, which are zeros from now on (release-ram). */
  async discard(block: RamBlock, first: number, end: number): Promise<void> {
    await this.ram.discard(block, first, end);
  }

  /** Limits what a vCPU writes, in bytes per second, from now on. Undefined: no limit. */
  async limitVcpu(vcpu: number, rate: number | undefined): Promise<void> {
    const done = this.look();
    if (rate === undefined) this.#limits.delete(vcpu);
    else this.#limits.set(vcpu, rate);
    await done;
  }

  /** Begins to track what is written from now on. There may be several trackings at a time. */
  trackDirty(): DirtyTracking {
    const bitmaps = this.blocks.map((block) => new PageBitmap(block));
    this.#tracked.add(bitmaps);
    return {
      sync: async (dirty) => {
        await this.look();
        for (const [index, bitmap] of bitmaps.entries()) {
          for (let page = bitmap.nextSet(0); page < bitmap.pages; page = bitmap.nextSet(page + 1)) {
            dirty[index]?.set(page);
            bitmap.clear(page);
          }
        }
      },
      close: () => void this.#tracked.delete(bitmaps),
    };
  }

  async syncDirty(dirty: readonly PageBitmap[]): Promise<void> {
    await this.#migration.sync(dirty);
  }

  /** Reads RAM as it is now, for somebody outside: whole pages. */
  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    await this.look();
    await this.ram.read(block, page, target);
  }

  saveDevices(): SavedDevices {
    return this.#devices;
  }

  /** Its devices are these from now on. */
  loadDevices(devices: SavedDevices): void {
    this.#devices = devices;
  }

  /** Begins to take checkpoints (COLO). It has just arrived, and nothing was written. */
  async beginCheckpoints(): Promise<GuestCheckpoints> {
    this.#cache = this.ram.branch((await this.#frozen?.makeScratch?.()) ?? new MemoryFile());
    return new GuestCheckpoints(this, this.#cache);
  }

  /** Releases its RAM. */
  async close(): Promise<void> {
    await this.#work;
    await this.#cache?.close();
    await this.ram.close();
    await this.#release?.();
  }
}
