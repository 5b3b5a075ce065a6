/**
 * The parameters of migration: types, units, defaults and ranges (docs/qmp.md). `MigrateSetParameters`,
 * `MigrationParameters` and the enum `MigrationParameter` are made of this table.
 */
import type { Enum, Marks, Members, ReleaseText, Struct } from './entity.ts';

export interface Parameter extends Marks {
  readonly type: string;
  readonly doc: string;
  readonly unit?: string;
  /** What query-migrate-parameters says before it was set. None: nothing. */
  readonly default?: number | boolean | string;
  /** The least and the most that is accepted. */
  readonly range?: readonly [least: number, most: number];
  /** What the error says that a value out of range gets. */
  readonly expects?: string;
  /** The name in that error, if it is not the parameter's with underscores. */
  readonly errorName?: string;
  /** The release from which on it is checked and kept. Earlier ones take any value, and forget it. Default: always. */
  readonly keptSince?: ReleaseText;
}

export const parameters = {
  'announce-initial': {
    ...{ type: 'size', since: '4.0', unit: 'ms', default: 50, range: [0, 100000] },
    expects: 'a value between 0 and 100000',
    doc: 'the time between the first two packets with which the guest announces itself to the network',
  },
  'announce-max': {
    ...{ type: 'size', since: '4.0', unit: 'ms', default: 550, range: [0, 100000] },
    expects: 'a value between 0 and 100000',
    doc: 'the most time between two of these packets',
  },
  'announce-rounds': {
    ...{ type: 'size', since: '4.0', unit: 'packets', default: 5, range: [0, 1000] },
    expects: 'a value between 0 and 1000',
    doc: 'how many of these packets are sent; 0 is none',
  },
  'announce-step': {
    ...{ type: 'size', since: '4.0', unit: 'ms', default: 100, range: [1, 10000] },
    // QEMU's own text; it refuses 0.
    expects: 'a value between 0 and 10000',
    doc: 'by how much the time between packets grows',
  },
  'compress-level': {
    ...{ type: 'uint8', since: '2.4', until: '9.0', deprecated: '8.2', default: 1, range: [0, 9] },
    expects: 'a value between 0 and 9',
    doc: 'the zlib level of the capability compress',
  },
  'compress-threads': {
    ...{ type: 'uint8', since: '2.4', until: '9.0', deprecated: '8.2', default: 8, range: [1, 255] },
    expects: 'a value between 1 and 255',
    doc: 'how many threads compress',
  },
  'compress-wait-thread': {
    ...{ type: 'bool', since: '3.1', until: '9.0', deprecated: '8.2', default: true },
    doc: 'wait for a thread that is free, instead of sending the page as it is',
  },
  'decompress-threads': {
    ...{ type: 'uint8', since: '2.4', until: '9.0', deprecated: '8.2', default: 2, range: [1, 255] },
    expects: 'a value between 1 and 255',
    doc: 'how many threads decompress',
  },
  'throttle-trigger-threshold': {
    ...{ type: 'uint8', since: '5.0', unit: '%', default: 50, range: [1, 100] },
    expects: 'an integer in the range of 1 to 100',
    doc: 'auto-converge and dirty-limit act when the guest dirties more than this share of what is sent',
  },
  'cpu-throttle-initial': {
    ...{ type: 'uint8', since: '2.7', unit: '%', default: 20, range: [1, 99] },
    expects: 'an integer in the range of 1 to 99',
    doc: 'auto-converge: the first step',
  },
  'cpu-throttle-increment': {
    ...{ type: 'uint8', since: '2.7', unit: '%', default: 10, range: [1, 99] },
    expects: 'an integer in the range of 1 to 99',
    doc: 'auto-converge: each further step',
  },
  'cpu-throttle-tailslow': {
    ...{ type: 'bool', since: '5.1', default: false },
    doc: 'auto-converge: smaller last steps',
  },
  'tls-creds': {
    ...{ type: 'StrOrNull', since: '2.7', default: '' },
    doc: 'the id of a tls-creds object; empty means no TLS',
  },
  'tls-hostname': {
    ...{ type: 'StrOrNull', since: '2.7', default: '' },
    doc: "the name in the destination's certificate; empty is the host of the address",
  },
  'tls-authz': {
    ...{ type: 'StrOrNull', since: '4.0', default: '' },
    doc: 'the id of an authz object that says which sources are allowed',
  },
  'max-bandwidth': {
    ...{ type: 'size', since: '2.8', unit: 'bytes/s', default: 134217728 },
    doc: 'the most bytes per second; 0 means no limit',
  },
  'avail-switchover-bandwidth': {
    ...{ type: 'size', since: '8.2', unit: 'bytes/s', default: 0 },
    doc: 'the bandwidth that is counted on for the switchover; 0 is what was measured',
  },
  'downtime-limit': {
    ...{ type: 'uint64', since: '2.8', unit: 'ms', default: 300, range: [0, 2000000] },
    expects: 'an integer in the range of 0 to (2000 * 1000) ms',
    doc: 'how long the guest may stand still',
  },
  'x-checkpoint-delay': {
    ...{ type: 'uint32', since: '2.8', unstable: true, unit: 'ms', default: 20000 },
    doc: 'COLO: the time between two checkpoints',
  },
  'block-incremental': {
    ...{ type: 'bool', since: '2.10', until: '9.0', deprecated: '8.2', default: false },
    doc: 'block migration: only the top layer of each image',
  },
  'multifd-channels': {
    ...{ type: 'uint8', since: '4.0', default: 2, range: [1, 255] },
    expects: 'a value between 1 and 255',
    doc: 'how many multifd channels there are; the same on both sides',
  },
  'xbzrle-cache-size': {
    // A power of two, at least a page.
    ...{ type: 'size', since: '2.11', unit: 'bytes', default: 67108864 },
    expects: 'a power of two no less than the target page size',
    doc: 'the size of the cache of pages for XBZRLE',
  },
  'max-postcopy-bandwidth': {
    ...{ type: 'size', since: '3.0', unit: 'bytes/s', default: 0 },
    doc: 'the most bytes per second in postcopy, apart from pages that are asked for; 0 means no limit',
  },
  'max-cpu-throttle': {
    // From cpu-throttle-initial on.
    ...{ type: 'uint8', since: '3.1', unit: '%', default: 99, range: [1, 99] },
    expects: 'an integer in the range of cpu_throttle_initial to 99',
    doc: 'auto-converge: the most by which vCPUs are slowed down',
  },
  'multifd-compression': {
    ...{ type: 'MultiFDCompression', since: '5.0', default: 'none' },
    doc: 'how multifd channels are compressed; the same on both sides',
  },
  'multifd-zlib-level': {
    ...{ type: 'uint8', since: '5.0', default: 1, range: [0, 9], keptSince: '9.0' },
    expects: 'a value between 0 and 9',
    doc: 'the zlib level of multifd channels',
  },
  'multifd-qatzip-level': {
    ...{ type: 'uint8', since: '9.2', default: 1, range: [1, 9] },
    expects: 'a value between 1 and 9',
    doc: 'the QATzip level of multifd channels',
  },
  'multifd-zstd-level': {
    ...{ type: 'uint8', since: '5.0', default: 1, range: [0, 20], keptSince: '9.0' },
    expects: 'a value between 0 and 20',
    doc: 'the zstd level of multifd channels',
  },
  'block-bitmap-mapping': {
    ...{ type: '[BitmapMigrationNodeAlias]', since: '5.2' },
    doc: 'which dirty bitmaps are migrated, and under which names',
  },
  'x-vcpu-dirty-limit-period': {
    ...{ type: 'uint64', since: '8.1', unstable: true, unit: 'ms', default: 1000, range: [1, 1000] },
    errorName: 'x-vcpu-dirty-limit-period',
    expects: 'a value between 1 and 1000',
    doc: 'dirty-limit: how often the dirty rate is measured',
  },
  'vcpu-dirty-limit': {
    // At least 1; its error has a text of its own.
    ...{ type: 'uint64', since: '8.1', unit: 'MB/s', default: 1 },
    doc: 'dirty-limit: how much each vCPU may dirty',
  },
  mode: {
    ...{ type: 'MigMode', since: '8.2', default: 'normal' },
    doc: 'what kind of migration it is',
  },
  'zero-page-detection': {
    ...{ type: 'ZeroPageDetection', since: '9.1', default: 'multifd' },
    doc: 'which thread looks for zero pages',
  },
  'direct-io': {
    ...{ type: 'bool', since: '9.1', default: false },
    doc: 'mapped-ram with multifd: bypass the page cache',
  },
} as const satisfies Record<string, Parameter>;

const table: Readonly<Record<string, Parameter>> = parameters;

/** What `since` and the like of a parameter say about a member that is made of it. */
function marksOf({ since, until, deprecated, unstable }: Parameter): Marks {
  return {
    ...(since && { since }),
    ...(until && { until }),
    ...(deprecated && { deprecated }),
    ...(unstable && { unstable }),
  };
}

/** QEMU orders some of its values otherwise, which nothing on the wire shows. */
export const MigrationParameter: Enum = {
  kind: 'enum',
  doc: 'The names of the parameters. No command takes or returns it.',
  since: '2.4',
  values: Object.fromEntries(
    Object.entries(table).map(([name, parameter]) => [name, [parameter.doc, marksOf(parameter)]]),
  ),
};

const members = (typeOf: (parameter: Parameter) => string): Members =>
  Object.fromEntries(
    Object.entries(table).map(([name, parameter]) => [
      `${name}?`,
      [typeOf(parameter), parameter.doc, marksOf(parameter)],
    ]),
  );

/** What migrate-set-parameters takes: null is the same as an empty string. */
export const MigrateSetParameters: Struct = {
  kind: 'struct',
  doc: 'Parameters to set.',
  since: '2.4',
  members: members(({ type }) => type),
};

/** What query-migrate-parameters returns. */
export const MigrationParameters: Struct = {
  kind: 'struct',
  doc: 'All parameters. `block-bitmap-mapping` is there only after it was set.',
  since: '2.4',
  members: members(({ type }) => (type === 'StrOrNull' ? 'str' : type)),
};
