/** The enums of QMP. A newer QEMU's further values pass through. Made of src/schema/qapi by `npm run docs:qmp`: do not edit. */

/** The state of the outgoing or incoming migration. */
export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device'
  | 'wait-unplug'
  | 'postcopy-recover-setup';

/** How the pages of multifd channels are compressed. */
export type MultiFDCompression = 'none' | 'zlib' | 'zstd';

/** What the two sides of COLO tell each other. The position of a value is its number on the line. */
export type COLOMessage =
  | 'checkpoint-ready'
  | 'checkpoint-request'
  | 'checkpoint-reply'
  | 'vmstate-send'
  | 'vmstate-size'
  | 'vmstate-received'
  | 'vmstate-loaded';

/** How far a failover of COLO is. No command takes or returns it. */
export type FailoverStatus = 'none' | 'require' | 'active' | 'completed' | 'relaunch';

/** The role of a VM in COLO. */
export type COLOMode = 'none' | 'primary' | 'secondary';

/** Why COLO ended. */
export type COLOExitReason = 'none' | 'request' | 'error' | 'processing';

/** How far a measurement of the dirty rate is. */
export type DirtyRateStatus = 'unstarted' | 'measuring' | 'measured';

/** How the dirty rate is measured. */
export type DirtyRateMeasureMode = 'page-sampling' | 'dirty-ring' | 'dirty-bitmap';

/** A switch of migration. All are off by default. */
export type MigrationCapability =
  | 'xbzrle'
  | 'rdma-pin-all'
  | 'auto-converge'
  | 'zero-blocks'
  | 'compress'
  | 'events'
  | 'postcopy-ram'
  | 'x-colo'
  | 'release-ram'
  | 'block'
  | 'return-path'
  | 'pause-before-switchover'
  | 'multifd'
  | 'dirty-bitmaps'
  | 'postcopy-blocktime'
  | 'late-block-activate'
  | 'x-ignore-shared'
  | 'validate-uuid'
  | 'background-snapshot'
  | 'zero-copy-send'
  | 'postcopy-preempt'
  | 'switchover-ack'
  | 'dirty-limit'
  | 'mapped-ram';

/** The names of the parameters. No command takes or returns it. */
export type MigrationParameter =
  | 'announce-initial'
  | 'announce-max'
  | 'announce-rounds'
  | 'announce-step'
  | 'compress-level'
  | 'compress-threads'
  | 'compress-wait-thread'
  | 'decompress-threads'
  | 'throttle-trigger-threshold'
  | 'cpu-throttle-initial'
  | 'cpu-throttle-increment'
  | 'cpu-throttle-tailslow'
  | 'tls-creds'
  | 'tls-hostname'
  | 'tls-authz'
  | 'max-bandwidth'
  | 'downtime-limit'
  | 'x-checkpoint-delay'
  | 'block-incremental'
  | 'multifd-channels'
  | 'xbzrle-cache-size'
  | 'max-postcopy-bandwidth'
  | 'max-cpu-throttle'
  | 'multifd-compression'
  | 'multifd-zlib-level'
  | 'multifd-zstd-level'
  | 'block-bitmap-mapping'
  | 'avail-switchover-bandwidth'
  | 'x-vcpu-dirty-limit-period'
  | 'vcpu-dirty-limit'
  | 'mode'
  | 'multifd-qatzip-level'
  | 'zero-page-detection'
  | 'direct-io';

/** The kind of a socket. */
export type SocketAddressType = 'inet' | 'unix' | 'vsock' | 'fd';

/** What a client can enable. */
export type QMPCapability = 'oob';

/** What the guest is doing. */
export type RunState =
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';

/** Why a process ends. */
export type ShutdownCause =
  | 'none'
  | 'host-error'
  | 'host-qmp-quit'
  | 'host-qmp-system-reset'
  | 'host-signal'
  | 'host-ui'
  | 'guest-shutdown'
  | 'guest-reset'
  | 'guest-panic'
  | 'subsystem-reset'
  | 'snapshot-load';

/** An architecture. */
export type SysEmuTarget = 'x86_64' | (string & {});

/** The type of a parameter. */
export type CommandLineParameterType = 'string' | 'boolean' | 'number' | 'size';

/** What yank can break. */
export type YankInstanceType = 'block-node' | 'chardev' | 'migration';

/** What a job does. */
export type JobType =
  | 'commit'
  | 'stream'
  | 'mirror'
  | 'backup'
  | 'create'
  | 'amend'
  | 'snapshot-load'
  | 'snapshot-save'
  | 'snapshot-delete';

/** How far a job is. */
export type JobStatus =
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

/** What an object is. */
export type ObjectType =
  | 'authz-list'
  | 'authz-simple'
  | 'secret'
  | 'tls-creds-anon'
  | 'tls-creds-psk'
  | 'tls-creds-x509'
  | (string & {});

/** What a rule says. */
export type QAuthZListPolicy = 'deny' | 'allow';

/** How a rule matches. */
export type QAuthZListFormat = 'exact' | 'glob';

/** How a secret is written. */
export type QCryptoSecretFormat = 'raw' | 'base64';

/** An end of a connection. */
export type QCryptoTLSCredsEndpoint = 'client' | 'server';

/** What an entity of the schema is. */
export type SchemaMetaType = 'builtin' | 'enum' | 'array' | 'object' | 'alternate' | 'command' | 'event';

/** What kind of migration it is. */
export type MigMode = 'normal' | 'cpr-reboot' | 'cpr-transfer';

/** The transport of a migration. */
export type MigrationAddressType = 'socket' | 'exec' | 'rdma' | 'file';

/** What a channel is for. */
export type MigrationChannelType = 'main' | 'cpr';

/** The unit of a time. */
export type TimeUnit = 'second' | 'millisecond';

/** Which thread looks for zero pages. */
export type ZeroPageDetection = 'none' | 'legacy' | 'multifd';
