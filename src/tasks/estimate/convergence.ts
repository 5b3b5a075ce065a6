/**
 * Whether a precopy migration of a VM would converge, and when: `tasks/estimate/precopy-model.ts` run over the ways to migrate and over
 * what can be known of how the guest dirties its memory. What would make it converge is found by trying.
 */
import type { Dirtying, DirtyingName } from './dirtying.ts';
import { type PrecopyMemory, type PrecopyOptions, type PrecopyPrediction, simulatePrecopy } from './precopy-model.ts';

/** A way to migrate. */
export interface MigrationMode {
  /** `plain`, `xbzrle`, `auto-converge`, `multifd zstd level 1`. */
  name: string;
  options: Pick<PrecopyOptions, 'xbzrle' | 'compression' | 'autoConverge'>;
}

/**
 * converges: with every curve of dirtying that there is; likely, unlikely: with the likely one or not, and with others
 * otherwise; no: with none.
 */
export type ConvergenceVerdict = 'converges' | 'likely' | 'unlikely' | 'no';

/** How a migration would go in one mode. */
export interface ModeEstimate {
  mode: string;
  verdict: ConvergenceVerdict;
  /** What came of each curve of dirtying. */
  predictions: { dirtying: DirtyingName; prediction: PrecopyPrediction }[];
  /** Where it does not converge, by the likely curve: the lowest max-bandwidth in bytes/s with which it would, up to 1 TiB/s. */
  minBandwidth: number | undefined;
  /** The same, at the bandwidth given: the least downtime-limit in ms, up to the 2000 s that QEMU takes. */
  minDowntimeLimit: number | undefined;
}

/** The limits of a migration: its bandwidth and its downtime. */
export interface Target {
  /** max-bandwidth in bytes/s. */
  bandwidth: number;
  /** downtime-limit in ms. */
  downtimeLimit: number;
}

/** QEMU takes no more than 2000 s. */
const maxDowntime = 2_000_000;
const maxBandwidth = 2 ** 40;

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
  return {
    mode: mode.name,
    verdict: judge(predictions),
    predictions,
    minBandwidth: isFine ? undefined : smallest(from, maxBandwidth, (bandwidth) => converges({ bandwidth })),
    minDowntimeLimit: isFine ? undefined : smallest(limit, maxDowntime, (limit) => converges({ downtimeLimit: limit })),
  };
}

/** The curve to go by. */
function mainOf(dirtyings: readonly Dirtying[]): Dirtying {
  return dirtyings.find(({ name }) => name === 'likely') ?? (dirtyings[0] as Dirtying);
}

/** What the curve to go by predicts. */
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

/** The least number above one that does not, that does, within 2 %, if all above it do, too; undefined if none does. */
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
