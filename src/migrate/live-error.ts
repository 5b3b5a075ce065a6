/**
 * Every end of a live migration that is not a success says where the guest is, and what is safe to do next: two running
 * copies of a guest, or none, are the worst faults that a migration can have.
 *
 *     connecting, RAM, devices      end of the stream written          postcopy asked for
 *     ──────────────────────────────┬──────────────────────────────────┬─────────────────→
 *     source                        │ the target confirms: target      │ split
 *                                   │ it refuses:          source      │
 *                                   │ the line breaks:     either      │
 */

import { PeerError } from '../io/connection.ts';
import { MigrationError } from '../vm/migration-error.ts';

/**
 * - `source`: the guest can run on there. If a file was sent, the source is that file.
 * - `target`: it is there, whole.
 * - `split`: postcopy has begun. Neither side has all of it.
 * - `either`: it cannot be known from here.
 */
export type GuestPlace = 'source' | 'target' | 'split' | 'either';

/** A live migration ended without success. `cause` is the reason, and `message` is that of the reason. */
export class LiveError extends Error {
  override readonly name = 'LiveError';
  readonly guest: GuestPlace;
  /** What is safe to do next, as a sentence without a full stop. */
  readonly next: string;
  /** Of what there is more to say, such as how a program goes on: `served-` and the place of a guest that was served. */
  readonly code: string | undefined;

  constructor(guest: GuestPlace, next: string, cause: unknown, code?: string) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.guest = guest;
    this.next = next;
    this.code = code;
  }
}

/** Whether an error is a line that broke, not a fault of this side or of the stream. */
export function isBreak(error: unknown): boolean {
  if (error instanceof MigrationError) return error.code === 'truncated' || error.code === 'sync-missing';
  return error instanceof PeerError;
}

/** What is safe to do next if it is not known whether the source has begun postcopy. */
export const nextIfPostcopy =
  'the source had postcopy on: if it is in postcopy-paused or postcopy-active, all of the guest is there and can be resumed from there only; otherwise the guest runs on there';

/** What is safe to do next when a source has failed, by where the guest is. */
export const nextOfSource: Record<GuestPlace, string> = {
  source: 'the guest was not started at the target, whose own messages may say why; it can be sent again',
  target: 'the target has the guest: do not start it anywhere else',
  either: 'the guest may run at the target: look there (query-migrate, query-status) before you start it anywhere else',
  split:
    'postcopy had begun: neither side has all of the guest, so it must not be started here; leave the target as it is',
};

/** What is safe to do next when a page server has failed, by where the guest is. */
export const nextOfServer: Record<GuestPlace, string> = {
  source:
    'the guest was not started at the target, whose own messages may say why; it needs the capability postcopy-ram, and the right to use userfaultfd (vm.unprivileged_userfaultfd); without that right, let QEMU map the file (docs/resume.md), or send the guest whole, before it runs',
  target: nextOfSource.target,
  either: nextOfSource.either,
  split:
    'postcopy had begun: the guest may run at the target, and waits there in postcopy-paused for the rest of its RAM: let it listen again (migrate-recover), and serve the same file again, as a recovery; do not start it anywhere else',
};

/** What is safe to do next if a source may have begun, and nothing of it was read. */
export const nextUnread =
  'a source may have begun: without a return path it may have completed, and if it is still there, `cont` lets it run on; otherwise the guest runs on there';

/** What is safe to do next when a destination has failed. `kept` says what became of the pages that came. */
export function nextOfReceived(guest: GuestPlace, hasEnd: boolean, kept: string): string {
  if (guest === 'source') return 'the guest runs on at the source';
  if (guest === 'split') {
    return `postcopy had begun: neither side has all of the guest; leave the source as it is${kept}`;
  }
  return hasEnd
    ? 'the source may have completed: its guest is whole there; if it is still there, `cont` lets it run on'
    : 'there was no return path, so the source may have completed: if it is still there, `cont` lets it run on';
}
