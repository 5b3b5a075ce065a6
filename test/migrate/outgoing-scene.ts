/** A VM in virtual time that migrates into a file over lines in memory. Its events are noted in order. */
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import type { Connection } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import {
  type OutgoingHost,
  OutgoingMigration,
  type OutgoingMigrationOptions,
} from '../../src/migrate/outgoing-migration.ts';
import { receive } from '../../src/migrate/receive.ts';
import { open } from '../../src/node.ts';
import { throttleDefaults } from '../../src/schema/precopy-rules.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { MemoryListener } from './memory-listener.ts';

export const MiB = 1 << 20;
const size = 8 * MiB;

/** Half of its pages are zero pages. */
export async function makeVm(
  bandwidth = 8 * MiB,
  more: Partial<OutgoingMigrationOptions> = {},
  wrap: (line: Connection, index: number) => Connection = (line) => line,
) {
  const clock = new VirtualClock();
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size }]);
  const image = new Uint32Array(size / 4);
  for (let i = 0; i < image.length; i++) image[i] = (i >> 10) % 2 === 0 ? 0 : Math.imul(i, 2654435761);
  await ram.load(ram.blocks[0]!, new MemoryFile('image', new Uint8Array(image.buffer)));
  const workload = { rate: 2 * MiB, workingSet: 4 * MiB, pattern: 'random' as const };
  const guest = new SyntheticGuest({ ram, workload, clock });
  const listener = new MemoryListener();
  const output = new MemoryFile('OUT');
  const receiving = receive(
    new Incoming(listener),
    { file: output, commit: async () => {} },
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
    freeze: () => guest.ram.freeze(),
    onStatus: note,
    onPass: (pass) => note(`PASS ${pass}`),
    throttle: (percentage) => guest.throttle(percentage),
  };
  let lines = 0;
  const parameters = {
    ...{ ...throttleDefaults, 'downtime-limit': 300, 'avail-switchover-bandwidth': 0 },
    'max-bandwidth': bandwidth,
  };
  const migration = new OutgoingMigration(host, {
    parameters,
    connect: async () => wrap(listener.connect(), lines++),
    ...{ autoConverge: false, pauseBeforeSwitchover: false, alwaysEntersDevice: true, clock },
    ...more,
  });
  const seen = (event: string) =>
    events.includes(event) ? Promise.resolve() : new Promise<void>((resolve) => waits.push({ event, resolve }));
  /** Pieces of 1 MiB in which what arrived is not what the guest has. */
  const differences = async (arrived = output) => {
    if (arrived === output) await receiving;
    await using file = await open(arrived);
    const vm = await openSavedVm(file, { makeScratch: () => new MemoryFile('scratch') });
    const [one, other] = [new Uint8Array(MiB), new Uint8Array(MiB)];
    let count = 0;
    for (let at = 0; at < size; at += MiB) {
      await guest.read(guest.blocks[0]!, at / 4096, one);
      await vm.ram.read(vm.ram.blocks[0]!, at / 4096, other);
      if (Buffer.compare(one, other) !== 0) count++;
    }
    return count;
  };
  return { migration, events, seen, guest, clock, receiving, output, differences, parameters };
}

/** Without the passes, whose number is not the matter. */
export const withoutPasses = (events: string[]) => events.filter((event) => !event.startsWith('PASS'));
