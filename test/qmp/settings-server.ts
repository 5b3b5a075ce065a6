/** A QMP server with a machine that has 16 MiB of RAM, and nobody to migrate to. */

import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PortableCodecs } from '../../src/io/portable-codecs.ts';
import { BlockNodes } from '../../src/migrate/block-node.ts';
import { DirtyRate } from '../../src/migrate/dirty-rate.ts';
import { Machine } from '../../src/migrate/machine.ts';
import { MachineMigrate } from '../../src/migrate/machine-migrate.ts';
import { machineHandlers } from '../../src/qmp/machine/machine-server.ts';
import { type Handler, QmpServer } from '../../src/qmp/server.ts';
import { MigrationSettings } from '../../src/schema/migration-settings.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';
import type { ReleaseName } from '../../src/schema/release-rules.ts';
import { noDescriptors } from '../support/no-descriptors.ts';

/** What has no handler yet. A test of arguments does not reach it. */
const unreached = (): never => {
  throw new Error('expected the arguments to be refused');
};

const nowhere = () => Promise.reject(new Error('nobody listens'));

export function settingsServer(release: ReleaseName, more: Record<string, Handler> = {}): QmpServer {
  const schema = schemaOf(release);
  const machine = new Machine({
    settings: new MigrationSettings(schema),
    guest: new SyntheticGuest({ ram: new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: 16 << 20 }]) }),
    emit: (event, data) => server.emit(event, data),
  });
  const migrate = new MachineMigrate(machine, {
    connect: nowhere,
    createFile: unreached,
    codecs: new PortableCodecs(),
  });
  const dirtyRate = new DirtyRate({ vm: () => machine.guest, release, timeOfDay: () => 0 });
  const handlers = machineHandlers(
    { machine, migrate, incoming: undefined, dirtyRate },
    {
      ...{
        smp: 1,
        quit: unreached,
        memory: async () => ({ ranges: [], read: async () => {} }),
        saveMemory: unreached,
        addObject: unreached,
        removeObject: unreached,
      },
      ...{ nodes: new BlockNodes([]), now: () => 0, loadState: unreached },
      ...{ createFile: unreached, requireFile: unreached },
      descriptors: noDescriptors(release),
      chardevs: () => ['compat_monitor0', 'compat_monitor1'],
    },
  );
  const rest = [...schema.commands.keys()].map((name) => [name, unreached] as const);
  const [major = 0, minor = 0] = release.split('.').map(Number);
  const server = new QmpServer({
    schema,
    version: { qemu: { major, minor, micro: 0 }, package: '<package>' },
    handlers: { ...Object.fromEntries(rest.filter(([name]) => !builtin.has(name))), ...handlers, ...more },
    now: () => 1_700_000_000_123.5,
  });
  return server;
}

const builtin = new Set(['qmp_capabilities', 'query-version', 'query-commands', 'query-qmp-schema']);
