/** The native baselines (bench/native), run over the memory of the WASM kernels. */
import { createRequire } from 'node:module';
import type { Way } from './measure.ts';

interface Addon {
  /** Nanoseconds, and a sum of the results. */
  run(baseline: number, job: number, memory: Uint8Array, args: Uint32Array, times: number): [number, number];
}

const addon = createRequire(import.meta.url)('./addon.node') as Addon;

const jobs = [
  'zeroScan',
  'compare',
  'encode',
  'decode',
  'hash',
  'crc',
  'read',
  'copy',
  'multiply',
  'pipeline',
] as const;
export type Job = (typeof jobs)[number];
/** In the order of the list in addon.c. */
export const baselines = ['scalar C', '128-bit C', 'AVX2 C'] as const;
export type Baseline = (typeof baselines)[number];

/** A baseline's job as a way to measure. For the arguments, see `do_job` in bench/native/addon.c. */
export function nativeWay(baseline: Baseline, job: Job, memory: Uint8Array, args: number[]): Way {
  const words = Uint32Array.from(args);
  return {
    name: baseline,
    run: (times) => addon.run(baselines.indexOf(baseline), jobs.indexOf(job), memory, words, times)[0],
  };
}

/** Runs a job once and returns the sum of its results. */
export function nativeResult(baseline: Baseline, job: Job, memory: Uint8Array, args: number[]): number {
  return addon.run(baselines.indexOf(baseline), jobs.indexOf(job), memory, Uint32Array.from(args), 1)[1];
}
