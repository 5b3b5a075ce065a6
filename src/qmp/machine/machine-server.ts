/** A QMP server that drives a machine. */
import { type Handler, QmpServer } from '../server.ts';
import { measureHandlers } from './measure-handlers.ts';
import { type MachineParts, migrationHandlers } from './migration-handlers.ts';
import { type MachineHost, runHandlers } from './run-handlers.ts';
import { diskHandlers } from './snapshots.ts';

/** @internal for tests: what a machine does with commands. */
export function machineHandlers(parts: MachineParts, host: MachineHost): Record<string, Handler> {
  const { jobs, handlers } = diskHandlers(parts, host);
  return {
    ...handlers,
    ...migrationHandlers(parts, host.descriptors),
    ...measureHandlers(parts),
    ...runHandlers(parts, host),
    quit: () => host.quit(() => jobs.dismissAll()),
  };
}

/** The last micro release of each release whose schema there is. */
const micro: Readonly<Record<string, number>> = { '7.2': 0, '9.0': 0, '10.0': 0 };

/** @param now milliseconds since 1970, for the timestamps of events */
export function machineServer(parts: MachineParts, host: MachineHost, now: () => number): QmpServer {
  const { schema } = parts.machine.settings;
  const [major = 0, minor = 0] = schema.releaseName.split('.').map(Number);
  return new QmpServer({
    schema,
    version: { qemu: { major, minor, micro: micro[schema.releaseName] ?? 0 }, package: 'vmferry' },
    handlers: machineHandlers(parts, host),
    now,
    onDeserted: () => host.descriptors.desert(),
  });
}
