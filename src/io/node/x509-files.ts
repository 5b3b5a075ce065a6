/** The certificates in the directory of a tls-creds-x509 object, and the checks that QEMU makes when it loads them. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { localError, systemCode } from './system-text.ts';

/** The side that credentials are for. */
export type Endpoint = 'client' | 'server';

/** What is read. */
export interface X509Files {
  directory: string;
  endpoint: Endpoint;
  /** Of the key. */
  passphrase: string | undefined;
  /** Refuse certificates that have expired, or are of another authority. */
  checksSanity: boolean;
}

/** Reads certificates. @throws Error with QEMU's text, and the system's `code` if a file cannot be read */
export function readX509({ directory, endpoint, passphrase, checksSanity }: X509Files): SecureContextOptions {
  const file = (name: string) => join(directory, name);
  const [caPath, certPath, keyPath] = [file('ca-cert.pem'), file(`${endpoint}-cert.pem`), file(`${endpoint}-key.pem`)];
  const ca = readCredentials(caPath);
  // A client may have none.
  const isServer = endpoint === 'server';
  const cert = isServer ? readCredentials(certPath) : optionalCredentials(certPath);
  const key = isServer ? readCredentials(keyPath) : optionalCredentials(keyPath);
  const authorities = certificatesIn(ca, `Unable to import CA certificate list ${caPath}`);
  const context: SecureContextOptions = { ca };
  if (cert !== undefined && key !== undefined) {
    const words = `Unable to import ${endpoint} certificate ${certPath}: Base64 unexpected header error.`;
    const own = certificatesIn(cert, words);
    if (checksSanity) checkSanity(own, authorities, { caPath, certPath, endpoint });
    Object.assign(context, { cert, key }, passphrase === undefined ? {} : { passphrase });
    requireMatch(context, certPath, keyPath);
  }
  const crl = optionalCredentials(file('ca-crl.pem'));
  const dhparam = isServer ? optionalCredentials(file('dh-params.pem')) : undefined;
  return { ...context, ...(crl === undefined ? {} : { crl }), ...(dhparam === undefined ? {} : { dhparam }) };
}

/** @throws Error with QEMU's text if it cannot be read */
export function readCredentials(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw localError(`Unable to access credentials ${path}`, error);
  }
}

/** The content of a file, undefined if there is none. */
export function optionalCredentials(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw localError(`Unable to access credentials ${path}`, error);
  }
}

function certificatesIn(pem: string, words: string): X509Certificate[] {
  const parts = pem.match(/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[\s\S]*?-----END [^\n]*/g) ?? [];
  if (parts.length === 0) throw new RangeError(words);
  try {
    return parts.map((part) => new X509Certificate(part));
  } catch (error) {
    throw new RangeError(words, { cause: error });
  }
}

interface Paths {
  caPath: string;
  certPath: string;
  endpoint: Endpoint;
}

function checkSanity(
  own: X509Certificate[],
  authorities: X509Certificate[],
  { caPath, certPath, endpoint }: Paths,
): void {
  const [leaf] = own as [X509Certificate];
  for (const [certificate, what] of [
    ...authorities.map((each) => [each, `CA certificate ${caPath}`] as const),
    [leaf, `${endpoint} certificate ${certPath}`] as const,
  ]) {
    const now = Date.now();
    if (Date.parse(certificate.validTo) < now) throw new RangeError(`The ${what} has expired`);
    if (Date.parse(certificate.validFrom) > now) throw new RangeError(`The ${what} is not yet active`);
  }
  const issuers = [...own.slice(1), ...authorities];
  if (issuers.some((issuer) => leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey))) return;
  const words = `Our own certificate ${certPath} failed validation against ${caPath}`;
  throw new RangeError(`${words}: The certificate hasn't got a known issuer`);
}

function requireMatch(context: SecureContextOptions, certPath: string, keyPath: string): void {
  try {
    createSecureContext(context);
  } catch (error) {
    const isMismatch = systemCode(error)?.endsWith('KEY_VALUES_MISMATCH') ?? false;
    const reason = isMismatch ? 'The certificate and the given key do not match.' : keyReason(error);
    throw new RangeError(`Cannot load certificate '${certPath}' & key '${keyPath}': ${reason}`, { cause: error });
  }
}

function keyReason(error: unknown): string {
  const code = systemCode(error) ?? '';
  const isLocked = /BAD_DECRYPT|INTERRUPTED_OR_CANCELLED|BAD_PASSWORD|MISSING_PASSPHRASE/.test(code);
  return isLocked ? 'Decryption has failed.' : (error as Error).message;
}
