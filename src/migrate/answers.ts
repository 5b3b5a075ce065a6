/**
 * What a destination says on the return path (docs/formats/postcopy.md, "The return path").
 *
 *     OPEN_RETURN_PATH   the line can be written to from here on
 *     PING n             PONG n
 *     -                  SWITCHOVER_ACK, once, if the source waits for it
 *     the end            SHUT 0, or SHUT 1 if the guest did not arrive
 */
import type { Connection } from '../io/connection.ts';
import { releaseNumber, releaseOf } from '../schema/release.ts';
import type { Command, Configuration, Section } from '../vm/flow.ts';
import { ByteWriter } from '../wire/byte-writer.ts';
import { CommandCode } from '../wire/command.ts';
import { encodeReturnMessage, ReturnType } from '../wire/return-path.ts';

/** Parts of RAM without a page, one after another, that only a source sends which waits for the word to switch over. */
const idleParts = 10;
/** Bytes of a PART that has only its end. */
const emptyPartBytes = 32;

export class Answers {
  readonly #line: Connection;
  readonly #switchoverAck: boolean | undefined;
  #isOpen = false;
  #isShut = false;
  #hasAcknowledged = false;
  #emptyParts = 0;
  /** The end of what is being written: messages must not overlap. */
  #tail: Promise<void> = Promise.resolve();

  constructor(line: Connection, switchoverAck: boolean | undefined) {
    this.#line = line;
    this.#switchoverAck = switchoverAck;
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
      await this.#send({ type: ReturnType.pong, value: new DataView(payload.buffer, payload.byteOffset).getUint32(0) });
    }
  }

  /** Watches the sections of RAM: a source that waits for SWITCHOVER_ACK sends one without pages after another. */
  takeSection({ name, kind, length }: Section): Promise<void> | undefined {
    if (name !== 'ram' || kind !== 'part' || length > emptyPartBytes) {
      if (name === 'ram') this.#emptyParts = 0;
      return undefined;
    }
    this.#emptyParts++;
    const isAsked = this.#emptyParts >= idleParts && this.#switchoverAck !== false;
    return isAsked && this.#isOpen && !this.#hasAcknowledged ? this.#acknowledge() : undefined;
  }

  /** The last message. After `status` 0 the guest may be at the destination. */
  async shut(status: number): Promise<void> {
    if (status === 0) this.#isShut = true;
    await this.#send({ type: ReturnType.shut, value: status });
  }

  #acknowledge(): Promise<void> {
    this.#hasAcknowledged = true;
    return this.#send({ type: ReturnType.switchoverAck });
  }

  #send(message: Parameters<typeof encodeReturnMessage>[1]): Promise<void> {
    const out = new ByteWriter();
    encodeReturnMessage(out, message);
    const sent = this.#tail.then(() => this.#line.write(out.bytes()));
    this.#tail = sent.catch(() => {});
    return sent;
  }
}

/** Whether the source surely is of a release that has the capability switchover-ack, 8.1 or later. */
function knowsAck(configuration: Configuration | undefined): boolean {
  const release = releaseOf(configuration?.machine ?? '');
  return release !== undefined && release >= releaseNumber('8', '1');
}
