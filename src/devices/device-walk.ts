/**
 * Walks through a device's body by its description (docs/formats/devices.md), and finds where each field, element and
 * subsection begins and ends. It reads no values except counts and fixed bytes.
 */
import type { FieldDescription, StateDescription } from '../vm/description.ts';
import { byteTypes, queueTypes, structTypes } from './field-types.ts';
import { LayoutMismatch } from './layout-builder.ts';
import { describePrivate } from './private-state.ts';
import { scalars } from './state-scalars.ts';

/** The most elements of an array. */
const maxElements = 1 << 22;
/**
 * Limits on the fields and elements of a body: per byte of it, and in all. QEMU's largest have some 12,000: virtio devices
 * with 1,024 queues.
 */
const stepsPerByte = 4;
const minSteps = 2000;
const maxSteps = 100_000;
/** The most elements without bytes. */
const maxEmpty = 1024;
/** The deepest nesting of descriptions, including those of private types. */
const maxDepth = 64;

const subsectionByte = 0x05;
/** The byte that represents a NULL pointer in an array: '0'. */
const nullByte = 0x30;

/** Receives the parts that a walk passes. */
interface Passing {
  field?(field: FieldDescription, from: number, to: number): void;
  subsection?(description: StateDescription, from: number, to: number): void;
}

/** Takes the elements of a field. An element without a description is a NULL pointer. */
type TakeElement = (i: number, description: StateDescription | undefined, from: number, to: number) => void;

/** The same for one element of an array. */
type TakeNested = (description: StateDescription | undefined, from: number, to: number) => void;

/** Walks through a body and finds where each part ends. */
export class Walk {
  readonly #data: Uint8Array;
  readonly #view: DataView;
  readonly #maxSteps: number;
  #steps = 0;
  undecodedBytes = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.#maxSteps = Math.min(minSteps + stepsPerByte * data.length, maxSteps);
  }

  /** Walks over a description's fields and subsections; returns where they end. */
  state(description: StateDescription, from: number, depth: number, passing?: Passing): number {
    if (depth > maxDepth) throw new LayoutMismatch(from, `expected descriptions nested at most ${maxDepth} deep`);
    let at = from;
    for (const field of description.fields) {
      const end = this.field(field, description, at, depth);
      passing?.field?.(field, at, end);
      at = end;
    }
    for (const subsection of description.subsections) {
      const end = this.state(subsection, this.#subsectionHead(subsection, at), depth + 1);
      passing?.subsection?.(subsection, at, end);
      at = end;
    }
    return at;
  }

  /** Walks over a field; returns where it ends. */
  field(field: FieldDescription, parent: StateDescription, from: number, depth: number, take?: TakeElement): number {
    const { name, type, size, arrayLength = 1 } = field;
    if (size === undefined) throw new LayoutMismatch(from, `the description has no size of field ${name}`);
    const most = size === 0 ? maxEmpty : maxElements;
    if (arrayLength > most) {
      throw new LayoutMismatch(
        from,
        `expected at most ${most} elements of ${size} bytes in field ${name}, got ${arrayLength}`,
      );
    }
    const end = from + size * arrayLength;
    if (end > this.#data.length) {
      throw new LayoutMismatch(from, `field ${name} of ${size * arrayLength} bytes ends beyond the body`);
    }
    this.#step(from);
    const pass = queueTypes.has(type)
      ? this.#list
      : type === 'gtree'
        ? this.#tree
        : structTypes.has(type)
          ? this.#struct
          : undefined;
    if (pass !== undefined) {
      for (let at = from, i = 0; i < arrayLength; i++, at += size) {
        this.#step(at);
        const takeOne = take && ((nested: StateDescription | undefined, a: number, b: number) => take(i, nested, a, b));
        const stop = pass.call(this, field, at, depth, takeOne);
        if (stop !== at + size)
          throw new LayoutMismatch(at, `field ${name} has ${stop - at} bytes, the description says ${size}`);
      }
    } else if (type === 'nullptr') {
      for (let at = from; at < end; at++) this.#requireNull(field, at);
    } else if (isPlain(field)) {
      return end;
    } else {
      for (let at = from, i = 0; at < end; i++, at += size) {
        const nested = this.#private(field, parent, at, depth);
        if (nested !== undefined) take?.(i, nested, at, at + size);
      }
    }
    return end;
  }

  #step(at: number): void {
    if (++this.#steps > this.#maxSteps) throw new LayoutMismatch(at, `expected at most ${this.#maxSteps} values`);
  }

  #requireNull({ name }: FieldDescription, at: number): void {
    const byte = this.#data[at];
    if (byte === nullByte) return;
    throw new LayoutMismatch(at, `expected 0x30 for a NULL pointer in field ${name}, got 0x${byte?.toString(16)}`);
  }

  #struct(field: FieldDescription, at: number, depth: number, take: TakeNested | undefined): number {
    const [nested] = field.nested;
    if (nested === undefined || nested.fields.length + nested.subsections.length === 0) {
      if (field.size === 0) {
        if (nested !== undefined) take?.(nested, at, at);
        return at;
      }
      // QEMU 7.2 describes an array of pointers by its first element; if that is NULL, all may be.
      this.#requireNull(field, at);
      take?.(undefined, at, at + 1);
      return at + 1;
    }
    const end = this.state(nested, at, depth + 1);
    take?.(nested, at, end);
    return end;
  }

  #list(field: FieldDescription, from: number, depth: number, take: TakeNested | undefined): number {
    let at = from;
    for (let i = 0; ; i++) {
      this.#step(at);
      if (!this.#hasNext(field, at++)) return at;
      const nested = field.nested[i] ?? field.nested.at(-1);
      if (nested === undefined) throw new LayoutMismatch(at, `an element of field ${field.name} is not described`);
      const end = this.state(nested, at, depth + 1);
      take?.(nested, at, end);
      at = end;
    }
  }

  /** A tree: be32 count, elements of a key and a value, each after a 1, then a 0. Keys that are numbers have no description. */
  #tree(field: FieldDescription, from: number, depth: number, take: TakeNested | undefined): number {
    const { name, nested } = field;
    this.#requireBytes(from, 4, field);
    const count = this.#view.getUint32(from);
    const isDirect = nested.length <= count;
    let at = from + 4;
    for (let i = 0; ; i++) {
      this.#step(at);
      if (!this.#hasNext(field, at++)) {
        if (i === count) return at;
        throw new LayoutMismatch(from, `expected ${count} elements in field ${name}, got ${i}`);
      }
      const key = isDirect ? undefined : nested[2 * i];
      const value = isDirect ? nested[i] : nested[2 * i + 1];
      if (value === undefined) throw new LayoutMismatch(at, `an element of field ${name} is not described`);
      if (key === undefined) this.#requireBytes(at, 8, field);
      const middle = key === undefined ? at + 8 : this.state(key, at, depth + 1);
      const end = this.state(value, middle, depth + 1);
      take?.(treeElement(key, value, middle - at, end - middle), at, end);
      at = end;
    }
  }

  #hasNext({ name }: FieldDescription, at: number): boolean {
    const byte = this.#data[at];
    if (byte === 0 || byte === 1) return byte === 1;
    throw new LayoutMismatch(at, `expected 1 or 0 before the next element of field ${name}, got ${byte ?? 'the end'}`);
  }

  /** The description of a private type's bytes, if the type is known here. */
  #private(field: FieldDescription, parent: StateDescription, at: number, depth: number): StateDescription | undefined {
    const size = field.size as number;
    this.#step(at);
    const nested = describeBytes(this.#data, field, parent, at);
    const undecodedBefore = this.undecodedBytes;
    try {
      if (nested !== undefined && this.state(nested, at, depth + 1) === at + size) return nested;
    } catch (error) {
      if (!(error instanceof LayoutMismatch)) throw error;
    }
    this.undecodedBytes = undecodedBefore + size;
    return undefined;
  }

  #requireBytes(at: number, size: number, { name }: FieldDescription): void {
    if (at + size > this.#data.length) throw new LayoutMismatch(at, `field ${name} ends beyond the body`);
  }

  /** Walks over the head of a subsection. */
  #subsectionHead({ vmsdName, version }: StateDescription, at: number): number {
    const end = at + subsectionHeadLength({ vmsdName });
    const data = this.#data;
    let isHere = end <= data.length && data[at] === subsectionByte && data[at + 1] === vmsdName.length;
    for (let i = 0; i < vmsdName.length && isHere; i++) isHere = data[at + 2 + i] === vmsdName.charCodeAt(i);
    if (!isHere) throw new LayoutMismatch(at, `expected the subsection ${vmsdName}`);
    const got = this.#view.getUint32(end - 4);
    if (version === undefined || got === version) return end;
    throw new LayoutMismatch(end - 4, `expected version ${version} of the subsection ${vmsdName}, got ${got}`);
  }
}

/** Bytes of a subsection's head: 0x05, a counted name, and a version. */
export const subsectionHeadLength = ({ vmsdName }: Pick<StateDescription, 'vmsdName'>) => 1 + 1 + vmsdName.length + 4;

/** Whether an element can be read without a description. */
export function isPlain({ type, size }: FieldDescription): boolean {
  return byteTypes.has(type) || type === 'pci config' || scalars.get(type)?.size === size;
}

function describeBytes(
  data: Uint8Array,
  { type, size = 0 }: FieldDescription,
  { vmsdName }: StateDescription,
  at: number,
): StateDescription | undefined {
  return describePrivate({ type, vmsdName, bytes: new DataView(data.buffer, data.byteOffset + at, size) });
}

/** An element of a tree, as a struct of a key and a value. */
function treeElement(
  key: StateDescription | undefined,
  value: StateDescription,
  keySize: number,
  valueSize: number,
): StateDescription {
  const part = (name: string, nested: StateDescription | undefined, size: number): FieldDescription => ({
    name,
    type: nested === undefined ? 'uint64' : 'struct',
    size,
    arrayLength: undefined,
    index: undefined,
    nested: nested === undefined ? [] : [nested],
  });
  const fields = [part('key', key, keySize), part('value', value, valueSize)];
  return { vmsdName: '', version: undefined, fields, subsections: [] };
}
