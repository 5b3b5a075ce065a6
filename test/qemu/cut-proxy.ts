/**
 * A proxy between a source and a destination that does something once a given number of bytes has passed, in the direction
 * of the destination, over all connections.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

export class CutProxy {
  passed = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly uri: string;

  private constructor(server: Server, uri: string) {
    this.#server = server;
    this.uri = uri;
  }

  /** Listens on `path`, and passes everything on to `target`. Calls `act` before it passes on byte `at`. */
  static async start(path: string, target: string, at: number, act: (proxy: CutProxy) => void): Promise<CutProxy> {
    const server = createServer({ allowHalfOpen: true });
    const proxy = new CutProxy(server, `unix:${path}`);
    let isDone = false;
    server.on('connection', (near) => {
      const far = connect({ path: target, allowHalfOpen: true });
      for (const socket of [near, far]) {
        proxy.#sockets.add(socket);
        socket.on('error', () => {});
      }
      near.on('data', (bytes: Buffer) => {
        const left = Math.max(0, at - proxy.passed);
        proxy.passed += bytes.length;
        if (bytes.length < left || isDone) {
          far.write(bytes);
          return;
        }
        isDone = true;
        near.pause();
        // What comes before is there when the rest does not come.
        far.write(bytes.subarray(0, left), () => act(proxy));
      });
      far.on('data', (bytes: Buffer) => near.write(bytes));
      near.on('end', () => far.end());
      far.on('end', () => near.end());
      near.on('close', () => far.destroy());
      far.on('close', () => near.destroy());
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return proxy;
  }

  /** Breaks all lines. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  [Symbol.dispose](): void {
    this.cut();
    this.#server.close();
  }
}
