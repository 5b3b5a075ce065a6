/** A QMP server without an engine: it runs and stops, and keeps capabilities and parameters. */
import type { JsonObject } from '../../src/qmp/json-value.ts';
import { QmpError } from '../../src/qmp/qmp-error.ts';
import { type Handler, QmpServer } from '../../src/qmp/server.ts';
import { MigrationSettings } from '../../src/schema/migration-settings.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';
import type { ReleaseName } from '../../src/schema/release-rules.ts';

const answered = (texts: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(texts).map(([name, text]) => [
      name,
      () => {
        throw new QmpError(text);
      },
    ]),
  );

/** What needs an engine has no handler that a test of arguments would reach. */
const unreached = (): never => {
  throw new Error('expected the arguments to be refused');
};

export function settingsServer(release: ReleaseName, more: Record<string, Handler> = {}): QmpServer {
  const schema = schemaOf(release);
  const settings = new MigrationSettings(schema);
  let isRunning = true;
  const turn = (on: boolean) => () => {
    if (isRunning !== on) server.emit(on ? 'RESUME' : 'STOP');
    isRunning = on;
  };
  const context = { isListening: false, hasDirtyRing: false, hasBlockMigration: true };
  const [major = 0, minor = 0] = release.split('.').map(Number);
  const known: Record<string, Handler> = {
    'query-name': () => ({}),
    'query-status': () => ({
      running: isRunning,
      status: isRunning ? 'running' : 'paused',
      ...(major < 8 && { singlestep: false }),
    }),
    stop: turn(false),
    cont: turn(true),
    'query-migrate-capabilities': () => settings.capabilities,
    'migrate-set-capabilities': ({ capabilities }) => settings.setCapabilities(capabilities as never, context),
    'query-migrate-parameters': () => settings.parameters,
    'migrate-set-parameters': (given: JsonObject) => settings.setParameters(given),
    'query-yank': () => [0, 1].map((n) => ({ type: 'chardev', id: `compat_monitor${n}` })),
    yank: ({ instances }) => {
      const [instance] = instances as JsonObject[];
      if (instance?.type === 'block-node') throw new QmpError('Instance not found', 'DeviceNotFound');
      if (instance !== undefined) throw new QmpError('Instance not found', 'DeviceNotFound');
    },
    ...answered({
      getfd: 'No file descriptor supplied via SCM_RIGHTS',
      'add-fd': 'No file descriptor supplied via SCM_RIGHTS',
    }),
  };
  const rest = [...schema.commands.keys()].map((name) => [name, unreached] as const);
  const server = new QmpServer({
    schema,
    version: { qemu: { major, minor, micro: 0 }, package: '<package>' },
    handlers: { ...Object.fromEntries(rest.filter(([name]) => !builtin.has(name))), ...known, ...more },
    now: () => 1_700_000_000_123.5,
  });
  return server;
}

const builtin = new Set(['qmp_capabilities', 'query-version', 'query-commands', 'query-qmp-schema']);
