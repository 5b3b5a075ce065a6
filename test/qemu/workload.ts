/**
 * Migrations of several passes, with a guest that dirties its RAM meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DirtyKind, Guest, PageRange } from './guest.ts';
import { PAGE } from './machine.ts';
import type { MigrationInfo, Qemu } from './qemu.ts';

export type Workload = {
  /** Passes (dirty-sync-count) to complete before the last. */
  passes: number;
  /** Dirties pages once in pass `pass` (from 1); default: {@link dirtyMixed}. */
  dirty?: (guest: Guest, pass: number, ours: PageRange) => Promise<void>;
  /** Replaces `dirty`: dirties all our pages in a loop until the passes are complete. */
  loop?: { kind: DirtyKind; pause?: number };
  /** The number of pages, at the end of ours, that are constantly rewritten; default: one in 16. */
  ballast?: number;
  /** The guest also rewrites its ballast while it runs at the destination, so it requests those pages. */
  goesOn?: boolean;
  /** Leaves pages to send after the guest is stopped. Default true. */
  leaveSome?: boolean;
  /** Leaves pages to send in postcopy. */
  postcopy?: boolean;
};

/** One mixed round over all our pages. */
export const dirtyMixed: NonNullable<Workload['dirty']> = (guest, _pass, ours) => guest.dirty(ours, 'mixed', 1);

/**
 * Migrates so that every pass requires another, until there were enough: the guest constantly rewrites its ballast, the
 * bandwidth makes that alone take 100 ms, and a downtime of 1 ms does not allow a page to remain.
 *
 * `onPostcopy` is called with each answer of query-migrate after the switchover.
 *
 * QEMU 7.2 under TCG can miss a write at the moment of a sync, so there every page of ours is touched again at the end.
 * @throws if QEMU finishes before all passes are complete, since then there was too little to send
 */
export async function migrateInPasses(
  qemu: Qemu,
  guest: Guest,
  uri: string,
  workload: Workload,
  ours: PageRange,
  parameters: Record<string, unknown>,
  onPostcopy?: (info: MigrationInfo) => Promise<void>,
): Promise<MigrationInfo> {
  const { passes, leaveSome = true, postcopy = false, goesOn = false, loop, dirty = dirtyMixed } = workload;
  const count = workload.ballast ?? Math.ceil(ours.count / 16);
  const first = ours.first + ours.count - count;
  let seen = 0;
  let done = false;

  const dirtyPass = async (pass: number) => {
    if (!loop) await dirty(guest, pass, ours);
    else if (pass === 1) await guest.startDirtying(ours, loop.kind, loop.pause);
    if (pass < passes) return;
    if (loop) await guest.stop();
    // The ballast is rewritten constantly and needs no extra touch.
    if (goesOn) return;
    await guest.ballast();
    if (qemu.version === '7.2') await guest.dirty(ours, 'touch', 1);
  };

  await guest.ballast({ first, count });
  const stopped = new AbortController();
  const from = qemu.events.length;
  const info = await qemu
    .migrate(uri, {
      parameters: { 'max-bandwidth': count * PAGE * 10, 'downtime-limit': 1, ...parameters },
      onIteration: async (info) => {
        const { status, ram } = info;
        if (status === 'postcopy-active') return onPostcopy?.(info);
        const pass = ram!['dirty-sync-count']!;
        if (done || pass === seen || status !== 'active') return;
        seen = pass;
        await Promise.race([dirtyPass(pass), guestStops(qemu, from, stopped.signal)]);
        if (pass < passes) return;
        done = true;
        if (postcopy) await qemu.execute('migrate-start-postcopy');
        else await qemu.setParameters(leaveSome ? { 'downtime-limit': 60_000 } : { 'max-bandwidth': 0 });
      },
    })
    .finally(() => stopped.abort());
  if (!done) throw new Error(`migration completed after ${seen} passes, expected ${passes}: too little was dirty`);
  return info;
}

/** Fails as soon as QEMU stops the guest, since a stopped guest would never answer. */
async function guestStops(qemu: Qemu, from: number, signal: AbortSignal): Promise<never> {
  for (;;) {
    if (qemu.events.slice(from).some(({ event }) => event === 'STOP')) {
      throw new Error('the guest was stopped while it was dirtying');
    }
    // Interval between two looks at the events; QMP's own wait for an event cannot be aborted.
    await sleep(20, undefined, { signal });
  }
}
