/**
 * The encoder of Facebook's zstd in WebAssembly, as the package @bokuweb/zstd-wasm compiles it (the build takes only the
 * module from there, scripts/zstd-wasm.mjs). It compresses in one go: each packet becomes a whole frame, which QEMU reads
 * as well as one that goes on. So one context serves all channels.
 */
import encoderBytes from '../../dist/zstd-encoder.wasm';
import { CodecError, overflow, type PageEncoder } from './page-codec.ts';

/** The module's exports have the names that Emscripten gave them; the build makes sure that they are these. */
interface EncoderExports {
  /** The memory. */
  f: WebAssembly.Memory;
  /** Runs what is to be run first. */
  g(): void;
  /** ZSTD_isError(result) */
  h(result: number): number;
  /** ZSTD_compressBound(size) */
  i(size: number): number;
  /** ZSTD_createCCtx() */
  j(): number;
  /** ZSTD_compress_usingDict(context, out, outSize, input, inputSize, dictionary, dictionarySize, level) */
  l(
    context: number,
    out: number,
    outSize: number,
    input: number,
    inputSize: number,
    dictionary: number,
    dictionarySize: number,
    level: number,
  ): number;
  /** malloc(size) */
  s(size: number): number;
}

/** What comes at a time: the pages of a packet. */
const inputBytes = 512 * 1024;
const wasmPage = 65536;

let module: Promise<WebAssembly.Module> | undefined;

/** One instance for all channels that are written at a time: its memory goes with it. */
export class ZstdEncoderWasm {
  readonly #zstd: EncoderExports;
  readonly #context: number;
  readonly #input: number;
  readonly #output: number;
  readonly #outputBytes: number;

  private constructor(zstd: EncoderExports) {
    this.#zstd = zstd;
    this.#context = zstd.j();
    this.#input = zstd.s(inputBytes);
    this.#outputBytes = zstd.i(inputBytes);
    this.#output = zstd.s(this.#outputBytes);
    if (this.#context === 0 || this.#input === 0 || this.#output === 0) throw new Error('no memory for a zstd encoder');
  }

  static async load(): Promise<ZstdEncoderWasm> {
    module ??= WebAssembly.compile(encoderBytes);
    let memory: WebAssembly.Memory | undefined;
    const imports = {
      // The process's end, timers and abort are for programs.
      ...{ a() {}, b() {}, c() {}, d: () => 0 },
      /** Makes room for `size` bytes in all. */
      e(size: number): number {
        const missing = (size >>> 0) - (memory?.buffer.byteLength ?? 0);
        try {
          memory?.grow(Math.ceil(missing / wasmPage));
          return 1;
        } catch {
          return 0;
        }
      },
    };
    const instance = await WebAssembly.instantiate(await module, { a: imports });
    const zstd = instance.exports as unknown as EncoderExports;
    memory = zstd.f;
    zstd.g();
    return new ZstdEncoderWasm(zstd);
  }

  openEncoder(level: number): PageEncoder {
    return { encode: (input, target) => this.#encode(input, target, level), close() {} };
  }

  #encode(input: Uint8Array, target: Uint8Array, level: number): number {
    const zstd = this.#zstd;
    if (input.length > inputBytes) throw new RangeError(`expected at most ${inputBytes} bytes, got ${input.length}`);
    new Uint8Array(zstd.f.buffer).set(input, this.#input);
    const [out, outSize] = [this.#output, this.#outputBytes];
    const length = zstd.l(this.#context, out, outSize, this.#input, input.length, 0, 0, level) >>> 0;
    // Errors are numbers near 2^32; the usual one is that there is no memory for the tables of a high level.
    if (zstd.h(length) !== 0)
      throw new CodecError(`zstd does not compress at level ${level} (error ${2 ** 32 - length})`);
    if (length > target.length) throw overflow(target.length);
    // The memory may have grown: the view is made anew.
    target.set(new Uint8Array(zstd.f.buffer, out, length));
    return length;
  }
}
