/** What a machine does with the commands of QEMU's schema module `migration`. */
import type { DirtyRate } from '../../migrate/dirty-rate.ts';
import type { Machine } from '../../migrate/machine.ts';
import { type MachineIncoming, notPaused } from '../../migrate/machine-incoming.ts';
import type { MachineMigrate } from '../../migrate/machine-migrate.ts';
import type { SettingContext } from '../../schema/migration-settings.ts';
import type { JsonObject } from '../json-value.ts';
import { QmpError } from '../qmp-error.ts';
import type { Handler } from '../server.ts';
import type { CommandOrigin } from '../session.ts';
import type { DescriptorTable } from './descriptor-table.ts';
import { shapeAs } from './shape.ts';

/** A machine, and what migrates it. */
export interface MachineParts {
  machine: Machine;
  migrate: MachineMigrate;
  /** Undefined: it was not started to wait for a migration. */
  incoming: MachineIncoming | undefined;
  dirtyRate: DirtyRate;
}

type Handlers = Record<string, Handler>;

export function migrationHandlers(parts: MachineParts, descriptors: DescriptorTable): Handlers {
  const namesOf =
    ({ monitor }: CommandOrigin) =>
    (name: string) =>
      descriptors.takeNamed(monitor, name);
  return {
    ...settingHandlers(parts),
    ...outgoingHandlers(parts, namesOf),
    ...incomingHandlers(parts, namesOf),
    ...otherHosts(),
  };
}

/** The descriptors that the monitor of a command has names for. */
type NamesOf = (origin: CommandOrigin) => (name: string) => number | undefined;

function settingHandlers({ machine, migrate, incoming }: MachineParts): Handlers {
  const { settings, dirtyLimit } = machine;
  const context = (): SettingContext => ({
    isListening: incoming?.isListening ?? false,
    hasBlockMigration: true,
    hasDirtyRing: dirtyLimit.ring !== undefined,
  });
  return {
    'query-migrate-capabilities': () => settings.capabilities,
    'migrate-set-capabilities'({ capabilities }) {
      // 7.2 does not count COLO as a migration here.
      const isIgnored = migrate.status === 'colo' && !settings.schema.isFrom('9.0');
      if (migrate.isUnderWay && !isIgnored) throw new Error("There's a migration process in progress");
      settings.setCapabilities(capabilities as never, context());
    },
    'query-migrate-parameters': () => settings.parameters,
    'migrate-set-parameters'(given: JsonObject) {
      settings.setParameters(given);
      if (given['x-checkpoint-delay'] !== undefined) migrate.checkpoint();
    },
  };
}

function outgoingHandlers({ machine, migrate, incoming }: MachineParts, namesOf: NamesOf): Handlers {
  return {
    'query-migrate': () =>
      shapeAs(machine.settings.schema, 'MigrationInfo', { ...incoming?.query(), ...migrate.query() }),
    migrate: (given, origin) => migrate.migrate(given as never, namesOf(origin)),
    migrate_cancel: () => migrate.cancel(),
    'migrate-start-postcopy': () => migrate.startPostcopy(),
    'migrate-continue': ({ state }) => migrate.continue(state as never),
  };
}

function incomingHandlers({ machine: { settings }, migrate, incoming }: MachineParts, namesOf: NamesOf): Handlers {
  return {
    'migrate-incoming'(given, origin) {
      const { uri, channels } = given;
      if (!settings.schema.isFrom('8.2') && uri === undefined) throw new Error("Parameter 'uri' is missing");
      if (incoming === undefined) throw new Error("'-incoming' was not specified on the command line");
      const wanted = { uri, channels, 'exit-on-error': given['exit-on-error'] };
      return incoming.start(wanted as never, namesOf(origin));
    },
    'migrate-recover'({ uri }) {
      if (incoming === undefined) throw new Error(notPaused);
      return incoming.recover(uri as string);
    },
    'migrate-pause'() {
      if (migrate.pause() || incoming?.pause() === true) return;
      const states = settings.schema.isFrom('9.0') ? 'postcopy-active or postcopy-recover' : 'postcopy-active';
      throw new Error(`migrate-pause is currently only supported during ${states} state`);
    },
  };
}

/** Commands of hosts that this one is not: they answer as a QEMU without that hardware. */
function otherHosts(): Handlers {
  return {
    'xen-set-global-dirty-log': () => {},
    'query-xen-replication-status': () => ({ error: false }),
    'xen-set-replication'({ enable, failover }) {
      if (enable === true && failover !== undefined) {
        throw new Error("Parameter 'failover' is only for stopping replication");
      }
    },
    'xen-colo-do-checkpoint': () => {},
    client_migrate_info({ protocol }) {
      if (protocol !== 'spice') throw new Error("Parameter 'protocol' expects 'spice'");
      throw new QmpError('SPICE is not in use', 'DeviceNotActive');
    },
  };
}
