/**
 * TLS handshakes with node:tls. QEMU uses GnuTLS: its texts stand for what OpenSSL reports.
 *
 * TLS 1.2 is the newest version by default. With 1.3, bytes that the other side sent last can get lost: unread session
 * tickets make its close a reset.
 */
import { type Duplex, finished } from 'node:stream';
import { type ConnectionOptions, connect, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { PeerError } from '../connection.ts';
import { systemCode } from './system-text.ts';

/** The versions of TLS that may be used. */
export interface TlsVersions {
  minVersion: 'TLSv1.2' | 'TLSv1.3';
  maxVersion: 'TLSv1.2' | 'TLSv1.3';
}

/** What of a GnuTLS priority string is respected: the versions. @throws RangeError if none is left */
export function versionsOf(priority: string | undefined): TlsVersions {
  const words = (priority ?? '').toUpperCase().split(':');
  const has = (...some: string[]) => some.some((word) => words.includes(word));
  const newest = has('+VERS-TLS1.3');
  const clears = has('-VERS-ALL', '-VERS-TLS-ALL', '-VERS-TLS1.2');
  const oldest = !clears || has('+VERS-TLS1.2');
  if (!newest && !oldest) throw new RangeError(`the priority ${priority} leaves neither TLS 1.2 nor TLS 1.3`);
  return { minVersion: oldest ? 'TLSv1.2' : 'TLSv1.3', maxVersion: newest ? 'TLSv1.3' : 'TLSv1.2' };
}

/** Does the client's handshake. It checks nothing about the server. @throws PeerError */
export async function clientHandshake(socket: Duplex, options: ConnectionOptions): Promise<TLSSocket> {
  closesAtEnd(socket);
  const session = connect({ ...options, ...anyPeer, socket });
  await handshake(socket, session, (done) => session.once('secureConnect', done));
  session.allowHalfOpen = true;
  return session;
}

/** If the peer ends its direction during the handshake, that fails. Otherwise Node would wait for more. */
function closesAtEnd(socket: Duplex): void {
  socket.allowHalfOpen = false;
}

/** Checks of the certificate are made afterwards, so that they can be reported. */
const anyPeer = { rejectUnauthorized: false, checkServerIdentity: () => undefined };

/** Does the server's handshake. It checks nothing about the client. @throws PeerError */
export async function serverHandshake(socket: Duplex, options: TlsOptions): Promise<TLSSocket> {
  // A server for one connection, because only that documents how a session is made over any stream.
  const server = createServer({ ...options, rejectUnauthorized: false });
  closesAtEnd(socket);
  let session: TLSSocket | undefined;
  await handshake(socket, undefined, (done, fail) => {
    server.once('secureConnection', (made) => {
      session = made;
      made.allowHalfOpen = true;
      done();
    });
    server.once('tlsClientError', (error, made) => {
      made.destroy();
      fail(error);
    });
    server.emit('connection', socket);
  });
  return session as TLSSocket;
}

async function handshake(
  socket: Duplex,
  session: TLSSocket | undefined,
  start: (done: () => void, fail: (error: Error) => void) => void,
): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      session?.on('error', reject);
      socket.on('error', reject);
      finished(socket, { writable: false }, () => reject(new Error('the connection was closed')));
      start(resolve, reject);
    });
  } catch (error) {
    session?.destroy();
    socket.destroy();
    throw handshakeError(error as Error);
  }
}

function handshakeError(error: Error): PeerError {
  const code = systemCode(error);
  const known = handshakeTexts.find(([pattern]) => pattern.test(code ?? ''))?.[1];
  const isClosed = code === undefined || !code.startsWith('ERR_SSL');
  const reason = known ?? (isClosed ? texts.closed : ((error as { reason?: string }).reason ?? error.message));
  return new PeerError(`TLS handshake failed: ${reason}`, { code, cause: error });
}

const texts = {
  closed: 'The TLS connection was non-properly terminated.',
  unexpected: 'An unexpected TLS packet was received.',
  illegal: 'An illegal parameter has been received.',
  alert: 'A TLS fatal alert has been received.',
  noCipher: 'Could not negotiate a supported cipher suite.',
  version: 'A packet with illegal or unsupported version was received.',
};

/** GnuTLS's texts for OpenSSL's codes. */
const handshakeTexts: readonly [RegExp, string][] = [
  [/_ALERT_|_ALERT$/, texts.alert],
  [
    /^ERR_SSL_(?:WRONG_VERSION_NUMBER|HTTP_REQUEST|UNKNOWN_PROTOCOL|UNEXPECTED_MESSAGE|BAD_RECORD_TYPE)/,
    texts.unexpected,
  ],
  [/^ERR_SSL_(?:UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW)/, texts.version],
  [
    /^ERR_SSL_(?:DECRYPTION_FAILED_OR_BAD_RECORD_MAC|CIPHER_OPERATION_FAILED|BAD_PSK|PSK_IDENTITY_NOT_FOUND|BINDER_DOES_NOT_VERIFY)/,
    texts.illegal,
  ],
  [/^ERR_SSL_NO_(?:SHARED_CIPHER|SUITABLE)/, texts.noCipher],
];
