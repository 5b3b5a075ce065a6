/** `vmferry send`: a file as a live migration into a waiting QEMU. */
import { realpathSync } from 'node:fs';
import { Option } from 'commander';
import { type MigrationAddress, parseMigrationUri } from '../../io/migration-address.ts';
import { liveThreads, NodeCodecs } from '../../io/node/codecs.ts';
import { connectTo } from '../../io/node/connect.ts';
import { requireDescriptor } from '../../io/node/descriptor.ts';
import { NodeFile } from '../../io/node/file.ts';
import { openScratch } from '../../io/node/output-file.ts';
import type { SendJson } from '../../migrate/json.ts';
import { LiveError } from '../../migrate/live-error.ts';
import { type SendFileOptions, sendFile } from '../../migrate/send-file.ts';
import type { SendMultifd, SentGuest } from '../../migrate/send-options.ts';
import { serveFile } from '../../migrate/serve-file.ts';
import type { MigrationFile } from '../../read/open.ts';
import { namesRelease } from '../../schema/release.ts';
import { type ReleaseName, releaseNames } from '../../schema/release-rules.ts';
import type { OpenedVm } from '../../store/ram-content.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { CliCommand } from '../command.ts';
import { checkMultifdOptions, type MultifdOptions, parseLevel, uuidDigits } from '../convert/multifd.ts';
import { ExitCode, UsageError } from '../exit-codes.ts';
import { addInput, type InputOptions, openInput } from '../input.ts';
import { toJson, type Unversioned } from '../json.ts';
import { note, reportError, warn } from '../messages.ts';
import { formatBytes, plural, printable } from '../print/format.ts';
import { showProgress } from '../progress.ts';
import { scratchOption } from '../scratch.ts';
import { parseBandwidth, parseCount } from '../size.ts';
import { addLiveOptions, type Live, type LiveOptions, requireHost, requireOutput, runLive } from './live-command.ts';
import { requireUserfaultfd } from './userfaultfd.ts';

interface SendCommandOptions extends LiveOptions, InputOptions, MultifdOptions {
  maxBandwidth?: number;
  postcopy?: boolean;
  postcopyPreempt?: boolean;
  tlsCreds?: string;
  tlsHostname?: string;
  compat?: ReleaseName;
  /** Undefined: where the transport works in both directions. */
  confirm?: boolean;
  scratch: string;
}

export function addSend(program: CliCommand): CliCommand {
  const command = addInput(program.command('send'))
    .summary('send a file as a live migration into a waiting QEMU')
    .argument('<URI>', 'where the QEMU waits: tcp:HOST:PORT, unix:PATH, fd:N, exec:COMMAND, file:PATH[,offset=N] or -')
    .description('Sends the VM in FILE to a QEMU that waits for a migration, as a stopped guest.');
  return addLiveOptions(addSendOptions(command))
    .describe({ notes, exitCodes, json, examples, rules })
    .action((location: string, uri: string, options: SendCommandOptions) =>
      runLive('send', options, (live) => sendTo(location, uri, options, live)),
    );
}

function addSendOptions(command: CliCommand): CliCommand {
  return command
    .option(
      '--multifd-channels <N>',
      'send RAM through this many channels, 1 to 255: as many as the target has',
      parseCount,
    )
    .addOption(
      new Option(
        '--multifd-compression <METHOD>',
        'how the channels are compressed, as at the target (default: none; 2 channels unless --multifd-channels says more)',
      ).choices(['none', 'zlib', 'zstd']),
    )
    .option('--level <L>', 'with --multifd-compression: 0 to 9 for zlib, 0 to 20 for zstd (default: 1)', parseLevel)
    .option('--uuid <UUID>', "with multifd: the guest's -uuid, if FILE does not state it")
    .option('--postcopy', 'let the guest run at once, and send its RAM as it asks for it, and behind that')
    .option(
      '--postcopy-preempt',
      'with --postcopy: send what is asked for through a channel of its own, as the target has it',
    )
    .option(
      '--max-bandwidth <RATE>',
      'the most to send per second, over all channels; with --postcopy, of pages that nobody asked for (default: no limit)',
      parseBandwidth,
    )
    .option('--tls-creds <ID>', 'the TLS credentials, an --object for the endpoint client')
    .option('--tls-hostname <NAME>', "the name in the target's certificate (default: the host of URI)")
    .addOption(
      new Option(
        '--compat <VERSION>',
        'the QEMU at the target, if the machine type does not show its version (none, and machine types of distributions)',
      ).choices(releaseNames),
    )
    .option('--confirm', 'with exec: let the target confirm, because COMMAND passes on both directions')
    .option('--no-confirm', 'do not let the target confirm, because it is not a QEMU but something that only reads')
    .addOption(scratchOption('where to keep the RAM of a stream that is compressed or cannot be read twice'));
}

const notes = [
  'The target is a QEMU with the same machine that waits: started with -incoming URI, or with -incoming defer and then migrate-incoming. Its guest runs if it ran when FILE was saved, unless the target was started with -S.',
  'FILE is read and checked before anything is connected. A file that is cut short or damaged never completes the target.',
  'Over tcp:, unix: and the socket of fd: the target says whether it has the guest, and the command succeeds only then. Elsewhere nobody can say: the command succeeds when everything is sent, and notes that the arrival could not be confirmed.',
  'With --postcopy the target needs the capability postcopy-ram (and postcopy-preempt with --postcopy-preempt), and the guest runs before its RAM is there. If the line breaks then, the guest waits in postcopy-paused: let it listen again with migrate-recover, and go on with vmferry resume FILE --serve URI --recover. A guest that was paused when FILE was saved is sent as without --postcopy, so that it stays paused.',
  'With --multifd-channels or --multifd-compression the target needs the capability multifd and the same parameters. Without them it must not have multifd.',
];

const exitCodes = {
  1: 'FILE is not whole',
  3: 'the target failed: it refused the guest, broke off, or was silent for too long',
};

const json = [{ type: 'SendJson', when: '--json' }];

const examples = [
  'vmferry send guest.migration tcp:host:4444',
  'vmferry send guest.mapped-ram unix:/run/migrate.sock --multifd-channels 4 --multifd-compression zstd',
  'vmferry send guest.mapped-ram unix:/run/migrate.sock --postcopy --postcopy-preempt',
  'vmferry send guest.mapped-ram tcp:host:4444 --max-bandwidth 500Mbit/s --idle-timeout 30',
  'vmferry send guest.migration tcp:host:4444 --object tls-creds-x509,id=tls0,endpoint=client,dir=/etc/pki/qemu --tls-creds tls0',
  "vmferry send guest.migration 'exec:ssh host socat - UNIX-CONNECT:/run/migrate.sock' --confirm",
];

const rules = {
  needs: {
    '--tls-hostname': ['--tls-creds'],
    '--level': ['--multifd-compression'],
    '--uuid': ['--multifd-channels', '--multifd-compression'],
    '--postcopy-preempt': ['--postcopy'],
  },
  excludes: {
    '--postcopy': ['--multifd-channels', '--multifd-compression'],
  },
  check([, uri = '']: readonly string[], options: SendCommandOptions) {
    const address = parseMigrationUri(uri);
    if (isMultifd(options) || options.postcopyPreempt === true) requireChannels(address);
    if (options.postcopy === true) requireAnswers(address, options);
    requireHost(address);
    checkMultifdOptions('multifd', options);
    requireOutput(address, options);
  },
};

const isMultifd = ({ multifdChannels, multifdCompression }: MultifdOptions): boolean =>
  multifdChannels !== undefined || multifdCompression !== undefined;

/** @throws UsageError with QEMU's text for an address that can be connected only once */
function requireChannels(address: MigrationAddress): void {
  if (address.transport === 'socket' && address.type !== 'fd') return;
  throw new UsageError('Migration requires multi-channel URIs (e.g. tcp)');
}

/** @throws UsageError with QEMU's text for an address that cannot answer */
function requireAnswers({ transport }: MigrationAddress, { confirm }: SendCommandOptions): void {
  if (confirm === false) throw new UsageError('--postcopy cannot be used with --no-confirm');
  if (transport === 'socket' || (transport === 'exec' && confirm === true)) return;
  throw new UsageError('Unable to open return-path for postcopy');
}

async function sendTo(location: string, uri: string, options: SendCommandOptions, live: Live): Promise<void> {
  const address = parseMigrationUri(uri);
  requireDescriptor(address, 'write');
  if (options.postcopy === true) requireUserfaultfd(address);
  const { tlsCreds, tlsHostname } = options;
  const tls = tlsCreds === undefined ? undefined : live.objects.clientTls(tlsCreds, tlsHostname);
  const { signal, setupTimeoutMs } = live;
  const file = await openInput(location, options, { signal });
  try {
    const connect = () => connectTo(address, { tls, signal, setupTimeoutMs });
    report(file, uri, await sendOpened(file, connect, address, options, live), options);
  } catch (error) {
    // Only FILE makes such errors here: it is the input, and not a line that broke.
    if (!(error instanceof LiveError && error.cause instanceof MigrationError)) throw error;
    live.dashboard.hide();
    process.exitCode = reportError(error, ExitCode.badInput);
  } finally {
    await file.close();
  }
}

/** A guest that was sent, and the VM in the file. */
interface Outcome {
  sent: SentGuest;
  vm: OpenedVm | undefined;
}

async function sendOpened(
  file: MigrationFile,
  connect: Parameters<typeof sendFile>[1],
  address: MigrationAddress,
  options: SendCommandOptions,
  live: Live,
): Promise<Outcome> {
  const reading = showProgress('check', file);
  let vm: OpenedVm | undefined;
  try {
    const common = {
      ...{ signal: live.signal, idleTimeoutMs: live.idleTimeoutMs, compat: options.compat },
      makeScratch: () => openScratch(realpathSync(options.scratch)),
      onProgress: live.dashboard.show,
      onWaiting: live.waiting,
      checked(opened: OpenedVm) {
        reading.stop();
        if (file.source instanceof NodeFile) file.source.overlapsReads = true;
        vm = opened;
        warnOfVersion(opened, options);
      },
    } satisfies SendFileOptions;
    if (options.postcopy === true) {
      const { maxBandwidth: maxPostcopyBandwidth, postcopyPreempt: preempt } = options;
      return { sent: await serveFile(file, connect, { ...common, maxPostcopyBandwidth, preempt }), vm };
    }
    const sent = await sendFile(file, connect, {
      ...{ ...common, maxBandwidth: options.maxBandwidth, multifd: multifdOf(options) },
      returnPath: options.confirm ?? (address.transport === 'socket' ? undefined : false),
    });
    return { sent, vm };
  } finally {
    reading.stop();
  }
}

function multifdOf(options: SendCommandOptions): SendMultifd | undefined {
  if (!isMultifd(options)) return undefined;
  const { multifdChannels: channels = 2, multifdCompression: compression = 'none', level, uuid } = options;
  return {
    ...{ channels, compression, codecs: new NodeCodecs({ threads: liveThreads() }) },
    ...(level === undefined ? {} : { level }),
    ...(uuid === undefined ? {} : { uuid: uuidDigits(uuid) }),
  };
}

function warnOfVersion({ configuration }: OpenedVm, options: SendCommandOptions): void {
  const machine = configuration?.machine ?? '';
  if (options.compat !== undefined || namesRelease(machine) || !isMultifd(options)) return;
  warn(`machine type ${machine} does not say its version: the target must be QEMU 10.0 or later (see --compat)`);
}

function report(file: MigrationFile, uri: string, { sent, vm }: Outcome, options: SendCommandOptions): void {
  const { isConfirmed, length, channels, blocks, progress } = sent;
  if (!isConfirmed) note('everything was sent; it could not be confirmed that the target has the guest');
  const machine = vm?.configuration?.machine;
  if (options.json === true) {
    const facts: Unversioned<SendJson> = {
      ...{ source: file.source.name, target: uri, machine, length, channels: [...channels] },
      compression: channels.length === 0 ? undefined : (options.multifdCompression ?? 'none'),
      blocks: blocks.map(({ block, dataPages, zeroPages, absentPages }) => ({
        ...{ idstr: block.idstr, length: block.usedLength, dataPages, zeroPages, absentPages },
      })),
      ...{ confirmed: isConfirmed, progress },
    };
    process.stdout.write(toJson<SendJson>(facts));
    return;
  }
  const ram = (vm?.ram.blocks ?? []).reduce((sum, { usedLength }) => sum + usedLength, 0);
  const bytes = channels.reduce((sum, each) => sum + each, length);
  const facts = [
    `${printable(machine ?? 'a machine')}, ${formatBytes(ram)} RAM`,
    `${formatBytes(bytes)} in ${(progress['total-time'] / 1000).toFixed(1)} s`,
    ...(channels.length === 0
      ? []
      : [`${plural(channels.length, 'channel')} (${options.multifdCompression ?? 'none'})`]),
    isConfirmed ? 'the target has the guest' : 'not confirmed',
  ];
  const text = `${printable(file.source.name)}: sent to ${printable(uri)}: ${facts.join(', ')}\n`;
  // Standard output may be the line.
  if (uri === '-') note(text.trimEnd());
  else process.stdout.write(text);
}
