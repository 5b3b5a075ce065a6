/**
 * A proxy between the two sides of a migration that harms what passes. Every connection to it becomes one to the target.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What happens to one direction of a connection. Offsets count its bytes. */
export interface Harm {
  /** After this many bytes both sides of the connection break. */
  cutAt?: number;
  /** How the connection breaks. Default `reset`. */
  cut?: 'reset' | 'end';
  /** From this byte on nothing passes any more, until one side ends the line. */
  stallAt?: number;
  /** This byte arrives with all bits inverted. */
  corruptAt?: number;
  /** The most bytes that pass at a time. */
  pieces?: number;
  /** Before each piece, in ms. */
  delayMs?: number;
  /** Called when this many bytes have passed, before the next one does. 0: as soon as the connection is there. */
  actAt?: number;
  act?: () => void;
  /** Called with all that passes. */
  see?: (bytes: Uint8Array) => void;
}

export interface Harms {
  /** From the source to the destination. */
  there?: Harm | undefined;
  back?: Harm | undefined;
}

interface Passed {
  there: number;
  back: number;
  /** The port from which the proxy has connected to the target. */
  port?: number | undefined;
}

export class HarmingProxy {
  readonly uri: string;
  readonly #server: Server;
  readonly #lines = new Set<Socket>();
  readonly #path: string | undefined;
  /** Bytes that passed, for each connection in the order of their arrival. */
  readonly passed: Passed[] = [];

  private constructor(server: Server, path: string | undefined) {
    this.#server = server;
    this.#path = path;
    this.uri = path === undefined ? `tcp:127.0.0.1:${(server.address() as AddressInfo).port}` : `unix:${path}`;
  }

  /**
   * Listens for connections to `target`, on loopback for a `tcp:` URI with a literal IPv4 address, and beside the socket
   * of a `unix:` URI.
   */
  static async open(target: string, harms: (connection: number) => Harms = () => ({})): Promise<HarmingProxy> {
    const [, host, port, socket] = /^(?:tcp:([\d.]+):(\d+)|unix:(.+))$/.exec(target) ?? [];
    if (host === undefined && socket === undefined) {
      throw new Error(`expected tcp:ADDRESS:PORT or unix:PATH, got ${target}`);
    }
    const path = socket && `${socket}.${randomBytes(3).toString('hex')}`;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    if (path === undefined) server.listen(0, '127.0.0.1');
    else server.listen(path);
    await once(server, 'listening');
    const proxy = new HarmingProxy(server, path);
    const to = socket === undefined ? { host, port: Number(port) } : { path: socket };
    server.on('connection', (source) => {
      const passed: Passed = { there: 0, back: 0 };
      const { there = {}, back = {} } = harms(proxy.passed.push(passed) - 1);
      const destination = connect({ ...to, allowHalfOpen: true });
      const pair: [Socket, Socket] = [source, destination];
      for (const line of pair) proxy.#watch(line, pair);
      // What breaks before would never have been a connection to the target.
      destination.once('connect', () => {
        passed.port = destination.localPort;
        void proxy.#pass(source, destination, there, passed, 'there');
        void proxy.#pass(destination, source, back, passed, 'back');
      });
    });
    return proxy;
  }

  #watch(line: Socket, pair: [Socket, Socket]): void {
    this.#lines.add(line);
    line.setNoDelay(true);
    line.on('error', () => {
      for (const each of pair) breakOff(each);
    });
    line.once('close', () => this.#lines.delete(line));
  }

  async #pass(from: Socket, to: Socket, harm: Harm, passed: Passed, way: 'there' | 'back'): Promise<void> {
    const { cutAt = Infinity, stallAt = Infinity, corruptAt = -1, pieces = Infinity, delayMs } = harm;
    const limit = Math.min(cutAt, stallAt);
    if (limit < 0) throw new RangeError(`expected an offset, got ${limit}`);
    let actAt = harm.actAt ?? Infinity;
    const actIfDue = () => {
      if (passed[way] < actAt) return;
      actAt = Infinity;
      harm.act?.();
    };
    try {
      actIfDue();
      for await (const chunk of from) {
        for (let at = 0; at < chunk.length; ) {
          const start = passed[way];
          if (start === limit) break;
          const piece = Buffer.from(chunk.subarray(at, at + Math.min(pieces, limit - start, actAt - start)));
          if (corruptAt >= start && corruptAt < start + piece.length) {
            piece[corruptAt - start] = ~(piece[corruptAt - start] as number) & 0xff;
          }
          if (delayMs !== undefined) await sleep(delayMs);
          if (!to.write(piece)) await Promise.race([once(to, 'drain'), once(to, 'close')]);
          harm.see?.(piece);
          passed[way] += piece.length;
          at += piece.length;
          actIfDue();
        }
        if (passed[way] === cutAt) return this.#cut(from, to, harm.cut);
        if (passed[way] === stallAt) return await this.#stall(from, to);
      }
      to.end();
    } catch {
      breakOff(to);
    }
  }

  #cut(from: Socket, to: Socket, how: Harm['cut'] = 'reset'): void {
    for (const line of [from, to]) {
      if (how === 'end') line.end();
      // What was written must arrive first.
      if (how === 'end') line.destroySoon();
      else breakOff(line);
    }
  }

  /** Passes nothing on. Either side can end the line. */
  async #stall(from: Socket, to: Socket): Promise<void> {
    from.pause();
    await Promise.race([once(from, 'close'), once(to, 'close')]);
    for (const line of [from, to]) breakOff(line);
  }

  /** Breaks all lines now. */
  cut(): void {
    for (const line of this.#lines) breakOff(line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const line of this.#lines) line.destroy();
    await once(this.#server, 'close');
    if (this.#path !== undefined) rmSync(this.#path, { force: true });
  }
}

function breakOff(line: Socket): void {
  if (line.destroyed) return;
  if (line instanceof Socket && line.remoteAddress !== undefined) line.resetAndDestroy();
  else line.destroy();
}
