/** A synthetic guest that migrates into a real QEMU of machine `none`, whose RAM is a file in memory. */
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import type { WorkloadOptions } from '../../src/guest/workload.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import {
  type OutgoingHost,
  OutgoingMigration,
  type OutgoingMigrationOptions,
} from '../../src/migrate/outgoing-migration.ts';
import { throttleDefaults } from '../../src/schema/precopy-rules.ts';
import { releaseRulesOf } from '../../src/schema/release-rules.ts';
import type { QemuVersion } from './qemu.ts';

const MiB = 1 << 20;
/** Bytes of its RAM. */
export const size = 32 * MiB;

/** A guest with content, and a migration of it. */
export async function makeSource(
  version: QemuVersion,
  more: Partial<OutgoingMigrationOptions>,
  workload: WorkloadOptions = { rate: 20 * MiB, workingSet: 8 * MiB, pattern: 'random' },
) {
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size }]);
  const image = new Uint32Array(size / 4);
  for (let i = 0; i < image.length; i++) image[i] = (i >> 10) % 3 === 0 ? 0 : Math.imul(i, 2654435761);
  await ram.load(ram.blocks[0]!, new MemoryFile('image', new Uint8Array(image.buffer)));
  const guest = new SyntheticGuest({ ram, workload });
  const events: string[] = [];
  const host: OutgoingHost = {
    guest,
    async stop() {
      await guest.stop();
      events.push('STOP');
    },
    restart: () => guest.cont(),
    leave: () => {},
    onStatus: (status) => events.push(status),
    onPass: (pass) => events.push(`PASS ${pass}`),
    throttle: () => {},
  };
  const parameters = {
    ...{ ...throttleDefaults, 'downtime-limit': 300, 'avail-switchover-bandwidth': 0 },
    ...{ 'max-bandwidth': 32 * MiB, 'max-postcopy-bandwidth': 16 * MiB },
  };
  const migration = new OutgoingMigration(host, {
    ...{ parameters, autoConverge: false, pauseBeforeSwitchover: false, alwaysEntersDevice: version === '10.0' },
    ...{ release: version, rules: releaseRulesOf('none', version) },
    connect: async () => {
      throw new Error('there is nobody to connect to');
    },
    ...more,
  });
  return { migration, guest, events };
}

/** Pages in which what arrived is not what the guest has. */
export async function countDifferences(guest: SyntheticGuest, arrived: Uint8Array): Promise<number> {
  const here = new Uint8Array(4096);
  let count = 0;
  for (let at = 0; at < size; at += here.length) {
    await guest.read(guest.blocks[0]!, at / 4096, here);
    if (Buffer.compare(arrived.subarray(at, at + here.length), here) !== 0) count++;
  }
  return count;
}
