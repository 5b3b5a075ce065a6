/** Writes the structures of core files: of a known size, in the byte order and with the words of the guest. */

/** How a core file stores numbers. */
export interface CoreFormat {
  /** ELF64 or ELF32: whether addresses have 64 bits. */
  elfClass: 64 | 32;
  /** Byte order. */
  littleEndian: boolean;
}

/** A structure. What is not written stays zero. */
export class StructWriter {
  readonly bytes: Uint8Array;
  /** Offset of the next value. */
  at = 0;
  readonly #view: DataView;
  readonly #format: CoreFormat;

  constructor(length: number, format: CoreFormat) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
    this.#format = format;
  }

  u16(...values: number[]): this {
    for (const value of values) {
      this.#view.setUint16(this.at, value, this.#format.littleEndian);
      this.at += 2;
    }
    return this;
  }

  /** The low 32 bits of each value. */
  u32(...values: (number | bigint)[]): this {
    for (const value of values) {
      this.#view.setUint32(this.at, Number(BigInt.asUintN(32, BigInt(value))), this.#format.littleEndian);
      this.at += 4;
    }
    return this;
  }

  u64(...values: bigint[]): this {
    for (const value of values) {
      this.#view.setBigUint64(this.at, value, this.#format.littleEndian);
      this.at += 8;
    }
    return this;
  }

  /** 128 bits, as its two halves. */
  u128({ high, low }: { high: bigint; low: bigint }): this {
    return this.#format.littleEndian ? this.u64(low, high) : this.u64(high, low);
  }

  /** Addresses, offsets or lengths, of the class's width. */
  word(...values: (number | bigint)[]): this {
    return this.#format.elfClass === 64 ? this.u64(...values.map(BigInt)) : this.u32(...values);
  }

  /** Bytes as they are. */
  raw(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
    return this;
  }

  /** Goes to an offset. */
  to(at: number): this {
    this.at = at;
    return this;
  }
}

/** A note in a core file. */
export interface CoreNote {
  name: 'CORE' | 'LINUX' | 'QEMU';
  type: number;
  content: Uint8Array;
}

/** Encodes notes, one after the other: name and content are padded to four bytes. */
export function encodeNotes(notes: readonly CoreNote[], format: CoreFormat): Uint8Array {
  const padded = (length: number) => length + (-length & 3);
  const lengthOf = ({ name, content }: CoreNote) => 12 + padded(name.length + 1) + padded(content.length);
  const out = new StructWriter(
    notes.reduce((sum, note) => sum + lengthOf(note), 0),
    format,
  );
  for (const note of notes) {
    const { name, type, content } = note;
    const end = out.at + lengthOf(note);
    out.u32(name.length + 1, content.length, type).raw(new TextEncoder().encode(name));
    out.to(end - padded(content.length)).raw(content);
    out.to(end);
  }
  return out.bytes;
}
