/**
 * Recommends parameters for a migration, with reasons: rules over the figures of an estimate. A rule without figures
 * recommends nothing.
 */

import { breakEven, type CompressionFigure, gainOf } from './compression-sample.ts';
import { type ModeEstimate, mainPrediction, type Target } from './convergence.ts';
import type { MemoryComposition } from './memory-composition.ts';
import { firstPassSeconds, type PrecopyMemory } from './precopy-model.ts';
import type { RamChanges } from './ram-changes.ts';

/** A parameter or capability, and the figures behind it, in bytes, bytes/s and ms. */
export type Recommendation =
  | { rule: 'detect-zero-pages' | 'skip-zero-detection'; zeroPages: number; pages: number }
  | { rule: 'compress'; format: string; level: number; channels: number; gain: number; ratio: number }
  /** `below`: bytes/s, from `breakEven`. */
  | {
      rule: 'do-not-compress';
      format: string;
      level: number;
      channels: number;
      gain: number;
      ratio: number;
      below: number;
    }
  | {
      rule: 'xbzrle' | 'no-xbzrle';
      cacheBytes: number;
      meanBytes: number;
      overflowShare: number;
      /** Total time without and with it, if the migration converges. */
      plainMs: number | undefined;
      xbzrleMs: number | undefined;
    }
  | { rule: 'raise-downtime-limit'; ms: number }
  | { rule: 'raise-bandwidth'; bandwidth: number }
  | { rule: 'auto-converge'; throttle: number; totalMs: number }
  /** `others`: whether a way other than plain converges without it. */
  | { rule: 'postcopy'; firstPassMs: number; others: boolean }
  /** `meanBytes`: XBZRLE would do if its deltas are no longer than that. */
  | { rule: 'xbzrle-if'; meanBytes: number; cacheBytes: number }
  | { rule: 'save-again'; intervalMs: number };

/** The figures of an estimate. */
export interface Figures {
  memory: MemoryComposition;
  sent: PrecopyMemory;
  compression: readonly CompressionFigure[];
  changes: RamChanges | undefined;
  convergence: readonly ModeEstimate[];
  target: Target;
  channels: number;
}

/** The smallest gain that is worth a setting. */
const worthIt = 1.1;
const aboutTheSame = 0.95;
/** The share of zero pages below which detecting them does not pay off. */
const fewZeros = 0.001;

/** Applies all rules. */
export function recommend(figures: Figures): Recommendation[] {
  const [compression, xbzrle] = chooseOne(figures, onCompression(figures), onXbzrle(figures));
  return [...onZeroPages(figures), ...compression, ...xbzrle, ...onConvergence(figures)];
}

/** Chooses the faster of XBZRLE and multifd compression, since QEMU refuses to combine them. */
function chooseOne(
  { convergence }: Figures,
  compression: Recommendation[],
  xbzrle: Recommendation[],
): [Recommendation[], Recommendation[]] {
  const [compress] = compression;
  const [delta] = xbzrle;
  if (compress?.rule !== 'compress' || delta?.rule !== 'xbzrle') return [compression, xbzrle];
  const packed = convergence
    .filter(({ mode }) => mode.startsWith(`multifd ${compress.format} `))
    .map(mainPrediction)
    .some(({ converges, totalMs }) => converges && totalMs <= (delta.xbzrleMs as number));
  return packed ? [compression, []] : [[], xbzrle];
}

function onZeroPages({ memory: { all } }: Figures): Recommendation[] {
  const zeroPages = all.zero + (all.absent ?? 0);
  const rule = zeroPages / Math.max(1, all.pages) < fewZeros ? 'skip-zero-detection' : 'detect-zero-pages';
  return [{ rule, zeroPages, pages: all.pages }];
}

function onCompression({ compression, target: { bandwidth }, channels }: Figures): Recommendation[] {
  const gain = (figure: CompressionFigure) => gainOf(figure, channels, bandwidth);
  const most = Math.max(...compression.map(gain));
  // Among similar gains, the one with the least work wins.
  const [best] = compression
    .filter((figure) => gain(figure) >= most * aboutTheSame)
    .sort((a, b) => b.bytesPerSecond - a.bytesPerSecond);
  if (best === undefined) return [];
  const { format, level, ratio, bytesPerSecond } = best;
  const common = { format, level, gain: gain(best), ratio };
  if (gain(best) < worthIt) return [{ rule: 'do-not-compress', ...common, channels, below: breakEven(best, channels) }];
  // Channels beyond those that fill the wire do not help.
  const needed = Math.ceil((bandwidth * ratio) / bytesPerSecond);
  return [{ rule: 'compress', ...common, channels: Math.max(1, Math.min(channels, needed)) }];
}

function onXbzrle({ changes, convergence }: Figures): Recommendation[] {
  const plain = convergence.find(({ mode }) => mode === 'plain');
  const encoded = convergence.find(({ mode }) => mode === 'xbzrle');
  if (changes?.xbzrle === undefined || plain === undefined || encoded === undefined) return [];
  const time = (estimate: ModeEstimate) => {
    const { converges, totalMs } = mainPrediction(estimate);
    return converges ? totalMs : undefined;
  };
  const [plainMs, xbzrleMs] = [time(plain), time(encoded)];
  const helps = xbzrleMs !== undefined && (plainMs === undefined || plainMs > xbzrleMs * worthIt);
  const { pages, overflow, mean } = changes.xbzrle;
  const figures = {
    cacheBytes: changes.cache.most.bytes,
    meanBytes: mean,
    overflowShare: pages === 0 ? 0 : overflow / pages,
    ...{ plainMs, xbzrleMs },
  };
  return [{ rule: helps ? 'xbzrle' : 'no-xbzrle', ...figures }];
}

function onConvergence({ convergence, sent, changes, target }: Figures): Recommendation[] {
  const find = (name: string) => convergence.find(({ mode }) => mode === name);
  const plain = find('plain');
  if (plain === undefined) return [];
  const found: Recommendation[] = [];
  if (!mainPrediction(plain).converges) {
    const { minBandwidth, minDowntimeLimit } = plain;
    if (minDowntimeLimit !== undefined) found.push({ rule: 'raise-downtime-limit', ms: minDowntimeLimit });
    if (minBandwidth !== undefined) found.push({ rule: 'raise-bandwidth', bandwidth: minBandwidth });
    const throttled = find('auto-converge');
    const slowed = throttled === undefined ? undefined : mainPrediction(throttled);
    if (slowed?.converges === true) {
      found.push({ rule: 'auto-converge', throttle: slowed.throttle, totalMs: slowed.totalMs });
    }
    const firstPassMs = Math.round(firstPassSeconds(sent, target) * 1000);
    const others = convergence.some((each) => mainPrediction(each).converges);
    found.push({ rule: 'postcopy', firstPassMs, others });
  }
  if ((plain.verdict === 'likely' || plain.verdict === 'unlikely') && changes !== undefined) {
    // The important figure is how much the guest writes while the changes are being sent.
    found.push({ rule: 'save-again', intervalMs: Math.round((changes.changedBytes / target.bandwidth) * 1000) });
  }
  return found;
}
