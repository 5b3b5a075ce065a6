/** Credentials in the directories that QEMU's tls-creds objects name: certificates (x509) and shared keys (psk). */
import type { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { PeerError } from '../connection.ts';
import type { ObjectProperties } from './object-spec.ts';
import { clientHandshake, serverHandshake, versionsOf } from './tls-handshake.ts';
import type { TlsClient, TlsServer } from './tls-session.ts';
import { type Endpoint, optionalCredentials, readCredentials, readX509 } from './x509-files.ts';

/** Credentials that can be used. */
export interface Credentials {
  endpoint: Endpoint;
  /** Something that the user should know. */
  warning?: string | undefined;
  /** For the side that connects. `hostname` replaces the host of the address. */
  client(hostname: string | undefined): TlsClient;
  /** For the side that listens. `authorize` throws for a distinguished name that is not welcome. */
  server(authorize: (name: string) => void): TlsServer;
}

const endpoints: readonly Endpoint[] = ['client', 'server'];

/** The properties that all kinds have. */
function commonProperties(properties: ObjectProperties) {
  const endpoint = properties.choice('endpoint', endpoints) ?? 'client';
  const dir = properties.string('dir');
  const verifyPeer = properties.boolean('verify-peer') ?? true;
  const priority = properties.string('priority');
  const versions = versionsOf(priority);
  const isNewest = versions.maxVersion === 'TLSv1.3';
  const warning = isNewest
    ? 'TLS 1.3 was asked for: the end of a stream can get lost if the migration has no return path'
    : undefined;
  return { endpoint, dir, verifyPeer, versions, warning };
}

function requireDirectory(dir: string | undefined): string {
  if (dir === undefined) throw new RangeError(`Missing 'dir' property value`);
  return dir;
}

/** `tls-creds-anon`: its files are checked, but Node cannot use it. */
export function anonCredentials(properties: ObjectProperties): Credentials {
  const { endpoint, warning } = commonProperties(properties);
  const refuse = () => {
    throw new RangeError(
      'tls-creds-anon is not supported: Node has no anonymous TLS, which protects from nobody who is on the line; use tls-creds-psk or tls-creds-x509',
    );
  };
  return { endpoint, warning, client: refuse, server: refuse };
}

/** `tls-creds-psk`: both sides know a key. */
export function pskCredentials(properties: ObjectProperties): Credentials {
  const { endpoint, dir, versions, warning } = commonProperties(properties);
  const named = properties.string('username');
  const username = named ?? 'qemu';
  if (endpoint === 'server' && named !== undefined) {
    throw new RangeError('username should not be set when endpoint=server');
  }
  const directory = requireDirectory(dir);
  const path = join(directory, 'keys.psk');
  const keys = parseKeys(readCredentials(path));
  const key = keys.get(username);
  if (endpoint === 'client' && key === undefined) {
    throw new RangeError(`Username ${username} not found in PSK file ${path}`);
  }
  if (endpoint === 'client' && key === null) {
    throw new RangeError('Cannot set PSK client credentials: Error in parsing.');
  }
  const dhparam = endpoint === 'server' ? optionalCredentials(join(directory, 'dh-params.pem')) : undefined;
  const common = { ...versions, ciphers: pskCiphers };
  return {
    ...{ endpoint, warning },
    client: () => ({
      secure: (socket) =>
        clientHandshake(socket, { ...common, pskCallback: () => ({ psk: key as Buffer, identity: username }) }),
    }),
    server: () => ({
      secure: (socket) =>
        serverHandshake(socket, {
          ...common,
          ...(dhparam === undefined ? {} : { dhparam }),
          pskCallback: (_socket: TLSSocket, identity: string) => keys.get(identity) ?? null,
        }),
    }),
  };
}

/** By name, because `PSK` alone would choose a slow one. */
const pskCiphers = [
  ...['PSK-AES128-GCM-SHA256', 'PSK-AES256-GCM-SHA384', 'DHE-PSK-AES128-GCM-SHA256', 'DHE-PSK-AES256-GCM-SHA384'],
  ...['TLS_AES_128_GCM_SHA256'],
].join(':');

/** Parses lines of `user:hexkey`. Null: the key is malformed. */
function parseKeys(text: string): Map<string, Buffer | null> {
  const lines = text.split('\n').map((line) => /^([^#].*):(.*?)\s*$/.exec(line));
  return new Map(
    lines.flatMap((parts) => {
      const [, user = '', hex = ''] = parts ?? [];
      if (user === '') return [];
      return [[user, /^(?:[0-9a-f]{2})+$/i.test(hex) ? Buffer.from(hex, 'hex') : null] as const];
    }),
  );
}

/** `tls-creds-x509`: certificates. `passwords` finds the secret with an id. */
export function x509Credentials(properties: ObjectProperties, passwords: (id: string) => Buffer): Credentials {
  const { endpoint, dir, verifyPeer, versions, warning } = commonProperties(properties);
  const checksSanity = properties.boolean('sanity-check') ?? true;
  const passwordId = properties.string('passwordid');
  const directory = requireDirectory(dir);
  const passphrase = passwordId === undefined ? undefined : passwords(passwordId).toString();
  const context = { ...readX509({ directory, endpoint, passphrase, checksSanity }), ...versions };
  return {
    ...{ endpoint, warning },
    client: (hostname) => ({
      async secure(socket, host) {
        const session = await clientHandshake(socket, context);
        if (verifyPeer) checking(session, socket, () => checkServer(session, hostname || host));
        return session;
      },
    }),
    server: (authorize) => ({
      async secure(socket) {
        const session = await serverHandshake(socket, { ...context, requestCert: verifyPeer });
        if (verifyPeer) checking(session, socket, () => checkClient(session, authorize));
        return session;
      },
    }),
  };
}

/** Ends a session whose peer is not the right one. */
function checking(session: TLSSocket, socket: Duplex, check: () => void): void {
  try {
    check();
  } catch (error) {
    session.destroy();
    socket.destroy();
    throw error;
  }
}

/** The peer's certificate. */
function checkedCertificate(session: TLSSocket): X509Certificate {
  // Node returns it once: a second call finds nothing.
  const certificate = session.getPeerX509Certificate();
  if (certificate === undefined) throw new PeerError('Verify failed: No certificate was found.');
  if (session.authorized) return certificate;
  const code = String(session.authorizationError);
  throw new PeerError(chainTexts[code] ?? `The certificate is not trusted: ${code}`, { code });
}

const chainTexts: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'The certificate is not trusted: it has expired',
  CERT_NOT_YET_VALID: 'The certificate is not trusted: it is not valid yet',
  CERT_REVOKED: 'The certificate has been revoked',
  DEPTH_ZERO_SELF_SIGNED_CERT: "The certificate hasn't got a known issuer",
  SELF_SIGNED_CERT_IN_CHAIN: "The certificate hasn't got a known issuer",
  UNABLE_TO_GET_ISSUER_CERT: "The certificate hasn't got a known issuer",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "The certificate hasn't got a known issuer",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "The certificate hasn't got a known issuer",
};

function checkServer(session: TLSSocket, hostname: string | undefined): void {
  const certificate = checkedCertificate(session);
  if (!hostname) throw new PeerError('No hostname for certificate validation');
  const found = isIP(hostname) === 0 ? certificate.checkHost(hostname) : certificate.checkIP(hostname);
  if (found !== undefined) return;
  throw new PeerError(`Certificate does not match the hostname ${hostname}`);
}

function checkClient(session: TLSSocket, authorize: (name: string) => void): void {
  authorize(distinguishedName(checkedCertificate(session).subject));
}

/** Node lists the parts of a name in lines, in the order in which the certificate has them. */
function distinguishedName(subject: string): string {
  return subject
    .split('\n')
    .map((part) => part.replace(/^emailAddress=/, 'EMAIL='))
    .join(',');
}
