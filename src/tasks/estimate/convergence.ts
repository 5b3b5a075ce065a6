/**
 * Predicts whether a precopy migration of a VM would converge, and when. Runs `precopy-model.ts` for each way to migrate and
 * for each possible dirtying of memory. Searches for the bandwidth and the downtime limit that would let it converge.
 */
import type { Dirtying, DirtyingName } from './dirtying.ts';
import { type PrecopyMemory, type PrecopyOptions, type PrecopyPrediction, simulatePrecopy } from './precopy-model.ts';

/** A way to migrate. */
export interface MigrationMode {
  /** `plain`, `xbzrle`, `auto-converge`, `multifd zstd level 1`. */
  name: string;
  options: Pick<PrecopyOptions, 'xbzrle' | 'compression' | 'autoConverge' | 'throttle'>;
}

/**
 * converges: with every curve of dirtying; likely: with the likely curve but not all; unlikely: only with others; no: with
 * none.
 */
export type ConvergenceVerdict = 'converges' | 'likely' | 'unlikely' | 'no';

/** How a migration would go in one mode. */
export interface ModeEstimate {
  mode: string;
  verdict: ConvergenceVerdict;
  /** The prediction for each curve of dirtying. */
  predictions: { dirtying: DirtyingName; prediction: PrecopyPrediction }[];
  /** If it does not converge with the likely curve: the lowest sufficient max-bandwidth in bytes/s, up to 1 TiB/s. */
  minBandwidth?: number;
  /** The lowest sufficient downtime-limit in ms at the given bandwidth, up to QEMU's maximum of 2000 s. */
  minDowntimeLimit?: number;
}

/** The limits of a migration: its bandwidth and its downtime. */
export interface Target {
  /** max-bandwidth in bytes/s. */
  bandwidth: number;
  /** downtime-limit in ms. */
  downtimeLimit: number;
}

/** QEMU's maximum: 2000 s. */
const maxDowntime = 2_000_000;
const maxBandwidth = 2 ** 40;

/** Predicts one way to migrate. */
export function estimateConvergence(
  memory: PrecopyMemory,
  dirtyings: readonly Dirtying[],
  mode: MigrationMode,
  target: Target,
): ModeEstimate {
  const run = (dirtying: Dirtying, at: Target) => simulatePrecopy(memory, dirtying, { ...mode.options, ...at });
  const predictions = dirtyings.map((dirtying) => ({ dirtying: dirtying.name, prediction: run(dirtying, target) }));
  const main = mainOf(dirtyings);
  const converges = (at: Partial<Target>) => run(main, { ...target, ...at }).converges;
  const isFine = predictions.find(({ dirtying }) => dirtying === main.name)?.prediction.converges === true;
  const { bandwidth: from, downtimeLimit: limit } = target;
  const minBandwidth = isFine ? undefined : smallest(from, maxBandwidth, (bandwidth) => converges({ bandwidth }));
  const minDowntimeLimit = isFine
    ? undefined
    : smallest(limit, maxDowntime, (downtimeLimit) => converges({ downtimeLimit }));
  return {
    mode: mode.name,
    verdict: judge(predictions),
    predictions,
    ...(minBandwidth === undefined ? {} : { minBandwidth }),
    ...(minDowntimeLimit === undefined ? {} : { minDowntimeLimit }),
  };
}

/** The curve that decides. */
function mainOf(dirtyings: readonly Dirtying[]): Dirtying {
  return dirtyings.find(({ name }) => name === 'likely') ?? (dirtyings[0] as Dirtying);
}

/** The prediction for the curve that decides. */
export function mainPrediction({ predictions }: ModeEstimate): PrecopyPrediction {
  const main = predictions.find(({ dirtying }) => dirtying === 'likely') ?? predictions[0];
  return (main as ModeEstimate['predictions'][number]).prediction;
}

function judge(predictions: ModeEstimate['predictions']): ConvergenceVerdict {
  const those = predictions.filter(({ prediction }) => prediction.converges);
  if (those.length === predictions.length) return 'converges';
  if (those.length === 0) return 'no';
  return those.some(({ dirtying }) => dirtying === 'likely') ? 'likely' : 'unlikely';
}

/** The lowest number within 2 % for which `converges` holds, if it holds for all above; undefined if there is none. */
function smallest(low: number, high: number, does: (number: number) => boolean): number | undefined {
  if (low >= high || !does(high)) return undefined;
  let [no, yes] = [low, high];
  while (yes / no > 1.02) {
    const middle = Math.sqrt(no * yes);
    if (does(middle)) yes = middle;
    else no = middle;
  }
  return Math.ceil(yes);
}
