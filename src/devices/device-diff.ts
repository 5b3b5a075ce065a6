/**
 * Compares two states of one device field by field, and names differences by the paths that `findValue` takes. Fields
 * are matched by their names and array positions, subsections by their names, and registers that a CPU lists by number by
 * their numbers. A device that was not decoded is compared as bytes.
 */
import { type DeviceState, isStruct, type StateField, type StateStruct, type StateValue } from './device-state.ts';
import { valueOfFields } from './find-value.ts';
import { listRegisters, registerListName } from './register-list.ts';
import { exact } from './state-scalars.ts';
import { virtioFeatureNames } from './virtio-features.ts';

/** Bytes of a buffer that are shown for each side, from the first difference. */
const excerptBytes = 16;

/** A value without parts. */
export type PlainValue = number | bigint | boolean | null;

/** A difference. `path` is a path for {@link findValue}; empty for the whole device. */
export type FieldChange = {
  path: string;
  /**
   * The number of the register, if the CPU lists registers by number. Then `path` counts in the newer state, or in the
   * older one if only that has the register.
   */
  register?: bigint;
} & (
  | {
      kind: 'value';
      /** QEMU's word for the type. */
      type: string;
      old: PlainValue;
      new: PlainValue;
      /** Names of the features that differ, if the value is the feature bits of a virtio device's guest. */
      features?: { removed: string[]; added: string[] };
    }
  | {
      kind: 'bytes';
      type: string;
      /** Offset of the first different byte, and the number of different bytes. Bytes that only one side has count. */
      first: number;
      count: number;
      /** Total bytes. */
      oldLength: number;
      newLength: number;
      /** At most 16 bytes from `first` on. */
      old: Uint8Array;
      new: Uint8Array;
    }
  /** A field, a subsection or an element that only one side has. */
  | { kind: 'removed' | 'added' }
  /** Another version, of the device or of a struct in it. Not all descriptions state it. */
  | { kind: 'version'; old?: number; new?: number }
  /** Another kind of value under the same name. */
  | { kind: 'type'; old: string; new: string }
);

/** The differences between two states of one device. */
export interface DeviceDiff {
  name: string;
  instanceId: number;
  /** The first differences, in the order of the state. Empty if the states are the same. */
  changes: FieldChange[];
  /** The total number of differences. */
  changeCount: number;
  /** Why the state was compared as bytes, if it was. */
  problem?: string;
}

/** Compares two states of one device, and keeps the first `maxChanges` differences. */
export function diffDevice(old: DeviceState, now: DeviceState, maxChanges: number): DeviceDiff {
  const { name, instanceId } = now;
  const log = new ChangeLog(maxChanges);
  if (old.versionId !== now.versionId) {
    log.add({ path: '', kind: 'version', old: old.versionId, new: now.versionId });
  }
  const problem = now.state === undefined ? now.problem : old.problem;
  if (!areEqual(old.data, now.data)) {
    const before = log.count;
    if (old.state !== undefined && now.state !== undefined) {
      new Comparison(old.data, now.data, log, virtioNameOf(now.state)).structs('', old.state, now.state);
    }
    // Not decoded, or the same fields in another order.
    if (log.count === before) log.addBytes('', 'buffer', old.data, now.data);
  }
  const result = { name, instanceId, changes: log.changes, changeCount: log.count };
  return problem === undefined ? result : { ...result, problem };
}

class ChangeLog {
  readonly changes: FieldChange[] = [];
  count = 0;
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  add(change: FieldChange): void {
    if (this.count++ < this.#most) this.changes.push(change);
  }

  addBytes(path: string, type: string, old: Uint8Array, now: Uint8Array): void {
    const common = Math.min(old.length, now.length);
    let first = common;
    let count = Math.max(old.length, now.length) - common;
    for (let i = common - 1; i >= 0; i--) {
      if (old[i] === now[i]) continue;
      first = i;
      count++;
    }
    if (count === 0) return;
    const excerpt = (bytes: Uint8Array) => bytes.slice(first, first + excerptBytes);
    const lengths = { oldLength: old.length, newLength: now.length };
    this.add({ path, kind: 'bytes', type, first, count, ...lengths, old: excerpt(old), new: excerpt(now) });
  }
}

class Comparison {
  readonly #old: Uint8Array;
  readonly #new: Uint8Array;
  readonly #log: ChangeLog;
  readonly #virtio: string | undefined;

  /** `virtio`: the device's `vmsd_name`, if it is a virtio device. */
  constructor(old: Uint8Array, now: Uint8Array, log: ChangeLog, virtio: string | undefined) {
    this.#old = old;
    this.#new = now;
    this.#log = log;
    this.#virtio = virtio;
  }

  structs(path: string, old: StateStruct, now: StateStruct): void {
    if (old.version !== now.version) this.#log.add({ path, kind: 'version', ...versions(old.version, now.version) });
    const prefix = path === '' ? '' : `${path}.`;
    const lists = registersInBoth(old, now);
    this.#pair(fieldsByPath(prefix, old.fields), fieldsByPath(prefix, now.fields), (at, a, b) => {
      const [{ name, type }] = b as [StateField];
      const list = lists.get(name);
      if (list !== undefined) return void (name.endsWith('_values') && this.#registers(at, type, list));
      const isSame = a.length === b.length && a.every((field, i) => this.#haveSameBytes(field, b[i] as StateField));
      if (!isSame) this.#fields(at, a, b);
    });
    const parts = ({ vmsdName, subsections }: StateStruct) => subsectionsByPath(path, vmsdName, subsections);
    this.#pair(parts(old), parts(now), (at, a, b) => {
      if (!this.#haveSameBytes(a, b)) this.structs(at, a, b);
    });
  }

  /** Compares the parts that both sides have. The others were removed or added. */
  #pair<Part>(olds: Map<string, Part>, news: Map<string, Part>, compare: (path: string, old: Part, now: Part) => void) {
    for (const path of olds.keys()) if (!news.has(path)) this.#log.add({ path, kind: 'removed' });
    for (const [path, now] of news) {
      const old = olds.get(path);
      if (old === undefined) this.#log.add({ path, kind: 'added' });
      else compare(path, old, now);
    }
  }

  /** Compares registers by their numbers. `path` is that of the values. */
  #registers(path: string, type: string, { old, now }: RegistersInBoth): void {
    for (const [i, register] of [...old.keys()].entries()) {
      if (!now.has(register)) this.#log.add({ path: `${path}[${i}]`, register, kind: 'removed' });
    }
    for (const [i, [register, value]] of [...now].entries()) {
      const before = old.get(register);
      const at = { path: `${path}[${i}]`, register };
      if (before === undefined) this.#log.add({ ...at, kind: 'added' });
      else if (before !== value) {
        this.#log.add({ ...at, kind: 'value', type, old: exact(before), new: exact(value) });
      }
    }
  }

  /** Unchanged bytes, which are most of a state, are not decoded. */
  #haveSameBytes(old: Extent, now: Extent): boolean {
    const bytes = (data: Uint8Array, { offset, length }: Extent) => data.subarray(offset, offset + length);
    return areEqual(bytes(this.#old, old), bytes(this.#new, now));
  }

  /** All fields of one name. QEMU gives no index to an array's only element. */
  #fields(path: string, olds: readonly StateField[], news: readonly StateField[]): void {
    const [old, now] = [valueOfFields(olds), valueOfFields(news)];
    const [oldType, type] = [olds, news].map(([first]) => (first as StateField).type) as [string, string];
    const isOneList = isList(old) !== isList(now) && olds.length !== news.length;
    const listed = (value: StateValue) => (isOneList && !isList(value) ? [value] : value);
    this.#values(path, oldType, type, listed(old), listed(now));
  }

  #values(path: string, oldType: string, type: string, old: StateValue, now: StateValue): void {
    if (isStruct(old) && isStruct(now)) {
      if (!this.#haveSameBytes(old, now)) this.structs(path, old, now);
    } else if (old instanceof Uint8Array && now instanceof Uint8Array) {
      this.#log.addBytes(path, type, old, now);
    } else if (isList(old) && isList(now)) {
      const common = Math.min(old.length, now.length);
      for (let i = 0; i < common; i++) {
        this.#values(`${path}[${i}]`, oldType, type, old[i] as StateValue, now[i] as StateValue);
      }
      for (let i = common; i < old.length; i++) this.#log.add({ path: `${path}[${i}]`, kind: 'removed' });
      for (let i = common; i < now.length; i++) this.#log.add({ path: `${path}[${i}]`, kind: 'added' });
    } else if (isPlain(old) && isPlain(now)) {
      if (old !== now) this.#log.add({ path, kind: 'value', type, old, new: now, ...this.#features(path, old, now) });
    } else {
      this.#log.add({ path, kind: 'type', old: oldType, new: type });
    }
  }

  /** The features that differ, if the value at the path is feature bits. QEMU saves up to three copies of them. */
  #features(path: string, old: PlainValue, now: PlainValue): { features?: { removed: string[]; added: string[] } } {
    const [found, word = '0'] = /[./]guest_features(?:\[([01])\])?$/.exec(path) ?? [];
    const device = this.#virtio;
    if (device === undefined || found === undefined) return {};
    const [before, after] = [old, now].map((value) => BigInt(value ?? 0) << BigInt(32 * Number(word))) as [
      bigint,
      bigint,
    ];
    const names = (bits: bigint) => virtioFeatureNames(device, bits);
    return { features: { removed: names(before & ~after), added: names(after & ~before) } };
  }
}

/** The `vmsd_name` of a virtio device. */
function virtioNameOf({ vmsdName, fields }: StateStruct): string | undefined {
  return fields.some(({ type }) => type === 'virtio') ? vmsdName : undefined;
}

/** Values by number. */
interface RegistersInBoth {
  old: Map<bigint, bigint>;
  now: Map<bigint, bigint>;
}

/** Lists of registers that both states have, by the fields that they consist of: numbers, values, and their length. */
function registersInBoth(old: StateStruct, now: StateStruct): Map<string, RegistersInBoth> {
  const lists = new Map<string, RegistersInBoth>();
  for (const { name } of now.fields) {
    const list = registerListName(name);
    if (list === undefined || lists.has(name)) continue;
    const [mine, theirs] = [listRegisters(old, list), listRegisters(now, list)];
    if (mine === undefined || theirs === undefined) continue;
    for (const part of ['array_len', 'indexes', 'values']) lists.set(`${list}_${part}`, { old: mine, now: theirs });
  }
  return lists;
}

/** The versions that are stated. */
function versions(old: number | undefined, now: number | undefined): { old?: number; new?: number } {
  return { ...(old === undefined ? {} : { old }), ...(now === undefined ? {} : { new: now }) };
}

interface Extent {
  offset: number;
  length: number;
}

/** Fields of the same name are the elements of one array. */
function fieldsByPath(prefix: string, fields: readonly StateField[]): Map<string, StateField[]> {
  const byPath = new Map<string, StateField[]>();
  for (const field of fields) {
    const path = `${prefix}${field.name}`;
    const same = byPath.get(path);
    if (same === undefined) byPath.set(path, [field]);
    else same.push(field);
  }
  return byPath;
}

/** Subsections by name, without their parent's name in front. Subsections of the same name are numbered. */
function subsectionsByPath(path: string, parent: string, subsections: readonly StateStruct[]) {
  const byPath = new Map<string, StateStruct>();
  for (const subsection of subsections) {
    const { vmsdName } = subsection;
    const name = vmsdName.startsWith(`${parent}/`) ? vmsdName.slice(parent.length + 1) : vmsdName;
    const at = `${path}/${name}`;
    byPath.set(byPath.has(at) ? `${at}#${byPath.size}` : at, subsection);
  }
  return byPath;
}

function isList(value: StateValue): value is readonly StateValue[] {
  return Array.isArray(value);
}

function isPlain(value: StateValue): value is PlainValue {
  return value === null || ['number', 'bigint', 'boolean'].includes(typeof value);
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
