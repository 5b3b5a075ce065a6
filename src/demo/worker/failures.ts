/** Turns errors into failures, which are plain data. */

import { MissingDecompressorError } from '../../io/compression.ts';
import { HttpError } from '../../io/http-source.ts';
import { NoRoomError } from '../../io/scratch.ts';
import { SnapshotError } from '../../read/container/qcow2-snapshots.ts';
import { UnclearPartsError } from '../../read/sort-parts.ts';
import { reportSnapshot } from '../../tasks/inspect/inspect.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { Failure, FailureKind } from '../protocol.ts';

/** Errors of the browser that are not faults of this program, by name. */
const browserErrors: Record<string, FailureKind> = {
  QuotaExceededError: 'no-space',
  // The file was changed or removed after the user chose it.
  NotReadableError: 'unreadable',
  NotFoundError: 'unreadable',
  NotAllowedError: 'unreadable',
  NoModificationAllowedError: 'unreadable',
};

/** How Chromium, Firefox and WebKit say that a script of the page could not be fetched. */
const moduleFailure = /dynamically imported module|Importing a module script failed/i;

/** The browser lacks something that the page needs. */
class UnsupportedError extends Error {
  override readonly name = 'UnsupportedError';
}

/** @throws UnsupportedError without WebAssembly */
export function requireWebAssembly(): void {
  if (typeof WebAssembly === 'object') return;
  throw new UnsupportedError('this browser has no WebAssembly, or it is turned off');
}

export function describeFailure(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof MigrationError) {
    const { code, place, detail, reason } = error;
    return { kind: 'bad-input', message, code, place, detail, ...(reason === undefined ? {} : { reason }) };
  }
  if (error instanceof SnapshotError) {
    return { kind: 'no-snapshot', message, snapshots: error.image.snapshots.map(reportSnapshot) };
  }
  if (error instanceof UnclearPartsError) return { kind: 'unclear-parts', message, parts: error.parts };
  if (error instanceof HttpError) return { kind: 'network', message };
  if (error instanceof UnsupportedError) return { kind: 'unsupported', message };
  if (error instanceof NoRoomError) return { kind: 'no-space', message };
  // With a cause, the page has a decompressor, but could not load it.
  if (error instanceof MissingDecompressorError) {
    return { kind: error.cause === undefined ? 'no-decoder' : 'not-loaded', message };
  }
  if (error instanceof TypeError && moduleFailure.test(message)) return { kind: 'not-loaded', message };
  const known = error instanceof DOMException ? browserErrors[error.name] : undefined;
  if (known !== undefined) return { kind: known, message };
  const isWrong = error instanceof RangeError || error instanceof TypeError || error instanceof SyntaxError;
  return { kind: isWrong ? 'wrong-call' : 'internal', message };
}
