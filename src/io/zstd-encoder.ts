/**
 * The zstd encoder of the package @bokuweb/zstd-wasm: Facebook's library in WebAssembly. The package has no way to
 * flush a frame, so each packet is a frame of its own (docs/formats/multifd.md, "Compression"). No state is kept
 * between frames, and all encoders share one context.
 *
 * The package's own `init` fetches the module from an address beside its script. A bundle has no such address, and
 * `init` hangs if the fetch fails. So the module's bytes are bundled, and passed to the package through the hook that
 * it has for this.
 */
import encoderBytes from '../../dist/zstd-encoder.wasm';
import { Module } from '../../node_modules/@bokuweb/zstd-wasm/dist/web/zstd.js';
import { CodecError, overflow, type PageEncoder } from './page-codec.ts';

/** The package's interface to the module. Addresses are bytes in its memory. */
interface ZstdModule {
  /** A view of the module's memory. It is replaced when the memory grows. */
  readonly HEAPU8: Uint8Array;
  onRuntimeInitialized: () => void;
  instantiateWasm: (imports: WebAssembly.Imports, receive: (instance: WebAssembly.Instance) => void) => object;
  init(bytes: Uint8Array): void;
  _malloc(bytes: number): number;
  _ZSTD_isError(result: number): number;
  _ZSTD_compressBound(bytes: number): number;
  _ZSTD_createCCtx(): number;
  _ZSTD_freeCCtx(context: number): number;
  /** Makes one frame. Without a dictionary this equals `ZSTD_compressCCtx`, which the package leaves out. */
  _ZSTD_compress_usingDict(
    context: number,
    out: number,
    outSize: number,
    input: number,
    inputSize: number,
    dictionary: number,
    dictionarySize: number,
    level: number,
  ): number;
}

/** The most bytes in a frame, more than a packet has. */
const frameBytes = 1024 * 1024;

let loading: Promise<ZstdEncoderWasm> | undefined;

/** The encoder. The program has only one, because the package has one module. */
export class ZstdEncoderWasm {
  readonly #zstd: ZstdModule;
  readonly #input: number;
  readonly #output: number;
  readonly #outputBytes: number;
  #context = 0;
  #encoders = 0;

  private constructor(zstd: ZstdModule) {
    this.#zstd = zstd;
    this.#outputBytes = zstd._ZSTD_compressBound(frameBytes);
    this.#input = zstd._malloc(frameBytes);
    this.#output = zstd._malloc(this.#outputBytes);
    if (this.#input === 0 || this.#output === 0) throw new CodecError('no memory for the zstd encoder');
  }

  static load(): Promise<ZstdEncoderWasm> {
    loading ??= instantiate().then((zstd) => new ZstdEncoderWasm(zstd));
    return loading;
  }

  openEncoder(level: number): PageEncoder {
    if (this.#context === 0) this.#context = this.#zstd._ZSTD_createCCtx();
    if (this.#context === 0) throw new CodecError('no memory for the zstd encoder');
    this.#encoders++;
    let isOpen = true;
    return {
      encode: (input, target) => {
        let [at, written] = [0, 0];
        // Empty input becomes an empty frame.
        do {
          written += this.#encodeFrame(input.subarray(at, at + frameBytes), target.subarray(written), level);
          at += frameBytes;
        } while (at < input.length);
        return written;
      },
      close: () => {
        if (isOpen) this.#release();
        isOpen = false;
      },
    };
  }

  #encodeFrame(input: Uint8Array, target: Uint8Array, level: number): number {
    const zstd = this.#zstd;
    zstd.HEAPU8.set(input, this.#input);
    const length = zstd._ZSTD_compress_usingDict(
      this.#context,
      ...([this.#output, this.#outputBytes] as const),
      ...([this.#input, input.length] as const),
      ...([0, 0] as const),
      level,
    );
    // The usual error is a lack of memory for the tables of a high level.
    if (zstd._ZSTD_isError(length) !== 0) throw new CodecError(`zstd could not compress the data (error ${-length})`);
    if (length > target.length) throw overflow(target.length);
    target.set(zstd.HEAPU8.subarray(this.#output, this.#output + length));
    return length;
  }

  /** The context's tables take several MiB at a high level. They are freed with the last encoder. */
  #release(): void {
    this.#encoders--;
    if (this.#encoders > 0) return;
    this.#zstd._ZSTD_freeCCtx(this.#context);
    this.#context = 0;
  }
}

function instantiate(): Promise<ZstdModule> {
  const zstd = Module as ZstdModule;
  return new Promise((resolve, reject) => {
    zstd.onRuntimeInitialized = () => resolve(zstd);
    zstd.instantiateWasm = (imports, receive) => {
      WebAssembly.instantiate(encoderBytes, imports)
        .then(({ instance }) => receive(instance))
        .catch(reject);
      return {};
    };
    zstd.init(encoderBytes);
  });
}
