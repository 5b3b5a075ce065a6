/**
 * The dirty rate as QEMU's `calc-dirty-rate` measures it by page sampling (docs/formats/dirty-rate.md, "Samples" and "The
 * rate"). QEMU chooses its samples at random, so its result varies. Here the caller provides the random numbers.
 */
import { pageCount, type RamBlock } from './ram-block.ts';

/** Pages sampled for each GiB of a block: QEMU's default and its limits. */
export const samplePages = { default: 512, least: 128, most: 16384 } as const;

/** Smaller blocks are not sampled. In bytes. */
const minBlock = 128 * 1024;

/** How many pages of a block are sampled. */
export function sampleCount({ usedLength }: Pick<RamBlock, 'usedLength'>, perGiB: number): number {
  return usedLength < minBlock ? 0 : Number((BigInt(usedLength) * BigInt(perGiB)) >> 30n);
}

/** How many pages were sampled for the dirty rate, and how many of them had changed. */
export interface SampledPages {
  /** Sampled pages of all blocks. A page that was chosen twice counts twice. */
  samples: number;
  /** How many of them changed. */
  dirty: number;
  /** MiB of the sampled blocks, each rounded down. */
  totalMiB: number;
}

/** Chooses pages of blocks as QEMU does: never a block's last page; a page may be chosen more than once. */
export function samplePagesOf<Block extends RamBlock>(
  blocks: readonly Block[],
  perGiB: number,
  random: () => number,
  isDirty: (block: Block, page: number) => boolean,
): SampledPages {
  const sampled: SampledPages = { samples: 0, dirty: 0, totalMiB: 0 };
  for (const block of blocks) {
    const count = sampleCount(block, perGiB);
    if (count === 0) continue;
    const choices = pageCount(block) - 1;
    for (let i = 0; i < count; i++) if (isDirty(block, Math.floor(random() * choices))) sampled.dirty++;
    sampled.samples += count;
    sampled.totalMiB += Math.floor(block.usedLength / 2 ** 20);
  }
  return sampled;
}

/** The rate in MiB/s that QEMU reports for samples taken `ms` apart; undefined if there were no samples (QEMU reports -1). */
export function reportedDirtyRate({ samples, dirty, totalMiB }: SampledPages, ms: number): number | undefined {
  if (samples === 0) return undefined;
  return Number((BigInt(dirty) * BigInt(totalMiB) * 1000n) / (BigInt(samples) * BigInt(ms)));
}
