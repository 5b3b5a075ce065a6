/**
 * The limit of `max-bandwidth`, for all lines of a migration together.
 *
 *     window of 100 ms   |####.|####.|#####|####.|###..|      # may leave at the beginning of its step of 20 ms
 *
 * As in QEMU, the budget of a window is a tenth of the rate. Within a window it is spread over five steps, so that a
 * short migration keeps to the rate, too. What a step did not use may leave later, up to the budget of one window.
 */
import { type Clock, systemClock } from '../io/clock.ts';

const windowMs = 100;
const stepMs = 20;

export class Bandwidth {
  readonly #clock: Clock;
  /** Bytes per window. 0: no limit. */
  #budget = 0;
  #start = 0;
  #spent = 0;

  /** `rate`: bytes per second; with 0 there is no limit. */
  constructor(rate: number, clock: Clock = systemClock) {
    this.#clock = clock;
    this.limit(rate);
  }

  /** Changes the rate, in bytes per second. 0 removes the limit; as in QEMU, so does a rate below 10. */
  limit(rate: number): void {
    this.#budget = Math.floor(rate / (1000 / windowMs));
    this.#start = this.#clock.now();
    this.#spent = 0;
  }

  /**
   * Waits until at least one of `bytes` may leave. Returns how many may leave now; they count as spent.
   * @throws the reason of `signal`
   */
  async take(bytes: number, signal?: AbortSignal): Promise<number> {
    for (;;) {
      if (this.#budget === 0) return bytes;
      const step = Math.floor((this.#clock.now() - this.#start) / stepMs);
      const due = Math.ceil(((step + 1) * stepMs * this.#budget) / windowMs);
      this.#spent = Math.max(this.#spent, due - this.#budget);
      const count = Math.min(bytes, due - this.#spent);
      if (count > 0) {
        this.#spent += count;
        return count;
      }
      await this.#clock.sleep(this.#start + (step + 1) * stepMs - this.#clock.now(), signal);
    }
  }
}
