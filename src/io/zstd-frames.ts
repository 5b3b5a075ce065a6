/**
 * Follows the structure of zstd data (RFC 8878, section 3.1) without decompressing it, as it arrives in pieces:
 *
 *     frame       be32 28b52ffd | u8 descriptor | [u8 window] | [dictionary id] | [content size] | blocks | [checksum]
 *     block       le24 (size << 3 | type << 1 | last) | size bytes, or 1 byte in a block of one byte repeated
 *     skippable   le32 184d2a5? | le32 size | size bytes
 *
 * There are two reasons. A decompressor allocates the window that a frame declares, so the window must be checked
 * first. And a decompressor gets one block at a time, so that its output fits the space that is left.
 */
import { CodecError } from './page-codec.ts';

/** The largest window accepted, in bytes. QEMU's highest level (20) declares it. */
const maxZstdWindow = 2 ** 25;

/** The most bytes in a decompressed block. */
export const maxZstdBlock = 128 * 1024;

const blockTypes = { raw: 0, repeated: 1, compressed: 2 } as const;

/** What a run of bytes ends with. */
export type ZstdPiece = 'part' | 'block' | 'frame';

type State = 'frame' | 'head' | 'block' | 'content' | 'checksum' | 'skip-size' | 'skipped';

export class ZstdFrames {
  /** The structure being read: a frame's head, a block's head, or what follows it. */
  #state: State = 'frame';
  readonly #bytes = new Uint8Array(18);
  #have = 0;
  #wanted = 4;
  /** Remaining bytes of a block's or skippable frame's content. */
  #left = 0;
  #isLast = false;
  #hasChecksum = false;

  /**
   * Scans bytes from `from` to the end of the next block or frame, or of the input. Returns that position, and what
   * ended there.
   * @throws CodecError for data that is not zstd, and for a window over {@link maxZstdWindow}.
   */
  next(input: Uint8Array, from: number): { end: number; piece: ZstdPiece } {
    let at = from;
    while (at < input.length) {
      if (this.#state === 'content' || this.#state === 'skipped') {
        const step = Math.min(this.#left, input.length - at);
        at += step;
        this.#left -= step;
        if (this.#left > 0) break;
        if (this.#state === 'skipped') return { end: at, piece: this.#endFrame() };
        const piece = this.#endBlock();
        return { end: at, piece };
      }
      this.#bytes[this.#have++] = input[at++] as number;
      if (this.#have < this.#wanted) continue;
      const ended = this.#takeStructure();
      if (ended !== undefined) return { end: at, piece: ended };
    }
    return { end: at, piece: 'part' };
  }

  /** Handles a structure that is complete, or whose length is now known. */
  #takeStructure(): ZstdPiece | undefined {
    const bytes = this.#bytes;
    const view = new DataView(bytes.buffer);
    switch (this.#state) {
      case 'frame': {
        const magic = view.getUint32(0, true);
        if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) this.#expect('skip-size', 4);
        else if (magic === 0xfd2fb528) this.#expect('head', 1);
        else throw new CodecError(`expected a zstd frame, got magic 0x${magic.toString(16)}`);
        return undefined;
      }
      case 'skip-size':
        this.#left = view.getUint32(0, true);
        if (this.#left === 0) return this.#endFrame();
        this.#expect('skipped', 0);
        return undefined;
      case 'head':
        if (this.#have === 1) {
          this.#wanted = 1 + headLength(bytes[0] as number);
          if (this.#wanted > 1) return undefined;
        }
        this.#hasChecksum = ((bytes[0] as number) & 4) !== 0;
        checkWindow(bytes);
        this.#expect('block', 3);
        return undefined;
      case 'block': {
        const head = (bytes[0] as number) | ((bytes[1] as number) << 8) | ((bytes[2] as number) << 16);
        const type = (head >> 1) & 3;
        const size = head >> 3;
        this.#isLast = (head & 1) === 1;
        if (type > blockTypes.compressed) throw new CodecError('expected a zstd block of a known type');
        if (size > maxZstdBlock)
          throw new CodecError(`expected a zstd block of at most ${maxZstdBlock} bytes, got ${size}`);
        this.#left = type === blockTypes.repeated ? 1 : size;
        if (this.#left === 0) return this.#endBlock();
        this.#expect('content', 0);
        return undefined;
      }
      default:
        return this.#endFrame();
    }
  }

  #expect(state: State, wanted: number): void {
    this.#state = state;
    this.#wanted = wanted;
    this.#have = 0;
  }

  #endBlock(): ZstdPiece {
    if (!this.#isLast) this.#expect('block', 3);
    else if (this.#hasChecksum) this.#expect('checksum', 4);
    else return this.#endFrame();
    return 'block';
  }

  #endFrame(): ZstdPiece {
    this.#expect('frame', 4);
    return 'frame';
  }
}

const isSingleSegment = (descriptor: number) => (descriptor & 0x20) !== 0;
const sizeFieldLength = (descriptor: number) =>
  [isSingleSegment(descriptor) ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
const dictionaryFieldLength = (descriptor: number) => [0, 1, 2, 4][descriptor & 3] as number;

/** Bytes of a frame's head after its descriptor. */
function headLength(descriptor: number): number {
  const window = isSingleSegment(descriptor) ? 0 : 1;
  return window + dictionaryFieldLength(descriptor) + sizeFieldLength(descriptor);
}

/** @throws CodecError for a window that is too large; `head` begins with the descriptor. */
function checkWindow(head: Uint8Array): void {
  const descriptor = head[0] as number;
  let window: number;
  if (isSingleSegment(descriptor)) {
    const view = new DataView(head.buffer);
    const at = 1 + dictionaryFieldLength(descriptor);
    const sizes = [
      view.getUint8(at),
      view.getUint16(at, true) + 256,
      view.getUint32(at, true),
      Number(view.getBigUint64(at, true)),
    ];
    window = sizes[descriptor >> 6] as number;
  } else {
    const exponent = (head[1] as number) >> 3;
    const base = 2 ** (10 + exponent);
    window = base + (base / 8) * ((head[1] as number) & 7);
  }
  if (window > maxZstdWindow)
    throw new CodecError(`expected a zstd window of at most ${maxZstdWindow} bytes, got ${window}`);
}
