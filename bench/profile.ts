/**
 * Finds where the time beyond C's goes. Measures parts of the work, since virtual machines seldom have performance
 * counters: the boundary checks (by calling the same module without them), the calls, and the processor's own limit.
 */
import simdBytes from '../dist/kernel.simd.wasm';
import type { KernelExports } from '../src/kernel/exports.ts';
import { nativeWay } from './baseline.ts';
import type { Batch } from './batch.ts';
import { compareWays, type Row, timed, type Way } from './measure.ts';
import { PAGE, patterns } from './patterns.ts';

/** 64-bit multiplications in the XXH64 of 8 bytes. */
const multiplicationsPerWord = 2;

export function profile(batch: Batch, rounds: number): Row[] {
  const { kernel, count } = batch;
  const module = new WebAssembly.Module(simdBytes);
  const raw = new WebAssembly.Instance(module, { env: { memory: kernel.memory as WebAssembly.Memory } })
    .exports as unknown as KernelExports;
  const way = (name: string, job: () => void): Way => ({ name, run: timed(job) });
  const rows: Row[] = [];

  const named = (name: string) => patterns.find((pattern) => pattern.name === name) as (typeof patterns)[number];
  for (const name of ['equal pages', 'one byte', '16 words of 8 B']) {
    batch.fill((page, _, random) => named(name).change(page, random));
    const { olds, news, out, results } = batch;
    rows.push(
      ...compareWays(
        `encode, ${name}`,
        batch.bytes,
        way('ours', () => kernel.xbzrleEncodeBatch(olds, news, count, PAGE, PAGE, out, results)),
        [way('ours, nothing checked', () => raw.xbzrleEncodeBatch(olds, news, count, PAGE, PAGE, out, results))],
        rounds,
      ),
    );
  }
  for (const name of ['one byte', '16 words of 8 B', 'a run of 512']) {
    batch.fill((page, _, random) => named(name).change(page, random));
    batch.encode();
    const { sources, lengths, olds, results } = batch;
    rows.push(
      ...compareWays(
        `decode, ${name}`,
        batch.bytes,
        way('ours', () => kernel.xbzrleDecodeBatch(sources, lengths, olds, count, PAGE, results)),
        [
          way('ours, nothing checked', () => raw.xbzrleDecodeBatch(sources, lengths, olds, count, PAGE, results)),
          way('ours, nothing checked, no copies', () => raw.xbzrleCheckBatch(sources, lengths, count, PAGE, results)),
        ],
        rounds,
      ),
    );
  }

  // In units of 8 hashed bytes, with the multiplications that they take.
  const multiplications = (batch.bytes / 8) * multiplicationsPerWord;
  rows.push(
    ...compareWays(
      'page hash (XXH64)',
      batch.bytes,
      way('ours', () => kernel.hashPages(batch.next, PAGE, count, batch.words)),
      [{ ...nativeWay('scalar C', 'multiply', kernel.bytes, [multiplications]), name: 'its multiplications alone, C' }],
      rounds,
    ),
  );
  return rows;
}
