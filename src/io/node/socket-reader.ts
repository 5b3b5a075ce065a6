/**
 * Two ways to read a socket into memory that the reader names.
 *
 * `direct`: the system call writes into the target itself. Node's public `onread` asks for the memory of the next read
 * before the reader knows it. So it is given an empty buffer first. libuv then reports that it has no memory, at the
 * moment when there is something to read, and takes the target as the answer. That part is private to Node: a self-test
 * on loopback decides once whether it works here.
 *
 * `data`: the stream's `data` events, whose bytes are copied. It works for every stream, such as those of TLS.
 */
import { connect, createServer, type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import { type DescriptorCalls, PassedDescriptors } from './descriptor-calls.ts';

/** How a socket is read. */
export type ReadMethod = 'direct' | 'data';

/** Reads a stream. At most one read is pending. */
export interface StreamReader {
  readonly method: ReadMethod;
  /** Resolves with the number of bytes, 0 at the end. Rejects with the system's error. */
  read(target: Uint8Array): Promise<number>;
  /** Rejects the pending read, and all later ones. */
  break(error: Error): void;
}

/** The one pending read of a reader, and why there will be no more. */
class PendingRead {
  target: Uint8Array | undefined;
  #resolve: ((count: number) => void) | undefined;
  #reject: ((error: Error) => void) | undefined;
  #end: Error | 'end' | undefined;

  start(target: Uint8Array): Promise<number> {
    if (this.target !== undefined) return Promise.reject(new Error('a read is already pending'));
    if (this.#end === 'end') return Promise.resolve(0);
    if (this.#end !== undefined) return Promise.reject(this.#end);
    this.target = target;
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  settle(count: number): void {
    this.target = undefined;
    this.#resolve?.(count);
    this.#resolve = undefined;
  }

  /** Settles the pending read and all later ones. The first end counts. */
  finish(end: Error | 'end'): void {
    this.#end ??= end;
    if (this.target === undefined) return;
    this.target = undefined;
    if (end === 'end') this.#resolve?.(0);
    else this.#reject?.(end);
  }
}

/** The parts of Node's handles that the direct way uses. */
interface Handle {
  onread: (this: unknown, ...args: unknown[]) => unknown;
  fd: number;
  reading: boolean;
  readStop(): void;
}

/** Node's constructor takes more than its types have. */
type PrivateOptions = SocketConstructorOpts & { handle?: unknown; manualStart?: boolean; onread: OnReadOpts };

/** Empty, but with an address: Node would not take an answer for a buffer at address 0. */
const nothing = new Uint8Array(16).subarray(0, 0);

/** What a {@link DirectReader} takes over. */
export interface DirectInput {
  /** A connected socket that has not been read, such as one of a server with `pauseOnConnect`. It must not be used again. */
  socket?: Socket;
  /** Or an open descriptor. */
  fd?: number;
}

/** The direct way. It makes the socket that is written to and destroyed. */
export class DirectReader implements StreamReader {
  readonly method = 'direct';
  readonly socket: Socket;
  readonly #pending = new PendingRead();
  /** Whether libuv has the target. */
  #isArmed = false;

  constructor({ socket, fd }: DirectInput) {
    const handle = handleOf(socket);
    const options: PrivateOptions = {
      ...(handle === undefined ? { fd: fd as number } : { handle }),
      allowHalfOpen: true,
      manualStart: true,
      onread: { buffer: () => nothing, callback: (count) => this.#take(count) },
    };
    this.socket = new Socket(options);
    if (socket !== undefined) (socket as unknown as { _handle: unknown })._handle = null;
    this.#intercept();
    this.socket.once('end', () => this.#pending.finish('end'));
    this.socket.on('error', (error) => this.#pending.finish(error));
    this.socket.once('close', () => this.#pending.finish(new Error('the socket was closed')));
  }

  #intercept(): void {
    const handle = handleOf(this.socket) as Handle;
    const original = handle.onread;
    const reader = this;
    handle.onread = function (...args) {
      if (reader.#isArmed) return original.apply(this, args);
      reader.#isArmed = true;
      return reader.#pending.target;
    };
  }

  #take(count: number): boolean {
    this.#isArmed = false;
    this.#pending.settle(count);
    return false;
  }

  read(target: Uint8Array): Promise<number> {
    const result = this.#pending.start(target);
    // Not at once: libuv may still be at work on the last read, and would report the end of the stream in between.
    if (this.#pending.target === target) setImmediate(this.#resume);
    return result;
  }

  readonly #resume = () => {
    if (this.#pending.target !== undefined) this.socket.resume();
  };

  break(error: Error): void {
    this.#pending.finish(error);
  }
}

/**
 * Reads a unix socket with the descriptors that come with its bytes, which libuv would drop. libuv finds that it has no
 * memory, as it does in the direct way, and never reads: its report says when there is something to read.
 */
export class PassingReader implements StreamReader {
  readonly method = 'direct';
  readonly socket: Socket;
  readonly #calls: DescriptorCalls;
  readonly #pending = new PendingRead();
  #passed: PassedDescriptors | undefined;

  constructor(accepted: Socket, calls: DescriptorCalls) {
    this.#calls = calls;
    const options: PrivateOptions = {
      ...{ handle: handleOf(accepted), allowHalfOpen: true, manualStart: true },
      onread: { buffer: () => nothing, callback: () => false },
    };
    this.socket = new Socket(options);
    (accepted as unknown as { _handle: unknown })._handle = null;
    const handle = handleOf(this.socket) as Handle;
    handle.onread = () => this.#take(handle);
    this.socket.on('error', (error) => this.#pending.finish(error));
    this.socket.once('close', () => this.break(new Error('the socket was closed')));
  }

  /** Something has come: bytes, the end, or an error. */
  #take(handle: Handle): undefined {
    const { target } = this.#pending;
    let received: ReturnType<DescriptorCalls['receive']>;
    try {
      received = target === undefined ? undefined : this.#calls.receive(handle.fd, target);
      if (target !== undefined && received === undefined) return;
    } catch (error) {
      this.#pending.finish(error as Error);
    }
    handle.reading = false;
    handle.readStop();
    if (received === undefined) return;
    if (received.descriptors.length > 0) this.#passed = new PassedDescriptors(received.descriptors);
    if (received.count === 0) this.#pending.finish('end');
    else this.#pending.settle(received.count);
  }

  read(target: Uint8Array): Promise<number> {
    const result = this.#pending.start(target);
    if (this.#pending.target === target) this.socket.resume();
    return result;
  }

  /** What came with the bytes of the last read, for which the caller is responsible from now on. */
  takeDescriptors(): PassedDescriptors | undefined {
    const passed = this.#passed;
    this.#passed = undefined;
    return passed;
  }

  break(error: Error): void {
    this.#pending.finish(error);
    this.takeDescriptors()?.close();
  }
}

function handleOf(socket: Socket | undefined): unknown {
  return (socket as unknown as { _handle?: unknown } | undefined)?._handle;
}

/** The way for every stream. */
export class DataReader implements StreamReader {
  readonly method = 'data';
  readonly #stream: Readable | Duplex;
  readonly #pending = new PendingRead();
  /** Bytes that came and were not read yet. */
  readonly #chunks: Uint8Array[] = [];

  constructor(stream: Readable | Duplex) {
    this.#stream = stream;
    stream.on('data', (chunk: Uint8Array) => {
      stream.pause();
      this.#chunks.push(chunk);
      const { target } = this.#pending;
      if (target !== undefined) this.#pending.settle(this.#shift(target));
    });
    stream.pause();
    stream.once('end', () => this.#pending.finish('end'));
    stream.on('error', (error) => this.#pending.finish(error));
    stream.once('close', () => this.#pending.finish(new Error('the socket was closed')));
  }

  read(target: Uint8Array): Promise<number> {
    if (this.#chunks.length > 0) return Promise.resolve(this.#shift(target));
    const result = this.#pending.start(target);
    if (this.#pending.target === target) this.#stream.resume();
    return result;
  }

  #shift(target: Uint8Array): number {
    const chunk = this.#chunks[0] as Uint8Array;
    const count = Math.min(chunk.length, target.length);
    target.set(chunk.subarray(0, count));
    if (count === chunk.length) this.#chunks.shift();
    else this.#chunks[0] = chunk.subarray(count);
    return count;
  }

  break(error: Error): void {
    this.#chunks.length = 0;
    this.#pending.finish(error);
  }
}

let chosen: Promise<ReadMethod> | undefined;

/** The faster way that works in this process. */
export function chooseReadMethod(): Promise<ReadMethod> {
  chosen ??= readsSomehow().then(
    (isGood) => (isGood ? 'direct' : 'data'),
    () => 'data',
  );
  return chosen;
}

/** Ends a self-test in which nothing arrives. */
const testLimitMs = 2_000;

/** Where the network has no loopback, Linux has unix sockets without a path. */
function readsSomehow(): Promise<boolean> {
  const onLoopback = readsDirectly({ host: '127.0.0.1', port: 0 });
  if (process.platform !== 'linux') return onLoopback;
  return onLoopback.catch(() => readsDirectly({ path: `\0vmferry-${process.pid}-${Math.random()}` }));
}

/** Sends two messages to itself and reads them in pieces. Returns whether all is right. */
async function readsDirectly(at: { host: string; port: number } | { path: string }): Promise<boolean> {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  const client = new Socket();
  let reader: DirectReader | undefined;
  const timer = setTimeout(() => reader?.break(new Error('nothing arrived')), testLimitMs);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ ...at, backlog: 1 }, resolve);
    });
    const accepted = new Promise<Socket>((resolve, reject) => {
      server.once('connection', resolve);
      client.once('error', reject);
    });
    client.connect('path' in at ? at : (server.address() as { port: number }));
    reader = new DirectReader({ socket: await accepted });
    return await readsPieces(reader, client);
  } finally {
    clearTimeout(timer);
    client.destroy();
    reader?.socket.destroy();
    server.close();
  }
}

async function readsPieces(reader: DirectReader, client: Socket): Promise<boolean> {
  const sent = Uint8Array.from({ length: 40 }, (_, index) => index + 1);
  const into = new Uint8Array(64);
  client.write(sent.subarray(0, 8));
  let at = await reader.read(into.subarray(0, 5));
  client.end(sent.subarray(8));
  for (let count = at; count > 0; at += count) count = await reader.read(into.subarray(at, at + 16));
  return at === sent.length && into.every((byte, index) => byte === (sent[index] ?? 0));
}

/** Connects without reading. For {@link DirectReader}. */
export function connectPaused(to: { host: string; port: number } | { path: string }): Socket {
  const socket = connect({ ...to, allowHalfOpen: true });
  socket.pause();
  return socket;
}
