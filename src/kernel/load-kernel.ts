/** Loads the WebAssembly module of the kernels, the build for this platform, once per process. */
import scalarBytes from '../../dist/kernel.scalar.wasm';
import simdBytes from '../../dist/kernel.simd.wasm';
import { checkInteger, WASM_PAGE } from './checks.ts';
import type { KernelExports } from './exports.ts';
import { Kernel, type KernelMemory, type KernelVariant } from './kernel.ts';

/** The arena and the build of a kernel. */
export interface KernelOptions {
  /** Size of the arena in bytes, rounded up to whole 64 KiB. Default 32 MiB. */
  arenaBytes?: number;
  /** The build to run. Default: SIMD if the platform supports it. */
  variant?: KernelVariant;
}

const DEFAULT_ARENA_BYTES = 32 << 20;
/** One WASM page less than 4 GiB, so that the end of a range is always a 32-bit address. */
const MAX_ARENA_BYTES = 2 ** 32 - WASM_PAGE;
/** At least the size of the module's own data at the start of the arena. */
const MODULE_BYTES = 64 << 10;

/** A module with one function that returns a vector. It is valid only on platforms with SIMD. */
// biome-ignore format: bytes of a file
const SIMD_PROBE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,                           // magic, version
  1, 5, 1, 0x60, 0, 1, 0x7b,                                 // type: () -> v128
  3, 2, 1, 0,                                                // function 0 has it
  10, 10, 1, 8, 0, 0x41, 0, 0xfd, 15, 0xfd, 98, 11,          // i32.const 0, i8x16.splat, i8x16.popcnt
]);

const modules = new Map<KernelVariant, Promise<WebAssembly.Module>>();

function compiled(variant: KernelVariant): Promise<WebAssembly.Module> {
  let module = modules.get(variant);
  if (module === undefined) {
    module = WebAssembly.compile(variant === 'simd' ? simdBytes : scalarBytes);
    modules.set(variant, module);
  }
  return module;
}

/**
 * Makes a kernel with an arena of its own. The module is compiled once per process.
 * @throws RangeError if the arena size or the variant is impossible.
 */
export async function loadKernel(options: KernelOptions = {}): Promise<Kernel> {
  const { arenaBytes = DEFAULT_ARENA_BYTES, variant = WebAssembly.validate(SIMD_PROBE) ? 'simd' : 'scalar' } = options;
  if (variant !== 'simd' && variant !== 'scalar') {
    throw new RangeError(`variant: expected 'simd' or 'scalar', got ${String(variant)}`);
  }
  checkInteger('arenaBytes', arenaBytes, WASM_PAGE, MAX_ARENA_BYTES);
  const pages = Math.ceil(arenaBytes / WASM_PAGE);
  const module = await compiled(variant);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  return new Kernel(variant, memory as KernelMemory, instance.exports as unknown as KernelExports);
}

/**
 * Makes a kernel whose arena has space for components that need this many bytes each (`arena-budget.ts`).
 * @throws RangeError for more than 4 GiB in all.
 */
export function loadKernelFor(needs: readonly number[], variant?: KernelVariant): Promise<Kernel> {
  const arenaBytes = needs.reduce((sum, need) => sum + need, MODULE_BYTES);
  return loadKernel(variant === undefined ? { arenaBytes } : { arenaBytes, variant });
}
