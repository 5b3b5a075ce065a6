/**
 * The encoder of Facebook's zstd in WebAssembly, as the package @oneidentity/zstd-js compiles it (the build takes only the
 * module from there, scripts/zstd-wasm.mjs). The package's own loop cannot flush; this one keeps a frame open for each
 * channel, as QEMU does, and flushes it at each packet.
 */
import encoderBytes from '../../dist/zstd-encoder.wasm';
import { CodecError, overflow, type PageEncoder } from './page-codec.ts';

interface EncoderExports {
  memory: WebAssembly.Memory;
  __wasm_call_ctors(): void;
  malloc(bytes: number): number;
  ZSTD_createCStream(): number;
  ZSTD_initCStream(context: number, level: number): number;
  ZSTD_freeCStream(context: number): number;
  ZSTD_isError(result: number): number;
  /** The positions are words, where it finds how far it was, and leaves how far it came. Returns 0 when all is flushed. */
  ZSTD_compressStream2_simpleArgs(
    context: number,
    out: number,
    outSize: number,
    outPosition: number,
    input: number,
    inputSize: number,
    inputPosition: number,
    directive: number,
  ): number;
}

/** Bytes that are copied over at a time, in and out. */
const bufferBytes = 128 * 1024;
/** ZSTD_e_flush: give all that there is. */
const flush = 1;
const wasmPage = 65536;

let module: Promise<WebAssembly.Module> | undefined;

/** Where encoders put their data: each is done with it when its call returns. */
interface EncoderBuffers {
  input: number;
  output: number;
  /** Two words: the positions in the output and in the input. */
  positions: number;
}

/** One instance for all channels that are written at a time: its memory goes with it. */
export class ZstdEncoderWasm {
  readonly #zstd: EncoderExports;
  readonly #buffers: EncoderBuffers;

  private constructor(zstd: EncoderExports) {
    this.#zstd = zstd;
    this.#buffers = { input: zstd.malloc(bufferBytes), output: zstd.malloc(bufferBytes), positions: zstd.malloc(8) };
  }

  static async load(): Promise<ZstdEncoderWasm> {
    module ??= WebAssembly.compile(encoderBytes);
    let memory: WebAssembly.Memory | undefined;
    const env = {
      setTempRet0() {},
      emscripten_memcpy_big(target: number, from: number, count: number) {
        if (memory !== undefined) new Uint8Array(memory.buffer).copyWithin(target, from, from + count);
        return target;
      },
      /** Makes room for `size` bytes in all; says whether there is. */
      emscripten_resize_heap(size: number) {
        try {
          memory?.grow(Math.ceil(((size >>> 0) - memory.buffer.byteLength) / wasmPage));
          return 1;
        } catch {
          return 0;
        }
      },
    };
    const instance = await WebAssembly.instantiate(await module, { env });
    const zstd = instance.exports as unknown as EncoderExports;
    memory = zstd.memory;
    zstd.__wasm_call_ctors();
    return new ZstdEncoderWasm(zstd);
  }

  openEncoder(level: number): PageEncoder {
    return new ZstdEncoder(this.#zstd, this.#buffers, level);
  }
}

class ZstdEncoder implements PageEncoder {
  readonly #zstd: EncoderExports;
  readonly #buffers: EncoderBuffers;
  #context: number;

  constructor(zstd: EncoderExports, buffers: EncoderBuffers, level: number) {
    this.#zstd = zstd;
    this.#buffers = buffers;
    this.#context = zstd.ZSTD_createCStream();
    if (this.#context === 0) throw new CodecError('no memory for another zstd encoder');
    this.#check(zstd.ZSTD_initCStream(this.#context, level));
  }

  encode(input: Uint8Array, target: Uint8Array): number {
    let written = 0;
    for (let at = 0; at < input.length; at += bufferBytes) {
      const end = Math.min(input.length, at + bufferBytes);
      written += this.#feed(input.subarray(at, end), target.subarray(written), end === input.length);
    }
    return written;
  }

  #feed(input: Uint8Array, target: Uint8Array, isLast: boolean): number {
    const { memory } = this.#zstd;
    const { input: from, output, positions } = this.#buffers;
    new Uint8Array(memory.buffer).set(input, from);
    const state = () => new Uint32Array(memory.buffer, positions, 2) as unknown as [number, number];
    state()[1] = 0;
    let written = 0;
    for (;;) {
      state()[0] = 0;
      const left = this.#check(
        this.#zstd.ZSTD_compressStream2_simpleArgs(
          this.#context,
          ...([output, bufferBytes, positions] as const),
          ...([from, input.length, positions + 4] as const),
          isLast ? flush : 0,
        ),
      );
      // The memory may have grown: views of it are made anew.
      const [produced, consumed] = state();
      if (produced > target.length - written) throw overflow(target.length);
      target.set(new Uint8Array(memory.buffer, output, produced), written);
      written += produced;
      if (consumed === input.length && (!isLast || left === 0)) return written;
    }
  }

  /** The usual error is that there is no memory for the tables of a high level. */
  #check(result: number): number {
    if (this.#zstd.ZSTD_isError(result) === 0) return result;
    throw new CodecError(`data that zstd does not compress (error ${-result})`);
  }

  close(): void {
    if (this.#context === 0) return;
    this.#zstd.ZSTD_freeCStream(this.#context);
    this.#context = 0;
  }
}
