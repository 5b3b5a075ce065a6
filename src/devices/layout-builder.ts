/** Builds a description, field by field, for bytes that come without one. `private-state.ts` and its siblings use it. */
import type { FieldDescription, StateDescription } from '../vm/description.ts';

/** Says that a description does not fit the bytes of a device's body. */
export class LayoutMismatch extends Error {
  /** Offset in the body. */
  readonly at: number;

  constructor(at: number, message: string) {
    super(message);
    this.at = at;
  }
}

/** The type of bytes whose meaning is unknown. */
const unknownType = 'unknown';

/** How a struct is described. */
export interface StructOptions {
  vmsdName?: string;
  /** Position in an array. */
  index?: number;
}

/** A description that grows field by field over the bytes that it describes. */
export class LayoutBuilder {
  readonly view: DataView;
  readonly state: StateDescription;
  /** Where the next field begins, in the view. */
  at: number;

  constructor(view: DataView, at = 0, vmsdName = '') {
    this.view = view;
    this.at = at;
    this.state = { vmsdName, version: undefined, fields: [], subsections: [] };
  }

  get left(): number {
    return this.view.byteLength - this.at;
  }

  /** Adds a field of a type with a fixed size and moves past it. @throws LayoutMismatch if it would end beyond the bytes. */
  add(name: string, type: string, size: number, arrayLength?: number): this {
    this.#push({ name, type, size, arrayLength, index: undefined, nested: [] });
    return this;
  }

  bool = (name: string) => this.add(name, 'bool', 1);
  u8 = (name: string) => this.add(name, 'uint8', 1);
  u16 = (name: string) => this.add(name, 'uint16', 2);
  u32 = (name: string) => this.add(name, 'uint32', 4);
  u64 = (name: string) => this.add(name, 'uint64', 8);
  buffer = (name: string, size: number) => this.add(name, 'buffer', size);

  /** Adds a number and returns its value. */
  count8(name: string): number {
    return this.u8(name).view.getUint8(this.at - 1);
  }

  count16(name: string): number {
    return this.u16(name).view.getUint16(this.at - 2);
  }

  count32(name: string): number {
    return this.u32(name).view.getUint32(this.at - 4);
  }

  /** Adds an array of `count` equal structs. `draw` adds the fields of one. */
  array(name: string, count: number, draw: (element: LayoutBuilder) => void): this {
    // Laid out over spare bytes, because the array may be empty.
    const element = new LayoutBuilder(new DataView(new ArrayBuffer(64)));
    draw(element);
    this.#push({
      name,
      type: 'struct',
      size: element.at,
      arrayLength: count,
      index: undefined,
      nested: [element.state],
    });
    return this;
  }

  /** Adds one struct, whose size depends on what `draw` adds. */
  struct(name: string, draw: (element: LayoutBuilder) => void, { vmsdName = '', index }: StructOptions = {}): this {
    const element = new LayoutBuilder(this.view, this.at, vmsdName);
    draw(element);
    const size = element.at - this.at;
    this.#push({ name, type: 'struct', size, arrayLength: undefined, index, nested: [element.state] });
    return this;
  }

  /** The name of the subsection that begins here, if one does whose name begins with `prefix`. */
  subsectionName(prefix: string): string | undefined {
    if (this.left < 2 || this.view.getUint8(this.at) !== 0x05) return undefined;
    const length = this.view.getUint8(this.at + 1);
    if (length < prefix.length || this.left < 2 + length + 4) return undefined;
    let name = '';
    for (let i = 0; i < length; i++) name += String.fromCharCode(this.view.getUint8(this.at + 2 + i));
    return name.startsWith(prefix) ? name : undefined;
  }

  /** Adds the subsection `name`, which begins here; `draw` adds its fields. */
  subsection(name: string, draw: (subsection: LayoutBuilder) => void): void {
    const start = this.at + 2 + name.length + 4;
    const subsection = new LayoutBuilder(this.view, start, name);
    subsection.state.version = this.view.getUint32(start - 4);
    draw(subsection);
    this.state.subsections.push(subsection.state);
    this.at = subsection.at;
  }

  /** Adds the bytes up to `end` as unknown. */
  unknown(name: string, end: number): this {
    return end > this.at ? this.add(name, unknownType, end - this.at) : this;
  }

  /** @throws LayoutMismatch */
  insist(fits: boolean): void {
    if (!fits) throw new LayoutMismatch(this.at, 'the bytes do not fit this layout');
  }

  #push(field: FieldDescription): void {
    const size = (field.size ?? 0) * (field.arrayLength ?? 1);
    this.insist(size <= this.left);
    this.state.fields.push(field);
    this.at += size;
  }
}

/** The description that `draw` builds for the bytes; undefined unless it covers them exactly. */
export function buildLayout(
  view: DataView,
  vmsdName: string,
  draw: (whole: LayoutBuilder) => void,
): StateDescription | undefined {
  const whole = new LayoutBuilder(view, 0, vmsdName);
  try {
    draw(whole);
  } catch (error) {
    if (error instanceof LayoutMismatch) return undefined;
    throw error;
  }
  return whole.left === 0 ? whole.state : undefined;
}
