/** Bytes of RAM by the phase in which they were sent: the members of `query-migrate` whose names end in `-bytes`. */

/** While the guest ran, while it stood still, and while it ran at the destination. */
export type RamPhase = 'precopy' | 'downtime' | 'postcopy';

export class RamBytes {
  #seen = 0;
  readonly #bytes: Record<RamPhase, number> = { precopy: 0, downtime: 0, postcopy: 0 };

  /** `total` bytes have been sent so far. What is new belongs to `phase`. */
  note(total: number, phase: RamPhase): void {
    this.#bytes[phase] += total - this.#seen;
    this.#seen = total;
  }

  get members() {
    const { precopy, downtime, postcopy } = this.#bytes;
    return { 'precopy-bytes': precopy, 'downtime-bytes': downtime, 'postcopy-bytes': postcopy };
  }
}
