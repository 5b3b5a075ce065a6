/** The states of an outgoing migration, their order, and what `query-migrate` says, in virtual time over lines in memory. */
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import { PeerError } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { receive } from '../../src/migrate/destination.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import {
  type OutgoingHost,
  OutgoingMigration,
  type OutgoingMigrationOptions,
} from '../../src/migrate/outgoing-migration.ts';
import { throttleDefaults } from '../../src/schema/precopy-rules.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { MemoryListener } from './memory-listener.ts';

const MiB = 1 << 20;

/** A VM whose events are noted in order. */
function makeVm(bandwidth = 8 * MiB, more: Partial<OutgoingMigrationOptions> = {}) {
  const clock = new VirtualClock();
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: 8 * MiB }]);
  const workload = { rate: 2 * MiB, workingSet: 4 * MiB, pattern: 'random' as const };
  const guest = new SyntheticGuest({ ram, workload, clock });
  const listener = new MemoryListener();
  const receiving = receive(
    new Incoming(listener),
    { file: new MemoryFile('OUT'), commit: async () => {} },
    { codecs: new NodeCodecs() },
  );
  receiving.catch(() => {});
  const events: string[] = [];
  const waits: { event: string; resolve: () => void }[] = [];
  const note = (event: string) => {
    events.push(event);
    for (const wait of waits) if (wait.event === event) wait.resolve();
  };
  let wasRunning = false;
  const host: OutgoingHost = {
    guest,
    async stop() {
      wasRunning = guest.isRunning;
      await guest.stop();
      note('STOP');
    },
    restart() {
      if (wasRunning) {
        guest.cont();
        note('RESUME');
      }
    },
    leave: () => note('gone'),
    onStatus: note,
    onPass: (pass) => note(`PASS ${pass}`),
    throttle: (percentage) => guest.throttle(percentage),
  };
  const migration = new OutgoingMigration(host, {
    parameters: {
      ...{ ...throttleDefaults, 'downtime-limit': 300, 'avail-switchover-bandwidth': 0 },
      'max-bandwidth': bandwidth,
    },
    connect: async () => listener.connect(),
    ...{ autoConverge: false, pauseBeforeSwitchover: false, alwaysEntersDevice: true, clock },
    ...more,
  });
  const seen = (event: string) =>
    events.includes(event) ? Promise.resolve() : new Promise<void>((resolve) => waits.push({ event, resolve }));
  return { migration, events, seen, guest, clock, receiving };
}

/** Without the passes in the middle, whose number is not the matter here. */
const withoutPasses = (events: string[]) => events.filter((event) => !event.startsWith('PASS'));

describe('a migration', () => {
  it('goes from setup to completed, with its events in the order of QEMU 10.0', async () => {
    const { migration, events, guest, receiving } = makeVm();
    expect(migration.query()).toEqual({ status: 'none' });
    await migration.run();
    await receiving;
    expect(events.slice(0, 3)).toEqual(['setup', 'PASS 1', 'active']);
    const last = events.filter((event) => event.startsWith('PASS')).length;
    expect(events.slice(-5)).toEqual(['STOP', 'device', `PASS ${last}`, 'gone', 'completed']);
    expect(guest.isRunning).toBe(false);
    const { status, downtime, ram, ...times } = migration.query();
    expect(status).toBe('completed');
    expect(downtime).toBeLessThanOrEqual(times['total-time'] ?? 0);
    expect(ram).toMatchObject({ remaining: 0, 'dirty-pages-rate': 0, 'dirty-sync-count': last });
  });

  it('has no device without a pause before 10.0', async () => {
    const { migration, events } = makeVm(8 * MiB, { alwaysEntersDevice: false });
    await migration.run();
    expect(withoutPasses(events)).toEqual(['setup', 'active', 'STOP', 'gone', 'completed']);
  });

  it('waits in pre-switchover for migrate-continue, with the guest stopped', async () => {
    const { migration, events, seen } = makeVm(8 * MiB, { pauseBeforeSwitchover: true, alwaysEntersDevice: false });
    const running = migration.run();
    await seen('pre-switchover');
    expect(events.at(-1)).toBe('pre-switchover');
    expect(events.at(-2)).toBe('STOP');
    expect(() => migration.continue('active')).toThrow('Migration not in expected state: pre-switchover');
    migration.continue('pre-switchover');
    await running;
    expect(withoutPasses(events)).toEqual([
      ...['setup', 'active', 'STOP', 'pre-switchover', 'device', 'gone', 'completed'],
    ]);
  });

  it('is cancelled while it is active, and the guest never stood still', async () => {
    const { migration, events, seen, guest } = makeVm(1 * MiB);
    const running = migration.run();
    await seen('active');
    expect(migration.query()).toMatchObject({ status: 'active', 'expected-downtime': 300 });
    migration.cancel();
    expect(migration.query()).toMatchObject({ status: 'cancelling' });
    await running;
    expect(withoutPasses(events)).toEqual(['setup', 'active', 'cancelling', 'cancelled']);
    expect(guest.isRunning).toBe(true);
    expect(migration.query()).toEqual({ status: 'cancelled' });
    migration.cancel();
    expect(migration.status).toBe('cancelled');
  });

  it('is cancelled in pre-switchover, and the guest runs on before that is said', async () => {
    const { migration, events, seen, guest } = makeVm(8 * MiB, { pauseBeforeSwitchover: true });
    const running = migration.run();
    await seen('pre-switchover');
    migration.cancel();
    await running;
    expect(withoutPasses(events)).toEqual([
      ...['setup', 'active', 'STOP', 'pre-switchover', 'cancelling', 'RESUME', 'cancelled'],
    ]);
    expect(guest.isRunning).toBe(true);
  });

  it('fails if nobody listens, in the words of the line', async () => {
    const message = "Failed to connect to '127.0.0.1:1': Connection refused";
    const { migration, events } = makeVm(0, {
      connect: async () => {
        throw new PeerError(message);
      },
    });
    await migration.run();
    expect(events).toEqual(['setup', 'failed']);
    expect(migration.query()).toEqual({ status: 'failed', 'error-desc': message });
  });
});
