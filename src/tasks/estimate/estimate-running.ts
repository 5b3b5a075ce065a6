/**
 * The estimate of a running guest: what its monitor said about it, by the rules and in the form of an estimate of files. What
 * only content over time would show, such as how well XBZRLE does, is turned around: what it would have to be.
 */
import type { Abortable } from '../../io/abort.ts';
import type { PageCodecs } from '../../io/page-codec.ts';
import { type ThrottleParameters, throttleDefaults } from '../../schema/precopy-rules.ts';
import { breakEven, type CompressionFigure, gainOf, measureCompression, usualLevels } from './compression-sample.ts';
import { estimateConvergence, type MigrationMode, mainPrediction, type Target } from './convergence.ts';
import type { Dirtying } from './dirtying.ts';
import type { Estimate } from './estimate.ts';
import { dirtyingThroughAll } from './measured-dirtying.ts';
import type { MemoryComposition } from './memory-composition.ts';
import { measureEntropy } from './page-entropy.ts';
import type { PageGroup } from './page-sample.ts';
import { firstPassBytes, firstPassSeconds, type PrecopyMemory, simulatePrecopy } from './precopy-model.ts';
import { type Recommendation, recommend } from './recommend.ts';

/** What is known of a running guest. */
export interface RunningFacts {
  /** What was asked. */
  source: string;
  machine: string | undefined;
  isRunning: boolean;
  ramBytes: number;
  capabilities: string[];
  parameters: Readonly<Record<string, number | boolean>>;
  /** By calc-dirty-rate, in bytes/s over so many ms. */
  dirtyRates: { ms: number; bytesPerSecond: number }[];
  /** Some pages of 4 KiB. */
  pages: Uint8Array[];
}

/** What is asked about it. */
export interface RunningOptions extends Abortable {
  /** Bytes/s. Default: the guest's max-bandwidth. */
  bandwidth?: number | undefined;
  /** In ms. Default: the guest's downtime-limit. */
  downtimeLimit?: number | undefined;
  channels?: number | undefined;
  codecs: PageCodecs;
  /** The time in ms, to measure the speed of compression. */
  clock: () => number;
  seed: number;
}

const pageSize = 4096;
const groupPages = 128;

/** Predicts how a migration of a running guest would go. @throws RangeError if no bandwidth is known */
export async function estimateRunning(facts: RunningFacts, options: RunningOptions): Promise<Estimate> {
  const target = targetOf(facts, options);
  const { memory, sent, groups } = composition(facts);
  const { codecs, clock, signal, seed } = options;
  const figures =
    groups.length === 0
      ? []
      : await measureCompression(groups, usualLevels, { codecs, clock, population: groups.length, signal });
  const dirtyings = dirtyingThroughAll(
    facts.dirtyRates.map(({ ms, bytesPerSecond }) => ({
      seconds: ms / 1000,
      pages: (bytesPerSecond * ms) / 1000 / pageSize,
    })),
    memory.all.pages,
  );
  const modes = modesOf(facts, figures, target.channels);
  const convergence = modes.map((mode) => estimateConvergence(sent, dirtyings, mode, target));
  const compression = figures.map((figure) => ({
    ...figure,
    breakEven: breakEven(figure, target.channels),
    gain: gainOf(figure, target.channels, target.bandwidth),
  }));
  const known = { memory, sent, compression, changes: undefined, convergence, target, channels: target.channels };
  const firstPass = [undefined, ...figures.filter(({ level }) => level === 1)].map((figure) => {
    const by =
      figure === undefined
        ? undefined
        : { ratio: figure.ratio, bytesPerSecond: figure.bytesPerSecond * target.channels };
    return {
      mode: figure === undefined ? 'plain' : `multifd ${figure.format} level ${figure.level}`,
      bytes: Math.round(firstPassBytes(sent, { compression: by })),
      ms: Math.round(firstPassSeconds(sent, { bandwidth: target.bandwidth, compression: by }) * 1000),
    };
  });
  return {
    ...{ source: facts.source, machine: facts.machine, target, memory, ignored: [] },
    sample: {
      groups: groups.length,
      of: groups.length,
      bytes: groups.reduce((n, { bytes }) => n + bytes.length, 0),
      seed,
    },
    entropy: measureEntropy(groups),
    ...{ compression, changes: undefined, firstPass, convergence },
    verdict: convergence[0]?.verdict ?? 'unknown',
    recommendations: [...recommend(known), ...neededDeltas(sent, dirtyings, target, known.convergence)],
    running: {
      ...{ isRunning: facts.isRunning, capabilities: facts.capabilities, dirtyRates: facts.dirtyRates },
      readPages: facts.pages.length,
    },
  };
}

function targetOf({ parameters }: RunningFacts, options: RunningOptions): Target & { channels: number } {
  const number = (name: string) => Number(parameters[name] ?? 0);
  const target = {
    bandwidth: options.bandwidth ?? number('max-bandwidth'),
    downtimeLimit: options.downtimeLimit ?? number('downtime-limit'),
    channels: options.channels ?? Math.max(1, number('multifd-channels')),
  };
  if (target.bandwidth < 65536) {
    throw new RangeError(
      `expected a bandwidth of at least 65536 bytes/s, got ${target.bandwidth}, which for QEMU may mean no limit`,
    );
  }
  return target;
}

/** Memory by the pages that were read. Without any, all of it counts as data: the worst case. */
function composition({ ramBytes, pages }: RunningFacts) {
  const total = Math.floor(ramBytes / pageSize);
  const data = pages.filter((page) => page.some((byte) => byte !== 0));
  const share = (count: number) => (pages.length === 0 ? 0 : Math.round((total * count) / pages.length));
  const zero = share(pages.length - data.length);
  const sameByte = share(data.filter((page) => page.every((byte) => byte === page[0])).length);
  const all = { pages: total, absent: undefined, zero, sameByte, duplicate: 0, distinct: total - zero - sameByte };
  const memory: MemoryComposition = {
    ...{ blocks: [{ idstr: 'RAM', pageSize, ...all }], all },
    layout: { pagesPerPart: total, dataPages: [total - zero] },
    duplicates: { hashBits: 0, falseMatches: 0, oneIn: 0 },
  };
  const groups: PageGroup[] = [];
  for (let at = 0; at < data.length; at += groupPages) {
    const some = data.slice(at, at + groupPages);
    const bytes = new Uint8Array(some.length * pageSize);
    for (const [i, page] of some.entries()) bytes.set(page, i * pageSize);
    groups.push({ bytes, pageSize });
  }
  const sent: PrecopyMemory = { pageSize, zeroPages: zero, dataPages: total - zero };
  return { memory, sent, groups };
}

/** How the guest would migrate now comes first. */
function modesOf(facts: RunningFacts, figures: readonly CompressionFigure[], channels: number): MigrationMode[] {
  const throttle = Object.fromEntries(
    Object.entries(throttleDefaults).map(([name, value]) => [name, facts.parameters[name] ?? value]),
  ) as unknown as ThrottleParameters;
  const autoConverge = { name: 'auto-converge', options: { autoConverge: true, throttle } };
  const plain: MigrationMode = { name: 'plain', options: {} };
  const compressed = figures
    .filter(({ level }) => level === 1)
    .map(({ format, level, ratio, bytesPerSecond }) => ({
      name: `multifd ${format} level ${level}`,
      options: { compression: { ratio, bytesPerSecond: bytesPerSecond * channels } },
    }));
  const isOn = facts.capabilities.includes('auto-converge');
  return isOn ? [autoConverge, plain, ...compressed] : [plain, ...compressed, autoConverge];
}

/** How small XBZRLE's deltas would have to be, if plain precopy does not converge. */
function neededDeltas(
  sent: PrecopyMemory,
  dirtyings: readonly Dirtying[],
  target: Target,
  convergence: Estimate['convergence'],
): Recommendation[] {
  const plain = convergence.find(({ mode }) => mode === 'plain');
  const likely = dirtyings.find(({ name }) => name === 'likely');
  if (plain === undefined || likely === undefined || mainPrediction(plain).converges) return [];
  const converges = (meanBytes: number) =>
    simulatePrecopy(sent, likely, { ...target, xbzrle: { meanBytes, overflowShare: 0, cachedShare: 1 } }).converges;
  if (!converges(1)) return [];
  let [yes, no] = [1, pageSize];
  while (no - yes > 16) {
    const middle = Math.floor((yes + no) / 2);
    if (converges(middle)) yes = middle;
    else no = middle;
  }
  const cacheBytes = 2 ** Math.ceil(Math.log2(Math.max(1, likely.workingSet) * pageSize));
  return [{ rule: 'xbzrle-if', meanBytes: yes, cacheBytes }];
}
