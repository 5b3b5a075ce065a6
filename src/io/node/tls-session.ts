/** What connections and listeners need of TLS: the handshakes, and the connection that comes of one. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Connection } from '../connection.ts';
import { connectionOverTls } from './socket-connection.ts';

/** Credentials of the side that connects. */
export interface TlsClient {
  /**
   * Does the handshake on a connected socket. `host` is that of the address, if it has one.
   * @throws PeerError with QEMU's text if the handshake fails, or the server is not the right one
   */
  secure(socket: Duplex, host: string | undefined): Promise<TLSSocket>;
}

/** Credentials of the side that listens. */
export interface TlsServer {
  /** Does the handshake on an accepted socket. @throws PeerError with QEMU's text if it fails, or the client is refused */
  secure(socket: Duplex): Promise<TLSSocket>;
}

/** Secures a socket that was not read yet. It is destroyed if that fails. */
export async function securedSocket(
  socket: Socket,
  name: string,
  secure: (socket: Duplex) => Promise<TLSSocket>,
): Promise<Connection> {
  try {
    return connectionOverTls(await secure(socket), socket, name);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** Secures any connection. It is destroyed if that fails. */
export async function securedConnection(
  connection: Connection,
  secure: (socket: Duplex) => Promise<TLSSocket>,
): Promise<Connection> {
  if (!connection.canRead || !connection.canWrite) {
    connection.destroy();
    throw new RangeError(`TLS needs a connection in both directions, and ${connection.name} has one`);
  }
  const duplex = duplexOver(connection);
  try {
    return connectionOverTls(await secure(duplex), duplex, connection.name);
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** Bytes read at a time from below a TLS session. */
const recordBytes = 16 * 1024;

function duplexOver(connection: Connection): Duplex {
  let position = 0;
  return new Duplex({
    allowHalfOpen: true,
    read() {
      const target = new Uint8Array(recordBytes);
      connection.read(target, position).then(
        (count) => {
          position += count;
          this.push(count === 0 ? null : target.subarray(0, count));
        },
        (error) => this.destroy(error),
      );
    },
    write(chunk: Uint8Array, _encoding, done) {
      connection.write(chunk).then(() => done(), done);
    },
    final(done) {
      connection.end().then(() => done(), done);
    },
    destroy(error, done) {
      connection.destroy();
      done(error);
    },
  });
}
