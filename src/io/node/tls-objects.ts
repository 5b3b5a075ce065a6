/** The objects that a user defines for TLS: credentials, secrets, and lists of who may connect. */
import { readFileSync } from 'node:fs';
import { PeerError } from '../connection.ts';
import { type Authz, authzList, authzListFile, authzSimple } from './authz.ts';
import { type ObjectProperties, parseObjectSpec } from './object-spec.ts';
import { localError } from './system-text.ts';
import { anonCredentials, type Credentials, pskCredentials, x509Credentials } from './tls-credentials.ts';
import type { TlsClient, TlsServer } from './tls-session.ts';

/** What an object is. */
type UserObject =
  | { kind: 'credentials'; credentials: Credentials }
  | { kind: 'authz'; authz: Authz }
  | { kind: 'secret'; secret: Buffer };

/** Objects by their ids. The texts of errors are QEMU's. */
export class UserObjects {
  readonly #objects = new Map<string, UserObject>();

  /**
   * Makes an object: `TYPE,id=ID,key=value,…` as for QEMU's `-object`, or the JSON of `object-add`. The types are
   * tls-creds-x509, tls-creds-psk, tls-creds-anon, authz-simple, authz-list, authz-list-file and secret. Files are read
   * now.
   * @throws RangeError if it is malformed; Error with the system's `code` if a file cannot be read
   */
  add(spec: string | Record<string, unknown>): void {
    const { type, id, properties } = parseObjectSpec(spec);
    const make = Object.hasOwn(makers, type) ? makers[type] : undefined;
    if (make === undefined) throw new RangeError(`Parameter 'qom-type' does not accept value '${type}'`);
    if (this.#objects.has(id)) {
      throw new RangeError(`attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    const object = make(properties, this.#secret);
    properties.end();
    this.#objects.set(id, object);
  }

  /** @throws RangeError if there is no such object */
  remove(id: string): void {
    if (!this.#objects.delete(id)) throw new RangeError(`object '${id}' not found`);
  }

  /** Whether there is an object of this id. */
  has(id: string): boolean {
    return this.#objects.has(id);
  }

  /** What the user should know about credentials. */
  warningOf(id: string): string | undefined {
    const object = this.#objects.get(id);
    return object?.kind === 'credentials' ? object.credentials.warning : undefined;
  }

  /**
   * Credentials for connecting. `hostname` is the name that the server's certificate must have; by default it is the host
   * of the address.
   * @throws RangeError if they do not exist, or are for something else
   */
  clientTls(id: string, hostname?: string): TlsClient {
    return this.#credentials(id, 'client').client(hostname);
  }

  /**
   * Credentials for listening. `authzId` names the object that decides about the distinguished names of clients. It is
   * looked up for each client.
   * @throws RangeError if they do not exist, or are for something else
   */
  serverTls(id: string, authzId?: string): TlsServer {
    return this.#credentials(id, 'server').server((name) => {
      if (authzId) this.#authorize(authzId, name);
    });
  }

  #credentials(id: string, endpoint: 'client' | 'server'): Credentials {
    const object = this.#objects.get(id);
    if (object === undefined) throw new RangeError(`No TLS credentials with id '${id}'`);
    if (object.kind !== 'credentials') throw new RangeError(`Object with id '${id}' is not TLS credentials`);
    const { credentials } = object;
    if (credentials.endpoint !== endpoint) {
      throw new RangeError(`Expected TLS credentials for a ${endpoint} endpoint`);
    }
    return credentials;
  }

  #authorize(id: string, name: string): void {
    const object = this.#objects.get(id);
    if (object === undefined) throw new PeerError(`Cannot find QAuthZ object ID ${id}`);
    if (object.kind !== 'authz') throw new PeerError(`Object '${id}' is not a QAuthZ subclass`);
    if (!object.authz(name)) throw new PeerError(`TLS x509 authz check for ${name} is denied`);
  }

  readonly #secret = (id: string): Buffer => {
    const object = this.#objects.get(id);
    if (object === undefined) throw new RangeError(`No secret with id '${id}'`);
    if (object.kind !== 'secret') throw new RangeError(`Object with id '${id}' is not a secret`);
    return object.secret;
  };
}

type Maker = (properties: ObjectProperties, secrets: (id: string) => Buffer) => UserObject;

const credentialsOf =
  (make: (properties: ObjectProperties, secrets: (id: string) => Buffer) => Credentials): Maker =>
  (properties, secrets) => ({ kind: 'credentials', credentials: make(properties, secrets) });

const authzOf =
  (make: (properties: ObjectProperties) => Authz): Maker =>
  (properties) => ({ kind: 'authz', authz: make(properties) });

const makers: Readonly<Record<string, Maker>> = {
  'tls-creds-x509': credentialsOf(x509Credentials),
  'tls-creds-psk': credentialsOf(pskCredentials),
  'tls-creds-anon': credentialsOf(anonCredentials),
  'authz-simple': authzOf(authzSimple),
  'authz-list': authzOf(authzList),
  'authz-list-file': authzOf(authzListFile),
  secret: (properties) => ({ kind: 'secret', secret: readSecret(properties) }),
};

function readSecret(properties: ObjectProperties): Buffer {
  const [data, file] = [properties.string('data'), properties.string('file')];
  const format = properties.choice('format', ['raw', 'base64'] as const) ?? 'raw';
  if (properties.string('keyid') !== undefined) throw new RangeError('secrets that are encrypted are not supported');
  if (data !== undefined && file !== undefined) {
    throw new RangeError(`'file' and 'data' are mutually exclusive`);
  }
  if (data === undefined && file === undefined) throw new RangeError(`Either 'file' or 'data' must be provided`);
  const content = data === undefined ? readFile(file as string) : Buffer.from(data);
  if (format === 'raw') return content;
  const text = content.toString('latin1');
  if (!/^[\w+/\s]*=*\s*$/.test(text)) throw new RangeError('Base64 data contains invalid characters');
  return Buffer.from(text, 'base64');
}

function readFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw localError(`Unable to read ${path}: Failed to open file “${path}”`, error);
  }
}
