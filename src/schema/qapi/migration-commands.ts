/** The commands and events of QEMU's schema module `migration`, in QEMU's order (docs/qmp.md). */
import type { Command, Event } from './entity.ts';

const inProgress = "There's a migration process in progress";
const notPaused = 'Migrate recover can only be run when postcopy is paused.';
const onlyRing = "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'";

export const migrationCommands = {
  'query-migrate': {
    kind: 'command',
    doc: 'Returns how the migration goes: the outgoing one, or else the incoming one.',
    since: '0.14',
    returns: 'MigrationInfo',
  },
  'migrate-set-capabilities': {
    kind: 'command',
    doc: 'Switches capabilities on and off: all of the list, or none of it.',
    since: '1.2',
    arguments: { capabilities: ['[MigrationCapabilityStatus]', 'which ones; a later entry wins'] },
    errors: [[inProgress, 'a migration runs']],
  },
  'query-migrate-capabilities': {
    kind: 'command',
    doc: 'Returns all capabilities, in the order of their enum.',
    since: '1.2',
    returns: '[MigrationCapabilityStatus]',
  },
  'migrate-set-parameters': {
    kind: 'command',
    doc: 'Sets parameters: all that are given, or none of them. It may be used at any time.',
    since: '2.4',
    arguments: 'MigrateSetParameters',
  },
  'query-migrate-parameters': {
    kind: 'command',
    doc: 'Returns all parameters.',
    since: '2.4',
    returns: 'MigrationParameters',
  },
  'migrate-start-postcopy': {
    kind: 'command',
    doc: 'Asks the outgoing migration to go over to postcopy.',
    since: '2.5',
    errors: [
      [
        'Enable postcopy with migrate_set_capability before the start of migration',
        'neither postcopy-ram nor dirty-bitmaps is on',
      ],
      ['Postcopy must be started after migration has been started', 'no migration has begun'],
    ],
  },
  'x-colo-lost-heartbeat': {
    kind: 'command',
    doc: 'Says that the other side of COLO is gone: this side takes over.',
    since: '2.8',
    unstable: true,
    if: 'CONFIG_REPLICATION',
    errors: [
      ['VM is not in COLO mode', "it is not (7.2: The feature 'colo' is not enabled)"],
      ['COLO failover is already activated', 'it was sent before'],
    ],
  },
  migrate_cancel: {
    kind: 'command',
    doc: 'Cancels the outgoing migration. Without one it does nothing.',
    since: '0.14',
    errors: [['Postcopy migration in progress, cannot cancel.', 'in postcopy (10.0)']],
  },
  'migrate-continue': {
    kind: 'command',
    doc: 'Lets a migration go on that waits in `pre-switchover`.',
    since: '2.11',
    arguments: { state: ['MigrationStatus', 'the status that it is believed to have'] },
    errors: [['Migration not in expected state: STATUS', 'it has another one']],
  },
  migrate: {
    kind: 'command',
    doc: 'Starts an outgoing migration, or goes on with one that was paused in postcopy.',
    since: '0.14',
    arguments: {
      uri: ['str', 'where to; either this or `channels`', { optionalSince: '8.2' }],
      'channels?': ['[MigrationChannel]', 'where to: exactly one entry', { since: '8.2' }],
      'blk?': ['bool', 'the whole disks, too', { until: '9.0', deprecated: '8.2' }],
      'inc?': ['bool', 'the top layers of the disks, too', { until: '9.0', deprecated: '8.2' }],
      'detach?': ['bool', 'has no effect'],
      'resume?': ['bool', 'go on with a paused postcopy', { since: '3.0' }],
    },
    errors: [
      ["need either 'uri' or 'channels' argument", 'both or neither is given, or `channels` is empty'],
      ['Channel list has more than one entries', 'it has (10.0: Channel list has more than one main entry)'],
      ['unknown migration protocol: URI', "it is (7.2: Parameter 'uri' expects a valid migration protocol)"],
      ['Migration requires seekable transport (e.g. file)', 'mapped-ram, and no file'],
      ['Migration requires multi-channel URIs (e.g. tcp)', 'multifd or postcopy-preempt over one channel'],
      ['Cannot resume if there is no paused migration', 'resume, and nothing is paused'],
      ['Postcopy recovery cannot work when release-ram capability is set', 'resume, and it is'],
      [inProgress, 'a migration runs'],
      ['Guest is waiting for an incoming migration', 'it is'],
      ["Can't migrate the vm that was paused due to previous migration", 'it was migrated, and not continued'],
      ['Cannot use TLS with mapped-ram', 'both are on'],
      ['Cannot use compression with mapped-ram', 'both are on'],
      ['Cannot use postcopy with CPR', 'mode cpr-reboot with postcopy-ram or dirty-bitmaps'],
      ['Cannot use background snapshot with CPR', 'both are on'],
      ['Cannot use COLO with CPR', 'both are on'],
      ['No disk migration is required in COLO mode', 'blk or inc with x-colo'],
      ['Command options are incompatible with current migration capabilities', 'blk or inc with block'],
    ],
  },
  'migrate-incoming': {
    kind: 'command',
    doc: 'Starts to listen. Only after `-incoming defer`, and only once.',
    since: '2.3',
    arguments: {
      uri: ['str', 'where; either this or `channels`', { optionalSince: '8.2' }],
      'channels?': ['[MigrationChannel]', 'where: exactly one entry', { since: '8.2' }],
      'exit-on-error?': ['bool', 'end the process if the migration fails (default: true)', { since: '9.1' }],
    },
    errors: [
      ["'-incoming' was not specified on the command line", 'it was not'],
      ['The incoming migration has already been started', 'it has'],
    ],
  },
  'xen-save-devices-state': {
    kind: 'command',
    doc: 'Writes the state of all devices, without RAM, into a file.',
    since: '1.1',
    arguments: {
      filename: ['str', 'its path'],
      'live?': ['bool', 'whether the VM goes on here (default: true)', { since: '2.11' }],
    },
  },
  'xen-set-global-dirty-log': {
    kind: 'command',
    doc: 'Switches the logging of dirty pages on or off.',
    since: '1.3',
    arguments: { enable: ['bool', 'on or off'] },
  },
  'xen-load-devices-state': {
    kind: 'command',
    doc: 'Loads the state of all devices from a file. The guest must be stopped.',
    since: '2.7',
    arguments: { filename: ['str', 'its path'] },
    errors: [
      ['Cannot update device state while vm is running', 'it runs'],
      ['loading Xen device state failed', 'the file is not such a state'],
    ],
  },
  'xen-set-replication': {
    kind: 'command',
    doc: 'Starts or stops the replication of disks.',
    since: '2.9',
    if: 'CONFIG_REPLICATION',
    arguments: {
      enable: ['bool', 'start or stop'],
      primary: ['bool', 'whether this is the primary'],
      'failover?': ['bool', 'stopping: take over (default: false)'],
    },
    errors: [["Parameter 'failover' is only for stopping replication", 'it is given with `enable: true`']],
  },
  'query-xen-replication-status': {
    kind: 'command',
    doc: 'Returns whether replication works.',
    since: '2.9',
    if: 'CONFIG_REPLICATION',
    returns: 'ReplicationStatus',
  },
  'xen-colo-do-checkpoint': {
    kind: 'command',
    doc: 'Tells replication that there is a checkpoint.',
    since: '2.9',
    if: 'CONFIG_REPLICATION',
  },
  'query-colo-status': {
    kind: 'command',
    doc: 'Returns the role of this side in COLO.',
    since: '3.1',
    if: 'CONFIG_REPLICATION',
    returns: 'COLOStatus',
  },
  'migrate-recover': {
    kind: 'command',
    doc: 'Destination: listens at a new address while postcopy is paused.',
    since: '3.0',
    isOob: true,
    arguments: { uri: ['str', 'where'] },
    errors: [[notPaused, 'it is not']],
  },
  'migrate-pause': {
    kind: 'command',
    doc: 'Breaks the line of postcopy on purpose, at either side.',
    since: '3.0',
    isOob: true,
    errors: [
      [
        'migrate-pause is currently only supported during postcopy-active or postcopy-recover state',
        'in other states (7.2: `… during postcopy-active state`)',
      ],
    ],
  },
  'calc-dirty-rate': {
    kind: 'command',
    doc: 'Starts to measure how much the guest writes.',
    since: '5.2',
    arguments: {
      'calc-time': ['int64', 'for how long: 50 ms to 60 s (7.2: 1 to 60 s)'],
      'calc-time-unit?': ['TimeUnit', 'its unit (default: second)', { since: '8.2' }],
      'sample-pages?': ['int', 'page-sampling: pages per GiB, 128 to 16384 (default: 512)', { since: '6.1' }],
      'mode?': ['DirtyRateMeasureMode', 'how (default: page-sampling)', { since: '6.2' }],
    },
    errors: [
      ['the dirty rate is already being measured.', 'it is'],
      ['Calculation time is out of range [50ms, 60000ms].', 'it is (7.2: calc-time is out of range[1, 60].)'],
      [
        'sample-pages is used only in page-sampling mode',
        'it is given with another mode (7.2: `either sample-pages or dirty-ring can be specified.`, with dirty-ring alone)',
      ],
      ['sample-pages is out of range[128, 16384].', 'it is'],
      ['mode MODE is not enabled, use other method instead.', 'KVM does not have it'],
    ],
  },
  'query-dirty-rate': {
    kind: 'command',
    doc: 'Returns the latest measurement.',
    since: '5.2',
    arguments: { 'calc-time-unit?': ['TimeUnit', 'the unit of `calc-time` (default: second)', { since: '8.2' }] },
    returns: 'DirtyRateInfo',
  },
  'set-vcpu-dirty-limit': {
    kind: 'command',
    doc: 'Limits how much vCPUs may dirty.',
    since: '7.1',
    arguments: {
      'cpu-index?': ['int', 'which vCPU (default: all)'],
      'dirty-rate': ['uint64', 'MB per second; 0 means no limit'],
    },
    errors: [[onlyRing, 'there is no KVM dirty ring']],
  },
  'cancel-vcpu-dirty-limit': {
    kind: 'command',
    doc: 'Ends the limit.',
    since: '7.1',
    arguments: { 'cpu-index?': ['int', 'which vCPU (default: all)'] },
  },
  'query-vcpu-dirty-limit': {
    kind: 'command',
    doc: 'Returns the vCPUs that are limited.',
    since: '7.1',
    returns: '[DirtyLimitInfo]',
  },
  'query-migrationthreads': {
    kind: 'command',
    doc: "Returns the threads of the outgoing migration. QEMU's documentation says 7.2, which does not have it.",
    since: '8.0',
    deprecated: '9.2',
    returns: '[MigrationThreadInfo]',
  },
  'snapshot-save': {
    kind: 'command',
    doc: 'Starts a job that saves the VM into its disk images.',
    since: '6.0',
    arguments: {
      'job-id': ['str', 'the id of the job'],
      tag: ['str', 'the name of the snapshot'],
      vmstate: ['str', 'the block node that gets the state of the VM'],
      devices: ['[str]', 'the block nodes of which a snapshot is made'],
    },
    errors: [
      ["Invalid job ID 'ID'", 'it is not a letter, then letters, digits, - . _'],
      ["Job ID 'ID' already in use", 'it is'],
    ],
  },
  'snapshot-load': {
    kind: 'command',
    doc: 'Starts a job that takes the VM back to a snapshot.',
    since: '6.0',
    arguments: {
      'job-id': ['str', 'the id of the job'],
      tag: ['str', 'the name of the snapshot'],
      vmstate: ['str', 'the block node that has the state of the VM'],
      devices: ['[str]', 'the block nodes that are taken back'],
    },
  },
  'snapshot-delete': {
    kind: 'command',
    doc: 'Starts a job that deletes a snapshot.',
    since: '6.0',
    arguments: {
      'job-id': ['str', 'the id of the job'],
      tag: ['str', 'the name of the snapshot'],
      devices: ['[str]', 'the block nodes that have it'],
    },
  },
} as const satisfies Record<string, Command>;

export const migrationEvents = {
  MIGRATION: {
    kind: 'event',
    doc: 'The status changed. Only while the capability `events` is on.',
    since: '2.4',
    data: { status: ['MigrationStatus', 'the new status'] },
  },
  MIGRATION_PASS: {
    kind: 'event',
    doc: 'A pass over RAM began. Only while the capability `events` is on.',
    since: '2.6',
    data: { pass: ['int', 'its number, from 1'] },
  },
  COLO_EXIT: {
    kind: 'event',
    doc: 'COLO ended.',
    since: '3.1',
    data: { mode: ['COLOMode', 'the role of this side'], reason: ['COLOExitReason', 'why'] },
  },
  UNPLUG_PRIMARY: {
    kind: 'event',
    doc: 'The guest released a failover device.',
    since: '4.2',
    data: { 'device-id': ['str', 'which'] },
  },
} as const satisfies Record<string, Event>;
