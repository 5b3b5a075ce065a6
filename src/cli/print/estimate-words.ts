/** An estimate in words and tables: sections that can be read one by one. */
import type { ConvergenceVerdict, ModeEstimate } from '../../tasks/estimate/convergence.ts';
import { mainPrediction } from '../../tasks/estimate/convergence.ts';
import type { Estimate, RunningMeasurement } from '../../tasks/estimate/estimate.ts';
import type { PageMakeUp } from '../../tasks/estimate/memory-composition.ts';
import { list } from '../command-facts.ts';
import { advise } from './advice-words.ts';
import { digits, duration, rate, share } from './estimate-figures.ts';
import { formatBytes, formatCount, formatTable, type painter, plural, printable } from './format.ts';

type Paint = ReturnType<typeof painter>;

export function describeEstimate(found: Estimate, paint: Paint): string {
  const sections = [
    found.running === undefined ? memory(found) : measured(found.running, found),
    entropy(found),
    compression(found),
    changes(found),
    migration(found, paint),
    advice(found),
  ];
  const { blocks } = found.memory;
  const bytes = blocks.reduce((sum, { pages, pageSize }) => sum + pages * pageSize, 0);
  const on = found.machine === undefined ? '' : `${found.machine}, `;
  const verdict = `${printable(found.source)}: ${verdictOf(found, paint)}`;
  const head = `${verdict}\n  ${printable(on)}${formatBytes(bytes)} of RAM in ${plural(blocks.length, 'block')}`;
  return [head, ...sections.filter(({ lines }) => lines.length > 0)]
    .map((section) =>
      typeof section === 'string' ? section : [paint('bold', section.title), ...section.lines].join('\n'),
    )
    .join('\n\n');
}

/** Whether a plain migration would converge, and if not, which other would. */
function verdictOf({ verdict, convergence, firstPass, target }: Estimate, paint: Paint): string {
  const at = `at ${rate(target.bandwidth)}`;
  const [plain] = convergence;
  if (plain === undefined || verdict === 'unknown') {
    const [first] = firstPass;
    const pass = first === undefined ? '' : `; a first pass takes ${duration(first.ms)} ${at}`;
    return `${paint('yellow', 'convergence unknown')}, because no dirty rate is known${pass}`;
  }
  const [colour] = verdicts[verdict];
  const claim = {
    converges: 'converges',
    likely: 'likely converges',
    unlikely: 'unlikely to converge',
    no: 'does not converge',
  };
  const others = convergence.slice(1).filter((each) => each.verdict === 'converges');
  if (verdict === 'converges' || verdict === 'likely') {
    const [time, downtime] = predicted(plain);
    return `${paint(colour, claim[verdict])} ${at}: ${time}, downtime ${downtime}`;
  }
  const would =
    others.length === 0
      ? ''
      : `; ${list(
          others.map(({ mode }) => mode),
          'and',
        )} would`;
  return `${paint(colour, claim[verdict])} ${at}${would}`;
}

interface Section {
  title: string;
  lines: string[];
}

/** The most rows of a table of blocks. */
const maxBlocks = 8;

function memory({ memory: { blocks, all, duplicates }, ignored }: Estimate): Section {
  const kinds = ['zero', 'sameByte', 'duplicate', 'distinct'] as const;
  const row = (name: string, made: PageMakeUp, size: number) => [
    name,
    formatBytes(size),
    ...kinds.map((kind) => share(made[kind], made.pages)),
    made.absent === undefined ? '' : share(made.absent, made.pages),
  ];
  const sizeOf = ({ pages, pageSize }: { pages: number; pageSize: number }) => pages * pageSize;
  const largest = [...blocks].sort((a, b) => sizeOf(b) - sizeOf(a)).slice(0, maxBlocks);
  const rows = [
    ['block', 'size', 'zero', 'one byte', 'duplicate', 'distinct', all.absent === undefined ? '' : 'never sent'],
    row(
      'all',
      all,
      blocks.reduce((sum, block) => sum + sizeOf(block), 0),
    ),
    ...largest.map((block) => row(printable(block.idstr), block, sizeOf(block))),
  ];
  const lines = [formatTable(rows, ['left', 'right', 'right', 'right', 'right', 'right', 'right'])];
  if (largest.length < blocks.length) lines.push(`  and ${plural(blocks.length - largest.length, 'smaller block')}`);
  const { hashBits, oneIn, falseMatches } = duplicates;
  const risk =
    falseMatches < 1e-9 ? 'no false match expected' : `${falseMatches.toExponential(0)} false matches expected`;
  const how = oneIn === 1 ? 'all counted' : `an estimate, in the end from one page in ${formatCount(oneIn)}`;
  lines.push(`  duplicates by ${hashBits} bits of hash: ${how}; ${risk}`);
  if (ignored.length > 0) lines.push(`  left out of this file (x-ignore-shared): ${printable(ignored.join(', '))}`);
  if (all.absent === undefined)
    lines.push('  this file does not distinguish pages that were never sent from zero pages');
  return { title: 'Memory, in pages', lines };
}

/** What the monitor of a running guest said. */
function measured({ isRunning, capabilities, dirtyRates, readPages }: RunningMeasurement, found: Estimate): Section {
  const { all } = found.memory;
  const zeros =
    readPages === 0
      ? '  its memory cannot be read, so no page counts as zero'
      : `  about ${share(all.zero, all.pages)} of its pages are zero, by ${plural(readPages, 'page')} that were read`;
  const rates = dirtyRates.map(
    ({ ms, bytesPerSecond }) =>
      `  ${formatBytes((bytesPerSecond * ms) / 1000)} of pages written in ${duration(ms)}: ${rate(bytesPerSecond)}`,
  );
  return {
    title: 'Measured now',
    lines: [
      ...(isRunning ? rates : ['  the guest is stopped: nothing is written']),
      zeros,
      `  capabilities that are on: ${capabilities.length === 0 ? 'none' : printable(capabilities.join(', '))}`,
    ],
  };
}

function entropy({ entropy: { pages, meanBits, meanBytes, histogram } }: Estimate): Section {
  const title = `Entropy of ${plural(pages, 'page')} of the sample, order 0`;
  if (pages === 0) return { title, lines: [] };
  const bits = histogram.map((_, i) => `${i}-${i + 1}`);
  const rows = [
    ['bits per byte', ...bits],
    ['pages', ...histogram.map((count) => (count === 0 ? '-' : share(count, pages)))],
  ];
  const lines = [
    `  mean ${digits(meanBits)} bits per byte: ${formatCount(Math.round(meanBytes))} bytes per page`,
    formatTable(rows, ['left', ...bits.map(() => 'right' as const)]),
  ];
  return { title, lines };
}

function compression({ compression: figures, sample, target }: Estimate): Section {
  const { channels, bandwidth } = target;
  const title = 'Compression of pages that are not zero';
  if (figures.length === 0) return { title, lines: [] };
  const rows = [
    ['', 'ratio', 'one thread', `pays off below (x${channels})`, `gain at ${rate(bandwidth)}`],
    ...figures.map(({ format, level, ratio, ratioError, bytesPerSecond, breakEven, gain }) => [
      `${format} level ${level}`,
      `${ratio.toFixed(2)} ± ${ratioError?.toFixed(2) ?? '?'}`,
      rate(bytesPerSecond),
      breakEven === 0 ? 'never' : rate(breakEven),
      `x${digits(gain)}`,
    ]),
  ];
  const all = sample.groups === sample.of ? 'all' : `${formatCount(sample.groups)} of ${formatCount(sample.of)}`;
  return {
    title,
    lines: [
      formatTable(rows, ['left', 'right', 'right', 'right', 'right']),
      `  sample: ${all} multifd packets, ${formatBytes(sample.bytes)}, seed ${sample.seed}; speed as measured now`,
    ],
  };
}

/** The share of an interval by which the guest's clock may differ from it. */
const clockTolerance = 0.2;

/** A warning if the guest's clock contradicts the given interval. */
function doubtOf({ intervalMs, guestMs }: NonNullable<Estimate['changes']>): string[] {
  if (guestMs === undefined || Math.abs(guestMs - intervalMs) <= clockTolerance * intervalMs) return [];
  if (guestMs < 0)
    return [`  clock       the guest's went back by ${duration(-guestMs)}: are the files in the wrong order?`];
  return [`  clock       the guest's moved ${duration(guestMs)} in that time: is the interval right?`];
}

function changes({ changes: found }: Estimate): Section {
  if (found === undefined) return { title: '', lines: [] };
  const { all, sampled, xbzrle, cache, intervalMs, intervalFrom } = found;
  const seconds = intervalMs / 1000;
  const lines = [
    `  changed     ${plural(all.changed, 'page')}, ${formatBytes(found.changedBytes)}, ${share(all.changed, all.pages)} of all`,
    `              ${formatCount(all.rewritten)} rewritten, ${formatCount(all.fromZero)} from zero, ${formatCount(all.toZero)} to zero`,
    `  dirty rate  at least ${rate(found.changedBytes / seconds)}; pages that were restored are not seen`,
    `              calc-dirty-rate would report ${sampled.rate === undefined ? 'nothing' : `${sampled.rate} MiB/s`} (${formatCount(sampled.dirty)} of ${plural(sampled.samples, 'sample')})`,
  ];
  lines.push(...doubtOf(found));
  if (xbzrle !== undefined && xbzrle.pages > 0) {
    lines.push(
      `  XBZRLE      mean ${digits(xbzrle.mean)} bytes, median ${xbzrle.median}; ${share(xbzrle.overflow, xbzrle.pages)} do not fit and are sent whole`,
    );
    const cells = [
      ...xbzrle.histogram.map(({ upTo, pages }) => [`to ${formatCount(upTo)}`, share(pages, xbzrle.pages)]),
      ['whole', share(xbzrle.overflow, xbzrle.pages)],
    ];
    const rows = [
      ['bytes', ...cells.map(([name = '']) => name)],
      ['pages', ...cells.map(([, value = '']) => value)],
    ];
    lines.push(formatTable(rows, ['left', ...cells.map(() => 'right' as const)], '              '));
    lines.push(
      `  cache       ${formatBytes(cache.most.bytes)} for ${share(cache.most.share, 1)} of the changed pages, ${formatBytes(cache.all.bytes)} for all;`,
      `              64 MiB, the default, for ${share(cache.shareOfDefault, 1)} (blocks one after the other)`,
    );
  }
  const by = intervalFrom === 'stated' ? '' : " by the guest's clock";
  return { title: `Changes in ${digits(seconds, 4)} s${by}`, lines };
}

const verdicts: Record<ConvergenceVerdict, readonly ['green' | 'yellow' | 'red', string]> = {
  converges: ['green', 'yes'],
  likely: ['yellow', 'likely'],
  unlikely: ['yellow', 'unlikely'],
  no: ['red', 'no'],
};

function migration(found: Estimate, paint: Paint): Section {
  const { target, convergence, firstPass } = found;
  const title = `Migration at ${rate(target.bandwidth)}, downtime-limit ${duration(target.downtimeLimit)}`;
  if (convergence.length === 0) {
    const rows = [
      ['', 'first pass', 'bytes'],
      ...firstPass.map(({ mode, ms, bytes }) => [mode, duration(ms), formatBytes(bytes)]),
    ];
    const lines = [
      formatTable(rows, ['left', 'right', 'right']),
      '  no dirty rate is known: give a later save of this VM, or --dirty-rate',
    ];
    return { title, lines };
  }
  const rows = [
    ['', 'converges', 'time', 'downtime', 'sent', 'syncs'],
    ...convergence.map((estimate) => [estimate.mode, verdicts[estimate.verdict][1], ...predicted(estimate)]),
  ];
  const [head = '', ...lines] = formatTable(rows, ['left', 'left', 'right', 'right', 'right', 'right']).split('\n');
  const coloured = lines.map((line, i) => {
    const [colour, word] = verdicts[(convergence[i] as ModeEstimate).verdict];
    const at = line.indexOf(` ${word}`, 2 + (convergence[i] as ModeEstimate).mode.length);
    return at === -1
      ? line
      : line.slice(0, at) + paint(colour, line.slice(at, at + 1 + word.length)) + line.slice(at + 1 + word.length);
  });
  return { title, lines: [head, ...coloured, ...whyNot(convergence), ...basis(found)] };
}

/** The range of predictions; with `+` if the migration may not converge at all. */
function predicted({ predictions }: ModeEstimate): string[] {
  const those = predictions.map(({ prediction }) => prediction).filter(({ converges }) => converges);
  if (those.length === 0) return ['-', '-', '-', '-'];
  const isOpen = those.length < predictions.length;
  const span = (of: (prediction: (typeof those)[number]) => number, words: (value: number) => string) => {
    const [least, most] = [words(Math.min(...those.map(of))), words(Math.max(...those.map(of)))];
    if (isOpen) return `${least}+`;
    return least === most ? least : `${shorten(least, most)}-${most}`;
  };
  return [
    span(({ totalMs }) => totalMs, duration),
    span(({ downtimeMs }) => downtimeMs, duration),
    span(({ bytes }) => bytes, formatBytes),
    span(({ syncs }) => syncs, String),
  ];
}

/** A figure without its unit, if the other has the same unit. */
function shorten(text: string, other: string): string {
  const unit = other.slice(other.indexOf(' '));
  return text.endsWith(unit) ? text.slice(0, -unit.length) : text;
}

function whyNot(convergence: readonly ModeEstimate[]): string[] {
  return convergence.flatMap((estimate) => {
    const { mode, minBandwidth, minDowntimeLimit } = estimate;
    const { converges, dirtyBytesPerSecond, sentBytesPerSecond } = mainPrediction(estimate);
    if (converges) return [];
    const would = [
      ...(minBandwidth === undefined ? [] : [`from ${rate(minBandwidth)}`]),
      ...(minDowntimeLimit === undefined ? [] : [`with a downtime-limit of ${duration(minDowntimeLimit)}`]),
    ].join(', or ');
    const why = `${rate(dirtyBytesPerSecond)} dirtied, ${rate(sentBytesPerSecond)} sent`;
    return [`  ${mode}: ${why}`, ...(would === '' ? [] : [`    would ${would}`])];
  });
}

function basis({ changes, convergence, running }: Estimate): string[] {
  if (running !== undefined) {
    const isOpen = convergence.some(({ verdict }) => verdict === 'likely' || verdict === 'unlikely');
    return [
      '  the range of what the guest may write if it continues as it was measured',
      ...(isOpen ? ['  +: possibly more, or never'] : []),
    ];
  }
  const given = convergence[0]?.predictions[0]?.dirtying === 'given';
  if (given) return ['  by the given dirty rate, for a guest that writes to its working set at random'];
  const seconds = digits((changes?.intervalMs ?? 0) / 1000, 4);
  const isOpen = convergence.some(({ verdict }) => verdict === 'likely' || verdict === 'unlikely');
  return [
    `  the range of what the guest may write if it continues as in those ${seconds} s`,
    ...(isOpen ? ['  +: possibly more, or never; likely: each page once in that time, at random'] : []),
  ];
}

function advice({ recommendations, target }: Estimate): Section {
  return { title: 'Advice', lines: recommendations.flatMap((each) => advise(each, target)) };
}
