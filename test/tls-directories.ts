/** Directories of TLS credentials for tests, made of the certificates in test/fixtures/tls. */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const certificates = join(import.meta.dirname, 'fixtures/tls');

/** Makes directories of credentials, and removes them all. */
export class TlsDirectories {
  readonly root = mkdtempSync(join(tmpdir(), 'vmferry-tls-'));

  /** A directory with the given files, each of which is a copy of one in test/fixtures/tls, or has the given text. */
  make(files: Record<string, string | { text: string }>): string {
    const directory = mkdtempSync(join(this.root, 'creds-'));
    for (const [name, from] of Object.entries(files)) {
      if (typeof from === 'string') copyFileSync(join(certificates, from), join(directory, name));
      else writeFileSync(join(directory, name), from.text);
    }
    return directory;
  }

  /** Credentials of a server, with the certificate of that name. */
  server(name = 'server', more: Record<string, string> = {}): string {
    return this.make({
      'ca-cert.pem': 'ca-cert.pem',
      'server-cert.pem': `${name}-cert.pem`,
      'server-key.pem': `${name}-key.pem`,
      ...more,
    });
  }

  /** Credentials of a client, with or without a certificate. */
  client(name?: string, more: Record<string, string> = {}): string {
    const own =
      name === undefined ? {} : { 'client-cert.pem': `${name}-cert.pem`, 'client-key.pem': `${name}-key.pem` };
    return this.make({ 'ca-cert.pem': 'ca-cert.pem', ...own, ...more });
  }

  /** Keys that both sides know. */
  psk(keys: string): string {
    return this.make({ 'keys.psk': { text: keys } });
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}
