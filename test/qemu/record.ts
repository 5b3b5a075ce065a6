/**
 * A relay between a source and a destination, over unix sockets, that records every byte of both directions.
 */
import { createWriteStream } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { Transform, type Writable } from 'node:stream';
import { finished } from 'node:stream/promises';

/** One connection: what the source sent, and what the destination answered (the return path). */
export type Channel = { file: string; returnFile: string };

export class Recorder {
  /** In the order the source connected. */
  readonly channels: Channel[] = [];
  #path = '';
  #bytesPerSecond: number | undefined;
  #sockets: Socket[] = [];
  readonly #files: Writable[] = [];

  private constructor(
    readonly server: Server,
    /** The URI that the source migrates to. */
    readonly uri: string,
  ) {}

  /**
   * Listens in `dir`, and connects to the destination at `path` (or the last one given to {@link Recorder.cut})
   * whenever the source connects. `bytesPerSecond` slows it down, so that a test can break it in the middle.
   */
  static async start(dir: string, path: string, bytesPerSecond?: number): Promise<Recorder> {
    const listen = join(dir, 'recorder');
    const server = createServer({ allowHalfOpen: true });
    const recorder = new Recorder(server, `unix:${listen}`);
    recorder.#path = path;
    recorder.#bytesPerSecond = bytesPerSecond;
    server.on('connection', (source) => {
      const number = recorder.channels.length;
      const channel = { file: join(dir, `channel-${number}`), returnFile: join(dir, `channel-${number}.return`) };
      recorder.channels.push(channel);
      const destination = createConnection({ path: recorder.#path, allowHalfOpen: true });
      recorder.#relay(source, destination, channel.file);
      recorder.#relay(destination, source, channel.returnFile);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(listen, resolve);
    });
    return recorder;
  }

  /** Breaks all connections, like a network failure; later ones go to the destination at `path`. */
  cut(path: string): void {
    this.#path = path;
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets = [];
  }

  #relay(from: Socket, to: Socket, file: string): void {
    const record = createWriteStream(file);
    this.#sockets.push(from);
    this.#files.push(record);
    from.on('error', () => {});
    const rate = this.#bytesPerSecond;
    if (rate === undefined) {
      from.pipe(to);
      from.pipe(record);
      from.once('close', () => record.end());
      return;
    }
    // Records exactly the bytes that were passed on. The timer sets the transfer rate.
    const slow = new Transform({
      transform: (bytes, _, done) => void setTimeout(done, (bytes.length / rate) * 1000, null, bytes),
    });
    from.pipe(slow);
    slow.pipe(to);
    slow.pipe(record);
    from.once('close', () => slow.end());
  }

  /** Ends the remaining connections and waits until every byte is in its file. */
  async stop(): Promise<void> {
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#files.map((file) => finished(file)));
  }
}
