/** A web server on this machine that answers range requests, and counts them and the bytes that it sends. */
import { createReadStream, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';

export class CountingServer {
  /** Byte ranges that were requested; undefined for a request of a whole file. */
  readonly ranges: (string | undefined)[] = [];
  /** Bytes of bodies that were given to connections. */
  sent = 0;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Serves files by their names: paths, or bytes. Each answer takes `delayMs`. */
  static async start(files: Record<string, string | Uint8Array>, { delayMs = 0 } = {}): Promise<CountingServer> {
    const server = createServer(async (request, response) => {
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
      const file = files[(request.url ?? '').slice(1)];
      if (file === undefined) return void response.writeHead(404).end();
      const size = typeof file === 'string' ? statSync(file).size : file.length;
      const { range } = request.headers;
      counting.ranges.push(range);
      const match = /^bytes=(\d+)-(\d+)$/.exec(range ?? '');
      const start = Number(match?.[1] ?? 0);
      const end = Math.min(size, Number(match?.[2] ?? size) + 1);
      if (start >= size) return void response.writeHead(416).end();
      const headers = { etag: '"one"', 'content-length': end - start, 'access-control-allow-origin': '*' };
      if (match === null) response.writeHead(200, headers);
      else response.writeHead(206, { ...headers, 'content-range': `bytes ${start}-${end - 1}/${size}` });
      const body =
        typeof file === 'string'
          ? createReadStream(file, { start, end: end - 1 })
          : Readable.from(piecesOf(file.subarray(start, end)));
      body.on('data', (chunk: Uint8Array) => {
        counting.sent += chunk.length;
      });
      body.pipe(response);
      response.on('close', () => body.destroy());
    });
    const counting = new CountingServer(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return counting;
  }

  /** The URL of a file. */
  url(name: string): `http://${string}` {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/${name}`;
  }

  /** Returns what was counted since the last call. */
  take(): { requests: number; bytes: number } {
    const counted = { requests: this.ranges.length, bytes: this.sent };
    this.ranges.length = 0;
    this.sent = 0;
    return counted;
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

function* piecesOf(bytes: Uint8Array): Generator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
