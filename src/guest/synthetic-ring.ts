/**
 * The dirty rings of a synthetic guest: what KVM's are to a QEMU with `dirty-ring-size`.
 *
 *     vCPU  writes, at its rate ──→ ring of `entries` pages is full ──→ sleeps ──→ writes ...
 *
 * The guest's time does not know single rings. A vCPU that sleeps is one that writes more slowly.
 */
import { rateWithSleep } from '../schema/dirty-limit-rules.ts';
import type { SyntheticGuest } from './synthetic-guest.ts';

/** A dirty ring that limits the vCPUs of a synthetic guest. */
export class SyntheticRing {
  readonly vcpus: number;
  /** Pages that a ring holds. */
  readonly entries: number;
  readonly pageSize: number;
  readonly #guest: SyntheticGuest;
  /** Bytes per second of each vCPU that does not sleep. */
  readonly #rate: number;

  /** @throws RangeError for entries that are not a power of two */
  constructor(guest: SyntheticGuest, entries = 4096) {
    if (!(Number.isInteger(entries) && entries > 0 && Number.isInteger(Math.log2(entries)))) {
      throw new RangeError(`expected a power of two of pages for a dirty ring, got ${entries}`);
    }
    const { rate = 0, vcpus = 1 } = guest.workload ?? {};
    this.#guest = guest;
    this.#rate = rate / vcpus;
    this.vcpus = vcpus;
    this.entries = entries;
    this.pageSize = guest.blocks[0]?.pageSize ?? 4096;
  }

  /** Pages that each vCPU has written so far. */
  async pagesWritten(): Promise<readonly number[]> {
    await this.#guest.look();
    const pages = this.#guest.vcpuPagesWritten;
    return pages.length > 0 ? pages : new Array<number>(this.vcpus).fill(0);
  }

  /** Makes a vCPU sleep for so many µs whenever its ring is full. */
  async setSleep(vcpu: number, us: number): Promise<void> {
    const bytes = this.entries * this.pageSize;
    await this.#guest.limitVcpu(vcpu, us === 0 ? undefined : rateWithSleep(bytes, this.#rate, us));
  }
}
