import { describe, expect, it } from 'vitest';
import { estimateConvergence, type ModeEstimate } from '../../../src/tasks/estimate/convergence.ts';
import { type Dirtying, dirtyingAt, dirtyingThrough } from '../../../src/tasks/estimate/dirtying.ts';
import type { MemoryComposition } from '../../../src/tasks/estimate/memory-composition.ts';
import type { RamChanges } from '../../../src/tasks/estimate/ram-changes.ts';
import { type Figures, recommend } from '../../../src/tasks/estimate/recommend.ts';

const MiB = 1 << 20;
const target = { bandwidth: 100 * MiB, downtimeLimit: 300 };
const sent = { pageSize: 4096, dataPages: 200_000, zeroPages: 50_000 };
const all = { pages: 250_000, absent: 0, zero: 50_000, sameByte: 0, duplicate: 0, distinct: 200_000 };
const memory: MemoryComposition = {
  ...{ blocks: [], all, layout: { pagesPerPart: 1, dataPages: [] } },
  duplicates: { hashBits: 64, falseMatches: 0, oneIn: 1 },
};
const zlib = { format: 'zlib' as const, level: 1, ratio: 3, ratioError: 0, bytesPerSecond: 80 * MiB };
const zstd = { format: 'zstd' as const, level: 1, ratio: 2.9, ratioError: 0, bytesPerSecond: 300 * MiB };

const figures = (some: Partial<Figures> = {}): Figures => ({
  ...{ memory, sent, compression: [], changes: undefined, convergence: [], target, channels: 2 },
  ...some,
});
const rules = (some: Partial<Figures>) => recommend(figures(some)).map(({ rule }) => rule);
const plain = (...dirtyings: Dirtying[]): ModeEstimate =>
  estimateConvergence(sent, dirtyings, { name: 'plain', options: {} }, target);

describe('advice', () => {
  it('is to detect zero pages unless there are hardly any', () => {
    expect(rules({})).toEqual(['detect-zero-pages']);
    expect(rules({ memory: { ...memory, all: { ...all, zero: 100 } } })).toEqual(['skip-zero-detection']);
  });

  it('is the compression that sends pages fastest, with no more channels than fill the wire', () => {
    expect(recommend(figures({ compression: [zlib, zstd], channels: 8 }))[1]).toEqual({
      ...{ rule: 'compress', format: 'zstd', level: 1, channels: 1, gain: 2.9, ratio: 2.9 },
    });
    expect(recommend(figures({ compression: [zlib], channels: 8 }))[1]).toMatchObject({ format: 'zlib', channels: 4 });
  });

  it('recommends no compression if the engine is slower than the wire', () => {
    const fast = { ...target, bandwidth: 1000 * MiB };
    const found = recommend(figures({ compression: [zlib, zstd], target: fast }))[1];
    expect(found).toMatchObject({ rule: 'do-not-compress', format: 'zstd', gain: 0.6, below: 600 * MiB });
  });

  it('recommends no compression at any bandwidth if pages do not get smaller', () => {
    const random = { ...zstd, ratio: 0.999 };
    expect(recommend(figures({ compression: [random] }))[1]).toMatchObject({ rule: 'do-not-compress', below: 0 });
  });

  it('is nothing about a migration that is unknown, or that converges', () => {
    const [calm] = [dirtyingAt(10, 100, 250_000)];
    expect(rules({ convergence: [plain(calm!)] })).toEqual(['detect-zero-pages']);
  });

  it('is what would make it converge if it does not, and each advice does', () => {
    const wild = dirtyingAt(40_000, 200_000, 250_000);
    const estimate = plain(wild);
    expect(estimate.verdict).toBe('no');
    const advice = recommend(figures({ convergence: [estimate] })).slice(1);
    expect(advice.map(({ rule }) => rule)).toEqual(['raise-downtime-limit', 'raise-bandwidth', 'postcopy']);
    const { minBandwidth, minDowntimeLimit } = estimate;
    const at = (some: Partial<typeof target>) =>
      estimateConvergence(sent, [wild], { name: 'plain', options: {} }, { ...target, ...some }).verdict;
    expect(at({ bandwidth: minBandwidth! })).toBe('converges');
    expect(at({ bandwidth: Math.floor(minBandwidth! / 1.03) })).toBe('no');
    expect(at({ downtimeLimit: minDowntimeLimit! })).toBe('converges');
    expect(at({ downtimeLimit: Math.floor(minDowntimeLimit! / 1.03) - 1 })).toBe('no');
  });

  it('is XBZRLE or compression, not both, because QEMU refuses that: the one that finishes sooner', () => {
    const xbzrle = { pages: 100, overflow: 0, mean: 50, median: 50, histogram: [] };
    const cache = { all: { bytes: 1, share: 1 }, most: { bytes: 1, share: 1 }, shareOfDefault: 1 };
    const changes = { xbzrle, cache, changedBytes: 1 } as unknown as RamChanges;
    const guest = dirtyingAt(40_000, 60_000, 250_000);
    const deltas = { xbzrle: { meanBytes: 50, overflowShare: 0, cachedShare: 1 } };
    const modes = (ratio: number) =>
      [
        { name: 'plain', options: {} },
        { name: 'xbzrle', options: deltas },
        { name: 'multifd zstd level 1', options: { compression: { ratio, bytesPerSecond: 2 ** 40 } } },
      ].map((mode) => estimateConvergence(sent, [guest], mode, { ...target, downtimeLimit: 600 }));
    const chosen = (ratio: number) => rules({ changes, compression: [{ ...zstd, ratio }], convergence: modes(ratio) });
    expect(chosen(10)).toContain('compress');
    expect(chosen(10)).not.toContain('xbzrle');
    expect(chosen(1.2)).toContain('xbzrle');
    expect(chosen(1.2)).not.toContain('compress');
  });

  it('is yes or no only if all possible behaviour of the guest agrees', () => {
    const verdict = (pages: number, seconds: number) => plain(...dirtyingThrough(pages, seconds, 250_000)).verdict;
    expect(verdict(500, 10)).toBe('converges');
    expect(verdict(20_000, 10)).toBe('likely');
    expect(verdict(200_000, 2)).toBe('no');
  });
});
