/**
 * The lines of a source: the main one, its multifd channels, and the preempt channel of postcopy. They are opened here, and
 * ended together.
 */
import type { ByteSink } from '../io/byte-source.ts';
import type { Connection } from '../io/connection.ts';
import { settledWithin } from '../io/time-limit.ts';
import type { Outgoing } from './outgoing.ts';
import type { PeerWatch } from './peer-watch.ts';
import type { SendLines } from './send-options.ts';

/** How long a destination may take to hang up after a success. */
const partingMs = 2000;

export class SourceLines {
  /** Bytes of each multifd channel. */
  readonly channelBytes: number[] = [];
  readonly #outgoing: Outgoing;
  readonly #watch: PeerWatch;
  readonly #signal: AbortSignal;
  #lines: SendLines;
  /** Every line that is open. */
  #open: Connection[];
  #isHangingUp = false;

  /** `signal`: nothing is opened after it was aborted. */
  constructor(lines: SendLines, outgoing: Outgoing, watch: PeerWatch, signal: AbortSignal) {
    this.#lines = lines;
    this.#outgoing = outgoing;
    this.#watch = watch;
    this.#signal = signal;
    this.#open = [lines.main];
  }

  get main(): Connection {
    return this.#lines.main;
  }

  /** What is written to the main line. */
  mainSink(): ByteSink {
    return this.#outgoing.sink(this.main);
  }

  /** Bytes of all multifd channels. */
  get multifdBytes(): number {
    return this.channelBytes.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Opens a multifd channel. */
  async openChannel(): Promise<ByteSink> {
    const line = await this.#connect();
    const id = this.channelBytes.push(0) - 1;
    return this.#outgoing.sink(line, (bytes) => {
      this.channelBytes[id] = (this.channelBytes[id] as number) + bytes;
    });
  }

  /** Opens the preempt channel. */
  async openPreempt(): Promise<ByteSink> {
    return this.#outgoing.sink(await this.#connect());
  }

  async #connect(): Promise<Connection> {
    const { openChannel } = this.#lines;
    if (openChannel === undefined) throw new RangeError('Migration requires multi-channel URIs (e.g. tcp)');
    const line = await openChannel();
    if (this.#signal.aborted) line.destroy();
    this.#signal.throwIfAborted();
    this.#open.push(line);
    return line;
  }

  /** Breaks the lines, and goes on through others. */
  replace(lines: SendLines): void {
    this.destroy();
    this.#lines = lines;
    this.#open = [lines.main];
  }

  /** Reads what nobody needs, such as the tickets of TLS: a line that is closed with unread bytes loses what it sent. */
  async discard(): Promise<void> {
    const buffer = new Uint8Array(1024);
    try {
      for (let at = 0, count = 1; count > 0 && !this.#isHangingUp; at += count)
        count = await this.main.read(buffer, at);
    } catch {
      // What is written to the line fails, too.
    }
  }

  /** Ends all lines in good order. `isConfirmed`: the guest is there, whatever becomes of the lines. */
  async hangUp(isConfirmed: boolean): Promise<void> {
    this.#isHangingUp = true;
    const closed = Promise.all(this.#open.map((line) => line.close()));
    if (!isConfirmed) {
      await this.#watch.during('the target to take the end', closed);
      return;
    }
    closed.catch(() => {});
    await settledWithin(
      closed.then(() => {}),
      partingMs,
    );
    this.destroy();
  }

  /** Breaks all lines. */
  destroy(): void {
    for (const line of this.#open) line.destroy();
  }
}
