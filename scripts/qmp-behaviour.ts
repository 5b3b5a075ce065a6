/**
 * What vmferry's own QMP server does with each command, event, capability and parameter. What is not listed is known to
 * the schema only: its arguments are checked, and nothing carries it out yet. docs/qmp.md shows it.
 */

interface Behaviour {
  readonly commands: Readonly<Record<string, string>>;
  readonly events: Readonly<Record<string, string>>;
  readonly capabilities: Readonly<Record<string, string>>;
  readonly parameters: Readonly<Record<string, string>>;
}

const asQemu = 'as in QEMU';
const noCards = 'kept; there are no network interfaces';
const withKoffi = 'as in QEMU, on Linux with the package koffi; without it, an error that says so';
const withRing = 'as in QEMU; it needs `--dirty-ring-size`, as QEMU needs that of KVM';

export const behaviour: Behaviour = {
  commands: {
    qmp_capabilities: 'as in QEMU, with oob',
    'query-version': 'the release that the server stands for',
    'query-commands': 'the commands that it answers',
    'query-qmp-schema': 'the commands that it answers, all events, and their types',
    ...{ quit: asQemu, 'query-status': asQemu, stop: asQemu, cont: asQemu, 'query-name': asQemu, 'query-uuid': asQemu },
    'query-cpus-fast': 'one entry for each virtual processor of `--smp`',
    'query-memory-size-summary': 'the largest block; nothing is plugged',
    'human-monitor-command':
      '`info mtree -f` and `xp` with format x, which `vmferry estimate` asks; every other line is unknown',
    'query-kvm': 'there is no KVM',
    'query-target': 'x86_64',
    'query-machines': 'the machine type of the VM',
    'query-command-line-options': 'none',
    'query-chardev': 'the sockets of monitors',
    'query-iothreads': 'none',
    'qom-list': 'containers and processors, without properties: what libvirt asks for',
    'qom-list-types': 'the smallest answer with which libvirt goes on',
    'qom-list-properties': 'none',
    'device-list-properties': 'none',
    'object-add': 'TLS credentials, secrets and rules of authorization',
    'object-del': asQemu,
    ...{ getfd: withKoffi, 'add-fd': withKoffi, closefd: asQemu, 'remove-fd': asQemu, 'query-fdsets': asQemu },
    pmemsave: 'machine none: its block from address 0; pc and q35: as they lay out memory',
    'announce-self': 'as in a QEMU without network interfaces: nothing is sent',
    ...{ 'query-yank': asQemu, yank: 'breaks the lines of a migration' },
    'query-migrate': asQemu,
    ...{ 'migrate-set-capabilities': asQemu, 'query-migrate-capabilities': asQemu },
    ...{ 'migrate-set-parameters': asQemu, 'query-migrate-parameters': asQemu },
    ...{
      migrate: asQemu,
      migrate_cancel: asQemu,
      'migrate-start-postcopy': asQemu,
      'migrate-continue': asQemu,
      'migrate-incoming': asQemu,
    },
    ...{ 'migrate-recover': asQemu, 'migrate-pause': asQemu },
    ...{ 'snapshot-save': asQemu, 'snapshot-load': asQemu, 'snapshot-delete': asQemu },
    ...{ 'query-jobs': asQemu, 'job-dismiss': asQemu, 'job-cancel': asQemu, 'job-pause': asQemu },
    ...{ 'job-complete': asQemu, 'job-finalize': asQemu },
    ...{ 'query-block': 'the disks of `--drive`', 'query-named-block-nodes': 'the disks of `--drive`' },
    ...{ 'block-dirty-bitmap-add': asQemu, 'block-dirty-bitmap-remove': asQemu, 'block-dirty-bitmap-clear': asQemu },
    ...{ 'block-dirty-bitmap-enable': asQemu, 'block-dirty-bitmap-disable': asQemu },
    'block-dirty-bitmap-merge': asQemu,
    ...{ 'calc-dirty-rate': asQemu, 'query-dirty-rate': asQemu },
    ...{ 'set-vcpu-dirty-limit': withRing, 'cancel-vcpu-dirty-limit': asQemu, 'query-vcpu-dirty-limit': asQemu },
    'query-migrationthreads': 'the names that QEMU gives; their ids are only numbers',
    ...{ 'query-colo-status': asQemu, 'x-colo-lost-heartbeat': asQemu },
    ...{ 'xen-save-devices-state': asQemu, 'xen-load-devices-state': 'refuses: this is no Xen machine' },
    'xen-set-global-dirty-log': asQemu,
    'xen-set-replication': 'there are no replicated disks',
    'query-xen-replication-status': 'there are no replicated disks',
    'xen-colo-do-checkpoint': 'there are no replicated disks',
  },
  events: {
    ...{ MIGRATION: asQemu, MIGRATION_PASS: asQemu, STOP: asQemu, RESUME: asQemu },
    ...{ SHUTDOWN: 'after quit', COLO_EXIT: asQemu },
    JOB_STATUS_CHANGE: asQemu,
  },
  capabilities: {
    ...{ xbzrle: asQemu, 'auto-converge': asQemu, events: asQemu, 'return-path': asQemu, multifd: asQemu },
    ...{ 'pause-before-switchover': asQemu, 'validate-uuid': asQemu, 'switchover-ack': asQemu },
    'background-snapshot': 'as in QEMU; a mapped-ram file has all of the guest, and not only its states',
    'dirty-limit': withRing,
    'rdma-pin-all': 'there is no RDMA',
    ...{
      'mapped-ram': asQemu,
      'postcopy-ram': asQemu,
      'dirty-bitmaps': 'as in QEMU; they move in postcopy only with postcopy-ram',
      'postcopy-preempt': asQemu,
      'release-ram': asQemu,
    },
    'postcopy-blocktime':
      'the processors of a `vmferry vm` wait from the beginning of postcopy until all of RAM is there, unless the guest is stopped',
    'zero-copy-send': 'accepted; bytes are copied',
    'x-colo': 'as in QEMU 7.2; as in QEMU, it never begins with --compat 10.0',
    ...{ 'zero-blocks': 'there are no disks to migrate', 'late-block-activate': 'there are no disks to activate' },
  },
  parameters: {
    ...{ 'max-bandwidth': asQemu, 'downtime-limit': asQemu, 'avail-switchover-bandwidth': asQemu },
    ...{ 'throttle-trigger-threshold': asQemu, 'cpu-throttle-initial': asQemu, 'cpu-throttle-increment': asQemu },
    ...{ 'cpu-throttle-tailslow': asQemu, 'max-cpu-throttle': asQemu, 'xbzrle-cache-size': asQemu },
    ...{
      'block-bitmap-mapping': asQemu,
      'max-postcopy-bandwidth': asQemu,
      mode: asQemu,
      'zero-page-detection': asQemu,
    },
    'x-checkpoint-delay': 'as in QEMU',
    'direct-io': 'as in QEMU; a file system without it is written through the page cache',
    ...{ 'vcpu-dirty-limit': asQemu, 'x-vcpu-dirty-limit-period': asQemu },
    ...{ 'announce-initial': noCards, 'announce-max': noCards, 'announce-rounds': noCards, 'announce-step': noCards },
    ...{ 'tls-creds': asQemu, 'tls-hostname': asQemu, 'tls-authz': asQemu },
    ...{ 'multifd-channels': asQemu, 'multifd-compression': asQemu },
    ...{ 'multifd-zlib-level': asQemu, 'multifd-zstd-level': asQemu },
  },
};
