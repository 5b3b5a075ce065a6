/**
 * Which capabilities exclude each other, in the order in which QEMU looks (docs/qmp.md). Only what would be on after the
 * change counts. Rules that no release shows which can be asked are marked `unchecked`.
 */
import type { ReleaseText } from './qapi/entity.ts';

export type Capabilities = ReadonlySet<string>;

/** What rules know about the VM besides its capabilities. */
export interface CapabilityContext {
  /** What is on before the change. */
  readonly before: Capabilities;
  readonly parameters: Readonly<Record<string, unknown>>;
  /** It listens for an incoming migration on a socket. */
  readonly isListening: boolean;
  /** QEMU's words for why the host cannot do postcopy, such as a missing userfaultfd. */
  readonly noPostcopy?: string | undefined;
  /** Whether the capability block, which migrates disks, can be used. */
  readonly hasBlockMigration: boolean;
  /** Whether vCPUs have a KVM dirty ring. */
  readonly hasDirtyRing: boolean;
}

export interface CapabilityRule {
  /** The releases that have it. */
  readonly since?: ReleaseText;
  readonly until?: ReleaseText;
  /** It was read in documentation, and could not be asked of a release. */
  readonly isUnchecked?: true;
  /** In a sentence, for the reference. */
  readonly when: string;
  /** QEMU's text if the rule is broken. */
  readonly refuse: (on: Capabilities, context: CapabilityContext) => string | undefined;
}

const both = (a: string, b: string, text: string, marks: Partial<CapabilityRule> = {}): CapabilityRule => ({
  ...marks,
  when: `${a} with ${b}`,
  refuse: (on) => (on.has(a) && on.has(b) ? text : undefined),
});

/** In QEMU's order: the first that is on is named. */
const notWithSnapshot = [
  ...['postcopy-ram', 'dirty-bitmaps', 'postcopy-blocktime', 'late-block-activate', 'return-path', 'multifd'],
  ...['pause-before-switchover', 'auto-converge', 'release-ram', 'rdma-pin-all', 'compress', 'xbzrle', 'x-colo'],
  ...['validate-uuid', 'zero-copy-send'],
];

const zeroCopy = 'Zero copy only available for non-compressed non-TLS multifd migration';

function breaksZeroCopy(on: Capabilities, parameters: Readonly<Record<string, unknown>>): boolean {
  const compresses = on.has('compress') || on.has('xbzrle') || parameters['multifd-compression'] !== 'none';
  return on.has('zero-copy-send') && (!on.has('multifd') || compresses || parameters['tls-creds'] !== '');
}

/** QEMU's text if these parameters do not go with zero-copy-send. */
export const refuseZeroCopy = (on: Capabilities, parameters: Readonly<Record<string, unknown>>): string | undefined =>
  breaksZeroCopy(on, parameters) ? zeroCopy : undefined;

const late = (capability: string, name: string): CapabilityRule => ({
  since: '9.0',
  when: `${capability} is switched on while the VM listens for an incoming migration`,
  refuse: (on, { before, isListening }) =>
    isListening && on.has(capability) && !before.has(capability)
      ? `${name} must be set before incoming starts`
      : undefined,
});

export const capabilityRules: readonly CapabilityRule[] = [
  {
    until: '9.0',
    isUnchecked: true,
    when: 'block in a QEMU that was built without block migration',
    refuse: (on, { hasBlockMigration }) =>
      on.has('block') && !hasBlockMigration
        ? 'QEMU compiled without old-style (blk/-b, inc/-i) block migration'
        : undefined,
  },
  {
    when: 'postcopy-ram, and the host of the destination cannot do it',
    refuse: (on, { before, noPostcopy }) =>
      noPostcopy !== undefined && on.has('postcopy-ram') && !before.has('postcopy-ram')
        ? `Postcopy is not supported: ${noPostcopy}`
        : undefined,
  },
  both('postcopy-ram', 'x-ignore-shared', 'Postcopy is not compatible with ignore-shared'),
  both('postcopy-ram', 'multifd', 'Postcopy is not yet compatible with multifd', { since: '9.0' }),
  {
    when: `background-snapshot with ${notWithSnapshot.join(', ')}`,
    refuse: (on) => {
      const other = on.has('background-snapshot') ? notWithSnapshot.find((name) => on.has(name)) : undefined;
      return other === undefined ? undefined : `Background-snapshot is not compatible with ${other}`;
    },
  },
  {
    when: 'zero-copy-send without multifd, or with compression or TLS',
    refuse: (on, { parameters }) => refuseZeroCopy(on, parameters),
  },
  {
    when: 'postcopy-preempt without postcopy-ram',
    refuse: (on) =>
      on.has('postcopy-preempt') && !on.has('postcopy-ram') ? 'Postcopy preempt requires postcopy-ram' : undefined,
  },
  both('postcopy-preempt', 'compress', 'Postcopy preempt not compatible with compress'),
  late('postcopy-preempt', 'Postcopy preempt'),
  both('multifd', 'compress', 'Multifd is not compatible with compress'),
  late('multifd', 'Multifd'),
  {
    when: 'switchover-ack without return-path',
    refuse: (on) =>
      on.has('switchover-ack') && !on.has('return-path')
        ? "Capability 'switchover-ack' requires capability 'return-path'"
        : undefined,
  },
  both('dirty-limit', 'auto-converge', 'dirty-limit conflicts with auto-converge either of then available currently'),
  {
    when: 'dirty-limit without a KVM dirty ring',
    refuse: (on, { hasDirtyRing }) =>
      on.has('dirty-limit') && !hasDirtyRing
        ? "dirty-limit requires KVM with accelerator property 'dirty-ring-size' set"
        : undefined,
  },
  both('multifd', 'xbzrle', 'Multifd is not compatible with xbzrle', { since: '9.0' }),
  both('compress', 'xbzrle', 'Compression is not compatible with xbzrle', { since: '9.0', isUnchecked: true }),
  both('mapped-ram', 'xbzrle', 'Mapped-ram migration is incompatible with xbzrle'),
  both('mapped-ram', 'compress', 'Mapped-ram migration is incompatible with compression', { isUnchecked: true }),
  both('mapped-ram', 'postcopy-ram', 'Mapped-ram migration is incompatible with postcopy'),
];
