/**
 * The dirty rate as QEMU's `calc-dirty-rate` measures it by page sampling: which pages it looks at, and what it makes of
 * them (docs/formats/dirty-rate.md, "Samples" and "The rate"). QEMU chooses its samples at random, and so its answer is
 * another one each time; here the random numbers are the caller's.
 */
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';

/** QEMU's default, and what it takes: pages looked at for each GiB of a block. */
export const samplePages = { default: 512, least: 128, most: 16384 } as const;

/** Blocks below this many bytes are not looked at. */
const minBlock = 128 * 1024;

/** How many pages of a block are looked at. */
export function sampleCount({ usedLength }: Pick<RamBlock, 'usedLength'>, perGiB: number): number {
  return usedLength < minBlock ? 0 : Number((BigInt(usedLength) * BigInt(perGiB)) >> 30n);
}

/** How many pages were sampled for the dirty rate, and how many of them had changed. */
export interface SampledPages {
  /** Pages that were looked at, in all blocks. A page that was chosen twice counts twice. */
  samples: number;
  /** Those of them that were changed. */
  dirty: number;
  /** MiB of the blocks that were looked at, each rounded down. */
  totalMiB: number;
}

/** Chooses pages of blocks as QEMU does: never a block's last page, and the same page more than once if chance wants it. */
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

/** The rate in MiB/s that QEMU reports for samples taken `ms` apart; undefined if there were none (QEMU: -1). */
export function reportedDirtyRate({ samples, dirty, totalMiB }: SampledPages, ms: number): number | undefined {
  if (samples === 0) return undefined;
  return Number((BigInt(dirty) * BigInt(totalMiB) * 1000n) / (BigInt(samples) * BigInt(ms)));
}
