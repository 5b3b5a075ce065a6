/** The objects of QEMU's --object that live commands use: TLS credentials and rules of authorization. */
import type { TlsClient, TlsServer } from './tls-session.ts';

export class UserObjects {
  /** Adds an object, as QEMU's --object says it. @throws Error: no kind of object is supported yet */
  add(spec: string): void {
    throw new Error(`objects are not supported yet: ${spec}`);
  }

  /** @throws Error for an id that no object has */
  clientTls(id: string, _hostname?: string): TlsClient {
    throw new Error(`No TLS credentials with id '${id}'`);
  }

  /** @throws Error for an id that no object has */
  serverTls(id: string, _authzId?: string): TlsServer {
    throw new Error(`No TLS credentials with id '${id}'`);
  }
}
