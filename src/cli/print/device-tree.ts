/** A device's state as a tree: the offset in the file, the name and the value of every field. */
import {
  type DeviceState,
  isStruct,
  type StateField,
  type StateStruct,
  type StateValue,
} from '../../devices/device-state.ts';
import { HexDump } from '../../words/hex-dump.ts';
import { describeBytes, describeValue } from '../../words/value-words.ts';
import { formatCount, formatHex, plural, printable } from './format.ts';

/** The most bytes of a dump below their field. */
const dumpBytes = 256;
/** The most characters of a line of numbers. */
const lineWidth = 96;

/** Draws the tree; a device whose state is not decoded is a dump of its bytes. */
export function* drawDevice(device: DeviceState): Generator<string, void> {
  const { state, problem, undecodedBytes, data, offset } = device;
  if (state !== undefined) yield* new Tree(device).struct(state, '');
  else {
    yield `  not decoded: ${printable(problem ?? '')}\n`;
    yield* drawBytes(data, offset, '');
  }
  if (undecodedBytes > 0 && state !== undefined) yield `\n  ${plural(undecodedBytes, 'byte')} not decoded\n`;
}

class Tree {
  readonly #data: Uint8Array;
  readonly #base: number;
  readonly #width: number;

  constructor({ data, offset, length }: DeviceState) {
    this.#data = data;
    this.#base = offset;
    this.#width = formatHex(offset + length).length;
  }

  *struct({ fields, subsections }: StateStruct, indent: string): Generator<string, void> {
    for (const field of fields) yield* this.#field(field, indent);
    for (const subsection of subsections) {
      yield this.#line(subsection.offset, indent, `/${printable(subsection.vmsdName)}`);
      yield* this.struct(subsection, `${indent}  `);
    }
  }

  *#field(field: StateField, indent: string): Generator<string, void> {
    const name = printable(field.name) + (field.index === undefined ? '' : `[${field.index}]`);
    const { value, offset } = field;
    if (!Array.isArray(value)) yield* this.#value(name, field.type, value, offset, indent);
    else if (value.length === 0) yield this.#line(offset, indent, `${name}  empty`);
    else if (value.some((element) => typeof element === 'object')) yield* this.#elements(name, field, value, indent);
    else yield* this.#numbers(name, field, value, indent);
  }

  *#value(name: string, type: string, value: StateValue, at: number, indent: string): Generator<string, void> {
    if (isStruct(value)) {
      yield this.#line(at, indent, name);
      yield* this.struct(value, `${indent}  `);
    } else if (value instanceof Uint8Array) {
      const isKnown = type !== 'unknown';
      const short = isKnown ? describeBytes(value) : undefined;
      yield this.#line(
        at,
        indent,
        `${name}  ${short ?? `${plural(value.length, 'byte')}${isKnown ? '' : ', not decoded'}`}`,
      );
      if (short === undefined) yield* drawBytes(value, this.#base + at, `${indent}  `);
    } else yield this.#line(at, indent, `${name}  ${describeValue(type, value)}`);
  }

  /** Elements that are more than a number. Elements equal to the one before are one line. */
  *#elements(
    name: string,
    { type, offset }: StateField,
    values: readonly StateValue[],
    indent: string,
  ): Generator<string, void> {
    for (let i = 0; i < values.length; ) {
      const value = values[i] as StateValue;
      let end = i + 1;
      while (end < values.length && this.#areEqual(value, values[end] as StateValue)) end++;
      const at = isStruct(value) ? value.offset : offset;
      yield* this.#value(`${name}[${i}]`, type, value, at, indent);
      if (end > i + 1) {
        const next = values[i + 1] as StateValue;
        const range = end === i + 2 ? String(i + 1) : `${i + 1}..${end - 1}`;
        yield this.#line(isStruct(next) ? next.offset : at, indent, `${name}[${range}]  as [${i}]`);
      }
      i = end;
    }
  }

  #areEqual(one: StateValue, other: StateValue): boolean {
    if (one === null) return other === null;
    const [a, b] = [this.#bytesOf(one), this.#bytesOf(other)];
    return a !== undefined && a.length === b?.length && a.every((byte, i) => byte === b[i]);
  }

  #bytesOf(value: StateValue): Uint8Array | undefined {
    if (isStruct(value)) return this.#data.subarray(value.offset, value.offset + value.length);
    return value instanceof Uint8Array ? value : undefined;
  }

  /** An array of numbers, as many per line as fit. A run of equal numbers is written once, with its length. */
  *#numbers(
    name: string,
    { type, offset }: StateField,
    values: readonly StateValue[],
    indent: string,
  ): Generator<string, void> {
    let line = `${name}[${formatCount(values.length)}] `;
    let isFirst = true;
    for (let i = 0; i < values.length; ) {
      let end = i + 1;
      while (end < values.length && values[end] === values[i]) end++;
      const text = describeValue(type, values[i] as StateValue) + (end > i + 1 ? ` ×${formatCount(end - i)}` : '');
      if (line.length + text.length > lineWidth) {
        yield isFirst ? this.#line(offset, indent, `${line},`) : this.#continue(indent, `${line},`);
        line = `  ${text}`;
        isFirst = false;
      } else line += `${line.endsWith(' ') ? ' ' : ', '}${text}`;
      i = end;
    }
    yield isFirst ? this.#line(offset, indent, line) : this.#continue(indent, line);
  }

  #line(at: number, indent: string, text: string): string {
    return `  ${formatHex(this.#base + at).padStart(this.#width)}  ${indent}${text}\n`;
  }

  #continue(indent: string, text: string): string {
    return `  ${''.padStart(this.#width)}  ${indent}${text}\n`;
  }
}

/** A dump of the first bytes, with their offsets in the file. */
function* drawBytes(bytes: Uint8Array, at: number, indent: string): Generator<string, void> {
  const shown = bytes.subarray(0, dumpBytes);
  const dump = new HexDump(at, at + bytes.length);
  const lines = (dump.bytes(shown) + dump.end()).trimEnd().split('\n').slice(0, -1);
  for (const line of lines) yield `      ${indent}${line}\n`;
  if (bytes.length > shown.length) yield `      ${indent}… ${plural(bytes.length - shown.length, 'byte')} more\n`;
}
