/**
 * A listener for a multifd source that saves every connection to a file. It needs no destination: a source without a
 * return path expects no answer.
 */
import { closeSync, createWriteStream, openSync, readSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';

export class Collector {
  /** In the order the source connected. */
  readonly #files: string[] = [];
  readonly #sockets: Socket[] = [];
  readonly #saved: Promise<void>[] = [];

  private constructor(
    readonly server: Server,
    /** The URI that the source migrates to. */
    readonly uri: string,
  ) {}

  static async start(dir: string): Promise<Collector> {
    const listen = join(dir, 'collector');
    // The maximum number of channels may connect at once.
    const server = createServer();
    const collector = new Collector(server, `unix:${listen}`);
    server.on('connection', (socket) => {
      const file = join(dir, `connection-${collector.#files.length}`);
      collector.#files.push(file);
      collector.#sockets.push(socket);
      const out = createWriteStream(file);
      collector.#saved.push(finished(out));
      // A source may reset a connection; the file has the data before that.
      socket.on('error', () => {});
      socket.pipe(out, { end: false });
      socket.once('close', () => out.end());
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ path: listen, backlog: 300 }, resolve);
    });
    return collector;
  }

  /** Waits until the source has closed every connection and all bytes are in the files. */
  async finish(): Promise<{ main: string; channels: string[] }> {
    await Promise.all(this.#saved);
    this.server.close();
    // The first bytes identify the main connection, in any order.
    const isMain = (file: string) => startsWith(file, 'QEVM');
    const main = this.#files.filter(isMain);
    if (main.length !== 1) throw new Error(`expected one main channel, got ${main.length} of ${this.#files.length}`);
    return { main: main[0]!, channels: this.#files.filter((file) => file !== main[0]) };
  }

  /** Ends the remaining connections. */
  abandon(): void {
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function startsWith(file: string, text: string): boolean {
  const bytes = Buffer.alloc(text.length);
  const descriptor = openSync(file, 'r');
  try {
    return readSync(descriptor, bytes) === bytes.length && bytes.toString('latin1') === text;
  } finally {
    closeSync(descriptor);
  }
}
