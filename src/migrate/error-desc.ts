/**
 * Why a migration failed, in the words that `query-migrate` of each release has for it (member `error-desc`). A source of
 * QEMU notices most faults of a line in one of two places, whose texts say little about the cause.
 */
import { PeerError } from '../io/connection.ts';
import type { ReleaseName } from '../schema/release-rules.ts';
import { LiveError } from './live-error.ts';

export interface FailureContext {
  release: ReleaseName;
  /** The source had asked for a return path. */
  returnPath: boolean;
  /** The first sync is done, and RAM has not begun to leave. */
  isInSetup: boolean;
}

const faultOfFile = /^Unable to write to file: /;
const faultOfLine = /Unable to (read from|write to) (socket|command)|Channel error: /;

/** Whether an error is a line that broke, rather than a word of the destination. */
export function isFaultOfLine(error: unknown): boolean {
  const cause = causeOf(error);
  return cause instanceof PeerError && faultOfLine.test(cause.message);
}

/** QEMU's text for the end of a migration. */
export function errorDesc(error: unknown, { release, returnPath, isInSetup }: FailureContext): string {
  const cause = causeOf(error);
  const message = cause instanceof Error ? cause.message : String(cause);
  const isLatest = release === '10.0';
  const isFault = isFaultOfLine(error);
  if (isInSetup && isLatest && (isFault || faultOfFile.test(message)))
    return 'ram_save_setup failed: Input/output error';
  if (!isFault) return message;
  if (returnPath && !isInSetup) {
    return release === '7.2' ? 'Unable to write to socket: Bad file descriptor' : 'Channel error: Input/output error';
  }
  return message.replace(/^.*: (?=Channel error: )/, '');
}

/** QEMU has the reason alone, without what is safe to do. */
function causeOf(error: unknown): unknown {
  const cause = error instanceof LiveError && error.cause instanceof Error ? error.cause : error;
  // This side broke the line, as `yank` does.
  const isOwn = cause instanceof PeerError && cause.code === 'ECONNABORTED';
  return isOwn ? new PeerError('Unable to write to socket: Broken pipe', { cause }) : cause;
}
