/**
 * Reads a device's body by its description (docs/formats/devices.md): fields back to back, then subsections.
 *
 * `decodeDevice` walks the body once, to make sure that the description fits it to the last byte, and creates no objects.
 * Fields and values are created on demand, by the same walk.
 */

import type { DeviceDescription, FieldDescription, StateDescription } from '../vm/description.ts';
import type { DeviceSection } from '../vm/flow.ts';
import { bodySize } from './body-size.ts';
import { isPlain, subsectionHeadLength, Walk } from './device-walk.ts';
import { listTypes } from './field-types.ts';
import { describeKnown } from './known-devices.ts';
import { LayoutMismatch } from './layout-builder.ts';
import { scalars } from './state-scalars.ts';

/** A device's state. Offsets of its fields count from the body's first byte. */
export interface DeviceState {
  /** idstr, such as `0000:00:02.0/vga`. */
  name: string;
  instanceId: number;
  versionId: number;
  /** Offset of the body's first byte in the source, and its bytes. */
  offset: number;
  length: number;
  /** The body. */
  data: Uint8Array;
  /** Undefined if there is no description or it does not fit the bytes; `problem` says why. */
  state: StateStruct | undefined;
  problem: string | undefined;
  /** Bytes of unknown meaning: those of a device's private types, or the whole body. */
  undecodedBytes: number;
}

/** Fields and subsections that one description covers. */
export interface StateStruct {
  vmsdName: string;
  version: number | undefined;
  /** A subsection begins with its head: 0x05, a counted name, a version. */
  offset: number;
  length: number;
  readonly fields: readonly StateField[];
  readonly subsections: readonly StateStruct[];
}

/** A field of a state. */
export interface StateField {
  name: string;
  /** QEMU's word for the type. */
  type: string;
  /** Position in an array whose elements are fields of this name. */
  index: number | undefined;
  offset: number;
  length: number;
  /** Decoded at each access, so that unused values cost nothing. */
  readonly value: StateValue;
}

/**
 * A number up to 2^53, else a bigint; floats as their bits. Buffers, bitmaps and undecoded fields are bytes; bit i of a
 * bitmap is bit i % 8 of byte i / 8. A NULL pointer is null. Arrays and lists are arrays.
 */
export type StateValue = number | bigint | boolean | null | Uint8Array | StateStruct | readonly StateValue[];

/** Where a section's body begins: type, id, counted name, instance and version come before it. */
export function bodyOffsetOf({ name, offset }: Pick<DeviceSection, 'name' | 'offset'>): number {
  return offset + 1 + 4 + 1 + name.length + 4 + 4;
}

/** Reads a device section by its description. Without one, it reads the few devices whose layout never changes. */
export function decodeDevice(
  section: DeviceSection,
  description: DeviceDescription | undefined = describeKnown(section),
): DeviceState {
  const { name, instanceId, versionId, data } = section;
  const offset = bodyOffsetOf(section);
  const device = { name, instanceId, versionId, offset, length: data.length, data };
  const undecoded = (problem: string): DeviceState => {
    return { ...device, state: undefined, problem, undecodedBytes: data.length };
  };
  if (description === undefined) return undecoded('there is no description');
  const walked = walkThrough(data, description);
  if (!(walked instanceof LayoutMismatch)) {
    const undecodedBytes = isOldStyle(description) ? data.length : walked.undecodedBytes;
    return { ...device, state: new Struct(data, description, 0, data.length), problem: undefined, undecodedBytes };
  }
  const amended = stretchPointers(description, data.length);
  const again = amended === undefined ? walked : walkThrough(data, amended);
  if (amended !== undefined && !(again instanceof LayoutMismatch)) {
    const state = new Struct(data, amended, 0, data.length);
    return { ...device, state, problem: undefined, undecodedBytes: again.undecodedBytes };
  }
  const { message, at } = walked;
  return undecoded(`${message}, at 0x${(offset + at).toString(16)} (0x${at.toString(16)} in the body)`);
}

/** Walks through a whole body. */
function walkThrough(data: Uint8Array, description: DeviceDescription): Walk | LayoutMismatch {
  const walk = new Walk(data);
  try {
    const end = walk.state(description, 0, 0);
    if (end === data.length) return walk;
    return new LayoutMismatch(end, `the description ends here, ${data.length - end} bytes before the body`);
  } catch (error) {
    if (error instanceof LayoutMismatch) return error;
    throw error;
  }
}

/**
 * QEMU 7.2 describes an array of pointers by its first element, and describes nothing if that is NULL. If a device has one
 * such array, the bytes that no other field covers belong to it. Their meaning stays unknown; all other fields are decoded.
 */
function stretchPointers(description: DeviceDescription, length: number): DeviceDescription | undefined {
  const isUndescribed = ({ type, size, nested: [nested] }: FieldDescription) =>
    type === 'struct' && size === 1 && nested !== undefined && nested.fields.length + nested.subsections.length === 0;
  const [pointers, ...others] = description.fields.filter(isUndescribed);
  const described = bodySize(description);
  if (pointers === undefined || others.length > 0 || described === undefined || described >= length) return undefined;
  const size = (pointers.arrayLength ?? 1) + length - described;
  const stretched = { ...pointers, type: 'pointers', size, arrayLength: undefined, nested: [] };
  return { ...description, fields: description.fields.map((field) => (field === pointers ? stretched : field)) };
}

/** A device whose description states only its number of bytes. */
function isOldStyle({ vmsdName, fields }: DeviceDescription): boolean {
  return vmsdName === '' && fields.length === 1 && fields[0]?.name === 'data' && fields[0].type === 'buffer';
}

/** A description at its position in a body. */
class Struct implements StateStruct {
  readonly vmsdName: string;
  readonly version: number | undefined;
  readonly offset: number;
  readonly length: number;
  readonly #data: Uint8Array;
  readonly #description: StateDescription;
  /** Where the fields begin. */
  readonly #start: number;
  #parts: { fields: StateField[]; subsections: StateStruct[] } | undefined;

  constructor(data: Uint8Array, description: StateDescription, from: number, to: number, isSubsection = false) {
    this.vmsdName = description.vmsdName;
    this.version = description.version;
    this.offset = from;
    this.length = to - from;
    this.#data = data;
    this.#description = description;
    this.#start = isSubsection ? from + subsectionHeadLength(description) : from;
  }

  get fields(): readonly StateField[] {
    return this.#decode().fields;
  }

  get subsections(): readonly StateStruct[] {
    return this.#decode().subsections;
  }

  #decode(): { fields: StateField[]; subsections: StateStruct[] } {
    if (this.#parts !== undefined) return this.#parts;
    const data = this.#data;
    const fields: StateField[] = [];
    const subsections: StateStruct[] = [];
    new Walk(data).state(this.#description, this.#start, 0, {
      field: (field, from, to) => fields.push(new Field(data, field, this.#description, from, to)),
      subsection: (description, from, to) => subsections.push(new Struct(data, description, from, to, true)),
    });
    this.#parts = { fields, subsections };
    return this.#parts;
  }
}

class Field implements StateField {
  readonly name: string;
  readonly type: string;
  readonly index: number | undefined;
  readonly offset: number;
  readonly length: number;
  readonly #data: Uint8Array;
  readonly #description: FieldDescription;
  readonly #parent: StateDescription;

  constructor(data: Uint8Array, description: FieldDescription, parent: StateDescription, from: number, to: number) {
    this.name = description.name;
    this.type = description.type;
    this.index = description.index;
    this.offset = from;
    this.length = to - from;
    this.#data = data;
    this.#description = description;
    this.#parent = parent;
  }

  get value(): StateValue {
    const { arrayLength, type, size = 0 } = this.#description;
    const count = arrayLength ?? 1;
    const each = <Value>(element: (i: number) => Value) =>
      arrayLength === undefined ? element(0) : Array.from({ length: arrayLength }, (_, i) => element(i));
    if (isPlain(this.#description)) return each((i) => this.#plain(this.offset + i * size));
    const elements: StateValue[][] = Array.from({ length: count }, () => []);
    new Walk(this.#data).field(this.#description, this.#parent, this.offset, 0, (i, description, from, to) => {
      elements[i]?.push(description === undefined ? null : new Struct(this.#data, description, from, to));
    });
    if (listTypes.has(type)) return each((i) => elements[i] as StateValue[]);
    return each((i) => {
      const [element] = elements[i] as StateValue[];
      return element === undefined ? this.#bytes(this.offset + i * size) : element;
    });
  }

  #bytes(at: number): Uint8Array {
    return this.#data.subarray(at, at + (this.#description.size ?? 0));
  }

  #plain(at: number): StateValue {
    const { type } = this.#description;
    const scalar = scalars.get(type);
    if (scalar !== undefined) return scalar.read(new DataView(this.#data.buffer, this.#data.byteOffset), at);
    return type === 'bitmap' ? readBitmap(this.#bytes(at)) : this.#bytes(at);
  }
}

/** Words of 64 bits, each big-endian, as bytes from bit 0 on. */
function readBitmap(words: Uint8Array): Uint8Array {
  const bits = new Uint8Array(words.length);
  for (let i = 0; i < words.length; i++) bits[i] = words[(i & ~7) + 7 - (i & 7)] ?? 0;
  return bits;
}

/** Whether a value is a struct, rather than bytes or a list. */
export function isStruct(value: StateValue | undefined): value is StateStruct {
  return value instanceof Struct;
}
