/**
 * What a destination says on the return path (docs/formats/postcopy.md, "The return path").
 *
 *     OPEN_RETURN_PATH   the line can be written to from here on
 *     PING n             PONG n
 *     RECV_BITMAP        the pages of a block that have arrived (recovery)
 *     POSTCOPY_RESUME    RESUME_ACK (recovery)
 *     -                  SWITCHOVER_ACK, once, if the source waits for it
 *     the end            SHUT 0, or SHUT 1 if the guest did not arrive
 *
 * A source that cannot be answered any more has broken the line. What it still sent says why, so reading goes on.
 */
import type { Connection } from '../io/connection.ts';
import { releaseNumber, releaseOf } from '../schema/release.ts';
import type { Command, Configuration, Section } from '../vm/flow.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode } from '../wire/command.ts';
import { encodeReturnMessage, ReturnType } from '../wire/return-path.ts';

/**
 * A PING by which a page server asks whether the destination wants every page, also those that are zero. A QEMU answers as it
 * answers any ping; vmferry's destination, which counts the pages, with {@link allPagesPong}.
 */
export const allPagesQuestion = 0x766d_6600;
export const allPagesPong = allPagesQuestion + 1;

/** Parts of RAM without a page, one after another, that only a source sends which waits for the word to switch over. */
const idleParts = 10;
/** Bytes of a PART that has only its end. */
const emptyPartBytes = 32;

interface AnswerOptions {
  switchoverAck?: boolean | (() => boolean) | undefined;
  isRecovery?: boolean;
}

export class Answers {
  readonly #line: Connection;
  readonly #givenAck: AnswerOptions['switchoverAck'];
  #isOpen = false;
  #isShut = false;
  #hasAcknowledged = false;
  #emptyParts = 0;
  /** The source has dirty bitmaps to send, and RAM is idle while it does not know how fast the line is. */
  #hasBitmaps = false;
  /** The end of what is being written: messages must not overlap. */
  #tail: Promise<void> = Promise.resolve();

  /** @param isRecovery the line goes on with a migration, whose source listens already */
  constructor(line: Connection, { switchoverAck, isRecovery = false }: AnswerOptions) {
    this.#line = line;
    this.#givenAck = switchoverAck;
    this.#isOpen = isRecovery;
  }

  /** Whether it was said that it gives the word to switch over, or that it does not. */
  get #switchoverAck(): boolean | undefined {
    return typeof this.#givenAck === 'function' ? this.#givenAck() : this.#givenAck;
  }

  /** The source listens. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** The source was told that all is well, or may have been. */
  get isShut(): boolean {
    return this.#isShut;
  }

  /** Answers a command of the source. */
  async takeCommand({ code, payload }: Command, configuration: Configuration | undefined): Promise<void> {
    if (code === CommandCode.openReturnPath && this.#line.canWrite) {
      this.#isOpen = true;
      if (this.#switchoverAck ?? knowsAck(configuration)) await this.#acknowledge();
    } else if (code === CommandCode.ping && this.#isOpen) {
      const value = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
      await this.#say({ type: ReturnType.pong, value: value === allPagesQuestion ? allPagesPong : value });
    }
  }

  /**
   * Watches the sections of RAM: a source that waits for SWITCHOVER_ACK sends one without pages after another. So does one
   * that has dirty bitmaps to send, and an early one fails if it is acknowledged.
   */
  takeSection({ name, kind, length }: Section): Promise<void> | undefined {
    if (name === 'dirty-bitmap') this.#hasBitmaps = true;
    if (name !== 'ram' || kind !== 'part' || length > emptyPartBytes) {
      if (name === 'ram') this.#emptyParts = 0;
      return undefined;
    }
    this.#emptyParts++;
    const isAsked = this.#emptyParts >= idleParts && this.#switchoverAck !== false && !this.#hasBitmaps;
    return isAsked && this.#isOpen && !this.#hasAcknowledged ? this.#acknowledge() : undefined;
  }

  /** Pages came: the source is not idle. Those of multifd channels are not in the sections of RAM. */
  takePages(): void {
    this.#emptyParts = 0;
  }

  /** Says which pages of a block have arrived: one bit per page, LSB first, in whole 64-bit words. */
  sayReceived(block: string, bits: Uint8Array): Promise<void> {
    const out = new ByteWriter();
    encodeReturnMessage(out, { type: ReturnType.recvBitmap, block }, bits);
    return this.#send(out.bytes());
  }

  /** Says that the source may go on. */
  sayResumed(): Promise<void> {
    return this.#send(encode({ type: ReturnType.resumeAck, value: 1 }));
  }

  /** The last message. After `status` 0 the guest may be at the destination. */
  async shut(status: number): Promise<void> {
    if (status === 0) this.#isShut = true;
    await this.#send(encode({ type: ReturnType.shut, value: status }));
  }

  /**
   * The last message, in two pieces with a pause between them, for a source that has ended its direction: if it is gone,
   * its system answers the first piece, and the second one fails.
   */
  async shutSlowly(status: number, pause: () => Promise<void>): Promise<void> {
    if (status === 0) this.#isShut = true;
    const message = encode({ type: ReturnType.shut, value: status });
    await this.#send(message.subarray(0, 4));
    await pause();
    await this.#send(message.subarray(4));
  }

  #acknowledge(): Promise<void> {
    this.#hasAcknowledged = true;
    return this.#say({ type: ReturnType.switchoverAck });
  }

  #say(message: Message): Promise<void> {
    return this.#send(encode(message)).catch(() => {});
  }

  #send(bytes: Uint8Array): Promise<void> {
    const sent = this.#tail.then(() => this.#line.write(bytes));
    this.#tail = sent.catch(() => {});
    return sent;
  }
}

type Message = Parameters<typeof encodeReturnMessage>[1];

function encode(message: Message): Uint8Array {
  const out = new ByteWriter();
  encodeReturnMessage(out, message);
  return out.bytes();
}

/** Whether the source surely is of a release that has the capability switchover-ack, 8.1 or later. */
function knowsAck(configuration: Configuration | undefined): boolean {
  const release = releaseOf(configuration?.machine ?? '');
  return release !== undefined && release >= releaseNumber('8', '1');
}
