/** Builds big-endian structures of modest size in memory: the encoders' side of `byte-window.ts`. */
export class ByteWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2);
    new DataView(this.#bytes.buffer).setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4);
    new DataView(this.#bytes.buffer).setUint32(at, value);
    return this;
  }

  u64(value: number | bigint): this {
    const at = this.#reserve(8);
    new DataView(this.#bytes.buffer).setBigUint64(at, BigInt(value));
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Latin1 text without a length. */
  text(text: string): this {
    const at = this.#reserve(text.length);
    for (let i = 0; i < text.length; i++) this.#bytes[at + i] = text.charCodeAt(i);
    return this;
  }

  /** A u8 length and the text. @throws RangeError over 255 bytes. */
  string(text: string): this {
    if (text.length <= 255) return this.u8(text.length).text(text);
    throw new RangeError(`expected a name of at most 255 bytes, got ${text.length}`);
  }

  /** The bytes written so far; valid until the next write. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(count: number): number {
    const at = this.#length;
    const wanted = at + count;
    if (wanted > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(wanted, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#length = wanted;
    return at;
  }
}
