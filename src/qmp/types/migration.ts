/** The types of migration. Made of src/schema/qapi by `npm run docs:qmp`: do not edit. */
import type {
  COLOExitReason,
  COLOMode,
  DirtyRateMeasureMode,
  DirtyRateStatus,
  MigMode,
  MigrationCapability,
  MigrationChannelType,
  MigrationStatus,
  MultiFDCompression,
  TimeUnit,
  ZeroPageDetection,
} from './enums.ts';

/** Parameters to set. */
export interface MigrateSetParameters {
  /** The time between the first two packets with which the guest announces itself to the network. */
  'announce-initial'?: number | bigint;
  /** The most time between two of these packets. */
  'announce-max'?: number | bigint;
  /** How many of these packets are sent; 0 is none. */
  'announce-rounds'?: number | bigint;
  /** By how much the time between packets grows. */
  'announce-step'?: number | bigint;
  /** The zlib level of the capability compress.
@deprecated */
  'compress-level'?: number;
  /** How many threads compress.
@deprecated */
  'compress-threads'?: number;
  /** Wait for a thread that is free, instead of sending the page as it is.
@deprecated */
  'compress-wait-thread'?: boolean;
  /** How many threads decompress.
@deprecated */
  'decompress-threads'?: number;
  /** Auto-converge and dirty-limit act when the guest dirties more than this share of what is sent. */
  'throttle-trigger-threshold'?: number;
  /** Auto-converge: the first step. */
  'cpu-throttle-initial'?: number;
  /** Auto-converge: each further step. */
  'cpu-throttle-increment'?: number;
  /** Auto-converge: smaller last steps. */
  'cpu-throttle-tailslow'?: boolean;
  /** The id of a tls-creds object; empty means no TLS. */
  'tls-creds'?: string | null;
  /** The name in the destination's certificate; empty is the host of the address. */
  'tls-hostname'?: string | null;
  /** The id of an authz object that says which sources are allowed. */
  'tls-authz'?: string | null;
  /** The most bytes per second; 0 means no limit. */
  'max-bandwidth'?: number | bigint;
  /** How long the guest may stand still. */
  'downtime-limit'?: number | bigint;
  /** COLO: the time between two checkpoints. Unstable. */
  'x-checkpoint-delay'?: number;
  /** Block migration: only the top layer of each image.
@deprecated */
  'block-incremental'?: boolean;
  /** How many multifd channels there are; the same on both sides. */
  'multifd-channels'?: number;
  /** The size of the cache of pages for XBZRLE. */
  'xbzrle-cache-size'?: number | bigint;
  /** The most bytes per second in postcopy, apart from pages that are asked for; 0 means no limit. */
  'max-postcopy-bandwidth'?: number | bigint;
  /** Auto-converge: the most by which vCPUs are slowed down. */
  'max-cpu-throttle'?: number;
  /** How multifd channels are compressed; the same on both sides. */
  'multifd-compression'?: MultiFDCompression;
  /** The zlib level of multifd channels. */
  'multifd-zlib-level'?: number;
  /** The zstd level of multifd channels. */
  'multifd-zstd-level'?: number;
  /** Which dirty bitmaps are migrated, and under which names. */
  'block-bitmap-mapping'?: BitmapMigrationNodeAlias[];
  /** The bandwidth that is counted on for the switchover; 0 is what was measured. */
  'avail-switchover-bandwidth'?: number | bigint;
  /** Dirty-limit: how often the dirty rate is measured. Unstable. */
  'x-vcpu-dirty-limit-period'?: number | bigint;
  /** Dirty-limit: how much each vCPU may dirty. */
  'vcpu-dirty-limit'?: number | bigint;
  /** What kind of migration it is. */
  mode?: MigMode;
  /** The QATzip level of multifd channels. */
  'multifd-qatzip-level'?: number;
  /** Which thread looks for zero pages. */
  'zero-page-detection'?: ZeroPageDetection;
  /** Mapped-ram with multifd: bypass the page cache. */
  'direct-io'?: boolean;
}

/** All parameters. `block-bitmap-mapping` is there only after it was set. */
export interface MigrationParameters {
  /** The time between the first two packets with which the guest announces itself to the network. */
  'announce-initial'?: number | bigint;
  /** The most time between two of these packets. */
  'announce-max'?: number | bigint;
  /** How many of these packets are sent; 0 is none. */
  'announce-rounds'?: number | bigint;
  /** By how much the time between packets grows. */
  'announce-step'?: number | bigint;
  /** The zlib level of the capability compress.
@deprecated */
  'compress-level'?: number;
  /** How many threads compress.
@deprecated */
  'compress-threads'?: number;
  /** Wait for a thread that is free, instead of sending the page as it is.
@deprecated */
  'compress-wait-thread'?: boolean;
  /** How many threads decompress.
@deprecated */
  'decompress-threads'?: number;
  /** Auto-converge and dirty-limit act when the guest dirties more than this share of what is sent. */
  'throttle-trigger-threshold'?: number;
  /** Auto-converge: the first step. */
  'cpu-throttle-initial'?: number;
  /** Auto-converge: each further step. */
  'cpu-throttle-increment'?: number;
  /** Auto-converge: smaller last steps. */
  'cpu-throttle-tailslow'?: boolean;
  /** The id of a tls-creds object; empty means no TLS. */
  'tls-creds'?: string;
  /** The name in the destination's certificate; empty is the host of the address. */
  'tls-hostname'?: string;
  /** The id of an authz object that says which sources are allowed. */
  'tls-authz'?: string;
  /** The most bytes per second; 0 means no limit. */
  'max-bandwidth'?: number | bigint;
  /** How long the guest may stand still. */
  'downtime-limit'?: number | bigint;
  /** COLO: the time between two checkpoints. Unstable. */
  'x-checkpoint-delay'?: number;
  /** Block migration: only the top layer of each image.
@deprecated */
  'block-incremental'?: boolean;
  /** How many multifd channels there are; the same on both sides. */
  'multifd-channels'?: number;
  /** The size of the cache of pages for XBZRLE. */
  'xbzrle-cache-size'?: number | bigint;
  /** The most bytes per second in postcopy, apart from pages that are asked for; 0 means no limit. */
  'max-postcopy-bandwidth'?: number | bigint;
  /** Auto-converge: the most by which vCPUs are slowed down. */
  'max-cpu-throttle'?: number;
  /** How multifd channels are compressed; the same on both sides. */
  'multifd-compression'?: MultiFDCompression;
  /** The zlib level of multifd channels. */
  'multifd-zlib-level'?: number;
  /** The zstd level of multifd channels. */
  'multifd-zstd-level'?: number;
  /** Which dirty bitmaps are migrated, and under which names. */
  'block-bitmap-mapping'?: BitmapMigrationNodeAlias[];
  /** The bandwidth that is counted on for the switchover; 0 is what was measured. */
  'avail-switchover-bandwidth'?: number | bigint;
  /** Dirty-limit: how often the dirty rate is measured. Unstable. */
  'x-vcpu-dirty-limit-period'?: number | bigint;
  /** Dirty-limit: how much each vCPU may dirty. */
  'vcpu-dirty-limit'?: number | bigint;
  /** What kind of migration it is. */
  mode?: MigMode;
  /** The QATzip level of multifd channels. */
  'multifd-qatzip-level'?: number;
  /** Which thread looks for zero pages. */
  'zero-page-detection'?: ZeroPageDetection;
  /** Mapped-ram with multifd: bypass the page cache. */
  'direct-io'?: boolean;
}

/** What became of the RAM, or of the disks. */
export interface MigrationStats {
  /** Bytes sent so far, on all channels. */
  transferred: number;
  /** Bytes that are dirty, and still to be sent. */
  remaining: number;
  /** Bytes of RAM that take part. */
  total: number;
  /** Zero pages sent. */
  duplicate: number;
  /** Always 0.
@deprecated */
  skipped?: number;
  /** Pages sent with their content. */
  normal: number;
  /** Their bytes. */
  'normal-bytes': number;
  /** Pages that the guest dirtied per second. */
  'dirty-pages-rate': number;
  /** Throughput, in millions of bits per second. */
  mbps: number;
  /** How often the dirty bitmap was fetched: the passes. */
  'dirty-sync-count': number;
  /** Pages that the destination asked for. */
  'postcopy-requests': number;
  /** Bytes of a page. */
  'page-size': number;
  /** Bytes sent on multifd channels. */
  'multifd-bytes': number | bigint;
  /** Pages sent per second. */
  'pages-per-second': number | bigint;
  /** Bytes of RAM sent while the guest ran. */
  'precopy-bytes': number | bigint;
  /** Bytes of RAM sent while the guest was stopped. */
  'downtime-bytes': number | bigint;
  /** Bytes of RAM sent in postcopy. */
  'postcopy-bytes': number | bigint;
  /** Passes in which zero-copy had to copy. */
  'dirty-sync-missed-zero-copy': number | bigint;
}

/** What XBZRLE did. */
export interface XBZRLECacheStats {
  /** Bytes of its cache. */
  'cache-size': number | bigint;
  /** Bytes of the deltas that were sent. */
  bytes: number;
  /** Pages that were in the cache. */
  pages: number;
  /** Pages that were not. */
  'cache-miss': number;
  /** Their share in the last period. */
  'cache-miss-rate': number;
  /** Bytes of pages for one byte of delta, in the last period. */
  'encoding-rate': number;
  /** Pages whose delta was longer than the page. */
  overflow: number;
}

/** What the capability compress did. */
export interface CompressionStats {
  /** Pages compressed. */
  pages: number;
  /** Times when no thread was free. */
  busy: number;
  /** Their share. */
  'busy-rate': number;
  /** Bytes after compression. */
  'compressed-size': number;
  /** Bytes before for one byte after. */
  'compression-rate': number;
}

/** What became of the state of VFIO devices. */
export interface VfioStats {
  /** Bytes sent. */
  transferred: number;
}

/** How the migration goes. Which members there are depends on the status. */
export interface MigrationInfo {
  /** None: nothing ever began. */
  status?: MigrationStatus;
  /** RAM. */
  ram?: MigrationStats;
  /** Block migration.
@deprecated */
  disk?: MigrationStats;
  /** VFIO devices. */
  vfio?: VfioStats;
  /** XBZRLE. */
  'xbzrle-cache'?: XBZRLECacheStats;
  /** Ms since the start. */
  'total-time'?: number;
  /** Ms. */
  'expected-downtime'?: number;
  /** Ms for which the guest stood still. */
  downtime?: number;
  /** Ms that the setup took. */
  'setup-time'?: number;
  /** By how much auto-converge slows the vCPUs down. */
  'cpu-throttle-percentage'?: number;
  /** What went wrong. */
  'error-desc'?: string;
  /** Why the VM cannot be migrated. */
  'blocked-reasons'?: string[];
  /** Ms for which all vCPUs were blocked. */
  'postcopy-blocktime'?: number;
  /** Ms for which each vCPU was blocked. */
  'postcopy-vcpu-blocktime'?: number[];
  /** Compression.
@deprecated */
  compression?: CompressionStats;
  /** Where the destination listens. */
  'socket-address'?: SocketAddress[];
  /** Μs, the most of all vCPUs. */
  'dirty-limit-throttle-time-per-round'?: number | bigint;
  /** Μs until the dirty ring is full. */
  'dirty-limit-ring-full-time'?: number | bigint;
}

/** A capability, on or off. */
export interface MigrationCapabilityStatus {
  /** Which. */
  capability: MigrationCapability;
  /** On or off. */
  state: boolean;
}

/** What is changed at the destination. */
export interface BitmapMigrationBitmapAliasTransform {
  /** Whether the bitmap is persistent there. */
  persistent?: boolean;
}

/** A bitmap, and its name in the stream. */
export interface BitmapMigrationBitmapAlias {
  /** Its name here. */
  name: string;
  /** Its name in the stream. */
  alias: string;
  /** What is changed. */
  transform?: BitmapMigrationBitmapAliasTransform;
}

/** A block node, its name in the stream, and its bitmaps. */
export interface BitmapMigrationNodeAlias {
  /** Its name here. */
  'node-name': string;
  /** Its name in the stream. */
  alias: string;
  /** The bitmaps to migrate. */
  bitmaps: BitmapMigrationBitmapAlias[];
}

/** Whether replication works. */
export interface ReplicationStatus {
  /** True: it does not. */
  error: boolean;
  /** What went wrong. */
  desc?: string;
}

/** COLO at this side. */
export interface COLOStatus {
  /** Its role. */
  mode: COLOMode;
  /** Its role before COLO ended. */
  'last-mode': COLOMode;
  /** Why COLO ended. */
  reason: COLOExitReason;
}

/** The dirty rate of a vCPU. */
export interface DirtyRateVcpu {
  /** Which vCPU. */
  id: number;
  /** MiB per second. */
  'dirty-rate': number;
}

/** The latest measurement of the dirty rate. */
export interface DirtyRateInfo {
  /** MiB per second. */
  'dirty-rate'?: number;
  /** How far it is. */
  status: DirtyRateStatus;
  /** When it began, in seconds. */
  'start-time': number;
  /** How long it took. */
  'calc-time': number;
  /** Pages per GiB that were sampled. */
  'sample-pages': number | bigint;
  /** How it was measured. */
  mode: DirtyRateMeasureMode;
  /** Each vCPU. */
  'vcpu-dirty-rate'?: DirtyRateVcpu[];
  /** The unit of `calc-time`. */
  'calc-time-unit'?: TimeUnit;
}

/** A vCPU whose dirty rate is limited. */
export interface DirtyLimitInfo {
  /** Which vCPU. */
  'cpu-index': number;
  /** MB per second; 0 means no limit. */
  'limit-rate': number | bigint;
  /** MB per second. */
  'current-rate': number | bigint;
}

/** The address of a socket. */
export type SocketAddress =
  | ({ type: 'inet' } & InetSocketAddress)
  | ({ type: 'unix' } & UnixSocketAddress)
  | ({ type: 'vsock' } & VsockSocketAddress)
  | ({ type: 'fd' } & FdSocketAddress);

/** An address of TCP. */
export interface InetSocketAddress {
  /** A name or an address. */
  host: string;
  /** A number or the name of a service. */
  port: string;
  /** No names, only numbers. */
  numeric?: boolean;
  /** Listening: the last port to try. */
  to?: number;
  /** Whether IPv4 is used. */
  ipv4?: boolean;
  /** Whether IPv6 is used. */
  ipv6?: boolean;
  /** Find out that the peer is gone. */
  'keep-alive'?: boolean;
  /** Over several paths. */
  mptcp?: boolean;
}

/** A unix socket. */
export interface UnixSocketAddress {
  /** Its path. */
  path: string;
  /** A name instead of a file. */
  abstract?: boolean;
  /** An abstract name ends with its last byte. */
  tight?: boolean;
}

/** An address between a guest and its host. */
export interface VsockSocketAddress {
  /** A number for the VM. */
  cid: string;
  /** A number. */
  port: string;
}

/** A descriptor. */
export interface FdSocketAddress {
  /** The name of getfd, or a number. */
  str: string;
}

/** A file, and where the stream begins in it. */
export interface FileMigrationArgs {
  /** Its path. */
  filename: string;
  /** Bytes before the stream. */
  offset: number | bigint;
}

/** A program. */
export interface MigrationExecCommand {
  /** Its path, and its arguments. */
  args: string[];
}

/** A channel, and where it leads. */
export interface MigrationChannel {
  /** What it is for. */
  'channel-type': MigrationChannelType;
  /** Where to. */
  addr: MigrationAddress;
}

/** A thread of the migration. */
export interface MigrationThreadInfo {
  /** Its name. */
  name: string;
  /** Its number at the host. */
  'thread-id': number;
}

/** Where a migration goes to or comes from. */
export type MigrationAddress =
  | ({ transport: 'socket' } & SocketAddress)
  | ({ transport: 'exec' } & MigrationExecCommand)
  | ({ transport: 'rdma' } & InetSocketAddress)
  | ({ transport: 'file' } & FileMigrationArgs);
