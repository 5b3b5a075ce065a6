/**
 * A Blob or File (browsers, Node, Deno and Bun) as a ByteSource. It is read in order through a stream (`blob-stream.ts`), which
 * takes a tenth of the browser's time for slices of 1 MiB. Jumps are read by slices.
 *
 * A reader looks at the beginning and the end of a file before it reads the file in order. These pieces are kept until the
 * reading in order has passed them, so that each byte is read once.
 */
import { asyncDispose } from '../vm/auto-closed.ts';
import { BlobStream, hasStream } from './blob-stream.ts';
import type { OpenedSource } from './byte-source.ts';
import type { BlobLike } from './platform.ts';

/** Bytes of each of the two buffers of a stream. Smaller ones cost time: one of 1 MiB half as much again. */
const defaultBufferBytes = 8 << 20;
/** Bytes read in order before a stream is worth its cost. */
const streamAfter = 1 << 20;
/** Gaps up to this length are read and dropped. Longer ones are jumps. */
const maxGap = 1 << 20;
/** The fewest bytes that are read and kept. */
const minKept = 64 << 10;
/** The most bytes that are kept: as many as are searched for the description at the end of a file, and some more. */
const maxKept = 20 << 20;

/** How a Blob is read. */
export interface BlobSourceOptions {
  /** Bytes of each of the two buffers for reading in order. Default: 8 MiB. */
  bufferBytes?: number;
}

/** Bytes that were read before they were needed in order. */
interface Piece {
  start: number;
  bytes: Uint8Array;
}

export class BlobSource implements OpenedSource {
  readonly name: string;
  readonly size: number;
  readonly #blob: BlobLike;
  readonly #bufferBytes: number;
  #kept: Piece[] = [];
  #keptBytes = 0;
  /** Nothing was read through a stream yet: pieces are kept. */
  #isLooking = true;
  #stream: BlobStream | undefined;
  #isStreaming = false;
  /** Offset after the last read, and how many bytes were read in order up to there. */
  #reached = 0;
  #inOrder = 0;

  constructor(
    blob: BlobLike,
    name = 'name' in blob && typeof blob.name === 'string' ? blob.name : 'blob',
    { bufferBytes = defaultBufferBytes }: BlobSourceOptions = {},
  ) {
    this.#blob = blob;
    this.#bufferBytes = bufferBytes;
    this.name = name;
    this.size = blob.size;
  }

  /** Fills `target`, except at the end. */
  read(target: Uint8Array, position: number): Promise<number> | number {
    let done = 0;
    while (done < target.length) {
      const count = this.#read(target.subarray(done), position + done);
      if (typeof count !== 'number') return this.#fill(target, position, done, count);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  async #fill(target: Uint8Array, position: number, before: number, first: Promise<number>): Promise<number> {
    let done = before;
    for (let count = await first; count > 0 && done < target.length; ) {
      done += count;
      count = await this.#read(target.subarray(done), position + done);
    }
    return done;
  }

  /** Reads at least a byte, unless `position` is at the end. */
  #read(target: Uint8Array, position: number): Promise<number> | number {
    if (position >= this.size || target.length === 0) return 0;
    const kept = this.#kept.find(({ start, bytes }) => position >= start && position < start + bytes.length);
    if (kept !== undefined) {
      const piece = kept.bytes.subarray(position - kept.start).subarray(0, target.length);
      target.set(piece);
      const isPassed = position + piece.length === kept.start + kept.bytes.length;
      if (isPassed && !this.#isLooking) this.#kept = this.#kept.filter((each) => each !== kept);
      return this.#note(position, piece.length);
    }
    const wanted = target.subarray(0, this.#endBefore(position) - position);
    const stream = this.#streamAt(position);
    const count = stream === undefined ? this.#jump(wanted, position) : this.#readOn(stream, wanted, position);
    return typeof count === 'number' ? this.#note(position, count) : count.then((n) => this.#note(position, n));
  }

  async close(): Promise<void> {
    this.#kept = [];
    await this.#endStream();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Counts what was read in order. */
  #note(position: number, count: number): number {
    const gap = position - this.#reached;
    this.#inOrder = gap >= 0 && gap <= maxGap ? this.#inOrder + count : count;
    this.#reached = position + count;
    return count;
  }

  /** Where the next kept piece begins, or the end. */
  #endBefore(position: number): number {
    return this.#kept.reduce((end, { start }) => (start > position ? Math.min(end, start) : end), this.size);
  }

  /** The stream that reads the byte at `position`. Undefined for a jump, and while the stream is busy. */
  #streamAt(position: number): BlobStream | undefined {
    if (this.#isStreaming || !hasStream(this.#blob)) return undefined;
    const stream = this.#stream;
    const ahead = position - (stream?.position ?? Number.POSITIVE_INFINITY);
    if (stream !== undefined && ahead >= 0 && ahead <= Math.max(maxGap, stream.available)) {
      if (position < stream.end) return stream;
    }
    const gap = position - this.#reached;
    if (gap < 0 || gap > maxGap || this.#inOrder < streamAfter) return undefined;
    void this.#endStream();
    this.#isLooking = false;
    this.#kept = this.#kept.filter(({ start, bytes }) => start + bytes.length > position);
    this.#stream = new BlobStream(this.#blob, position, this.#endBefore(position), this.#bufferBytes);
    return this.#stream;
  }

  #readOn(stream: BlobStream, target: Uint8Array, position: number): Promise<number> | number {
    const count = stream.read(target, position);
    if (typeof count === 'number') return this.#endAfter(stream, count);
    this.#isStreaming = true;
    return this.#wait(stream, count, target, position);
  }

  async #wait(stream: BlobStream, read: Promise<number>, target: Uint8Array, position: number): Promise<number> {
    try {
      const count = await read;
      if (count > 0) return this.#endAfter(stream, count);
    } catch {
      // The slice below throws the reason, which the browser's stream does not give.
    } finally {
      this.#isStreaming = false;
    }
    await this.#endStream();
    return this.#slice(target, position);
  }

  /** Ends a stream whose bytes have all been read. */
  #endAfter(stream: BlobStream, count: number): number {
    if (stream.position === stream.end && this.#stream === stream) void this.#endStream();
    return count;
  }

  async #endStream(): Promise<void> {
    const stream = this.#stream;
    this.#stream = undefined;
    await stream?.cancel();
  }

  async #jump(target: Uint8Array, position: number): Promise<number> {
    if (!this.#isLooking || this.#keptBytes + Math.max(minKept, target.length) > maxKept) {
      return this.#slice(target, position);
    }
    const end = Math.min(this.#endBefore(position), position + Math.max(minKept, target.length));
    const bytes = new Uint8Array(await this.#blob.slice(position, end).arrayBuffer());
    this.#kept.push({ start: position, bytes });
    this.#keptBytes += bytes.length;
    const piece = bytes.subarray(0, target.length);
    target.set(piece);
    return piece.length;
  }

  async #slice(target: Uint8Array, position: number): Promise<number> {
    const slice = await this.#blob.slice(position, position + target.length).arrayBuffer();
    target.set(new Uint8Array(slice));
    return slice.byteLength;
  }
}
