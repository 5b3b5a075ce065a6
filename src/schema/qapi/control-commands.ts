/**
 * Commands and events of other modules of QEMU's schema that a VM answers for those who migrate it: the monitor itself,
 * running and stopping, jobs, disks, descriptors, objects, and what clients ask at their start.
 */
import type { Command, Event, Members } from './entity.ts';

const jobId: Members = { id: ['str', 'which job'] };
const bitmap: Members = { node: ['str', 'the node name of the disk'], name: ['str', 'the name of the bitmap'] };
const job = (doc: string) => ({ kind: 'command', doc, since: '3.0', arguments: jobId }) as const satisfies Command;
const bitmapCommand = <S extends '2.4' | '4.0'>(doc: string, since: S) =>
  ({ kind: 'command', doc, since, arguments: bitmap }) as const satisfies Command;

export const controlCommands = {
  qmp_capabilities: {
    kind: 'command',
    doc: 'Ends the negotiation with which each session begins.',
    since: '0.13',
    arguments: { 'enable?': ['[QMPCapability]', 'what the client wants (default: nothing)', { since: '2.12' }] },
  },
  'query-version': { kind: 'command', doc: 'Returns the version.', since: '0.14', returns: 'VersionInfo' },
  'query-commands': { kind: 'command', doc: 'Returns all commands.', since: '0.14', returns: '[CommandInfo]' },
  'query-qmp-schema': {
    kind: 'command',
    doc: 'Returns all commands, events and types, with names of types that mean nothing.',
    since: '2.5',
    returns: '[SchemaInfo]',
  },
  quit: { kind: 'command', doc: 'Ends the process.', since: '0.14' },
  'query-status': {
    kind: 'command',
    doc: 'Returns whether the guest runs, and why not.',
    since: '0.14',
    returns: 'StatusInfo',
  },
  stop: { kind: 'command', doc: 'Stops the guest.', since: '0.14' },
  cont: { kind: 'command', doc: 'Lets the guest run on.', since: '0.14' },
  'query-name': { kind: 'command', doc: 'Returns the name of the VM.', since: '0.14', returns: 'NameInfo' },
  'query-uuid': { kind: 'command', doc: 'Returns the UUID of the VM.', since: '0.14', returns: 'UuidInfo' },
  'query-memory-size-summary': {
    kind: 'command',
    doc: 'Returns the size of the memory.',
    since: '2.11',
    returns: 'MemoryInfo',
  },
  'human-monitor-command': {
    kind: 'command',
    doc: "Runs a line of QEMU's monitor for people, and returns what it prints.",
    since: '0.14',
    arguments: { 'command-line': ['str', 'the line'], 'cpu-index?': ['int', 'the vCPU that it is about'] },
    returns: 'str',
  },
  'query-cpus-fast': { kind: 'command', doc: 'Returns the vCPUs.', since: '2.12', returns: '[CpuInfoFast]' },
  'query-kvm': { kind: 'command', doc: 'Returns whether KVM is used.', since: '0.14', returns: 'KvmInfo' },
  'query-target': {
    kind: 'command',
    doc: 'Returns the architecture of the guest.',
    since: '1.2',
    returns: 'TargetInfo',
  },
  'query-machines': {
    kind: 'command',
    doc: 'Returns the machine types.',
    since: '1.2',
    arguments: { 'compat-props?': ['bool', 'their compatibility properties, too', { since: '9.1', unstable: true }] },
    returns: '[MachineInfo]',
  },
  'query-command-line-options': {
    kind: 'command',
    doc: 'Returns options of the command line.',
    since: '1.5',
    arguments: { 'option?': ['str', 'only this one'] },
    returns: '[CommandLineOptionInfo]',
  },
  'query-chardev': {
    kind: 'command',
    doc: 'Returns the character devices, such as those of monitors.',
    since: '0.14',
    returns: '[ChardevInfo]',
  },
  'query-iothreads': {
    kind: 'command',
    doc: 'Returns the threads for input and output.',
    since: '2.0',
    returns: '[IOThreadInfo]',
  },
  'qom-list': {
    kind: 'command',
    doc: 'Returns the properties of an object.',
    since: '1.2',
    arguments: { path: ['str', 'its path'] },
    returns: '[ObjectPropertyInfo]',
  },
  'qom-list-types': {
    kind: 'command',
    doc: 'Returns the types of objects.',
    since: '1.1',
    arguments: {
      'implements?': ['str', 'only those that are also of this type'],
      'abstract?': ['bool', 'abstract types, too'],
    },
    returns: '[ObjectTypeInfo]',
  },
  'qom-list-properties': {
    kind: 'command',
    doc: 'Returns the properties of a type.',
    since: '2.12',
    arguments: { typename: ['str', 'which type'] },
    returns: '[ObjectPropertyInfo]',
  },
  'device-list-properties': {
    kind: 'command',
    doc: 'Returns the properties of a device.',
    since: '1.2',
    arguments: { typename: ['str', 'which device'] },
    returns: '[ObjectPropertyInfo]',
  },
  'object-add': {
    kind: 'command',
    doc: 'Makes an object, such as TLS credentials.',
    since: '2.0',
    arguments: 'ObjectOptions',
  },
  'object-del': {
    kind: 'command',
    doc: 'Removes an object.',
    since: '2.0',
    arguments: { id: ['str', 'which'] },
    errors: [["object 'ID' not found", 'there is none']],
  },
  getfd: {
    kind: 'command',
    doc: 'Takes a descriptor that comes with the command, for `fd:NAME`.',
    since: '0.14',
    arguments: { fdname: ['str', 'its name from now on'] },
    errors: [['No file descriptor supplied via SCM_RIGHTS', 'none came with the command']],
  },
  closefd: {
    kind: 'command',
    doc: 'Closes a descriptor of getfd.',
    since: '0.14',
    arguments: { fdname: ['str', 'its name'] },
    errors: [["File descriptor named 'NAME' not found", 'there is none']],
  },
  'add-fd': {
    kind: 'command',
    doc: 'Takes a descriptor that comes with the command, for `/dev/fdset/N`.',
    since: '1.2',
    arguments: {
      'fdset-id?': ['int', 'the set (default: a new one)'],
      'opaque?': ['str', 'a note'],
    },
    returns: 'AddfdInfo',
    errors: [['No file descriptor supplied via SCM_RIGHTS', 'none came with the command']],
  },
  'remove-fd': {
    kind: 'command',
    doc: 'Removes descriptors of a set.',
    since: '1.2',
    arguments: { 'fdset-id': ['int', 'the set'], 'fd?': ['int', 'only this one'] },
    errors: [["File descriptor named 'fdset-id:N' not found", 'there is none']],
  },
  'query-fdsets': { kind: 'command', doc: 'Returns the sets of descriptors.', since: '1.2', returns: '[FdsetInfo]' },
  pmemsave: {
    kind: 'command',
    doc: 'Writes guest-physical memory into a file.',
    since: '0.14',
    arguments: {
      val: ['uint64', 'the address', { was: { type: 'int', until: '9.0' } }],
      size: ['size', 'how many bytes', { was: { type: 'int', until: '9.0' } }],
      filename: ['str', 'its path'],
    },
  },
  client_migrate_info: {
    kind: 'command',
    doc: 'Tells clients of a remote display where the VM goes. There is no display here.',
    since: '0.14',
    arguments: {
      protocol: ['str', '`spice`'],
      hostname: ['str', 'the host of the new display'],
      'port?': ['int', 'its port'],
      'tls-port?': ['int', 'its port with TLS'],
      'cert-subject?': ['str', "the subject of the server's certificate"],
    },
    errors: [
      ["Parameter 'protocol' expects 'spice'", 'for any other'],
      ['SPICE is not in use', 'always; its class is DeviceNotActive'],
    ],
  },
  'announce-self': {
    kind: 'command',
    doc: "Announces the guest's network interfaces.",
    since: '4.0',
    arguments: {
      initial: ['int', 'ms before the second packet'],
      max: ['int', 'the most ms between two packets'],
      rounds: ['int', 'how many packets'],
      step: ['int', 'by how many ms the time grows'],
      'interfaces?': ['[str]', 'only these', { since: '4.1' }],
      'id?': ['str', 'a name for this announcement', { since: '4.1' }],
    },
  },
  'query-yank': {
    kind: 'command',
    doc: 'Returns the connections that yank can break.',
    since: '6.0',
    isOob: true,
    returns: '[YankInstance]',
  },
  yank: {
    kind: 'command',
    doc: 'Breaks connections that hang.',
    since: '6.0',
    isOob: true,
    arguments: { instances: ['[YankInstance]', 'which'] },
    errors: [['Instance not found', 'there is none (class DeviceNotFound)']],
  },
  'query-jobs': { kind: 'command', doc: 'Returns all jobs.', since: '3.0', returns: '[JobInfo]' },
  'job-pause': job('Pauses a job.'),
  'job-resume': job('Lets a job go on.'),
  'job-cancel': job('Cancels a job.'),
  'job-complete': job('Completes a job.'),
  'job-dismiss': job('Removes a job that is concluded.'),
  'job-finalize': job('Lets a pending job end.'),
  'query-block': { kind: 'command', doc: 'Returns the disks.', since: '0.14', returns: '[BlockInfo]' },
  'query-named-block-nodes': {
    kind: 'command',
    doc: 'Returns the block nodes.',
    since: '2.0',
    arguments: { 'flat?': ['bool', 'without their backing files', { since: '5.0' }] },
    returns: '[BlockDeviceInfo]',
  },
  'block-dirty-bitmap-add': {
    kind: 'command',
    doc: 'Makes a bitmap of what is written to a disk.',
    since: '2.4',
    arguments: {
      ...bitmap,
      'granularity?': ['uint32', 'bytes for each bit (default: 65536)'],
      'persistent?': ['bool', 'keep it in the image', { since: '2.10' }],
      'disabled?': ['bool', 'it records nothing yet', { since: '4.0' }],
    },
  },
  'block-dirty-bitmap-remove': bitmapCommand('Removes a bitmap.', '2.4'),
  'block-dirty-bitmap-clear': bitmapCommand('Clears a bitmap.', '2.4'),
  'block-dirty-bitmap-enable': bitmapCommand('Lets a bitmap record.', '4.0'),
  'block-dirty-bitmap-disable': bitmapCommand('Ends the recording of a bitmap.', '4.0'),
  'block-dirty-bitmap-merge': {
    kind: 'command',
    doc: 'Adds bitmaps to another one.',
    since: '4.0',
    arguments: {
      node: ['str', 'the node name of the disk'],
      target: ['str', 'the bitmap that gets them'],
      bitmaps: ['[BlockDirtyBitmapOrStr]', 'the others'],
    },
  },
} as const satisfies Record<string, Command>;

export const controlEvents = {
  STOP: { kind: 'event', doc: 'The guest was stopped.', since: '0.12' },
  RESUME: { kind: 'event', doc: 'The guest runs again.', since: '0.12' },
  SHUTDOWN: {
    kind: 'event',
    doc: 'The process is going to end.',
    since: '0.12',
    data: {
      guest: ['bool', 'whether the guest wanted it', { since: '2.10' }],
      reason: ['ShutdownCause', 'why', { since: '4.0' }],
    },
  },
  JOB_STATUS_CHANGE: {
    kind: 'event',
    doc: 'The status of a job changed.',
    since: '3.0',
    data: { id: ['str', 'which job'], status: ['JobStatus', 'its new status'] },
  },
} as const satisfies Record<string, Event>;
