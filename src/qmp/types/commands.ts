/** What each QMP command takes and returns, and what each event says, for the typed client. Made of src/schema/qapi by `npm run docs:qmp`: do not edit. */
import type {
  AddfdInfo,
  BlockDeviceInfo,
  BlockDirtyBitmap,
  BlockInfo,
  ChardevInfo,
  CommandInfo,
  CommandLineOptionInfo,
  CpuInfoFast,
  FdsetInfo,
  IOThreadInfo,
  JobInfo,
  KvmInfo,
  MachineInfo,
  MemoryInfo,
  NameInfo,
  ObjectOptions,
  ObjectPropertyInfo,
  ObjectTypeInfo,
  SchemaInfo,
  StatusInfo,
  TargetInfo,
  UuidInfo,
  VersionInfo,
  YankInstance,
} from './control.ts';
import type {
  COLOExitReason,
  COLOMode,
  DirtyRateMeasureMode,
  JobStatus,
  MigrationStatus,
  QMPCapability,
  ShutdownCause,
  TimeUnit,
} from './enums.ts';
import type {
  COLOStatus,
  DirtyLimitInfo,
  DirtyRateInfo,
  MigrateSetParameters,
  MigrationCapabilityStatus,
  MigrationChannel,
  MigrationInfo,
  MigrationParameters,
  MigrationThreadInfo,
  ReplicationStatus,
} from './migration.ts';

/** An empty object. */
export type Nothing = Record<string, never>;

/** Commands: the module `migration` as a whole, and what goes with it. */
export interface QmpCommands {
  /** Returns how the migration goes: the outgoing one, or else the incoming one. */
  'query-migrate': { arguments: Nothing; returns: MigrationInfo };
  /** Switches capabilities on and off: all of the list, or none of it. */
  'migrate-set-capabilities': {
    arguments: {
      /** Which ones; a later entry wins. */
      capabilities: MigrationCapabilityStatus[];
    };
    returns: Nothing;
  };
  /** Returns all capabilities, in the order of their enum. */
  'query-migrate-capabilities': { arguments: Nothing; returns: MigrationCapabilityStatus[] };
  /** Sets parameters: all that are given, or none of them. It may be used at any time. */
  'migrate-set-parameters': { arguments: MigrateSetParameters; returns: Nothing };
  /** Returns all parameters. */
  'query-migrate-parameters': { arguments: Nothing; returns: MigrationParameters };
  /** Asks the outgoing migration to go over to postcopy. */
  'migrate-start-postcopy': { arguments: Nothing; returns: Nothing };
  /** Says that the other side of COLO is gone: this side takes over. Unstable. */
  'x-colo-lost-heartbeat': { arguments: Nothing; returns: Nothing };
  /** Cancels the outgoing migration. Without one it does nothing. */
  migrate_cancel: { arguments: Nothing; returns: Nothing };
  /** Lets a migration go on that waits in `pre-switchover`. */
  'migrate-continue': {
    arguments: {
      /** The status that it is believed to have. */
      state: MigrationStatus;
    };
    returns: Nothing;
  };
  /** Starts an outgoing migration, or goes on with one that was paused in postcopy. */
  migrate: {
    arguments: {
      /** Where to; either this or `channels`. */
      uri?: string;
      /** The whole disks, too.
@deprecated */
      blk?: boolean;
      /** The top layers of the disks, too.
@deprecated */
      inc?: boolean;
      /** Has no effect. */
      detach?: boolean;
      /** Go on with a paused postcopy. */
      resume?: boolean;
      /** Where to: exactly one entry. */
      channels?: MigrationChannel[];
    };
    returns: Nothing;
  };
  /** Starts to listen. Only after `-incoming defer`, and only once. */
  'migrate-incoming': {
    arguments: {
      /** Where; either this or `channels`. */
      uri?: string;
      /** Where: exactly one entry. */
      channels?: MigrationChannel[];
      /** End the process if the migration fails (default: true). */
      'exit-on-error'?: boolean;
    };
    returns: Nothing;
  };
  /** Writes the state of all devices, without RAM, into a file. */
  'xen-save-devices-state': {
    arguments: {
      /** Its path. */
      filename: string;
      /** Whether the VM goes on here (default: true). */
      live?: boolean;
    };
    returns: Nothing;
  };
  /** Switches the logging of dirty pages on or off. */
  'xen-set-global-dirty-log': {
    arguments: {
      /** On or off. */
      enable: boolean;
    };
    returns: Nothing;
  };
  /** Loads the state of all devices from a file. The guest must be stopped. */
  'xen-load-devices-state': {
    arguments: {
      /** Its path. */
      filename: string;
    };
    returns: Nothing;
  };
  /** Starts or stops the replication of disks. */
  'xen-set-replication': {
    arguments: {
      /** Start or stop. */
      enable: boolean;
      /** Whether this is the primary. */
      primary: boolean;
      /** Stopping: take over (default: false). */
      failover?: boolean;
    };
    returns: Nothing;
  };
  /** Returns whether replication works. */
  'query-xen-replication-status': { arguments: Nothing; returns: ReplicationStatus };
  /** Tells replication that there is a checkpoint. */
  'xen-colo-do-checkpoint': { arguments: Nothing; returns: Nothing };
  /** Returns the role of this side in COLO. */
  'query-colo-status': { arguments: Nothing; returns: COLOStatus };
  /** Destination: listens at a new address while postcopy is paused. */
  'migrate-recover': {
    arguments: {
      /** Where. */
      uri: string;
    };
    returns: Nothing;
  };
  /** Breaks the line of postcopy on purpose, at either side. */
  'migrate-pause': { arguments: Nothing; returns: Nothing };
  /** Starts to measure how much the guest writes. */
  'calc-dirty-rate': {
    arguments: {
      /** For how long: 50 ms to 60 s (7.2: 1 to 60 s). */
      'calc-time': number;
      /** Page-sampling: pages per GiB, 128 to 16384 (default: 512). */
      'sample-pages'?: number;
      /** How (default: page-sampling). */
      mode?: DirtyRateMeasureMode;
      /** Its unit (default: second). */
      'calc-time-unit'?: TimeUnit;
    };
    returns: Nothing;
  };
  /** Returns the latest measurement. */
  'query-dirty-rate': {
    arguments: {
      /** The unit of `calc-time` (default: second). */
      'calc-time-unit'?: TimeUnit;
    };
    returns: DirtyRateInfo;
  };
  /** Limits how much vCPUs may dirty. */
  'set-vcpu-dirty-limit': {
    arguments: {
      /** Which vCPU (default: all). */
      'cpu-index'?: number;
      /** MB per second; 0 means no limit. */
      'dirty-rate': number | bigint;
    };
    returns: Nothing;
  };
  /** Ends the limit. */
  'cancel-vcpu-dirty-limit': {
    arguments: {
      /** Which vCPU (default: all). */
      'cpu-index'?: number;
    };
    returns: Nothing;
  };
  /** Returns the vCPUs that are limited. */
  'query-vcpu-dirty-limit': { arguments: Nothing; returns: DirtyLimitInfo[] };
  /** Starts a job that saves the VM into its disk images. */
  'snapshot-save': {
    arguments: {
      /** The id of the job. */
      'job-id': string;
      /** The name of the snapshot. */
      tag: string;
      /** The block node that gets the state of the VM. */
      vmstate: string;
      /** The block nodes of which a snapshot is made. */
      devices: string[];
    };
    returns: Nothing;
  };
  /** Starts a job that takes the VM back to a snapshot. */
  'snapshot-load': {
    arguments: {
      /** The id of the job. */
      'job-id': string;
      /** The name of the snapshot. */
      tag: string;
      /** The block node that has the state of the VM. */
      vmstate: string;
      /** The block nodes that are taken back. */
      devices: string[];
    };
    returns: Nothing;
  };
  /** Starts a job that deletes a snapshot. */
  'snapshot-delete': {
    arguments: {
      /** The id of the job. */
      'job-id': string;
      /** The name of the snapshot. */
      tag: string;
      /** The block nodes that have it. */
      devices: string[];
    };
    returns: Nothing;
  };
  /** Ends the negotiation with which each session begins. */
  qmp_capabilities: {
    arguments: {
      /** What the client wants (default: nothing). */
      enable?: QMPCapability[];
    };
    returns: Nothing;
  };
  /** Returns the version. */
  'query-version': { arguments: Nothing; returns: VersionInfo };
  /** Returns all commands. */
  'query-commands': { arguments: Nothing; returns: CommandInfo[] };
  /** Returns all commands, events and types, with names of types that mean nothing. */
  'query-qmp-schema': { arguments: Nothing; returns: SchemaInfo[] };
  /** Ends the process. */
  quit: { arguments: Nothing; returns: Nothing };
  /** Returns whether the guest runs, and why not. */
  'query-status': { arguments: Nothing; returns: StatusInfo };
  /** Stops the guest. */
  stop: { arguments: Nothing; returns: Nothing };
  /** Lets the guest run on. */
  cont: { arguments: Nothing; returns: Nothing };
  /** Returns the name of the VM. */
  'query-name': { arguments: Nothing; returns: NameInfo };
  /** Returns the UUID of the VM. */
  'query-uuid': { arguments: Nothing; returns: UuidInfo };
  /** Returns the size of the memory. */
  'query-memory-size-summary': { arguments: Nothing; returns: MemoryInfo };
  /** Runs a line of QEMU's monitor for people, and returns what it prints. */
  'human-monitor-command': {
    arguments: {
      /** The line. */
      'command-line': string;
      /** The vCPU that it is about. */
      'cpu-index'?: number;
    };
    returns: string;
  };
  /** Returns the vCPUs. */
  'query-cpus-fast': { arguments: Nothing; returns: CpuInfoFast[] };
  /** Returns whether KVM is used. */
  'query-kvm': { arguments: Nothing; returns: KvmInfo };
  /** Returns the architecture of the guest. */
  'query-target': { arguments: Nothing; returns: TargetInfo };
  /** Returns the machine types. */
  'query-machines': {
    arguments: {
      /** Their compatibility properties, too. Unstable. */
      'compat-props'?: boolean;
    };
    returns: MachineInfo[];
  };
  /** Returns options of the command line. */
  'query-command-line-options': {
    arguments: {
      /** Only this one. */
      option?: string;
    };
    returns: CommandLineOptionInfo[];
  };
  /** Returns the character devices, such as those of monitors. */
  'query-chardev': { arguments: Nothing; returns: ChardevInfo[] };
  /** Returns the threads for input and output. */
  'query-iothreads': { arguments: Nothing; returns: IOThreadInfo[] };
  /** Returns the properties of an object. */
  'qom-list': {
    arguments: {
      /** Its path. */
      path: string;
    };
    returns: ObjectPropertyInfo[];
  };
  /** Returns the types of objects. */
  'qom-list-types': {
    arguments: {
      /** Only those that are also of this type. */
      implements?: string;
      /** Abstract types, too. */
      abstract?: boolean;
    };
    returns: ObjectTypeInfo[];
  };
  /** Returns the properties of a type. */
  'qom-list-properties': {
    arguments: {
      /** Which type. */
      typename: string;
    };
    returns: ObjectPropertyInfo[];
  };
  /** Returns the properties of a device. */
  'device-list-properties': {
    arguments: {
      /** Which device. */
      typename: string;
    };
    returns: ObjectPropertyInfo[];
  };
  /** Makes an object, such as TLS credentials. */
  'object-add': { arguments: ObjectOptions; returns: Nothing };
  /** Removes an object. */
  'object-del': {
    arguments: {
      /** Which. */
      id: string;
    };
    returns: Nothing;
  };
  /** Takes a descriptor that comes with the command, for `fd:NAME`. */
  getfd: {
    arguments: {
      /** Its name from now on. */
      fdname: string;
    };
    returns: Nothing;
  };
  /** Closes a descriptor of getfd. */
  closefd: {
    arguments: {
      /** Its name. */
      fdname: string;
    };
    returns: Nothing;
  };
  /** Takes a descriptor that comes with the command, for `/dev/fdset/N`. */
  'add-fd': {
    arguments: {
      /** The set (default: a new one). */
      'fdset-id'?: number;
      /** A note. */
      opaque?: string;
    };
    returns: AddfdInfo;
  };
  /** Removes descriptors of a set. */
  'remove-fd': {
    arguments: {
      /** The set. */
      'fdset-id': number;
      /** Only this one. */
      fd?: number;
    };
    returns: Nothing;
  };
  /** Returns the sets of descriptors. */
  'query-fdsets': { arguments: Nothing; returns: FdsetInfo[] };
  /** Writes guest-physical memory into a file. */
  pmemsave: {
    arguments: {
      /** The address. */
      val: number | bigint;
      /** How many bytes. */
      size: number | bigint;
      /** Its path. */
      filename: string;
    };
    returns: Nothing;
  };
  /** Tells clients of a remote display where the VM goes. There is no display here. */
  client_migrate_info: {
    arguments: {
      /** `spice`. */
      protocol: string;
      /** The host of the new display. */
      hostname: string;
      /** Its port. */
      port?: number;
      /** Its port with TLS. */
      'tls-port'?: number;
      /** The subject of the server's certificate. */
      'cert-subject'?: string;
    };
    returns: Nothing;
  };
  /** Announces the guest's network interfaces. */
  'announce-self': {
    arguments: {
      /** Ms before the second packet. */
      initial: number;
      /** The most ms between two packets. */
      max: number;
      /** How many packets. */
      rounds: number;
      /** By how many ms the time grows. */
      step: number;
      /** Only these. */
      interfaces?: string[];
      /** A name for this announcement. */
      id?: string;
    };
    returns: Nothing;
  };
  /** Returns the connections that yank can break. */
  'query-yank': { arguments: Nothing; returns: YankInstance[] };
  /** Breaks connections that hang. */
  yank: {
    arguments: {
      /** Which. */
      instances: YankInstance[];
    };
    returns: Nothing;
  };
  /** Returns all jobs. */
  'query-jobs': { arguments: Nothing; returns: JobInfo[] };
  /** Pauses a job. */
  'job-pause': {
    arguments: {
      /** Which job. */
      id: string;
    };
    returns: Nothing;
  };
  /** Lets a job go on. */
  'job-resume': {
    arguments: {
      /** Which job. */
      id: string;
    };
    returns: Nothing;
  };
  /** Cancels a job. */
  'job-cancel': {
    arguments: {
      /** Which job. */
      id: string;
    };
    returns: Nothing;
  };
  /** Completes a job. */
  'job-complete': {
    arguments: {
      /** Which job. */
      id: string;
    };
    returns: Nothing;
  };
  /** Removes a job that is concluded. */
  'job-dismiss': {
    arguments: {
      /** Which job. */
      id: string;
    };
    returns: Nothing;
  };
  /** Lets a pending job end. */
  'job-finalize': {
    arguments: {
      /** Which job. */
      id: string;
    };
    returns: Nothing;
  };
  /** Returns the disks. */
  'query-block': { arguments: Nothing; returns: BlockInfo[] };
  /** Returns the block nodes. */
  'query-named-block-nodes': {
    arguments: {
      /** Without their backing files. */
      flat?: boolean;
    };
    returns: BlockDeviceInfo[];
  };
  /** Makes a bitmap of what is written to a disk. */
  'block-dirty-bitmap-add': {
    arguments: {
      /** The node name of the disk. */
      node: string;
      /** The name of the bitmap. */
      name: string;
      /** Bytes for each bit (default: 65536). */
      granularity?: number;
      /** Keep it in the image. */
      persistent?: boolean;
      /** It records nothing yet. */
      disabled?: boolean;
    };
    returns: Nothing;
  };
  /** Removes a bitmap. */
  'block-dirty-bitmap-remove': {
    arguments: {
      /** The node name of the disk. */
      node: string;
      /** The name of the bitmap. */
      name: string;
    };
    returns: Nothing;
  };
  /** Clears a bitmap. */
  'block-dirty-bitmap-clear': {
    arguments: {
      /** The node name of the disk. */
      node: string;
      /** The name of the bitmap. */
      name: string;
    };
    returns: Nothing;
  };
  /** Lets a bitmap record. */
  'block-dirty-bitmap-enable': {
    arguments: {
      /** The node name of the disk. */
      node: string;
      /** The name of the bitmap. */
      name: string;
    };
    returns: Nothing;
  };
  /** Ends the recording of a bitmap. */
  'block-dirty-bitmap-disable': {
    arguments: {
      /** The node name of the disk. */
      node: string;
      /** The name of the bitmap. */
      name: string;
    };
    returns: Nothing;
  };
  /** Adds bitmaps to another one. */
  'block-dirty-bitmap-merge': {
    arguments: {
      /** The node name of the disk. */
      node: string;
      /** The bitmap that gets them. */
      target: string;
      /** The others. */
      bitmaps: (string | BlockDirtyBitmap)[];
    };
    returns: Nothing;
  };
  /** Returns the threads of the outgoing migration. QEMU's documentation says 7.2, which does not have it.
@deprecated */
  'query-migrationthreads': { arguments: Nothing; returns: MigrationThreadInfo[] };
}

/** The data of events. */
export interface QmpEvents {
  /** The status changed. Only while the capability `events` is on. */
  MIGRATION: {
    /** The new status. */
    status: MigrationStatus;
  };
  /** A pass over RAM began. Only while the capability `events` is on. */
  MIGRATION_PASS: {
    /** Its number, from 1. */
    pass: number;
  };
  /** COLO ended. */
  COLO_EXIT: {
    /** The role of this side. */
    mode: COLOMode;
    /** Why. */
    reason: COLOExitReason;
  };
  /** The guest released a failover device. */
  UNPLUG_PRIMARY: {
    /** Which. */
    'device-id': string;
  };
  /** The guest was stopped. */
  STOP: undefined;
  /** The guest runs again. */
  RESUME: undefined;
  /** The process is going to end. */
  SHUTDOWN: {
    /** Whether the guest wanted it. */
    guest: boolean;
    /** Why. */
    reason: ShutdownCause;
  };
  /** The status of a job changed. */
  JOB_STATUS_CHANGE: {
    /** Which job. */
    id: string;
    /** Its new status. */
    status: JobStatus;
  };
}
