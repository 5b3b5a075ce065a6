/** `vmferry estimate`: predicts how a migration of this VM would go. */
import { realpathSync, statSync } from 'node:fs';
import { PeerError } from '../io/connection.ts';
import { openScratch } from '../io/node/output-file.ts';
import { NodeCodecs } from '../node.ts';
import { QmpError } from '../qmp/qmp-error.ts';
import { measureGuest } from '../qmp/running-guest.ts';
import type { MigrationFile } from '../read/open.ts';
import {
  type Estimate,
  type EstimateOptions,
  type EstimateStep,
  estimate,
  sampleBytes,
} from '../tasks/estimate/estimate.ts';
import { estimateRunning } from '../tasks/estimate/estimate-running.ts';
import { seededRandom } from '../tasks/estimate/seeded-random.ts';
import type { EstimateJson } from '../tasks/json.ts';
import { samplePages } from '../vm/dirty-rate.ts';
import type { CliCommand } from './command.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { addInput, type InputOptions, openInput, requireInputsOnce } from './input.ts';
import { toJson } from './json.ts';
import { note } from './messages.ts';
import { describeEstimate } from './print/estimate-words.ts';
import { painter } from './print/format.ts';
import { showProgress } from './progress.ts';
import { openMonitor } from './qmp/monitor.ts';
import { writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';
import { parseCount, parseMiBRate, parseMs, parseRate, parseSeconds, parseSize, parseSomeBytes } from './size.ts';

interface EstimateCommandOptions extends InputOptions {
  interval?: number;
  bandwidth?: number;
  downtimeLimit?: number;
  multifdChannels?: number;
  dirtyRate?: number;
  workingSet?: number;
  samplePages?: number;
  sample?: number;
  seed?: number;
  quick?: boolean;
  scratch: string;
  json?: boolean;
}

export function addEstimate(program: CliCommand): CliCommand {
  return addDirtying(
    addTarget(
      addInput(program.command('estimate'))
        .summary('predict how a migration would go')
        .argument('[LATER_FILE]', 'a later save of the same VM, which shows how fast it changes; not a multifd set')
        .description(
          'Predicts how a migration of this VM would go. Measures its memory and predicts whether the migration would converge, and how long it would take. FILE is a save of the VM, or the QMP socket of a running QEMU.',
        ),
    ),
  )
    .option(
      '--sample <BYTES>',
      `how many bytes of pages to compress, up to ${sampleBytes.most >> 20}M (default: ${sampleBytes.default >> 20}M)`,
      parseSize,
    )
    .option('--seed <N>', 'seed of the random samples (default: 1)', parseCount)
    .addOption(scratchOption('where to keep the RAM of a stream that is compressed or cannot be read twice'))
    .option('--quick', 'of a running QEMU: measure for a second instead of 26 s')
    .option('--json', 'print all figures as JSON')
    .describe({ notes, exitCodes: peerExitCode, json: [{ type: 'EstimateJson', when: '--json' }], examples, rules })
    .action(async (location: string, laterLocation: string | undefined, options: EstimateCommandOptions) => {
      const found = isMonitor(location)
        ? await estimateMonitor(location, options)
        : await estimateFiles(location, laterLocation, options);
      const isJson = options.json === true;
      await writeOut(isJson ? toJson<EstimateJson>(found) : `${describeEstimate(found, painter(process.stdout))}\n`);
    });
}

/** How the migration would be made. */
function addTarget(command: CliCommand): CliCommand {
  return command
    .option(
      '--bandwidth <RATE>',
      "max-bandwidth: bytes/s with K, M, G as in QEMU, or 125MB/s, 1Gbit/s (default: 128M, QEMU's default)",
      parseRate,
    )
    .option(
      '--downtime-limit <TIME>',
      "downtime-limit in ms, or with a unit such as 0.5s (default: 300, QEMU's default)",
      parseMs,
    )
    .option(
      '--multifd-channels <N>',
      "number of channels, each of which compresses in its own thread (default: 2, QEMU's default)",
      parseCount,
    );
}

/** How the guest writes to its memory. */
function addDirtying(command: CliCommand): CliCommand {
  return command
    .option(
      '--interval <TIME>',
      "how long the guest ran between FILE and LATER_FILE, in seconds or with a unit such as 500ms (default: by the guest's clock)",
      parseSeconds,
    )
    .option(
      '--dirty-rate <RATE>',
      'how many distinct pages the guest writes, as reported by calc-dirty-rate: in MiB/s or with a unit such as 1Gbit/s',
      parseMiBRate,
    )
    .option('--working-set <BYTES>', 'with --dirty-rate: the guest writes only to this many bytes', parseSomeBytes)
    .option(
      '--sample-pages <N>',
      `with LATER_FILE: pages per GiB that calc-dirty-rate would sample, ${samplePages.least} to ${samplePages.most} (default: ${samplePages.default}, QEMU's default)`,
      parseCount,
    );
}

const peerExitCode = { [ExitCode.peer]: 'the monitor of a running QEMU refused or broke off' };

/** Whether something is a monitor: an address, or a socket. */
function isMonitor(location: string): boolean {
  if (/^(?:unix|tcp|exec|libvirt):/.test(location)) return true;
  try {
    return statSync(location).isSocket();
  } catch {
    // Whoever opens it says why that is impossible.
    return false;
  }
}

const notes = [
  "The command counts memory, entropy and duplicates, and measures the ratio and speed of zlib and zstd on a sample. With LATER_FILE it counts what changed and encodes the changes as XBZRLE would. It then follows QEMU's own rules in virtual time to predict whether a migration converges. docs/estimate.md explains how each figure is obtained, and its limits.",
  'FILE may be a QMP socket: unix:PATH, a path, tcp:HOST:PORT, exec:COMMAND or libvirt:DOMAIN. Then calc-dirty-rate measures for 0.1 s (QEMU 8.2 or later), 1, 5 and 20 s, some pages are read, and --bandwidth and --downtime-limit default to the parameters of the VM. The VM stays as it was: nothing is set, and it runs on.',
  'Two saves show how much the guest wrote in between, but not how often it wrote the same page. So each time is given as a range from the shortest to the longest possible; the figure in the middle is a likely one. The rate that calc-dirty-rate reports, given with --dirty-rate, narrows the range.',
];

const examples = [
  'vmferry estimate guest.migration',
  'vmferry estimate guest.migration --bandwidth 10Gbit/s --multifd-channels 8',
  'vmferry estimate before.migration after.migration --bandwidth 1Gbit/s',
  'vmferry estimate /run/qmp.sock --bandwidth 10Gbit/s',
  'vmferry estimate guest.mapped-ram --dirty-rate 120 --working-set 2G --downtime-limit 500',
  "vmferry estimate --json before.migration after.migration --interval 500ms | jq '.convergence[].verdict'",
];

const rules = {
  needs: { '--working-set': ['--dirty-rate'] },
  check(
    [location = '', later]: readonly string[],
    options: EstimateCommandOptions,
    isGiven: (flag: string) => boolean,
  ) {
    if (isMonitor(location)) {
      const other = ofFiles.find(isGiven);
      if (other !== undefined) throw new UsageError(`${other} goes with a file; ${location} is a running QEMU`);
      if (later !== undefined) throw new UsageError(`expected nothing after ${location}, got ${later}`);
      return;
    }
    if (options.quick === true) throw new UsageError('--quick goes with the QMP socket of a running QEMU');
    if (later === undefined && options.interval !== undefined) {
      throw new UsageError('--interval goes with a second file, a later save of the same VM');
    }
    if (later === undefined && options.samplePages !== undefined) {
      throw new UsageError('--sample-pages goes with a second file, a later save of the same VM');
    }
    requireInputsOnce([location, later], options);
  },
};

/** Options that a running QEMU has no use for. */
const ofFiles = [
  ...['--channel', '--no-discover', '--interval', '--dirty-rate', '--working-set', '--sample-pages', '--sample'],
  ...['--scratch', '--resume-of', '--preempt', '--return-path'],
];

const verbs: Record<EstimateStep, string> = { read: 'estimate', compress: 'compress a sample of', compare: 'compare' };

async function estimateMonitor(location: string, options: EstimateCommandOptions): Promise<Estimate> {
  const { bandwidth, downtimeLimit, multifdChannels: channels, seed = 1, quick } = options;
  const controller = new AbortController();
  const client = await openMonitor(location, controller.signal);
  try {
    const guest = await measureGuest(client, {
      ...(quick === true ? { seconds: [1] } : {}),
      random: seededRandom(seed),
      begin: (ms) => {
        if (process.stderr.isTTY === true) note(`measuring the dirty rate for ${ms / 1000} s`);
      },
    });
    const rest = { codecs: new NodeCodecs(), clock: () => performance.now(), seed };
    return await estimateRunning({ source: location, ...guest }, { ...rest, bandwidth, downtimeLimit, channels });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    throw new PeerError(error.message, { cause: error });
  } finally {
    await client.close();
  }
}

async function estimateFiles(
  location: string,
  laterLocation: string | undefined,
  options: EstimateCommandOptions,
): Promise<Estimate> {
  const file = await openInput(location, options);
  let later: MigrationFile | undefined;
  let progress: ReturnType<typeof showProgress> | undefined;
  const begin = (step: EstimateStep) => {
    progress?.stop();
    progress = showProgress(verbs[step], (step === 'compare' ? later : undefined) ?? file);
  };
  try {
    later =
      laterLocation === undefined
        ? undefined
        : await openInput(laterLocation, { discover: options.discover !== false });
    return await estimate(file, { ...toOptions(options, later), begin });
  } finally {
    progress?.stop();
    await later?.close();
    await file.close();
  }
}

function toOptions(options: EstimateCommandOptions, later: MigrationFile | undefined): EstimateOptions {
  const { bandwidth, downtimeLimit, multifdChannels: channels, dirtyRate, workingSet, sample, seed } = options;
  return {
    makeScratch: () => openScratch(realpathSync(options.scratch)),
    codecs: new NodeCodecs(),
    clock: () => performance.now(),
    ...(later === undefined ? {} : { later: { file: later, intervalMs: options.interval } }),
    ...{ bandwidth, downtimeLimit, channels, dirtyRate, workingSet, sample, seed },
    samplePages: options.samplePages,
  };
}
