/**
 * What a source hears on the return path, and what it therefore knows about the guest.
 *
 *     PONG n                      the destination has come so far
 *     SWITCHOVER_ACK              the guest may be stopped
 *     REQ_PAGES, REQ_PAGES_ID     postcopy: pages that the guest waits for
 *     RECV_BITMAP, RESUME_ACK     recovery: pages that have arrived; the guest may be served again
 *     SHUT 0                      the guest is there, whole        SHUT n     it was refused
 */
import type { Connection } from '../io/connection.ts';
import { PeerError } from '../io/connection.ts';
import { settledWithin } from '../io/time-limit.ts';
import { type ReturnMessage, ReturnType } from '../wire/return-path.ts';
import type { GuestPlace } from './live-error.ts';
import { readReturnPath } from './return-path.ts';

/** How long a destination that broke off may take to say why. */
const lastWordMs = 2000;
/** The destination said that it refuses the guest. */
class RefusedError extends PeerError {}

/** QEMU's words for a message that does not belong here. */
function invalid({ type, length }: ReturnMessage): PeerError {
  const [kind, payload] = [type, length - 4].map((each) => each.toString(16).padStart(4, '0'));
  return new PeerError(`RP: Received invalid message 0x${kind} length 0x${payload}`);
}

export interface ConfirmationOptions {
  /** Called with each message. */
  onMessage: (message: ReturnMessage) => void;
  /** Takes a request for pages, in postcopy. Returns false for pages that do not exist. */
  takeRequest: (message: ReturnMessage) => boolean;
}

export class Confirmation {
  /** Where the guest is, as far as is known. */
  place: GuestPlace = 'source';
  /** The destination has allowed the switchover. */
  mayGo = false;
  /** The value of the latest ping. They count from 1. */
  lastPing = 1;
  /** Values that answer the first ping, too. */
  readonly otherPongs = new Set<number>();
  /** All of the stream was written, in postcopy. */
  hasSentAll = false;
  readonly #options: ConfirmationOptions;
  #pongs = new Set<number>();
  #listeners = new Set<(message: ReturnMessage) => void>();

  constructor(options: ConfirmationOptions) {
    this.#options = options;
  }

  /** Reads the return path of a line until the destination says that it has the guest. @throws PeerError */
  async read(main: Connection): Promise<void> {
    this.#pongs = new Set();
    for await (const message of readReturnPath(main, true)) {
      this.#options.onMessage(message);
      if (message.type === ReturnType.shut) return this.#takeLastWord(message);
      this.#take(message);
      for (const listen of this.#listeners) listen(message);
    }
    throw new PeerError('the target hung up before it had the guest: Channel error: Input/output error');
  }

  #take(message: ReturnMessage): void {
    const { type, value = 0 } = message;
    const isPong = type === ReturnType.pong && ((value >= 1 && value <= this.lastPing) || this.otherPongs.has(value));
    if (isPong) {
      this.#pongs.add(value);
      if (this.otherPongs.has(value)) this.#pongs.add(1);
    }
    // A destination with switchover-ack sends one without being asked.
    else if (type === ReturnType.switchoverAck) this.mayGo = true;
    else if (type === ReturnType.reqPages || type === ReturnType.reqPagesId) {
      if (this.place !== 'split' || !this.#options.takeRequest(message)) throw invalid(message);
    } else if (this.place !== 'split') throw invalid(message);
  }

  #takeLastWord({ value = 0 }: ReturnMessage): void {
    if (value !== 0) {
      if (this.place !== 'split') this.place = 'source';
      throw new RefusedError(`Sibling indicated error ${value}`);
    }
    const isEarly = this.place === 'source' || (this.place === 'split' && !this.hasSentAll);
    if (isEarly) throw new PeerError('the target ended the migration before it had the guest');
    this.place = 'target';
  }

  /** Resolves with the first message for which `test` holds, from now on. @throws the reason of the signal */
  hear(test: (message: ReturnMessage) => boolean, signal: AbortSignal): Promise<ReturnMessage> {
    return new Promise((resolve, reject) => {
      const end = () => {
        this.#listeners.delete(listen);
        signal.removeEventListener('abort', fail);
      };
      const fail = () => {
        end();
        reject(signal.reason);
      };
      const listen = (message: ReturnMessage) => {
        if (!test(message)) return;
        end();
        resolve(message);
      };
      if (signal.aborted) return reject(signal.reason);
      this.#listeners.add(listen);
      signal.addEventListener('abort', fail, { once: true });
    });
  }

  /** Whether the answer to a ping has come. */
  hasHeard(value: number): boolean {
    return this.#pongs.has(value);
  }

  /** Resolves when the answer to a ping has come. @throws the reason of the signal */
  async pong(value: number, signal: AbortSignal): Promise<void> {
    if (!this.#pongs.has(value)) await this.hear(() => this.#pongs.has(value), signal);
  }

  /**
   * Waits for `sending`, and then for the last word. A destination that breaks off ends the sending. What it said just
   * before counts, because it is the reason.
   */
  async after(sending: Promise<void>, lastWord: Promise<void>, waitFor: <T>(work: Promise<T>) => Promise<T>) {
    const confirmed = sending.then(() => waitFor(lastWord));
    try {
      await Promise.race([confirmed, lastWord]);
    } catch (error) {
      confirmed.catch(() => {});
      if (!(error instanceof PeerError)) throw error;
      let cause = error;
      const heard = lastWord.catch((reason) => {
        if (reason instanceof RefusedError) cause = reason;
      });
      await settledWithin(heard, lastWordMs);
      if (this.place !== 'target') throw cause;
    }
  }
}
