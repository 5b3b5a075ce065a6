/** What the settings of a machine say about a migration that begins. */
import type { PageCodecs } from '../io/page-codec.ts';
import { releaseRulesOf } from '../schema/release-rules.ts';
import type { Configuration } from '../vm/flow.ts';
import type { XbzrleCounters } from '../write/xbzrle-cache.ts';
import type { Machine } from './machine.ts';
import type { OutgoingMigrationOptions } from './outgoing-migration.ts';
import type { PrecopyParameters } from './precopy.ts';

/** Parameters that the loop reads anew for each decision. */
const liveParameters = [
  ...(['max-bandwidth', 'downtime-limit', 'avail-switchover-bandwidth', 'throttle-trigger-threshold'] as const),
  'max-postcopy-bandwidth',
  ...(['cpu-throttle-initial', 'cpu-throttle-increment', 'cpu-throttle-tailslow', 'max-cpu-throttle'] as const),
] satisfies (keyof PrecopyParameters)[];

/** What the settings say about the migration that begins now. */
export function migrationOptions(
  machine: Machine,
  codecs: PageCodecs,
  counters: XbzrleCounters,
): Omit<OutgoingMigrationOptions, 'connect'> {
  const { settings, guest } = machine;
  const colo = coloOf(machine);
  const { parameters } = settings;
  const on = (name: string) => settings.isOn(name);
  const is10 = settings.schema.isFrom('10.0');
  const zeroPages = parameters['zero-page-detection'] as OutgoingMigrationOptions['zeroPageDetection'];
  const rules = rulesFor(guest.configuration, settings.schema.releaseName);
  return {
    parameters: parametersOf(machine),
    ...{ autoConverge: on('auto-converge'), dirtyLimit: on('dirty-limit') },
    pauseBeforeSwitchover: on('pause-before-switchover'),
    alwaysEntersDevice: is10,
    forcesSyncs: is10,
    switchoverAck: on('switchover-ack'),
    backgroundSnapshot: on('background-snapshot'),
    returnPath: on('return-path') || on('postcopy-ram'),
    ...{ release: settings.schema.releaseName, stopsFirst: parameters.mode === 'cpr-reboot' },
    ...{ announcesColo: on('x-colo'), colo },
    ...{ releaseRam: on('release-ram'), isRunning: () => machine.isRunning },
    ...(zeroPages === undefined ? {} : { zeroPageDetection: zeroPages }),
    ...(on('postcopy-ram') ? { postcopy: { preempt: on('postcopy-preempt') } } : {}),
    ...(rules === undefined ? {} : { rules }),
    iterables: machine.iterables,
    ...(on('xbzrle') ? { xbzrle: { cacheSize: numberOf(machine, 'xbzrle-cache-size'), counters } } : {}),
    ...(on('multifd') ? { multifd: multifdOf(machine, codecs) } : {}),
  };
}

/**
 * COLO begins only from the state `active`, which a migration of 10.0 has left by then. A source that reads the return path
 * does not understand its messages, and fails.
 */
function coloOf(machine: Machine): OutgoingMigrationOptions['colo'] {
  const { settings } = machine;
  if (!settings.isOn('x-colo') || !settings.schema.isUntil('9.0')) return undefined;
  if (['pause-before-switchover', 'return-path', 'postcopy-ram'].some((name) => settings.isOn(name))) return undefined;
  return { delay: () => numberOf(machine, 'x-checkpoint-delay') };
}

function multifdOf(machine: Machine, codecs: PageCodecs): NonNullable<OutgoingMigrationOptions['multifd']> {
  const { settings, uuid } = machine;
  const compression = settings.parameters['multifd-compression'] as 'none' | 'zlib' | 'zstd';
  return {
    ...{ channels: numberOf(machine, 'multifd-channels'), compression, codecs },
    ...(compression === 'none' ? {} : { level: numberOf(machine, `multifd-${compression}-level`) }),
    ...(uuid === undefined ? {} : { uuid }),
  };
}

const numberOf = ({ settings }: Machine, parameter: string): number => Number(settings.parameters[parameter]);

/** The rules of a release; of a newer machine type those of that type. */
function rulesFor(configuration: Configuration | undefined, release: Parameters<typeof releaseRulesOf>[1]) {
  try {
    return releaseRulesOf(configuration?.machine, release);
  } catch {
    return undefined;
  }
}

/** The parameters of the loop as they are at each moment. Integers above 2^53 become numbers. */
function parametersOf({ settings }: Machine): PrecopyParameters {
  const members = liveParameters.map((name) => {
    const get = () => {
      const value = settings.parameters[name] ?? 0;
      return typeof value === 'bigint' ? Number(value) : value;
    };
    return [name, { get, enumerable: true }] as const;
  });
  return Object.defineProperties({}, Object.fromEntries(members)) as PrecopyParameters;
}
