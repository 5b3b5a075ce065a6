/**
 * Builds small big-endian structures in memory, the encoders' counterpart of `byte-window.ts`. A value that does not
 * fit is a RangeError: integers are never truncated.
 */
export class ByteWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  /** The number of bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Writes an unsigned byte. */
  u8(value: number): this {
    requireUnsigned(value, 1);
    const at = this.#reserve(1);
    this.#bytes[at] = value;
    return this;
  }

  /** Writes a big-endian 16-bit integer. */
  u16(value: number): this {
    requireUnsigned(value, 2);
    const at = this.#reserve(2);
    new DataView(this.#bytes.buffer).setUint16(at, value);
    return this;
  }

  /** Writes a big-endian 32-bit integer. */
  u32(value: number): this {
    requireUnsigned(value, 4);
    const at = this.#reserve(4);
    new DataView(this.#bytes.buffer).setUint32(at, value);
    return this;
  }

  /** Writes a big-endian 64-bit integer. */
  u64(value: number | bigint): this {
    if (typeof value === 'number') requireUnsigned(value, 8);
    else if (value !== BigInt.asUintN(64, value)) throw new RangeError(`expected an integer of 8 bytes, got ${value}`);
    const at = this.#reserve(8);
    new DataView(this.#bytes.buffer).setBigUint64(at, BigInt(value));
    return this;
  }

  /** Writes bytes as they are. */
  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Writes Latin-1 text without a length. @throws RangeError for other characters. */
  text(text: string): this {
    requireLatin1(text);
    const at = this.#reserve(text.length);
    for (let i = 0; i < text.length; i++) this.#bytes[at + i] = text.charCodeAt(i);
    return this;
  }

  /** Writes hex digits as bytes, two digits each. @throws RangeError unless they are exactly `count` bytes. */
  hex(digits: string, count: number): this {
    if (digits.length !== 2 * count || !/^[0-9a-f]*$/i.test(digits)) {
      throw new RangeError(`expected ${2 * count} hex digits, got "${digits}"`);
    }
    return this.raw(Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)));
  }

  /** Writes a u8 length and the text. @throws RangeError over 255 bytes. */
  string(text: string): this {
    if (text.length <= 255) return this.u8(text.length).text(text);
    throw new RangeError(`expected a name of at most 255 bytes, got ${text.length}`);
  }

  /** The bytes written so far, valid until the next write. */
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

function requireUnsigned(value: number, bytes: number): void {
  if (Number.isSafeInteger(value) && value >= 0 && value < 2 ** (8 * bytes)) return;
  throw new RangeError(`expected an integer of ${bytes} ${bytes === 1 ? 'byte' : 'bytes'}, got ${value}`);
}

/** @throws RangeError for text with characters above U+00FF. */
function requireLatin1(text: string): void {
  if (!isLatin1.test(text)) {
    throw new RangeError(`expected text of characters up to U+00FF, each of which is a byte, got "${text}"`);
  }
}

/** @throws RangeError unless the name is 1 to 255 bytes, as for a RAM block or a device. */
export function requireName(name: string): void {
  if (name.length === 0) throw new RangeError('expected a name, got none');
  if (name.length > 255) throw new RangeError(`expected a name of at most 255 bytes, got ${name.length}`);
  requireLatin1(name);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: names may contain any byte
const isLatin1 = /^[\u0000-\u00ff]*$/;
