/**
 * Why an incoming migration failed, in QEMU's words: what it prints on standard error, where it is the same fault, and the
 * reason that `load of migration failed` ends with.
 */
import { PeerError } from '../io/connection.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { LiveError } from './live-error.ts';

interface LoadFailure {
  text: string;
  reason: 'Invalid argument' | 'Operation not supported' | 'Input/output error';
}

/** The version of the stream, and the configuration behind it. */
const [versionAt, configurationAt] = [4, 8];

/** @param isOld as 7.2, which takes what a line that broke did not bring for zeros */
export function loadFailure(error: unknown, isOld: boolean): LoadFailure {
  const cause = error instanceof LiveError && error.cause instanceof Error ? error.cause : error;
  const text = cause instanceof Error ? cause.message : String(cause);
  const brokenOff = isOld ? 'Invalid argument' : 'Input/output error';
  if (cause instanceof PeerError) return { text, reason: brokenOff };
  if (!(cause instanceof MigrationError)) return { text, reason: 'Invalid argument' };
  const { code, place } = cause;
  const isShort = code === 'truncated';
  if (code === 'not-a-migration-stream' || (isShort && place.offset < versionAt)) {
    return { text: 'Not a migration stream', reason: 'Invalid argument' };
  }
  if (code === 'unsupported-version' || (isShort && place.offset < configurationAt)) {
    return { text: 'Unsupported migration stream version', reason: 'Operation not supported' };
  }
  if (place.offset === configurationAt && (isShort || code === 'unknown-section-type')) {
    return { text: 'Configuration section missing', reason: 'Invalid argument' };
  }
  return { text, reason: isShort ? brokenOff : 'Invalid argument' };
}
