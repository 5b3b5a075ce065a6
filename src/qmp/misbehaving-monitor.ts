/**
 * A monitor that misbehaves on demand: a listener around another one, whose lines are late, split, or full of events that
 * nobody expects there. What is said stays what it was.
 */
import { type Clock, systemClock } from '../io/clock.ts';
import type { Connection, Listener } from '../io/connection.ts';
import { takeTurn } from '../io/event-loop-yield.ts';
import { WrappedConnection } from '../io/wrapped-connection.ts';
import { type Misbehaviour, seededRandom } from '../migrate/misbehaviour.ts';

/** Messages are split into about so many pieces. */
const pieces = 8;
/** The most events before an answer. */
const mostEvents = 3;

/** When clients are greeted. Time counts from the first client that came since one was greeted. */
class LateGreeting {
  #due: number | undefined;

  constructor(
    readonly ms: number,
    readonly clock: Clock,
  ) {}

  /** @throws the reason of the signal */
  async wait(signal: AbortSignal): Promise<void> {
    this.#due ??= this.clock.now() + this.ms;
    await this.clock.sleep(Math.max(0, this.#due - this.clock.now()), signal);
    this.#due = undefined;
  }
}

/** A line to a client that the VM misbehaves to. The server writes one message at a time. */
class MisbehavingLine extends WrappedConnection {
  readonly #how: Misbehaviour;
  readonly #late: LateGreeting;
  readonly #random: () => number;
  /** Aborted when the client has gone: there is nobody to be late for. */
  readonly #gone = new AbortController();
  #isGreeted = false;

  constructor(line: Connection, how: Misbehaviour, late: LateGreeting, random: () => number) {
    super(line);
    this.#how = how;
    this.#late = late;
    this.#random = random;
  }

  override async read(target: Uint8Array, position: number): Promise<number> {
    const count = await super.read(target, position);
    if (count === 0) this.#gone.abort();
    return count;
  }

  override async write(bytes: Uint8Array): Promise<void> {
    const isEvent = new TextDecoder().decode(bytes.subarray(0, 12)) === '{"timestamp"';
    if (!isEvent) await this.#beforeAnswer();
    await this.#writePieces(bytes);
  }

  async #beforeAnswer(): Promise<void> {
    const { earlyEvents = false, lateAnswers } = this.#how;
    const isGreeting = !this.#isGreeted;
    this.#isGreeted = true;
    if (isGreeting) await this.#late.wait(this.#gone.signal).catch(() => {});
    if (earlyEvents) await this.#writeEvents();
    if (lateAnswers !== undefined && !isGreeting) {
      await this.#late.clock.sleep(lateAnswers, this.#gone.signal).catch(() => {});
    }
  }

  async #writeEvents(): Promise<void> {
    for (let left = 1 + Math.floor(this.#random() * mostEvents); left > 0; left--) {
      const offset = Math.floor(this.#random() * 1000);
      const event = { event: 'RTC_CHANGE', data: { offset, 'qom-path': '/machine/rtc' } };
      const text = `${JSON.stringify({ timestamp: { seconds: 0, microseconds: offset }, ...event })}\r\n`;
      await this.#writePieces(new TextEncoder().encode(text));
    }
  }

  async #writePieces(bytes: Uint8Array): Promise<void> {
    if (this.#how.splitAnswers !== true) return super.write(bytes);
    const most = Math.ceil((2 * bytes.length) / pieces);
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + 1 + Math.floor(this.#random() * most));
      await super.write(bytes.subarray(at, end));
      await takeTurn();
      at = end;
    }
  }

  override destroy(): void {
    this.#gone.abort();
    super.destroy();
  }
}

/** A listener whose clients are treated badly. */
export function misbehavingMonitor(listener: Listener, how: Misbehaviour, clock: Clock = systemClock): Listener {
  const late = new LateGreeting(how.lateGreeting ?? 0, clock);
  let count = 0;
  return {
    uri: listener.uri,
    async accept() {
      const line = await listener.accept();
      return line && new MisbehavingLine(line, how, late, seededRandom(how.seed, count++));
    },
    close: () => listener.close(),
  };
}
