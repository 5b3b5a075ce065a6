/**
 * The zstd decoder: Facebook's library in WebAssembly, as the package zstddec compiles it. The build extracts the
 * module from that package (scripts/zstd-wasm.mjs), because the package's own loop holds output back until a frame
 * ends, and ignores errors. The loop here passes on all output at each flush, and reports errors.
 */
import zstdBytes from '../../dist/zstd.wasm';
import { CodecError, overflow, type PageDecoder } from './page-codec.ts';
import { maxZstdBlock, ZstdFrames } from './zstd-frames.ts';

interface ZstdExports {
  memory: WebAssembly.Memory;
  malloc(bytes: number): number;
  free(address: number): void;
  ZSTD_createDCtx(): number;
  ZSTD_freeDCtx(context: number): number;
  /** The buffers are three words each: address, size, position. Returns 0 at the end of a frame, an error code, or a hint. */
  ZSTD_decompressStream(context: number, out: number, input: number): number;
}

/** Results from here to 2^32 are errors. */
const firstError = 2 ** 32 - 200;
/** The error for a window without enough memory. All windows of an instance share 2 GiB. */
const noMemory = 64;
/** Bytes of input copied at a time: a whole block, its head, and the head of a frame. */
const inputBytes = maxZstdBlock + 64;

let module: Promise<WebAssembly.Module> | undefined;

/** Buffers for the data of decoders. A decoder needs them only during a call. */
interface ZstdBuffers {
  /** The two buffer structures, output first. */
  words: number;
  input: number;
  output: number;
}

/** One instance for all channels of a file. Its memory is freed with it. */
export class ZstdWasm {
  readonly #exports: ZstdExports;
  readonly #buffers: ZstdBuffers;

  private constructor(exports: ZstdExports) {
    this.#exports = exports;
    this.#buffers = {
      words: exports.malloc(24),
      input: exports.malloc(inputBytes),
      output: exports.malloc(maxZstdBlock),
    };
  }

  static async load(): Promise<ZstdWasm> {
    module ??= WebAssembly.compile(zstdBytes);
    const instance = await WebAssembly.instantiate(await module, { env: { emscripten_notify_memory_growth() {} } });
    return new ZstdWasm(instance.exports as unknown as ZstdExports);
  }

  openDecoder(): PageDecoder {
    return new ZstdDecoder(this.#exports, this.#buffers);
  }
}

class ZstdDecoder implements PageDecoder {
  readonly #zstd: ZstdExports;
  readonly #frames = new ZstdFrames();
  readonly #buffers: ZstdBuffers;
  #context: number;

  constructor(zstd: ZstdExports, buffers: ZstdBuffers) {
    this.#zstd = zstd;
    this.#buffers = buffers;
    this.#context = zstd.ZSTD_createDCtx();
    if (this.#context === 0) throw new Error('no memory for another zstd decoder');
  }

  decode(input: Uint8Array, target: Uint8Array): number {
    let written = 0;
    for (let at = 0; at < input.length; ) {
      const { end } = this.#frames.next(input, at);
      for (; at < end; at += inputBytes)
        written += this.#feed(input.subarray(at, Math.min(end, at + inputBytes)), target.subarray(written));
      at = end;
    }
    return written;
  }

  /** Feeds at most one block, so that its output fits. */
  #feed(input: Uint8Array, target: Uint8Array): number {
    const { memory } = this.#zstd;
    const { words, input: from, output } = this.#buffers;
    new Uint8Array(memory.buffer).set(input, from);
    new Uint32Array(memory.buffer, words, 6).set([output, maxZstdBlock, 0, from, input.length, 0]);
    let written = 0;
    for (;;) {
      const result = this.#zstd.ZSTD_decompressStream(this.#context, words, words + 12) >>> 0;
      if (result >= firstError) {
        const error = 2 ** 32 - result;
        const what =
          error === noMemory ? 'no memory for a zstd window beside those of others' : 'cannot decode the zstd data';
        throw new CodecError(`${what} (error ${error})`);
      }
      // The memory may have grown, so its views are made again.
      const state = new Uint32Array(memory.buffer, words, 6);
      const [, , produced, , , consumed] = state as unknown as [number, number, number, number, number, number];
      if (produced > target.length - written) throw overflow(target.length);
      target.set(new Uint8Array(memory.buffer, output, produced), written);
      written += produced;
      if (consumed === input.length && produced < maxZstdBlock) return written;
      if (consumed === input.length && produced === 0) return written;
      state[2] = 0;
    }
  }

  close(): void {
    if (this.#context === 0) return;
    this.#zstd.ZSTD_freeDCtx(this.#context);
    this.#context = 0;
  }
}
