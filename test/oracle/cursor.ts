/**
 * A position in a file held in memory. A read beyond the limit fails; it never returns less.
 * Numbers are big-endian, as everywhere in the migration stream.
 */

/** An error in the file, and its offset. */
export class SlowReaderError extends Error {
  override name = 'SlowReaderError';
  readonly offset: number;
  /** The file ended too early: the rest may be in another file. */
  readonly isEndOfFile: boolean;

  constructor(what: string, offset: number, isEndOfFile = false) {
    super(`${what} at offset 0x${offset.toString(16)}`);
    this.offset = offset;
    this.isEndOfFile = isEndOfFile;
  }
}

export class Cursor {
  readonly bytes: Uint8Array;
  /** The next byte to read. */
  at: number;
  /** The first byte that must not be read: the end of the file, or of a package while inside one. */
  limit: number;
  /** Every offset where an item starts or ends. */
  readonly boundaries = new Set<number>();
  private readonly view: DataView;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
    this.limit = bytes.length;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Remembers this position as a boundary. */
  mark(): void {
    this.boundaries.add(this.at);
  }

  /** The error to throw about the file, by default about this position. */
  error(what: string, at = this.at): SlowReaderError {
    return new SlowReaderError(what, at);
  }

  /** Skips `count` bytes and returns their start. */
  skip(count: number, what: string): number {
    if (count > this.limit - this.at) {
      throw new SlowReaderError(`the data ends inside ${what}`, this.at, this.limit === this.bytes.length);
    }
    const start = this.at;
    this.at += count;
    return start;
  }

  /** The next byte without moving past it; undefined at the limit. */
  peek(): number | undefined {
    return this.at < this.limit ? this.bytes[this.at] : undefined;
  }

  u8(what: string): number {
    return this.view.getUint8(this.skip(1, what));
  }

  u16(what: string): number {
    return this.view.getUint16(this.skip(2, what));
  }

  u32(what: string): number {
    return this.view.getUint32(this.skip(4, what));
  }

  u64(what: string): bigint {
    return this.view.getBigUint64(this.skip(8, what));
  }

  /** A be64 size or position; a value above 2^53 is an error. */
  size64(what: string): number {
    const at = this.at;
    const value = this.u64(what);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.error(`${what} is ${value}, which is impossible`, at);
    return Number(value);
  }

  /** The next `count` bytes, as a view of the file. */
  take(count: number, what: string): Uint8Array {
    const start = this.skip(count, what);
    return this.bytes.subarray(start, start + count);
  }

  /** `count` bytes as text, one character per byte. */
  text(count: number, what: string): string {
    return Buffer.from(this.take(count, what)).toString('latin1');
  }

  /** A counted string: u8 length, then that many bytes. */
  counted(what: string): string {
    return this.text(this.u8(what), what);
  }
}
