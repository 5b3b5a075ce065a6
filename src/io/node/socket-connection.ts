/**
 * A line to a peer over one or two of Node's streams: a socket, or the two pipes of a program. Nothing is copied on its
 * way out, and with the method `direct` nothing on its way in.
 */
import { Socket } from 'node:net';
import type { Duplex, Readable, Writable } from 'node:stream';
import { type Connection, PeerError } from '../connection.ts';
import { settledWithin } from '../time-limit.ts';
import type { DescriptorCalls, PassedDescriptors } from './descriptor-calls.ts';
import { DataReader, DirectReader, PassingReader, type ReadMethod, type StreamReader } from './socket-reader.ts';
import { systemCode, systemText } from './system-text.ts';

/** QEMU's words for what failed, which the system's reason follows. */
export interface FaultWords {
  read: string;
  write: string;
}

export const socketWords: FaultWords = { read: 'Unable to read from socket', write: 'Unable to write to socket' };
const commandWords: FaultWords = { read: 'Unable to read from command', write: 'Unable to write to command' };
export const fileWords: FaultWords = { read: 'Unable to read from file', write: 'Unable to write to file' };
const tlsWords: FaultWords = { read: 'Cannot read from TLS channel', write: 'Cannot write to TLS channel' };

/** What a connection consists of. */
interface Line {
  name: string;
  reader?: StreamReader | undefined;
  output?: Writable | undefined;
  words: FaultWords;
  /** Breaks the streams at once. */
  breakOff: () => void;
  /** Releases everything after the end of the outgoing direction. */
  release: () => void;
  /** Resolves when the program behind the line has ended. */
  exit?: Promise<void>;
  takeDescriptors?: () => PassedDescriptors | undefined;
  /** How long an ended line waits for the peer's end. */
  lingerMs?: number;
}

/** To close a socket with bytes unread would discard what is on its way to the peer. */
const socketLingerMs = 1_000;
/** A program may have to finish its work with what it was given. */
const programLingerMs = 30_000;

/** A {@link Connection} over streams. */
export class SocketConnection implements Connection {
  readonly name: string;
  readonly size = undefined;
  readonly canRead: boolean;
  readonly canWrite: boolean;
  readonly method: string;
  readonly #line: Line;
  #position = 0;
  #reading: Promise<number> | undefined;
  #rejectWrite: ((error: Error) => void) | undefined;
  #ending: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  /** Why the line is broken on this side. */
  #broken: PeerError | undefined;
  /** The first error of the output. */
  #outputError: Error | undefined;

  constructor(line: Line) {
    this.#line = line;
    this.name = line.name;
    this.canRead = line.reader !== undefined;
    this.canWrite = line.output !== undefined;
    this.method = line.reader?.method ?? 'none';
    line.output?.on('error', (error) => {
      this.#outputError ??= error;
    });
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (position < this.#position) {
      throw new RangeError(`${this.name}: expected a position from ${this.#position} on, got ${position}`);
    }
    while (this.#position < position) {
      const count = await this.#readSome(target.subarray(0, position - this.#position));
      if (count === 0) return 0;
    }
    return this.#readSome(target);
  }

  async #readSome(target: Uint8Array): Promise<number> {
    if (this.#broken !== undefined) throw this.#broken;
    const { reader, words } = this.#line;
    if (reader === undefined) throw new Error(`${this.name} can only be written`);
    if (target.length === 0) return 0;
    this.#reading = reader.read(target);
    try {
      const count = await this.#reading;
      this.#position += count;
      return count;
    } catch (error) {
      // A write that failed ended the reading, too.
      throw this.#fault(systemCode(error) === 'EPIPE' ? words.write : words.read, error);
    } finally {
      this.#reading = undefined;
    }
  }

  write(bytes: Uint8Array): Promise<void> {
    const { output, words } = this.#line;
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (output === undefined) return Promise.reject(new Error(`${this.name} can only be read`));
    return new Promise((resolve, reject) => {
      this.#rejectWrite = reject;
      output.write(bytes, (error) => {
        this.#rejectWrite = undefined;
        if (error) reject(this.#fault(words.write, this.#causeOf(error)));
        // What the peer has said is read first: after the next write the line may be broken, and its words lost.
        else setImmediate(resolve);
      });
    });
  }

  takeDescriptors(): PassedDescriptors | undefined {
    return this.#line.takeDescriptors?.();
  }

  /** A stream that failed says only that it is closed. */
  #causeOf(error: Error): unknown {
    const isConsequence = systemCode(error)?.startsWith('ERR_STREAM') ?? false;
    return isConsequence ? (this.#outputError ?? { code: 'EPIPE' }) : error;
  }

  #fault(words: string, error: unknown): PeerError {
    if (this.#broken !== undefined) return this.#broken;
    if (error instanceof PeerError) return error;
    return new PeerError(`${words}: ${systemText(error)}`, { code: systemCode(error), cause: error });
  }

  end(): Promise<void> {
    const { output } = this.#line;
    this.#ending ??= new Promise<void>((resolve) => {
      if (output === undefined || output.destroyed) return resolve();
      output.once('close', resolve);
      output.once('error', resolve);
      output.end(resolve);
    });
    return this.#ending;
  }

  destroy(): void {
    if (this.#broken !== undefined) return;
    this.#broken = new PeerError('the connection was closed on this side', { code: 'ECONNABORTED' });
    this.#line.reader?.break(this.#broken);
    this.#line.breakOff();
    this.#rejectWrite?.(this.#broken);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.end();
    if (this.canWrite) await settledWithin(this.#awaitEnd(), this.#line.lingerMs ?? socketLingerMs);
    if (this.#broken === undefined) {
      this.#broken = new PeerError('the connection is closed', { code: 'ECONNABORTED' });
      this.#line.reader?.break(this.#broken);
    }
    this.#line.release();
  }

  /** Reads until the peer has ended its direction. */
  async #awaitEnd(): Promise<void> {
    const { reader } = this.#line;
    const discarded = new Uint8Array(4096);
    try {
      await this.#reading;
      while (reader !== undefined && (await reader.read(discarded)) > 0);
      await this.#line.exit;
    } catch {
      // The line is broken, so nothing is on its way.
    }
  }
}

/** A connection over a socket that was connected or accepted, and not read yet. */
export function connectionOver(socket: Socket, name: string, method: ReadMethod): SocketConnection {
  tune(socket);
  if (method === 'direct') {
    const reader = new DirectReader({ socket });
    return over(reader.socket, reader, name, socketWords);
  }
  return over(socket, new DataReader(socket), name, socketWords);
}

/** A connection over a unix socket that was accepted, and not read yet, which receives descriptors, too. */
export function connectionWithDescriptors(socket: Socket, name: string, calls: DescriptorCalls): SocketConnection {
  const reader = new PassingReader(socket, calls);
  const takeDescriptors = () => reader.takeDescriptors();
  return new SocketConnection({
    ...{ name, reader, output: reader.socket, words: socketWords, takeDescriptors },
    ...{ breakOff: () => reset(reader.socket), release: () => void reader.socket.destroy() },
  });
}

/** A silent line is probed after this time. */
const keepAliveMs = 60_000;

/** Small messages leave at once, and a dead peer is noticed. */
function tune(socket: Socket): void {
  if (socket.remoteAddress === undefined) return;
  socket.setNoDelay(true);
  socket.setKeepAlive(true, keepAliveMs);
}

function over(socket: Socket, reader: StreamReader, name: string, words: FaultWords): SocketConnection {
  const breakOff = () => reset(socket);
  return new SocketConnection({ name, reader, output: socket, words, breakOff, release: () => void socket.destroy() });
}

/** A connection over a TLS session. `below` is the stream that carries it. */
export function connectionOverTls(session: Duplex, below: Duplex, name: string): SocketConnection {
  if (below instanceof Socket) tune(below);
  const breakOff = () => {
    // The session closes what is below it. In the other order, Node frees the session while it may be at work.
    if (below instanceof Socket && !session.writableEnded) resetAtClose(below);
    session.destroy();
  };
  const release = () => {
    session.destroy();
    below.destroy();
  };
  return new SocketConnection({
    ...{ name, reader: new DataReader(session), output: session },
    ...{ words: tlsWords, breakOff, release },
  });
}

/** What a connection over an inherited descriptor may do. */
export interface FdDirections {
  reads: boolean;
  writes: boolean;
  words: FaultWords;
  /** How it is read. */
  method: ReadMethod;
}

/** A connection over an open descriptor of a pipe or a socket. */
export function connectionOverFd(fd: number, name: string, use: FdDirections): SocketConnection {
  const { reads, writes, words, method } = use;
  const direct = method === 'direct' || !reads ? new DirectReader({ fd }) : undefined;
  const socket = direct?.socket ?? new Socket({ fd, allowHalfOpen: true });
  const reader = direct ?? new DataReader(socket);
  if (reads && writes) tune(socket);
  return new SocketConnection({
    ...{ name, words, reader: reads ? reader : undefined, output: writes ? socket : undefined },
    ...{ breakOff: () => reset(socket), release: () => void socket.destroy() },
  });
}

/** Closes a socket in a way that its peer notices at once, also if it has yet to read something. */
function reset(socket: Socket): void {
  // libuv can no longer reset a socket whose end is on its way.
  if (!socket.writableEnded) resetAtClose(socket);
  socket.destroy();
}

/** Lets TCP send a reset when the socket is closed. */
function resetAtClose(socket: Socket): void {
  const isTcp = socket.remoteAddress !== undefined;
  // `resetAndDestroy` would first wait for what is still to be written, and end the stream in good order.
  if (isTcp) (socket as unknown as { resetAndClosing: boolean }).resetAndClosing = true;
}

/** The streams of a program, and how it ends. */
export interface Program {
  stdin: Writable;
  stdout: Readable;
  kill: () => void;
  exit: Promise<void>;
}

/** A connection over the standard streams of a program. */
export function connectionOverProgram({ stdin, stdout, kill, exit }: Program, name: string): SocketConnection {
  const breakOff = () => {
    stdin.destroy();
    stdout.destroy();
    kill();
  };
  return new SocketConnection({
    ...{ name, reader: new DataReader(stdout), output: stdin, words: commandWords },
    ...{ breakOff, release: breakOff, exit, lingerMs: programLingerMs },
  });
}
