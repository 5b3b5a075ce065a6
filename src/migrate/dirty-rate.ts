/**
 * calc-dirty-rate and query-dirty-rate: measures how much a guest writes, as QEMU does, and answers in its words.
 *
 *     unstarted ──calculate──→ measuring ──calc-time has passed──→ measured
 *                                  ↑                                  │
 *                                  └────────────calculate─────────────┘
 *
 *     page-sampling   hashes random pages, waits, hashes them again (docs/formats/dirty-rate.md)
 *     dirty-bitmap    counts the pages that the guest itself says it has written
 *     dirty-ring      the same for each vCPU, where there is a ring
 *
 * QEMU 7.2 without KVM crashes in the last two modes. Here they are refused then.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { EventLoopYield } from '../io/event-loop-yield.ts';
import { loadPageKernels, type PageKernels } from '../kernel/page-kernels.ts';
import type { ReleaseName } from '../schema/release-rules.ts';
import { reportedDirtyRate, samplePages, samplePagesOf } from '../vm/dirty-rate.ts';
import type { DirtyTracking } from '../vm/guest.ts';
import { PageBitmap } from '../vm/page-bitmap.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';

/** The VM that is measured. A `SyntheticGuest` is one. */
export interface MeasuredVm {
  readonly ram: RamReader;
  /** Blocks that do not migrate are not measured. */
  readonly ignored?: readonly RamBlock[];
  /** Brings RAM up to date. Default: it always is. */
  look?(): Promise<void>;
  /** Tracks what is written from now on. Default: nothing is written. */
  trackDirty?(): DirtyTracking;
}

/** A dirty ring, which knows what each vCPU writes. */
export interface DirtyRing {
  /** Pages that each vCPU has written so far. */
  pagesWritten(): Promise<readonly number[]> | readonly number[];
  /** Bytes of a page. */
  readonly pageSize: number;
}

/** What is measured, and by which clocks. */
export interface DirtyRateOptions {
  /** The VM at that moment. */
  vm: () => MeasuredVm;
  /** Whose checks and texts. */
  release: ReleaseName;
  /** Default: there is none, as in a QEMU without KVM's. */
  ring?: DirtyRing | undefined;
  /** Milliseconds since 1970, for `start-time`. */
  timeOfDay: () => number;
  /** Default: the platform's clock. */
  clock?: Clock | undefined;
  /** Returns numbers in [0, 1). Default: `Math.random`. */
  random?: (() => number) | undefined;
}

/** How a rate is measured. */
export type DirtyRateMode = 'page-sampling' | 'dirty-bitmap' | 'dirty-ring';
/** The unit of `calc-time`. */
export type DirtyRateUnit = 'second' | 'millisecond';

/** Arguments of calc-dirty-rate whose types were checked. */
export interface CalcDirtyRate {
  'calc-time': number | bigint;
  'calc-time-unit'?: DirtyRateUnit;
  'sample-pages'?: number | bigint;
  mode?: DirtyRateMode;
}

/** The answer of query-dirty-rate. Rates are in MiB/s. */
export interface DirtyRateAnswer {
  status: 'unstarted' | 'measuring' | 'measured';
  'sample-pages': number;
  /** Once it is measured; -1: nothing could be measured. */
  'dirty-rate'?: number;
  mode: DirtyRateMode;
  /** Not in 7.2. */
  'calc-time-unit'?: DirtyRateUnit;
  /** In seconds since 1970; in 7.2 since any moment. */
  'start-time': number;
  /** How long it took, or will take: in whole units. */
  'calc-time': number;
  'vcpu-dirty-rate'?: { id: number; 'dirty-rate': number }[];
}

/** What a measurement found. */
interface Measured {
  rate: number;
  vcpus?: number[];
}

const msPerSecond = 1000;
const longestMs = 60_000;
const shortestMs = 50;
/** MiB of pages, truncated after the product, as QEMU computes it. */
const mibPerSecond = (pages: number, pageSize: number, ms: number) =>
  Math.floor(Math.floor((pages * msPerSecond * pageSize) / 2 ** 20) / ms);

/** The measurements of a VM, one at a time. */
export class DirtyRate {
  readonly #options: DirtyRateOptions;
  readonly #clock: Clock;
  readonly #closed = new AbortController();
  #status: DirtyRateAnswer['status'] = 'unstarted';
  #mode: DirtyRateMode = 'page-sampling';
  #samplePages = 0;
  #startTime = 0;
  #ms = 0;
  #measured: Measured = { rate: -1 };
  #done: Promise<void> = Promise.resolve();

  constructor(options: DirtyRateOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** calc-dirty-rate: begins to measure. @throws Error with QEMU's text */
  calculate(given: CalcDirtyRate): void {
    const { mode = 'page-sampling' } = given;
    const ms = this.#check(given);
    this.#status = 'measuring';
    this.#mode = mode;
    this.#samplePages = Number(given['sample-pages'] ?? samplePages.default);
    this.#ms = ms;
    const { release, timeOfDay } = this.#options;
    this.#startTime = Math.floor((release === '7.2' ? this.#clock.now() : timeOfDay()) / msPerSecond);
    this.#done = this.#measure(ms).then(
      (measured) => this.#finish(measured),
      () => this.#finish({ rate: -1 }),
    );
  }

  /** QEMU's checks in QEMU's order. Returns the time in ms. */
  #check(given: CalcDirtyRate): number {
    const { mode = 'page-sampling', 'calc-time-unit': unit = 'second', 'sample-pages': perGiB } = given;
    const isOld = this.#options.release === '7.2';
    if (this.#status === 'measuring') throw new Error('the dirty rate is already being measured.');
    const ms = toMs(given['calc-time'], isOld ? 'second' : unit, isOld);
    if (perGiB !== undefined && mode !== 'page-sampling' && !(isOld && mode === 'dirty-bitmap')) {
      throw new Error(
        isOld
          ? 'either sample-pages or dirty-ring can be specified.'
          : 'sample-pages is used only in page-sampling mode',
      );
    }
    if (perGiB !== undefined && !(perGiB >= samplePages.least && perGiB <= samplePages.most)) {
      throw new Error(`sample-pages is out of range[${samplePages.least}, ${samplePages.most}].`);
    }
    const hasRing = this.#options.ring !== undefined;
    if ((mode === 'dirty-ring' && !hasRing) || (mode === 'dirty-bitmap' && (hasRing || isOld))) {
      throw new Error(`mode ${mode} is not enabled, use other method instead.`);
    }
    return ms;
  }

  /** query-dirty-rate. */
  query({ 'calc-time-unit': unit = 'second' }: { 'calc-time-unit'?: DirtyRateUnit } = {}): DirtyRateAnswer {
    const status = this.#status;
    const isMeasured = status === 'measured';
    const { rate, vcpus } = this.#measured;
    return {
      status,
      'sample-pages': isMeasured && this.#mode !== 'page-sampling' ? 0 : this.#samplePages,
      ...(isMeasured ? { 'dirty-rate': rate } : {}),
      mode: this.#mode,
      ...(this.#options.release === '7.2' ? {} : { 'calc-time-unit': unit }),
      'start-time': this.#startTime,
      'calc-time': unit === 'second' ? Math.floor(this.#ms / msPerSecond) : this.#ms,
      ...(isMeasured && vcpus !== undefined
        ? { 'vcpu-dirty-rate': vcpus.map((each, id) => ({ id, 'dirty-rate': each })) }
        : {}),
    };
  }

  /** Ends a measurement that runs. Resolves when nothing reads RAM any more. */
  async close(): Promise<void> {
    this.#closed.abort(new Error('closed'));
    await this.#done;
  }

  #finish(measured: Measured): void {
    this.#measured = measured;
    this.#status = 'measured';
  }

  async #measure(ms: number): Promise<Measured> {
    const { ring, vm } = this.#options;
    if (this.#mode === 'page-sampling') return this.#sample(vm(), ms);
    if (this.#mode === 'dirty-bitmap' || ring === undefined) return this.#count(vm(), ms);
    const before = await ring.pagesWritten();
    await this.#wait(ms, this.#clock.now());
    const after = await ring.pagesWritten();
    const vcpus = after.map((pages, i) => mibPerSecond(pages - (before[i] ?? 0), ring.pageSize, this.#ms));
    return { rate: vcpus.reduce((sum, each) => sum + each, 0), vcpus };
  }

  /** Hashes pages, waits, and hashes them again. */
  async #sample(vm: MeasuredVm, ms: number): Promise<Measured> {
    const { ram, ignored = [] } = vm;
    const { random = Math.random } = this.#options;
    const start = this.#clock.now();
    const pages: { block: RamBlock; page: number }[] = [];
    const blocks = ram.blocks.filter(({ index }) => !ignored.some((each) => each.index === index));
    const chosen = samplePagesOf(blocks, this.#samplePages, random, (block, page) => {
      pages.push({ block, page });
      return false;
    });
    const hasher = new PageHasher(vm, this.#closed.signal);
    const before = await hasher.hash(pages);
    await this.#wait(ms, start);
    const after = await hasher.hash(pages);
    const dirty = before.reduce((sum, hash, i) => sum + (hash === after[i] ? 0 : 1), 0);
    return { rate: reportedDirtyRate({ ...chosen, dirty }, this.#ms) ?? -1 };
  }

  /** Counts the pages that the guest has written. */
  async #count(vm: MeasuredVm, ms: number): Promise<Measured> {
    const { blocks } = vm.ram;
    const dirty = blocks.map((block) => new PageBitmap(block));
    const tracking = vm.trackDirty?.();
    try {
      // What was written before counts for nothing.
      await tracking?.sync(blocks.map((block) => new PageBitmap(block)));
      await this.#wait(ms, this.#clock.now());
      await tracking?.sync(dirty);
    } finally {
      tracking?.close();
    }
    const bytes = dirty.reduce((sum, { count }, i) => sum + count * (blocks[i] as RamBlock).pageSize, 0);
    return { rate: mibPerSecond(bytes, 1, this.#ms) };
  }

  /** Waits until `ms` have passed since `start`, and notes how long it really was. */
  async #wait(ms: number, start: number): Promise<void> {
    const left = ms - (this.#clock.now() - start);
    if (left > 0) await this.#clock.sleep(left, this.#closed.signal);
    this.#closed.signal.throwIfAborted();
    this.#ms = Math.max(ms, Math.floor(this.#clock.now() - start));
  }
}

/** @throws Error if the time is out of range. QEMU multiplies integers of 64 bits, so that very long times may be short. */
function toMs(time: number | bigint, unit: DirtyRateUnit, isOld: boolean): number {
  const whole = BigInt(time);
  if (isOld && !(whole >= 1n && whole <= BigInt(longestMs / msPerSecond))) {
    throw new Error(`calc-time is out of range[1, ${longestMs / msPerSecond}].`);
  }
  const ms = Number(unit === 'second' ? BigInt.asIntN(64, whole * BigInt(msPerSecond)) : whole);
  if (ms >= shortestMs && ms <= longestMs) return ms;
  throw new Error(`Calculation time is out of range [${shortestMs}ms, ${longestMs}ms].`);
}

/** Hashes pages here and there. Pages without data are not read. */
class PageHasher {
  readonly #vm: MeasuredVm;
  readonly #signal: AbortSignal;
  readonly #kernels = new Map<number, PageKernels>();
  readonly #word = new Uint32Array(1);
  readonly #turns = new EventLoopYield();

  constructor(vm: MeasuredVm, signal: AbortSignal) {
    this.#vm = vm;
    this.#signal = signal;
  }

  async hash(pages: readonly { block: RamBlock; page: number }[]): Promise<Uint32Array> {
    const { ram } = this.#vm;
    await this.#vm.look?.();
    const hashes = new Uint32Array(pages.length);
    const bytes = new Map<number, Uint8Array>();
    for (const [i, { block, page }] of pages.entries()) {
      this.#signal.throwIfAborted();
      const { pageSize } = block;
      const target = bytes.get(pageSize) ?? new Uint8Array(pageSize);
      bytes.set(pageSize, target);
      if ((await ram.state(block, page)) === 'data') await ram.read(block, page, target);
      else target.fill(0);
      const kernels = this.#kernels.get(pageSize) ?? (await loadPageKernels({ pageSize }));
      this.#kernels.set(pageSize, kernels);
      kernels.hashPages(target, this.#word);
      hashes[i] = this.#word[0] as number;
      await this.#turns.after(pageSize);
    }
    return hashes;
  }
}
