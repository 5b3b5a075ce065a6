/**
 * vmferry/migrate: VMs in motion, over any lines. In Node, `vmferry/migrate` also connects and listens by QEMU's URIs.
 */
export { type Clock, systemClock } from '../io/clock.ts';
export { type Connection, type Descriptors, type Listener, PeerError } from '../io/connection.ts';
export { connectionPair, connectStreams, listenOn, type StreamPair } from '../io/web-connection.ts';
export { type RecoveryRecord, readRecoveryRecord } from '../store/recovery-record.ts';
export type { DiscardPages } from '../write/postcopy-passes.ts';
export type { SendBackground } from './background-snapshot.ts';
export {
  type BitmapMapping,
  type BitmapsUnderWay,
  type ReceivedBitmaps,
  receiveBitmaps,
  sendBitmaps,
} from './bitmap-migration.ts';
export { BlockBitmap, type BlockBitmapOptions } from './block-bitmap.ts';
export { BlockNode, type BlockNodeOptions, BlockNodes } from './block-node.ts';
export type { ColoLine, ReadLine } from './colo-line.ts';
export type { ColoControl, ColoPrimaryHost } from './colo-primary.ts';
export {
  type CalcDirtyRate,
  DirtyRate,
  type DirtyRateAnswer,
  type DirtyRateMode,
  type DirtyRateOptions,
  type DirtyRateUnit,
  type DirtyRing,
  type MeasuredVm,
} from './dirty-rate.ts';
export {
  defaultSetupTimeoutMs,
  Incoming,
  type IncomingLine,
  type IncomingOptions,
  type LineKind,
} from './incoming.ts';
export type { LiveBlockJson, ReceiveJson, RelayJson, SendJson, ServeEventJson } from './json.ts';
export { type GuestPlace, LiveError } from './live-error.ts';
export type { ColoRole, ColoStatus, MachineColo } from './machine-colo.ts';
export { type OutgoingHost, OutgoingMigration, type OutgoingMigrationOptions } from './outgoing-migration.ts';
export { formatOrder, type OrderLine, parseOrder } from './page-order.ts';
export { servePages } from './page-server.ts';
export type { PrecopyParameters } from './precopy.ts';
export type {
  MigrationProgress,
  MigrationStatus,
  ProgressOptions,
  RamProgress,
  XbzrleProgress,
} from './progress.ts';
export type { PageRange } from './push-order.ts';
export { receive, recover } from './receive.ts';
export type { IncomingSource, Received, ReceiveOptions, ReceiveTarget, Recovery } from './receive-options.ts';
export { type RecordedRole, Recording, type RecordingFile, type RecordingFolder } from './recording.ts';
export { type RelayEncoding, type RelayOptions, type RelayResult, relay } from './relay.ts';
export type { TargetEncoding } from './relay-encode.ts';
export type { RelayProgress } from './relay-progress.ts';
export {
  type AnnouncedCard,
  type Announcement,
  type AnnounceParameters,
  announceGaps,
  announcePacket,
  SelfAnnouncer,
} from './self-announce.ts';
export { type SendFileOptions, sendFile } from './send-file.ts';
export type {
  SendLines,
  SendMappedRam,
  SendMultifd,
  SendOptions,
  SendPostcopy,
  SendRunning,
  SentGuest,
} from './send-options.ts';
export { type ServeFileOptions, serveFile } from './serve-file.ts';
export type { ServedGuest, ServeOptions } from './serve-options.ts';
export type { LatencyBucket, ServeStatistics } from './serve-statistics.ts';
export { send } from './source.ts';
export type { TeeTarget } from './tee.ts';
export {
  type DirtyLimitAnswer,
  type LimitedVcpus,
  type SetVcpuDirtyLimit,
  VcpuDirtyLimit,
} from './vcpu-dirty-limit.ts';
