/** `vmferry relay`: passes a live migration on. */
import { type MigrationAddress, parseMigrationUri } from '../../io/migration-address.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { connectTo } from '../../io/node/connect.ts';
import { requireDescriptor } from '../../io/node/descriptor.ts';
import { listenAt } from '../../io/node/listen.ts';
import { RecordingDirectory } from '../../io/node/recording-folder.ts';
import type { RelayJson } from '../../migrate/json.ts';
import { LiveError } from '../../migrate/live-error.ts';
import { Recording } from '../../migrate/recording.ts';
import { type RelayResult, relay } from '../../migrate/relay.ts';
import type { CliCommand } from '../command.ts';
import { UsageError } from '../exit-codes.ts';
import { toJson } from '../json.ts';
import { note, warn } from '../messages.ts';
import { formatBytes, plural } from '../print/format.ts';
import { parseBandwidth } from '../size.ts';
import { formatShare } from './dashboard.ts';
import { addLiveOptions, type Live, type LiveOptions, requireHost, requireOutput, runLive } from './live-command.ts';
import { openOutput } from './receive.ts';
import {
  addEncodingOptions,
  checkEncoding,
  type EncodingOptions,
  encodingNeeds,
  encodingOf,
} from './relay-encoding.ts';

interface RelayOptions extends LiveOptions, EncodingOptions {
  listenTlsCreds?: string;
  listenTlsAuthz?: string;
  targetTlsCreds?: string;
  targetTlsHostname?: string;
  maxBandwidth?: number;
  tee?: string;
  record?: string;
}

export function addRelay(program: CliCommand): CliCommand {
  const command = program.command('relay').argument('<LISTEN_URI>').argument('<TARGET_URI>');
  return addEncodingOptions(addLiveOptions(command))
    .summary('pass a live migration on')
    .description('Waits for a live migration at LISTEN_URI, and passes it on to the QEMU that waits at TARGET_URI.')
    .option('--listen-tls-creds <ID>', 'the TLS credentials for LISTEN_URI, an --object for the endpoint server')
    .option('--listen-tls-authz <ID>', 'the --object that says which sources are allowed')
    .option('--target-tls-creds <ID>', 'the TLS credentials for TARGET_URI, an --object for the endpoint client')
    .option('--target-tls-hostname <NAME>', "the name in the target's certificate (default: the host of TARGET_URI)")
    .option('--max-bandwidth <RATE>', 'the most bytes per second to the target, as 100M or 1Gb/s', parseBandwidth)
    .option('--tee <FILE>', 'keep the guest in FILE, too, a mapped-ram file as of the same moment')
    .option('--record <DIR>', 'keep the bytes of each connection in DIR, also of a migration that fails')
    .describe({ notes, json, examples, rules })
    .action((listen: string, target: string, options: RelayOptions) =>
      runLive('relay', options, (live) => relayBetween(listen, target, options, live)),
    );
}

const notes = [
  'The URIs are what QEMU takes: tcp:HOST:PORT, unix:PATH, fd:NUMBER, exec:COMMAND, file:PATH[,offset=N], and - for standard input or output. With tcp:HOST:0 the system chooses a port. The line `listening on URI` on standard error has the URI for the source.',
  'Every byte is passed on as it is, in both directions: multifd channels, the return path, switchover-ack, postcopy and its preempt channel, and what newer QEMUs send. Source and target need the same settings as for a direct migration. TLS is independent on each side.',
  'What breaks on one side is passed on to the other at once. With a return path (the capability return-path) the source completes only when the target has the guest. Without one, no relay can hold a source back: it completes when the last bytes are on their way.',
  'With --target-multifd-channels or --target-multifd-compression RAM is encoded again: plain, XBZRLE and multifd of any compression become multifd for the target, which needs the same parameters. Everything else still passes byte for byte, the pages of postcopy too, if the target accepts postcopy-ram with multifd. The RAM of a source without channels is kept in the directory of --scratch meanwhile. VFIO state in packets is refused.',
  '--tee writes FILE whole or not at all, once the target has the guest. A FILE that cannot be written does not end the migration: the exit code is 2, and there is no FILE.',
  '--record keeps main, channel.N, preempt and return-path, decrypted. Look at them with `vmferry verify DIR/main --channel DIR/channel.0 --return-path DIR/return-path`.',
];

const json = [{ type: 'RelayJson', when: '--json' }];

const examples = [
  'vmferry relay tcp:0.0.0.0:4444 tcp:target:4444',
  'vmferry relay unix:/run/relay.sock tcp:target:4444 --max-bandwidth 50M',
  'vmferry relay tcp:127.0.0.1:4444 tcp:target:4444 --object tls-creds-x509,id=tls0,endpoint=client,dir=/etc/pki/qemu --target-tls-creds tls0',
  'vmferry relay unix:/run/relay.sock tcp:target:4444 --target-multifd-channels 4 --target-multifd-compression zstd',
  'vmferry relay tcp::4444 tcp:target:4444 --tee /backup/guest.mapped-ram',
  'vmferry relay tcp::4444 tcp:target:4444 --record /var/tmp/migration',
];

const rules = {
  needs: {
    ...{ '--listen-tls-authz': ['--listen-tls-creds'], '--target-tls-hostname': ['--target-tls-creds'] },
    ...encodingNeeds,
  },
  check: (_: readonly string[], options: RelayOptions) => checkEncoding(options),
};

async function relayBetween(listenUri: string, targetUri: string, options: RelayOptions, live: Live): Promise<void> {
  const [from, to] = [parseMigrationUri(listenUri), parseMigrationUri(targetUri)];
  requireDescriptor(from, 'read');
  requireDescriptor(to, 'write');
  if (isFd(from) && isFd(to) && Number(from.str) === Number(to.str)) {
    throw new UsageError(`expected different descriptors for the source and the target, got ${targetUri} twice`);
  }
  requireOutput(to, options);
  const encoding = encodingOf(options);
  const connect = prepareTarget(to, options, live, encoding !== undefined);
  const { listenTlsCreds, listenTlsAuthz, record } = options;
  const tls = listenTlsCreds === undefined ? undefined : live.objects.serverTls(listenTlsCreds, listenTlsAuthz);
  for (const id of [listenTlsCreds, options.targetTlsCreds]) {
    const warning = id === undefined ? undefined : live.objects.warningOf(id);
    if (warning !== undefined) warn(warning);
  }
  const output = options.tee === undefined ? undefined : openOutput(options.tee);
  try {
    const recording = record === undefined ? undefined : new Recording(new RecordingDirectory(record));
    const { signal, setupTimeoutMs, idleTimeoutMs } = live;
    const listener = await listenAt(from, {
      ...{ tls, signal, setupTimeoutMs },
      onRefused: (error, peer) => live.stranger(peer, error.message),
    });
    live.listening(listener.uri);
    const relayed = relay(listener, {
      ...{ connect, targetAnswers: isSocket(to), recording, signal, setupTimeoutMs, idleTimeoutMs },
      ...{ maxBandwidth: options.maxBandwidth, encoding },
      tee: output && { target: output, codecs: new NodeCodecs() },
      onProgress: live.dashboard.showRelay,
      onWaiting: live.waiting,
      onRefused: live.stranger,
    });
    report(targetUri, await recorded(relayed, recording, record), options);
  } finally {
    await output?.abandon();
  }
}

/** Closes the recording of a migration. @throws LiveError if only the recording failed */
async function recorded(
  relayed: Promise<RelayResult>,
  recording: Recording | undefined,
  directory = '',
): Promise<RelayResult> {
  await relayed.catch(() => {});
  await recording?.close();
  const { failure } = recording ?? {};
  if (failure === undefined) return relayed;
  warn(`the recording in ${directory} is not complete`);
  await relayed;
  throw new LiveError('target', 'the migration went on: the target has the guest', failure.error);
}

const isSocket = (address: MigrationAddress) => address.transport === 'socket';
const isFd = (address: MigrationAddress) => isSocket(address) && address.type === 'fd';

/** Returns what connects to the target. @throws RangeError for an address that cannot be used */
function prepareTarget(address: MigrationAddress, options: RelayOptions, live: Live, needsMany: boolean) {
  const { targetTlsCreds, targetTlsHostname } = options;
  requireHost(address);
  const tls = targetTlsCreds === undefined ? undefined : live.objects.clientTls(targetTlsCreds, targetTlsHostname);
  const { signal, setupTimeoutMs } = live;
  const hasMany = isSocket(address) && address.type !== 'fd';
  const refused = new UsageError('Migration requires multi-channel URIs (e.g. tcp)');
  if (needsMany && !hasMany) throw refused;
  let isConnected = false;
  return async () => {
    if (isConnected && !hasMany) throw refused;
    isConnected = true;
    return connectTo(address, { tls, signal, setupTimeoutMs });
  };
}

function report(target: string, result: RelayResult, { json }: RelayOptions): void {
  const { isConfirmed: confirmed, hasPostcopy: postcopy, connections } = result;
  const { sourceBytes, forwardBytes, returnBytes } = result;
  if (json === true) {
    const ratio = sourceBytes === 0 ? 1 : forwardBytes / sourceBytes;
    const bytes = { sourceBytes, forwardBytes, returnBytes, ratio };
    process.stdout.write(toJson<RelayJson>({ target, confirmed, postcopy, connections, ...bytes }));
    return;
  }
  const what =
    forwardBytes === sourceBytes
      ? `passed on ${formatBytes(forwardBytes)}`
      : `sent ${formatBytes(forwardBytes)} for ${formatBytes(sourceBytes)} (${formatShare(forwardBytes / sourceBytes)})`;
  const told = confirmed ? 'the target has the guest' : 'the target took everything (no return path)';
  const text = `${target}: ${what} over ${plural(connections, 'connection')}; ${told}`;
  if (target === '-') note(text);
  else process.stdout.write(`${text}\n`);
}
