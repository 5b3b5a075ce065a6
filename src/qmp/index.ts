/**
 * vmferry/qmp: QEMU's monitor protocol on every platform: a typed client over any line, and a server without sockets.
 */
export { BlockBitmap, type BlockBitmapOptions } from '../migrate/block-bitmap.ts';
export { BlockNode, type BlockNodeOptions, BlockNodes } from '../migrate/block-node.ts';
export { MigrationSettings, type SettingContext, SettingError } from '../schema/migration-settings.ts';
export { type Schema, schemaOf } from '../schema/qapi/schema.ts';
export { blockHandlers } from './block/block-handlers.ts';
export { Jobs, type JobWork } from './block/jobs.ts';
export { type SnapshotVm, snapshotHandlers } from './block/snapshot-jobs.ts';
export {
  type CommandArguments,
  type CommandName,
  type CommandReturns,
  MonitorBusyError,
  QmpClient,
  type QmpClientOptions,
  type QmpEvent,
} from './client.ts';
export type { QmpEventJson, QmpReplayJson } from './json.ts';
export { parseJson } from './json-reader.ts';
export { JsonDouble, type JsonObject, type JsonValue, printJson } from './json-value.ts';
export { type MigrationEnd, type MigrationEndedOptions, migrationEnded } from './migration-ended.ts';
export { QmpError, type QmpErrorClass } from './qmp-error.ts';
export { type DirtyRateSample, type MeasureGuestOptions, measureGuest, type RunningGuest } from './running-guest.ts';
export { type SessionHub, serveLine } from './serve-line.ts';
export { type Handler, QmpServer, type QmpServerOptions } from './server.ts';
export type { CommandOrigin, QmpSession, SessionHost, WriteMessage } from './session.ts';
export { SharedMonitor } from './shared-monitor.ts';
export type * from './types/commands.ts';
export type * from './types/control.ts';
export type * from './types/enums.ts';
export type * from './types/migration.ts';
