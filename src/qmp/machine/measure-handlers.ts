/** What a machine does with commands that look at its guest, and with those of COLO and of vCPUs with a dirty ring. */
import type { DirtyRate } from '../../migrate/dirty-rate.ts';
import type { VcpuDirtyLimit } from '../../migrate/vcpu-dirty-limit.ts';
import type { JsonObject } from '../json-value.ts';
import type { Handler } from '../server.ts';
import type { MachineParts } from './migration-handlers.ts';

export function measureHandlers(parts: MachineParts): Record<string, Handler> {
  const { machine, dirtyRate } = parts;
  return {
    ...dirtyRateHandlers(dirtyRate),
    ...coloHandlers(parts),
    ...limitHandlers(machine.dirtyLimit),
    'query-migrationthreads': () => threadsOf(parts),
  };
}

function dirtyRateHandlers(dirtyRate: DirtyRate): Record<string, Handler> {
  return {
    'calc-dirty-rate': (given: JsonObject) => dirtyRate.calculate(given as never),
    'query-dirty-rate': (given: JsonObject) => dirtyRate.query(given as never),
  };
}

function limitHandlers(limit: VcpuDirtyLimit): Record<string, Handler> {
  return {
    'set-vcpu-dirty-limit': (given: JsonObject) => limit.set(given as never),
    'cancel-vcpu-dirty-limit': (given: JsonObject) => limit.cancel(given as never),
    'query-vcpu-dirty-limit': () => limit.query(),
  };
}

function coloHandlers({ machine, migrate, incoming }: MachineParts): Record<string, Handler> {
  const { schema } = machine.settings;
  return {
    'query-colo-status': () => machine.colo.status,
    'x-colo-lost-heartbeat'() {
      if (machine.colo.status.mode === 'primary') return migrate.failOver();
      if (machine.colo.status.mode === 'secondary') return incoming?.failOver();
      throw new Error(schema.isFrom('9.0') ? 'VM is not in COLO mode' : "The feature 'colo' is not enabled");
    },
  };
}

/** The threads that a QEMU would have, newest first. Their ids are only numbers. */
function threadsOf({ machine: { settings }, migrate }: MachineParts): object[] {
  if (!migrate.isUnderWay) return [];
  const isNew = settings.schema.isFrom('10.0');
  const channels = settings.isOn('multifd') ? Number(settings.parameters['multifd-channels']) : 0;
  const names = [
    isNew ? 'mig/src/main' : 'live_migration',
    ...Array.from({ length: channels }, (_, i) => (isNew ? `mig/src/send_${i}` : `multifdsend_${i}`)),
  ];
  return names.map((name, i) => ({ name, 'thread-id': i + 1 })).reverse();
}
