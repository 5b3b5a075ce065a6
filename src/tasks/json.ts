/**
 * The JSON that the commands of `vmferry` print with `--json`, as types. Every object has {@link jsonVersion}. Sizes and
 * offsets are in bytes, byte strings are hex, and integers beyond 2^53 are decimal text.
 *
 * @example
 * import type { InspectJson } from 'vmferry';
 * const { machine, ram } = JSON.parse(stdout) as InspectJson;
 */
import type { DeviceDiff } from '../devices/device-diff.ts';
import { toHex } from '../devices/hex.ts';
import type { Qcow2Header } from '../read/container/qcow2-header.ts';
import type { ContentPlan } from '../store/content-plan.ts';
import type { MissingPages } from '../store/missing-ram.ts';
import type { ChangesIds } from '../vm/flow.ts';
import { jsonVersion, type VersionedJson } from '../vm/json-version.ts';
import type { Finding, Place } from '../vm/migration-error.ts';
import type { Check } from './check/check.ts';
import type { ChangedBlock } from './convert/changes.ts';
import type { ConvertedBlock } from './convert/convert.ts';
import type { DevicesDiff, FactDiff } from './diff/diff.ts';
import type { BlockDiff, RamDiff } from './diff/diff-ram.ts';
import type { Estimate } from './estimate/estimate.ts';
import type { ExtractedBlock } from './extract/extract.ts';
import type { MemoryDevice } from './extract/memory-devices.ts';
import type { PhysicalRange } from './extract/memory-map.ts';
import type { PhysicalLayout } from './extract/physical-layout.ts';
import type { InspectedBlock, InspectedSnapshot, Inspection } from './inspect/inspect.ts';
import type { Verification } from './inspect/verify.ts';

export { jsonVersion, type VersionedJson };

/** `inspect --json`. */
export interface InspectJson extends VersionedJson, AsJson<Omit<Inspection, 'ram'>> {
  ram: AsJson<Omit<Inspection['ram'], 'blocks'>> & {
    /** `sha256` with `--hash`: of the block's final content. */
    blocks: (InspectedBlock & { sha256?: string })[];
  };
}

/** `inspect --json` of a qcow2 image without `#SNAPSHOT`: its snapshots. */
export interface InspectSnapshotsJson
  extends VersionedJson,
    Pick<Qcow2Header, 'version' | 'diskSize' | 'encryption' | 'compression' | 'isDirty' | 'isCorrupt'> {
  source: string;
  format: 'qcow2';
  clusterSize: number;
  snapshots: InspectedSnapshot[];
}

/** `inspect --devices --json`. */
export interface InspectDevicesJson extends VersionedJson {
  source: string;
  machine: string | null;
  /** Bytes of device state, and how many of them are not decoded. */
  bytes: number;
  undecodedBytes: number;
  /** In stream order. `about` describes the state in words. */
  devices: (DeviceFactsJson & { about: string[] })[];
  findings: Finding[];
  /** The error that stopped the reading, if any. */
  error: Finding | null;
}

/** A device section, without its state. */
export interface DeviceFactsJson {
  name: string;
  instanceId: number;
  versionId: number;
  offset: number;
  length: number;
  undecodedBytes: number;
  /** The reason if the state is not decoded. */
  problem: string | null;
}

/** `inspect --device NAME --json`, and the output of `extract --device NAME`: the whole state of a device. */
export interface DeviceJson extends VersionedJson, DeviceFactsJson {
  /** The registers of an x86 CPU, as hex. */
  registers?: RegistersJson;
  /** Null: not decoded; `data` has the bytes. */
  state: StateJson | null;
  data?: string;
}

/** Registers by their names, such as `rip`. */
export type RegistersJson = Record<string, unknown> & {
  mode: string;
  cpl: number;
  /** The names of the flags that are set. */
  flags: string[];
  segments: Record<string, { selector: string; base: string; limit: string; flags: string }>;
  tables: Record<string, { base: string; limit: string }>;
};

/** A structure of a device's state. */
export interface StateJson {
  vmsdName: string;
  version: number | null;
  offset: number;
  length: number;
  fields: StateFieldJson[];
  subsections: StateJson[];
}

/** A field of a device's state, or one element of an array. */
export interface StateFieldJson {
  name: string;
  /** QEMU's word for the type. */
  type: string;
  index?: number;
  offset: number;
  length: number;
  value: StateValueJson;
}

/** A value of a device's state. */
export type StateValueJson = null | boolean | number | string | StateJson | StateValueJson[];

/** `verify --json` of one file. */
export interface VerifyJson extends VersionedJson, AsJson<Verification> {}

/** `verify --json` of several files. */
export interface VerifyFilesJson extends VersionedJson {
  /** In the order of the command line. */
  files: AsJson<Verification>[];
  /** How many have each verdict. */
  ok: number;
  incomplete: number;
  bad: number;
}

/** With `--partial`: what the file lacks. */
export interface MissingJson {
  /** What shows that something is missing, errors first. */
  evidence: Finding[];
  /** The missing pages, by block and range. */
  blocks: MissingPages[];
}

/** `check --json`. */
export interface CheckJson extends VersionedJson, AsJson<Check> {}

/** `extract --json` of RAM blocks. */
export interface ExtractJson extends VersionedJson {
  /** How the content was read, and why. */
  plan: ContentPlan;
  /** The written blocks, each with the `path` of its file. */
  blocks: (ExtractedBlock & { path: string })[];
  missing?: MissingJson;
}

/** `extract --json` with `--physical` or `--elf`. */
export interface ExtractPhysicalJson
  extends VersionedJson,
    Omit<PhysicalLayout, 'ranges' | 'memoryDevices' | 'unplaced'> {
  /** How the content was read, and why. */
  plan: ContentPlan;
  source: string;
  path: string;
  /** Bytes of the output. */
  length: number;
  machine: string | null;
  /** CPUs whose registers are in a core file. */
  cpus?: number;
  /** The ranges in the output, ascending by address. */
  ranges: (Omit<PhysicalRange, 'block'> & { block: string })[];
  /** Memory devices that have a place, ascending by address. */
  memoryDevices: (Omit<MemoryDevice, 'block'> & { block: string })[];
  unplaced: { block: string; length: number; reason: string }[];
  /** Pages that were never sent, which read as zeros. */
  absentPages: { block: string; pages: number }[];
  missing?: MissingJson;
}

/** `extract --json --device NAME`: what was written, not the state itself. */
export interface ExtractDeviceJson extends VersionedJson {
  source: string;
  path: string;
  device: DeviceFactsJson;
}

/** `convert --json`. */
export interface ConvertJson extends VersionedJson {
  /** How the content was read, and why. */
  plan: ContentPlan;
  source: string;
  output: string;
  /** The form of OUT. */
  format: 'stream' | 'multifd' | 'mapped-ram' | 'libvirt';
  /** Where the stream begins in OUT, with `OUT,offset=N`. */
  offset?: number;
  machine: string | null;
  /** Bytes of OUT, or from the offset on. */
  length: number;
  /** The channels of a multifd set, and how they are compressed. */
  compression?: string;
  channels?: { path: string; length: number }[];
  blocks: ConvertedBlock[];
  /** How many devices have a state. */
  devices: number;
  hasDescription: boolean;
  /** OUT was read back and compared. */
  isVerified: boolean;
  missing?: MissingJson;
}

/** `convert --only-changed-from BASE --json`. */
export interface ConvertChangesJson extends VersionedJson {
  source: string;
  base: string;
  output: string;
  format: 'changes';
  machine: string | null;
  length: number;
  changes: ChangesIds;
  blocks: ChangedBlock[];
  /** What suggests that BASE is a state of another VM, one sentence each. */
  doubts: string[];
  devices: number;
  hasDescription: boolean;
  isVerified: boolean;
}

/** `merge --json`. */
export interface MergeJson extends ConvertJson {
  format: 'stream' | 'mapped-ram';
}

/** `resume --map --stream OUT --json`. */
export interface ResumeMapJson extends VersionedJson {
  source: string;
  /** Machine type; null before 2.4. */
  machine: string | null;
  /** OUT, and its bytes. */
  stream: string;
  length: number;
  /** Zero pages that have other bytes in FILE. The small stream has a ZERO record for each. */
  stalePages: number;
  /** Arguments to add to those of the machine. */
  arguments: string[];
  /** The RAM blocks that QEMU maps: their memory backends, and where they are in FILE. */
  blocks: { idstr: string; id: string; offset: number; length: number }[];
}

/** `diff --json`. */
export interface DiffJson extends VersionedJson {
  /** How the content of the two files was read, and why. */
  plan: { old: ContentPlan; new: ContentPlan };
  /** Names of A and B. */
  old: string;
  new: string;
  /** Nothing that was compared differs. */
  same: boolean;
  facts: AsJson<FactDiff>[];
  /** Null: not compared. */
  ram: (Omit<RamDiff, 'blocks'> & { blocks: AsJson<Omit<BlockDiff, 'map'>>[] }) | null;
  devices: (Omit<DevicesDiff, 'changed'> & { changed: DeviceDiffJson[] }) | null;
  /** Iterables other than RAM that one or both have. */
  notCompared: string[];
  /** What each file lacks; null if it is complete. */
  missing: { old: MissingJson | null; new: MissingJson | null };
}

/** The differences in a device. */
export interface DeviceDiffJson extends AsJson<DeviceDiff> {}

/**
 * A result as `--json` prints it: bytes are hex, a bigint is decimal text, and a field that is always present but may be
 * undefined is null. An optional field is left out. {@link jsonReplacer} does this.
 */
export type AsJson<Value> = Value extends undefined
  ? null
  : Value extends Uint8Array | bigint
    ? string
    : Value extends readonly (infer Element)[]
      ? AsJson<Element>[]
      : Value extends object
        ? { [Key in keyof Value]: AsJson<Required<Value>[Key]> }
        : Value;

/**
 * Makes `JSON.stringify` print results of the library as the command line does, see {@link AsJson}.
 *
 * @example
 * JSON.stringify(inspection, jsonReplacer, 2);
 */
export function jsonReplacer(_key: string, value: unknown): unknown {
  if (value === undefined) return null;
  if (value instanceof Uint8Array) return toHex(value);
  return typeof value === 'bigint' ? String(value) : value;
}

/** `read --json`. */
export interface ReadJson extends VersionedJson {
  /** How the content was read, and why. */
  plan: ContentPlan;
  /** The block with the first byte. */
  block: string;
  /** Where the range begins in the block. */
  at: number;
  /** With `--physical` and `--virtual`: the address of the first byte, in hex. */
  address?: string;
  length: number;
  /** Pages of the range that were never sent, which read as zeros; null where the file cannot tell. */
  absentPages: number | null;
  missing?: MissingJson;
  /** The bytes. */
  hex: string;
}

/** `search --json`: one object per line, for each match. */
export interface SearchJson extends VersionedJson {
  /** With `--physical` and `--virtual`: the address, in hex. Block and offset are those of the first byte. */
  address?: string;
  block: string;
  offset: number;
  length: number;
  /** The bytes of the match. */
  hex: string;
  /** With `--context`: the bytes around it. */
  before?: string;
  after?: string;
  /** With `--file`: which pattern, from 0. */
  pattern?: number;
}

/** `search --json --partial`: the last line, if the file lacks something. */
export interface SearchMissingJson extends VersionedJson {
  missing: MissingJson;
}

/** `search --count --json`. */
export interface SearchCountJson extends VersionedJson {
  /** How the content was read, and why. */
  plan?: ContentPlan;
  count: number;
  missing?: MissingJson;
}

/** `estimate --json`. */
export interface EstimateJson extends VersionedJson, AsJson<Estimate> {}

/** An error with `--json`: one line, the last on standard error. */
export interface ErrorJson extends VersionedJson {
  error: {
    message: string;
    /** A finding's code, Node's code such as ENOENT, `usage`, or `internal` for a bug of vmferry. */
    code: string;
    exitCode: number;
    /** Where in the input. */
    place?: Place;
    /** What to try. */
    hint?: string;
    /** Of the live commands: where the guest is. */
    guest?: 'source' | 'target' | 'split' | 'either';
    /** Of the live commands: what is safe to do next. */
    next?: string;
  };
}
