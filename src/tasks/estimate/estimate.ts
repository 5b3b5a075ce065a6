/**
 * estimate: predicts how a migration of a VM would go. One file shows what its memory is made of and how well it
 * compresses; two saves of the VM show how its memory changes. QEMU's own rules then show whether and when a migration
 * would converge. docs/estimate.md explains each figure.
 */
import type { Abortable } from '../../io/abort.ts';
import type { PageCodecs } from '../../io/page-codec.ts';
import type { KernelVariant } from '../../kernel/kernel.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { openSavedVm, type RamContentOptions } from '../../store/ram-content.ts';
import { samplePages as sampledPages } from '../../vm/dirty-rate.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import {
  breakEven,
  type CompressionChoice,
  type CompressionFigure,
  gainOf,
  measureCompression,
  usualLevels,
} from './compression-sample.ts';
import {
  type ConvergenceVerdict,
  estimateConvergence,
  type MigrationMode,
  type ModeEstimate,
  type Target,
} from './convergence.ts';
import { type Dirtying, dirtyingAt, dirtyingThrough, findWorkingSet } from './dirtying.ts';
import { guestClock, hasGuestClock } from './guest-clock.ts';
import { type MemoryComposition, measureComposition } from './memory-composition.ts';
import { measureEntropy, type PageEntropy } from './page-entropy.ts';
import { groupBytes, PageSample } from './page-sample.ts';
import { firstPassBytes, firstPassSeconds, type PrecopyMemory, type XbzrleFigures } from './precopy-model.ts';
import { measureChanges, type RamChanges } from './ram-changes.ts';
import { type Recommendation, recommend } from './recommend.ts';
import { seededRandom } from './seeded-random.ts';

/** QEMU's defaults. */
export const estimateDefaults = { bandwidth: 128 << 20, downtimeLimit: 300, channels: 2 } as const;
/** Bytes of pages that are compressed, and the most that the option `sample` accepts. */
export const sampleBytes = { default: 16 << 20, most: 64 << 20 } as const;

/** What is measured, and for which migration. */
export interface EstimateOptions extends Abortable {
  /** Makes the scratch file, if one is needed. The estimate closes it. */
  makeScratch: RamContentOptions['makeScratch'];
  /** Compresses the sample. */
  codecs: PageCodecs;
  /** The time in ms, to measure speed; only differences count. */
  clock: () => number;
  /**
   * A later save of the same VM, and how long the guest ran between the two, in ms. Default: by the guest's clock, if both
   * files have it.
   */
  later?: { file: MigrationFile; intervalMs?: number | undefined } | undefined;
  /** max-bandwidth in bytes/s. Default 128 MiB/s, as QEMU's. */
  bandwidth?: number | undefined;
  /** downtime-limit in ms. Default 300, as QEMU's. */
  downtimeLimit?: number | undefined;
  /** multifd-channels, each a thread that compresses. Default 2, as QEMU's. */
  channels?: number | undefined;
  /** How fast the guest dirties memory, in bytes/s, if known, for example from calc-dirty-rate. */
  dirtyRate?: number | undefined;
  /** Bytes that the guest writes to. Default: unknown, or computed from the later save. */
  workingSet?: number | undefined;
  /** Pages to sample for each GiB to compute the dirty rate, 128 to 16384. Default 512, as QEMU's. */
  samplePages?: number | undefined;
  /** Chooses the samples. Default 1. */
  seed?: number | undefined;
  /** Bytes of pages to compress. Default 16 MiB. */
  sample?: number | undefined;
  /** What to compress with. Default {@link usualLevels}. */
  levels?: readonly CompressionChoice[] | undefined;
  /** The build of the kernels. Default: SIMD if the platform has it. */
  variant?: KernelVariant;
  /** Called when a step of the work begins: FILE is read, the sample compressed, the later save read and compared. */
  begin?: ((step: EstimateStep) => void) | undefined;
}

/** A step of an estimate. */
export type EstimateStep = 'read' | 'compress' | 'compare';

/** How the memory compresses with one method. */
export interface EstimatedCompression extends CompressionFigure {
  /** With all channels: the bandwidth in bytes/s below which it pays off; 0 if it never does. */
  breakEven: number;
  /** With all channels, at the bandwidth: how many times faster pages are sent; below 1 they are slower. */
  gain: number;
}

/** What was measured, and what it predicts. */
export interface Estimate {
  source: string;
  /** The machine type, if the file says it. */
  machine: string | undefined;
  target: Target & { channels: number };
  memory: MemoryComposition;
  /** Blocks whose content the file lacks (x-ignore-shared). They are not counted anywhere. */
  ignored: string[];
  /** What entropy and compression were measured on: `groups` out of `of` groups of pages that are not zero. */
  sample: { groups: number; of: number; bytes: number; seed: number };
  entropy: PageEntropy;
  compression: EstimatedCompression[];
  /** Whether plain precopy would converge. Unknown if the dirtying of memory is. */
  verdict: ConvergenceVerdict | 'unknown';
  /** With a later save: what changed. */
  changes: (Changes & { source: string }) | undefined;
  /** The first pass, if the guest writes nothing. */
  firstPass: { mode: string; bytes: number; ms: number }[];
  /** Empty if the dirtying of memory is unknown. */
  convergence: ModeEstimate[];
  recommendations: Recommendation[];
  /** Of a running guest: what its monitor said. */
  running: RunningMeasurement | undefined;
}

/** What the monitor of a running guest said. */
export interface RunningMeasurement {
  /** False: it is stopped, so nothing is dirtied. */
  isRunning: boolean;
  /** The capabilities that are on. */
  capabilities: string[];
  /** By calc-dirty-rate, in bytes/s over so many ms; shortest first. */
  dirtyRates: { ms: number; bytesPerSecond: number }[];
  /** How many pages were read. `memory`, `entropy` and `compression` are estimates by them; with 0 all pages count as data. */
  readPages: number;
}

/** What differs between the two saves, and the time between them. */
export interface Changes extends RamChanges {
  /** How long the guest ran between the two saves: as stated, or by its clock. */
  intervalMs: number;
  intervalFrom: 'stated' | 'guest clock';
  /** How long the guest ran between the two saves, by its clock. Undefined if a file lacks the clock. */
  guestMs: number | undefined;
}

/**
 * Predicts how a migration of a VM would go. Reads the file's RAM once, and with a later save both files once more.
 * @throws MigrationError if a file is bad; RangeError for impossible options, and for files of different VMs.
 */
export async function estimate(file: MigrationFile, options: EstimateOptions): Promise<Estimate> {
  return whileAllowed(options, [file, options?.later?.file ?? []].flat(), () => estimateFile(file, options));
}

async function estimateFile(file: MigrationFile, options: EstimateOptions): Promise<Estimate> {
  const { later, makeScratch, codecs, clock, levels = usualLevels, variant, begin } = options;
  const target = checkTarget(options);
  const { seed = 1, sample: wanted = sampleBytes.default, samplePages = sampledPages.default } = options;
  checkInteger('samplePages', samplePages, sampledPages.least, sampledPages.most);
  checkInteger('sample', wanted, groupBytes, sampleBytes.most);
  if (later?.intervalMs !== undefined) checkInteger('intervalMs', later.intervalMs, 1, Number.MAX_SAFE_INTEGER);
  const ofBuild = variant === undefined ? {} : { variant };
  begin?.('read');
  const vm = await openSavedVm(file, { makeScratch, devices: hasGuestClock, acceptIgnored: true });
  try {
    const sample = new PageSample(Math.floor(wanted / groupBytes), seededRandom(seed));
    const isIgnored = ({ index }: RamBlock) => vm.ignored.some((block) => block.index === index);
    const memory = await measureComposition(vm.ram, { sample, only: (block) => !isIgnored(block), ...ofBuild });
    const machine = vm.configuration?.machine;
    const { groups, seen: of } = sample;
    begin?.('compress');
    const figures =
      groups.length === 0
        ? []
        : await measureCompression(groups, levels, { codecs, clock, population: of, signal: options.signal });
    const compression = figures.map((figure) => ({
      ...figure,
      breakEven: breakEven(figure, target.channels),
      gain: gainOf(figure, target.channels, target.bandwidth),
    }));
    const entropy = measureEntropy(groups);
    if (later !== undefined) begin?.('compare');
    const changes =
      later === undefined
        ? undefined
        : await openChanges(vm, later, { makeScratch, samplePages, random: seededRandom(seed), ...ofBuild });
    const sent = sentMemory(memory);
    const dirtyings = findDirtyings(options, changes, memory);
    const modes = listModes(figures, target.channels, changes);
    const convergence =
      dirtyings.length === 0 ? [] : modes.map((mode) => estimateConvergence(sent, dirtyings, mode, target));
    const firstPass = modes
      .filter(({ options: { xbzrle, autoConverge } }) => xbzrle === undefined && autoConverge !== true)
      .map(({ name, options: { compression: by } }) => ({
        mode: name,
        bytes: Math.round(firstPassBytes(sent, { compression: by })),
        ms: Math.round(firstPassSeconds(sent, { bandwidth: target.bandwidth, compression: by }) * 1000),
      }));
    const recommendations = recommend({
      ...{ memory, sent, compression, convergence, target },
      ...{ changes, channels: target.channels },
    });
    return {
      source: file.source.name,
      machine,
      target,
      memory,
      ignored: vm.ignored.map(({ idstr }) => idstr),
      sample: { groups: groups.length, of, bytes: groups.reduce((sum, { bytes }) => sum + bytes.length, 0), seed },
      entropy,
      compression,
      verdict: convergence[0]?.verdict ?? 'unknown',
      changes: changes === undefined ? undefined : { source: later?.file.source.name ?? '', ...changes },
      firstPass,
      convergence,
      recommendations,
      running: undefined,
    };
  } finally {
    await vm.ram.close();
  }
}

type OpenVm = Awaited<ReturnType<typeof openSavedVm>>;

async function openChanges(
  vm: OpenVm,
  later: NonNullable<EstimateOptions['later']>,
  {
    makeScratch,
    ...options
  }: Pick<EstimateOptions, 'makeScratch'> & Omit<Parameters<typeof measureChanges>[2], 'intervalMs'>,
): Promise<Changes> {
  const now = await openSavedVm(later.file, { makeScratch, devices: hasGuestClock, acceptIgnored: true });
  try {
    const [before, after] = [vm.configuration?.machine, now.configuration?.machine];
    if (before !== after) {
      throw new RangeError(
        `expected two saves of one VM, got machines ${before ?? 'unknown'} and ${after ?? 'unknown'}`,
      );
    }
    const [begin, end] = [guestClock(vm), guestClock(now)];
    const guestMs = begin === undefined || end === undefined ? undefined : end - begin;
    const intervalMs = later.intervalMs ?? intervalByClock(guestMs, later.file);
    const intervalFrom = later.intervalMs === undefined ? 'guest clock' : 'stated';
    return {
      ...(await measureChanges(vm.ram, now.ram, { ...options, intervalMs })),
      ...{ intervalMs, intervalFrom, guestMs },
    };
  } finally {
    await now.ram.close();
  }
}

/** The interval in ms. @throws RangeError with the code `unknown-interval` if the clock does not show it */
function intervalByClock(guestMs: number | undefined, { source: { name } }: MigrationFile): number {
  if (guestMs !== undefined && guestMs >= 0.5) return Math.round(guestMs);
  const why =
    guestMs === undefined
      ? 'at least one of the two files lacks the guest clock'
      : `the guest clock of ${name} is not later than that of the first file (are they in the wrong order?)`;
  const message = `expected the time that the guest ran between the two files, because ${why}`;
  throw Object.assign(new RangeError(message), { code: 'unknown-interval' });
}

/** What a migration sends. Pages that were never sent count as zero pages. */
function sentMemory({ blocks, all, layout: { pagesPerPart, dataPages: parts } }: MemoryComposition): PrecopyMemory {
  const zeroPages = all.zero + (all.absent ?? 0);
  const layout = parts.map((dataPages, i) => {
    const pages = Math.min(pagesPerPart, all.pages - i * pagesPerPart);
    return { dataPages, zeroPages: pages - dataPages };
  });
  return { pageSize: blocks[0]?.pageSize ?? 4096, zeroPages, dataPages: all.pages - zeroPages, layout };
}

function findDirtyings(
  { dirtyRate, workingSet }: EstimateOptions,
  changes: Changes | undefined,
  { blocks, all }: MemoryComposition,
): Dirtying[] {
  const pageSize = blocks[0]?.pageSize ?? 4096;
  const total = all.pages;
  if (dirtyRate !== undefined) {
    const perSecond = dirtyRate / pageSize;
    if (workingSet !== undefined) return [dirtyingAt(perSecond, Math.min(total, workingSet / pageSize), total)];
    if (changes === undefined) return [dirtyingAt(perSecond, undefined, total)];
    const set = findWorkingSet(perSecond, changes.all.changed, changes.intervalMs / 1000);
    return [dirtyingAt(perSecond, set === undefined ? undefined : Math.min(total, set), total)];
  }
  if (changes === undefined) return [];
  return dirtyingThrough(changes.all.changed, changes.intervalMs / 1000, total);
}

/** The ways to migrate for which figures are known. */
function listModes(
  figures: readonly CompressionFigure[],
  channels: number,
  changes: RamChanges | undefined,
): MigrationMode[] {
  const modes: MigrationMode[] = [{ name: 'plain', options: {} }];
  const xbzrle = changes === undefined ? undefined : xbzrleFigures(changes);
  if (xbzrle !== undefined) modes.push({ name: 'xbzrle', options: { xbzrle } });
  for (const { format, level, ratio, bytesPerSecond } of figures.filter(isFastest)) {
    const compression = { ratio, bytesPerSecond: bytesPerSecond * channels };
    modes.push({ name: `multifd ${format} level ${level}`, options: { compression } });
  }
  modes.push({ name: 'auto-converge', options: { autoConverge: true } });
  return modes;
}

/** Keeps the lowest level of each format, which gives most for its time and is QEMU's default. */
function isFastest({ format, level }: CompressionFigure, _: number, all: readonly CompressionFigure[]): boolean {
  return all.every((other) => other.format !== format || other.level >= level);
}

function xbzrleFigures({ xbzrle, cache }: RamChanges): XbzrleFigures | undefined {
  if (xbzrle === undefined || xbzrle.pages === 0) return undefined;
  // This assumes a cache that is large enough.
  return { meanBytes: xbzrle.mean, overflowShare: xbzrle.overflow / xbzrle.pages, cachedShare: cache.most.share };
}

function checkTarget({
  bandwidth,
  downtimeLimit,
  channels,
  dirtyRate,
  workingSet,
}: EstimateOptions): Estimate['target'] {
  const target = {
    bandwidth: bandwidth ?? estimateDefaults.bandwidth,
    downtimeLimit: downtimeLimit ?? estimateDefaults.downtimeLimit,
    channels: channels ?? estimateDefaults.channels,
  };
  checkInteger('bandwidth', target.bandwidth, 65536, Number.MAX_SAFE_INTEGER);
  checkInteger('downtimeLimit', target.downtimeLimit, 1, 2_000_000);
  checkInteger('channels', target.channels, 1, 255);
  if (dirtyRate !== undefined) checkInteger('dirtyRate', dirtyRate, 0, Number.MAX_SAFE_INTEGER);
  if (workingSet !== undefined) checkInteger('workingSet', workingSet, 0, Number.MAX_SAFE_INTEGER);
  if (workingSet !== undefined && dirtyRate === undefined) {
    throw new RangeError('expected a dirty rate with the working set');
  }
  return target;
}

function checkInteger(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new RangeError(`${name}: expected an integer from ${least} to ${most}, got ${value}`);
}
