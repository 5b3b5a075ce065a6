/** A kernel's arena as a test bench: regions between poisoned bytes, and reproducible random numbers. */
import { type Kernel, type KernelVariant, loadKernel } from '../../src/kernel/index.ts';

export const variants: KernelVariant[] = ['simd', 'scalar'];

const POISON = 0xa5;
const GUARD = 64;

/** Space for `capacity` bytes at most. `place` fills it and surrounds it with poison. */
export class Guarded {
  readonly #kernel: Kernel;
  readonly #room: number;
  address = 0;
  length = 0;

  constructor(kernel: Kernel, capacity: number) {
    this.#kernel = kernel;
    this.#room = kernel.allocate(capacity + 3 * GUARD);
  }

  /** Puts the bytes `misalignment` bytes (0 to 63) after a multiple of 64, and poisons the bytes around them. */
  place(bytes: Uint8Array, misalignment = 0): number {
    this.address = this.#room + GUARD + misalignment;
    this.length = bytes.length;
    this.#kernel.bytes.fill(POISON, this.address - GUARD, this.address + this.length + GUARD);
    this.#kernel.bytes.set(bytes, this.address);
    return this.address;
  }

  get content(): Uint8Array {
    return this.#kernel.bytes.slice(this.address, this.address + this.length);
  }

  get isUntouchedAround(): boolean {
    const before = this.#kernel.bytes.subarray(this.address - GUARD, this.address);
    const after = this.#kernel.bytes.subarray(this.address + this.length, this.address + this.length + GUARD);
    return [before, after].every((guard) => guard.every((byte) => byte === POISON));
  }
}

/** A random source with a fixed seed (mulberry32): `below(n)` is an integer in 0..n-1. */
export function seeded(seed: number): { below(n: number): number; bytes(n: number): Uint8Array } {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  const below = (n: number) => Math.floor((next() / 2 ** 32) * n);
  return { below, bytes: (n) => Uint8Array.from({ length: n }, () => next() & 0xff) };
}

export const loadSmall = (variant: KernelVariant): Promise<Kernel> => loadKernel({ variant, arenaBytes: 1 << 20 });
