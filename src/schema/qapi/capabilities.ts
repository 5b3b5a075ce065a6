/**
 * The capabilities of a migration: switches, all off by default (docs/qmp.md). Which of them exclude each other is in
 * `capability-rules.ts`.
 */
import type { Enum } from './entity.ts';

export const MigrationCapability = {
  kind: 'enum',
  doc: 'A switch of migration. All are off by default.',
  since: '1.2',
  values: {
    xbzrle: ['send a page that changed again as a delta'],
    'rdma-pin-all': ['RDMA: pin all pages, not only those that are sent', { since: '2.0' }],
    'auto-converge': ['slow the vCPUs down until the migration can end', { since: '1.6' }],
    'zero-blocks': ['block migration: leave out blocks of zeros', { since: '1.6', deprecated: '9.2' }],
    compress: ['compress pages in threads of their own', { since: '2.4', until: '9.0', deprecated: '8.2' }],
    events: ['emit MIGRATION and MIGRATION_PASS', { since: '2.4' }],
    'postcopy-ram': ['let the guest run at the destination before all of its RAM is there', { since: '2.6' }],
    'x-colo': ['COLO: go on with checkpoints after the migration', { since: '2.8', unstable: true }],
    'release-ram': ['postcopy: free pages at the source once they are sent', { since: '2.9' }],
    block: ['migrate the disks, too', { since: '2.11', until: '9.0', deprecated: '8.2' }],
    'return-path': ['the destination answers, also in precopy', { since: '2.11' }],
    'pause-before-switchover': ['stop in pre-switchover, and wait for migrate-continue', { since: '2.11' }],
    multifd: ['send pages over several channels', { since: '4.0' }],
    'dirty-bitmaps': ['migrate named dirty bitmaps', { since: '2.12' }],
    'postcopy-blocktime': ['measure how long postcopy blocked the vCPUs', { since: '3.0' }],
    'late-block-activate': ['do not use the disks before the guest is started', { since: '3.0' }],
    'x-ignore-shared': ['leave out RAM that both sides share', { since: '4.0', unstable: true }],
    'validate-uuid': ["send the VM's UUID, and refuse a VM with another one", { since: '4.2' }],
    'background-snapshot': ['save the moment at which the migration began, while the guest runs', { since: '6.0' }],
    'zero-copy-send': ['multifd: send pages without copying them', { since: '7.1' }],
    'postcopy-preempt': ['postcopy: a channel of its own for the pages that are asked for', { since: '7.1' }],
    'switchover-ack': ['switch over only once the destination is ready for it', { since: '8.1' }],
    'dirty-limit': ['slow down only the vCPUs that write too much (KVM dirty ring)', { since: '8.2' }],
    'mapped-ram': ['each page has its place in the file', { since: '9.0' }],
  },
} as const satisfies Enum;
