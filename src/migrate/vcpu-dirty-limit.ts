/**
 * set-, cancel- and query-vcpu-dirty-limit, and the limit of a migration (capability dirty-limit).
 *
 *     set ──→ quota ──→ measure for a period ──→ adjust the sleep of each limited vCPU ─┐
 *                              ↑                                                        │
 *                              └──────────── while any vCPU is limited ─────────────────┘
 *
 * That needs a dirty ring. A QEMU without KVM's has none, and neither has a VM here unless it is given one: then nothing
 * can be limited. The rules are those of `schema/dirty-limit-rules.ts`.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import { nextSleep, ringFullTime } from '../schema/dirty-limit-rules.ts';
import type { DirtyRing } from './dirty-rate.ts';

/** The rings of all vCPUs. */
export interface LimitedVcpus extends DirtyRing {
  /** The most vCPUs that the VM can have. */
  readonly vcpus: number;
  /** Pages that a ring holds: dirty-ring-size. */
  readonly entries: number;
  /** Makes a vCPU sleep for so many µs whenever its ring is full. */
  setSleep(vcpu: number, us: number): Promise<void> | void;
}

/** Arguments whose types were checked. */
export interface SetVcpuDirtyLimit {
  'cpu-index'?: number | bigint;
  /** MiB/s; 0: no limit. */
  'dirty-rate': number | bigint;
}

/** A limited vCPU. Rates are in MiB/s. */
export interface DirtyLimitAnswer {
  'cpu-index': number;
  'limit-rate': number | bigint;
  'current-rate': number;
}

const needsRing = "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'";
const defaultPeriodMs = 1000;

interface Limited {
  quota: number | bigint;
  rate: number;
  /** In µs. */
  sleep: number;
}

/** The limits of a VM. */
export class VcpuDirtyLimit {
  /** Undefined: nothing can be limited. */
  readonly ring: LimitedVcpus | undefined;
  readonly #clock: Clock;
  readonly #limits = new Map<number, Limited>();
  readonly #closed = new AbortController();
  #loop: Promise<void> | undefined;
  /** The highest rate that was ever measured. */
  #maxRate = 0;
  #meanRate = 0;
  /** The limit of the migration that is under way. */
  #migration: { quota: number; periodMs: () => number } | undefined;

  /** @param ring undefined: nothing can be limited */
  constructor(ring: LimitedVcpus | undefined, clock: Clock = systemClock) {
    this.ring = ring;
    this.#clock = clock;
  }

  /** set-vcpu-dirty-limit. @throws Error with QEMU's text */
  set({ 'cpu-index': index, 'dirty-rate': quota }: SetVcpuDirtyLimit): void {
    if (this.ring === undefined) throw new Error(needsRing);
    this.#check(index, 'set');
    if (BigInt(quota) === 0n) this.#release(index);
    else this.#limit(this.#indexes(index), quota);
  }

  /** cancel-vcpu-dirty-limit. @throws Error with QEMU's text */
  cancel({ 'cpu-index': index }: Pick<SetVcpuDirtyLimit, 'cpu-index'> = {}): void {
    if (this.ring === undefined) return;
    this.#check(index, 'cancel');
    this.#release(index);
  }

  /** query-vcpu-dirty-limit: the vCPUs that are limited. */
  query(): DirtyLimitAnswer[] {
    const limits = [...this.#limits].sort(([a], [b]) => a - b);
    return limits.map(([vcpu, { quota, rate }]) => ({
      ...{ 'cpu-index': vcpu, 'limit-rate': quota, 'current-rate': rate },
    }));
  }

  /** The members of query-migrate, once a limit is in force. In µs. */
  get members(): { 'dirty-limit-throttle-time-per-round'?: number; 'dirty-limit-ring-full-time'?: number } {
    if (this.#limits.size === 0) return {};
    return {
      'dirty-limit-throttle-time-per-round': Math.max(...[...this.#limits.values()].map(({ sleep }) => sleep)),
      'dirty-limit-ring-full-time': ringFullTime(this.#ringMiB, this.#meanRate),
    };
  }

  /**
   * The migration dirties too much: limits all vCPUs to `quota` MiB/s, if that was not done yet or the quota has changed.
   * The period of measuring is x-vcpu-dirty-limit-period from now on.
   */
  limitForMigration(quota: number, periodMs: () => number): void {
    if (this.ring === undefined || this.#migration?.quota === quota) return;
    this.#migration = { quota, periodMs };
    this.#limit(this.#indexes(undefined), quota);
  }

  /** The migration has ended. Its limits stay after a success, as in QEMU. */
  endMigration(isCancelled: boolean): void {
    if (this.#migration === undefined) return;
    this.#migration = undefined;
    if (isCancelled) this.#release(undefined);
  }

  /** Ends all limits. */
  async close(): Promise<void> {
    this.#release(undefined);
    this.#closed.abort(new Error('closed'));
    await this.#loop;
  }

  #check(index: number | bigint | undefined, verb: 'set' | 'cancel'): void {
    const { vcpus = 0 } = this.ring ?? {};
    if (index !== undefined && !(index >= 0 && index < vcpus)) throw new Error('incorrect cpu index specified');
    if (this.#migration === undefined) return;
    throw new Error(`can't ${verb} dirty page rate limit while migration is running`);
  }

  /** The vCPUs that an argument names. */
  #indexes(index: number | bigint | undefined): number[] {
    if (index !== undefined) return [Number(index)];
    return Array.from({ length: this.ring?.vcpus ?? 0 }, (_, i) => i);
  }

  #limit(vcpus: readonly number[], quota: number | bigint): void {
    for (const vcpu of vcpus) {
      const { rate = 0, sleep = 0 } = this.#limits.get(vcpu) ?? {};
      this.#limits.set(vcpu, { quota, rate, sleep });
    }
    this.#loop ??= this.#measure().then(
      () => this.#endLoop(),
      () => this.#endLoop(),
    );
  }

  #endLoop(): void {
    this.#loop = undefined;
  }

  #release(index: number | bigint | undefined): void {
    for (const vcpu of this.#indexes(index)) {
      if (this.#limits.delete(vcpu)) void this.ring?.setSleep(vcpu, 0);
    }
  }

  get #ringMiB(): number {
    const { entries = 0, pageSize = 0 } = this.ring ?? {};
    return (entries * pageSize) / 2 ** 20;
  }

  /** Measures and adjusts while any vCPU is limited. */
  async #measure(): Promise<void> {
    const ring = this.ring as LimitedVcpus;
    let before = await ring.pagesWritten();
    while (this.#limits.size > 0) {
      const start = this.#clock.now();
      await this.#clock.sleep(this.#migration?.periodMs() ?? defaultPeriodMs, this.#closed.signal);
      const ms = this.#clock.now() - start;
      const after = await ring.pagesWritten();
      const earlier = before;
      const rates = after.map((pages, i) => {
        return Math.floor((((pages - (earlier[i] ?? 0)) * ring.pageSize) / 2 ** 20 / ms) * 1000);
      });
      before = after;
      await this.#adjust(ring, rates);
    }
  }

  async #adjust(ring: LimitedVcpus, rates: readonly number[]): Promise<void> {
    this.#maxRate = Math.max(this.#maxRate, ...rates);
    this.#meanRate = Math.floor(rates.reduce((sum, rate) => sum + rate, 0) / Math.max(1, rates.length));
    const full = ringFullTime(this.#ringMiB, this.#maxRate);
    for (const [vcpu, limited] of this.#limits) {
      limited.rate = rates[vcpu] ?? 0;
      limited.sleep = nextSleep(limited.sleep, Number(limited.quota), limited.rate, full);
      await ring.setSleep(vcpu, limited.sleep);
    }
  }
}
