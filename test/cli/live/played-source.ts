/** A source that plays a capture over a socket, with or without a return path. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { loadFixtures } from '../../fixture-files.ts';

const fixtures = loadFixtures();

/** The bytes of a capture. */
export function captured(name: string): Buffer {
  const found = fixtures.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no fixture ${name}`);
  return Buffer.from(found.bytes);
}

/** What opens the return path, and PING 1. */
const opening = Buffer.from('080001000008000200 0400000001'.replace(' ', ''), 'hex');

/** The same stream of a source that has a return path, which it opens before RAM. */
export function withReturnPath(stream: Buffer): Buffer {
  const start = stream.indexOf(Buffer.from('\x03ram')) - 5;
  return Buffer.concat([stream.subarray(0, start), opening, stream.subarray(start)]);
}

export const pong1 = '0002000400000001';
export const shut0 = '0001000400000000';
export const shut1 = '0001000400000001';

/** The source's end of a line. */
export class PlayedSource {
  readonly socket: Socket;
  #heard = '';
  /** Resolves with `end` or the code of an error, when the peer has ended the line. */
  readonly ended: Promise<string>;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    this.ended = new Promise((resolve) => {
      socket.once('end', () => resolve('end'));
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      socket.once('close', () => resolve('closed'));
    });
    socket.on('data', (bytes) => {
      this.#heard += bytes.toString('hex');
      this.#wake();
    });
    void this.ended.then(() => this.#wake());
  }

  /** Connects to the URI of a ready line. */
  static async connect(uri: string): Promise<PlayedSource> {
    const [, path, v6, v4, port] = /^(?:unix:(.*)|tcp:(?:\[(.*)\]|([^:]*)):(\d+))$/.exec(uri) ?? [];
    const socket = connect(
      path === undefined
        ? { host: (v6 ?? v4) as string, port: Number(port), allowHalfOpen: true }
        : { path, allowHalfOpen: true },
    );
    await once(socket, 'connect');
    return new PlayedSource(socket);
  }

  /** What came on the return path so far, in hexadecimal digits. */
  get heard(): string {
    return this.#heard;
  }

  /** Resolves when that is what came on the return path, or it begins with it. */
  async hears(text: string): Promise<void> {
    let isOver = false;
    void this.ended.then(() => {
      isOver = true;
    });
    while (!this.#heard.startsWith(text)) {
      if (isOver) throw new Error(`expected ${text}, got ${this.#heard} and the end of the line`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Resolves when the system has taken all bytes. */
  send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
  }

  /** Ends the line in good order. */
  end(): void {
    this.socket.end();
  }

  /** Breaks the line. Over TCP the peer gets a reset. */
  reset(): void {
    if (this.socket.remoteAddress === undefined) this.socket.destroy();
    else this.socket.resetAndDestroy();
  }
}
