/**
 * Migrations of several passes, with a guest that dirties its RAM meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DirtyKind, Guest, PageRange } from './guest.ts';
import { PAGE } from './machine.ts';
import type { MigrationInfo, Qemu } from './qemu.ts';

export type Workload = {
  /** So many passes (dirty-sync-count) are gone through before the last. */
  passes: number;
  /** What is dirtied once in pass `pass` (from 1); default: {@link dirtyMixed}. */
  dirty?: (guest: Guest, pass: number, ours: PageRange) => Promise<void>;
  /** In place of `dirty`: all pages of ours are dirtied in a loop, until the passes are through. */
  loop?: { kind: DirtyKind; pause?: number };
  /** The pages at the end of ours that are rewritten all the time; default: one of 16. */
  ballast?: number;
  /** The guest rewrites its ballast at the destination too, where it runs: so it asks for those pages. */
  goesOn?: boolean;
  /** Leaves pages to be sent when the guest is stopped. Default true. */
  leaveSome?: boolean;
  /** Leaves pages to be sent in postcopy. */
  postcopy?: boolean;
};

/** One mixed round over all pages of ours. */
export const dirtyMixed: NonNullable<Workload['dirty']> = (guest, _pass, ours) => guest.dirty(ours, 'mixed', 1);

/**
 * Migrates so that every pass has to be followed by another, until there were enough: the guest rewrites its ballast all
 * the time, the bandwidth is such that this alone takes 100 ms, and a downtime of 1 ms allows no page to be left.
 *
 * `onPostcopy` is called with each answer of query-migrate after the switchover.
 *
 * QEMU 7.2 under TCG can miss a write at the moment of a sync, so there every page of ours is touched once more at the end.
 * @throws when QEMU finished before the passes were through, since then there was too little to send
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
    // What is written again and again needs no further touch.
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

/** Fails as soon as QEMU stops the guest, which would never answer then. */
async function guestStops(qemu: Qemu, from: number, signal: AbortSignal): Promise<never> {
  for (;;) {
    if (qemu.events.slice(from).some(({ event }) => event === 'STOP')) {
      throw new Error('the guest was stopped while it was dirtying');
    }
    await sleep(20, undefined, { signal });
  }
}
