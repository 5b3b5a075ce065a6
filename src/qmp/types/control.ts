/** The types of commands besides migration. Made of src/schema/qapi by `npm run docs:qmp`: do not edit. */
import type {
  CommandLineParameterType,
  JobStatus,
  JobType,
  QAuthZListFormat,
  QAuthZListPolicy,
  QCryptoSecretFormat,
  QCryptoTLSCredsEndpoint,
  RunState,
  SchemaMetaType,
  SysEmuTarget,
} from './enums.ts';

/** A version. */
export interface VersionTriple {
  /** The first number. */
  major: number;
  /** The second. */
  minor: number;
  /** The third. */
  micro: number;
}

/** A version. */
export interface VersionInfo {
  /** Its numbers. */
  qemu: VersionTriple;
  /** Who built it. */
  package: string;
}

/** A command. */
export interface CommandInfo {
  /** Its name. */
  name: string;
}

/** Whether the guest runs. */
export interface StatusInfo {
  /** Whether it does. */
  running: boolean;
  /** Whether TCG runs one instruction at a time. */
  singlestep?: boolean;
  /** Why. */
  status: RunState;
}

/** The name of the VM. */
export interface NameInfo {
  /** None: it has no name. */
  name?: string;
}

/** The UUID of the VM. */
export interface UuidInfo {
  /** Zeros: it has none. */
  UUID: string;
}

/** Whether KVM is used. */
export interface KvmInfo {
  /** Whether it is. */
  enabled: boolean;
  /** Whether it could be. */
  present: boolean;
}

/** The size of the memory. */
export interface MemoryInfo {
  /** That the VM has from its start. */
  'base-memory': number | bigint;
  /** That was plugged later. */
  'plugged-memory'?: number | bigint;
}

/** The architecture of the guest. */
export interface TargetInfo {
  /** Which. */
  arch: SysEmuTarget;
}

/** A vCPU. */
export interface CpuInfoFast {
  /** Its number. */
  'cpu-index': number;
  /** Its object. */
  'qom-path': string;
  /** Its thread at the host. */
  'thread-id': number;
  /** Its architecture. */
  target: SysEmuTarget;
}

/** A machine type. */
export interface MachineInfo {
  /** Its name. */
  name: string;
  /** Another name. */
  alias?: string;
  /** Whether it is the default. */
  'is-default'?: boolean;
  /** The most vCPUs. */
  'cpu-max': number;
  /** Whether vCPUs can be added. */
  'hotpluggable-cpus': boolean;
  /** Whether it takes `-numa node,mem`. */
  'numa-mem-supported': boolean;
  /** Whether it is deprecated. */
  deprecated: boolean;
  /** Its vCPUs. */
  'default-cpu-type'?: string;
  /** The name of its RAM block. */
  'default-ram-id'?: string;
  /** Whether it has ACPI. */
  acpi?: boolean;
}

/** A parameter of an option. */
export interface CommandLineParameterInfo {
  /** Its name. */
  name: string;
  /** Its type. */
  type: CommandLineParameterType;
  /** What it means. */
  help?: string;
  /** Its default. */
  default?: string;
}

/** An option of the command line. */
export interface CommandLineOptionInfo {
  /** Its name. */
  option: string;
  /** Its parameters. */
  parameters: CommandLineParameterInfo[];
}

/** A type of objects. */
export interface ObjectTypeInfo {
  /** Its name. */
  name: string;
  /** Whether it is abstract. */
  abstract?: boolean;
  /** The type that it extends. */
  parent?: string;
}

/** A character device. */
export interface ChardevInfo {
  /** Its id. */
  label: string;
  /** Where it is. */
  filename: string;
  /** Whether it is in use. */
  'frontend-open': boolean;
}

/** A thread for input and output. */
export interface IOThreadInfo {
  /** Its id. */
  id: string;
  /** Its number at the host. */
  'thread-id': number;
  /** How long it polls at most. */
  'poll-max-ns': number;
  /** How that time grows. */
  'poll-grow': number;
  /** How that time shrinks. */
  'poll-shrink': number;
  /** How many requests it takes together. */
  'aio-max-batch': number;
}

/** A property. */
export interface ObjectPropertyInfo {
  /** Its name. */
  name: string;
  /** Its type. */
  type: string;
  /** What it means. */
  description?: string;
  /** Its default. */
  'default-value'?: unknown;
}

/** Where a descriptor is. */
export interface AddfdInfo {
  /** Its set. */
  'fdset-id': number;
  /** Its number. */
  fd: number;
}

/** A descriptor of a set. */
export interface FdsetFdInfo {
  /** Its number. */
  fd: number;
  /** A note. */
  opaque?: string;
}

/** A set of descriptors. */
export interface FdsetInfo {
  /** Its number. */
  'fdset-id': number;
  /** Its descriptors. */
  fds: FdsetFdInfo[];
}

/** A disk. */
export interface YankInstanceBlockNode {
  /** Its node. */
  'node-name': string;
}

/** A character device. */
export interface YankInstanceChardev {
  /** Its id. */
  id: string;
}

/** Something that yank can break. */
export type YankInstance =
  | ({ type: 'block-node' } & YankInstanceBlockNode)
  | ({ type: 'chardev' } & YankInstanceChardev)
  | { type: 'migration' };

/** A job. */
export interface JobInfo {
  /** Its id. */
  id: string;
  /** What it does. */
  type: JobType;
  /** How far it is. */
  status: JobStatus;
  /** What is done. */
  'current-progress': number;
  /** Of how much. */
  'total-progress': number;
  /** Why it failed. */
  error?: string;
}

/** An object to make. */
export type ObjectOptions =
  | ({ 'qom-type': 'authz-list'; id: string } & AuthZListProperties)
  | ({ 'qom-type': 'authz-simple'; id: string } & AuthZSimpleProperties)
  | ({ 'qom-type': 'secret'; id: string } & SecretProperties)
  | ({ 'qom-type': 'tls-creds-anon'; id: string } & TlsCredsAnonProperties)
  | ({ 'qom-type': 'tls-creds-psk'; id: string } & TlsCredsPskProperties)
  | ({ 'qom-type': 'tls-creds-x509'; id: string } & TlsCredsX509Properties)
  | { 'qom-type': string & {}; id: string; [member: string]: unknown };

/** A rule. */
export interface QAuthZListRule {
  /** The name. */
  match: string;
  /** What it says. */
  policy: QAuthZListPolicy;
  /** How it matches (default: exact). */
  format?: QAuthZListFormat;
}

/** Rules, of which the first that matches decides. */
export interface AuthZListProperties {
  /** If none matches (default: deny). */
  policy?: QAuthZListPolicy;
  /** The rules. */
  rules?: QAuthZListRule[];
}

/** One name. */
export interface AuthZSimpleProperties {
  /** Who is allowed. */
  identity: string;
}

/** A secret. */
export interface SecretProperties {
  /** Has no effect.
@deprecated */
  loaded?: boolean;
  /** How it is written (default: raw). */
  format?: QCryptoSecretFormat;
  /** The secret that it is encrypted with. */
  keyid?: string;
  /** Its initialization vector. */
  iv?: string;
  /** The secret itself. */
  data?: string;
  /** Or a file that has it. */
  file?: string;
}

/** TLS without certificates. */
export interface TlsCredsAnonProperties {
  /** Whether the certificate of the peer is checked (default: true). */
  'verify-peer'?: boolean;
  /** The directory of the files. */
  dir?: string;
  /** Which end this is (default: client). */
  endpoint?: QCryptoTLSCredsEndpoint;
  /** Ciphers and versions, in GnuTLS's words. */
  priority?: string;
  /** Has no effect.
@deprecated */
  loaded?: boolean;
}

/** TLS with a shared key. */
export interface TlsCredsPskProperties {
  /** Whether the certificate of the peer is checked (default: true). */
  'verify-peer'?: boolean;
  /** The directory of the files. */
  dir?: string;
  /** Which end this is (default: client). */
  endpoint?: QCryptoTLSCredsEndpoint;
  /** Ciphers and versions, in GnuTLS's words. */
  priority?: string;
  /** Has no effect.
@deprecated */
  loaded?: boolean;
  /** Client: the name of the key (default: qemu). */
  username?: string;
}

/** TLS with certificates. */
export interface TlsCredsX509Properties {
  /** Whether the certificate of the peer is checked (default: true). */
  'verify-peer'?: boolean;
  /** The directory of the files. */
  dir?: string;
  /** Which end this is (default: client). */
  endpoint?: QCryptoTLSCredsEndpoint;
  /** Ciphers and versions, in GnuTLS's words. */
  priority?: string;
  /** Has no effect.
@deprecated */
  loaded?: boolean;
  /** Whether its own certificates are checked (default: true). */
  'sanity-check'?: boolean;
  /** The secret of its key. */
  passwordid?: string;
}

/** A bitmap of a disk. */
export interface BlockDirtyBitmap {
  /** The node name of the disk. */
  node: string;
  /** The name of the bitmap. */
  name: string;
}

/** A bitmap. */
export interface BlockDirtyInfo {
  /** Its name. */
  name?: string;
  /** Bytes that are marked. */
  count: number;
  /** Bytes for each bit. */
  granularity: number;
  /** Whether it records. */
  recording: boolean;
  /** Whether it is in use. */
  busy: boolean;
  /** Whether the image keeps it. */
  persistent: boolean;
  /** Whether it cannot be trusted. */
  inconsistent?: boolean;
}

/** A disk image. */
export interface ImageInfo {
  /** Its path. */
  filename: string;
  /** Its format. */
  format: string;
  /** Bytes that it takes. */
  'actual-size'?: number;
  /** Bytes of the disk. */
  'virtual-size': number;
  /** Bytes of a cluster. */
  'cluster-size'?: number;
}

/** A block node. */
export interface BlockDeviceInfo {
  /** Its path. */
  file: string;
  /** Its name. */
  'node-name'?: string;
  /** Whether it is read-only. */
  ro: boolean;
  /** Its format. */
  drv: string;
  /** The image. */
  image: ImageInfo;
  /** Its bitmaps. */
  'dirty-bitmaps'?: BlockDirtyInfo[];
}

/** A disk. */
export interface BlockInfo {
  /** Its name. */
  device: string;
  /** The device of the guest. */
  qdev?: string;
  /** Always `unknown`. */
  type: string;
  /** Whether its medium can be changed. */
  removable: boolean;
  /** Whether the guest has locked it. */
  locked: boolean;
  /** The block node. */
  inserted?: BlockDeviceInfo;
}

/** An entity of the schema. Its other members depend on its meta-type. */
export interface SchemaInfo {
  /** Its name. */
  name: string;
  /** What it is. */
  'meta-type': SchemaMetaType;
  /** Such as `deprecated` and `unstable`. */
  features?: string[];
}
