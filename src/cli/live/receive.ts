/** `vmferry receive`: one live migration into a file. */
import { statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { Option } from 'commander';
import { parseMigrationUri } from '../../io/migration-address.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { requireDescriptor } from '../../io/node/descriptor.ts';
import { listenAt } from '../../io/node/listen.ts';
import { isReplaceable, OutputFile, syncDirectory } from '../../io/node/output-file.ts';
import { RecordingDirectory } from '../../io/node/recording-folder.ts';
import { receive } from '../../migrate/destination.ts';
import { Incoming, type IncomingLine } from '../../migrate/incoming.ts';
import type { ReceiveJson } from '../../migrate/json.ts';
import type { Received } from '../../migrate/receive-options.ts';
import { Recording } from '../../migrate/recording.ts';
import { open } from '../../node.ts';
import { type ReleaseName, releaseNames } from '../../schema/release-rules.ts';
import type { CliCommand } from '../command.ts';
import { convertOpened } from '../convert/convert.ts';
import { chooseForm, type WholeForm } from '../convert/form.ts';
import { addMultifdOptions, type MultifdOptions } from '../convert/multifd.ts';
import { liveExitCodes, UsageError } from '../exit-codes.ts';
import { toJson } from '../json.ts';
import { warn } from '../messages.ts';
import { formatBytes, plural, printable } from '../print/format.ts';
import { addLiveOptions, type Live, type LiveOptions, runLive } from './live-command.ts';

/** The forms that a guest can arrive in. */
const receivedForms = ['mapped-ram', 'stream', 'multifd', 'libvirt'] as const;

interface ReceiveOptions extends LiveOptions, MultifdOptions {
  tlsCreds?: string;
  tlsAuthz?: string;
  allowIncomplete?: boolean;
  switchoverAck?: boolean;
  record?: string;
  to?: WholeForm;
  xml?: string;
  compat?: ReleaseName;
}

export function addReceive(program: CliCommand): CliCommand {
  return addMultifdOptions(addLiveOptions(program.command('receive').argument('<URI>').argument('<OUT>')))
    .summary('receive a live migration into a file')
    .description('Waits for a live migration, and writes the guest to OUT, a mapped-ram file that QEMU loads.')
    .option('--tls-creds <ID>', 'the TLS credentials, an --object for the endpoint server')
    .option('--tls-authz <ID>', 'the --object that says which clients are allowed')
    .option('--allow-incomplete', 'accept a source that leaves out shared memory (x-ignore-shared), and mark OUT')
    .option('--switchover-ack', 'tell the source at once that it may switch over, as if it had the capability')
    .option('--record <DIR>', 'keep the bytes of each connection in DIR, also of a migration that fails')
    .addOption(new Option('--to <FORM>', 'the form of OUT').choices(receivedForms).default('mapped-ram'))
    .option('--xml <FILE>', 'with --to libvirt: the domain XML')
    .addOption(
      new Option('--compat <VERSION>', 'the QEMU that will load OUT, as of convert; not for mapped-ram').choices(
        releaseNames,
      ),
    )
    .describe({ notes, exitCodes, json, examples, rules })
    .action((uri: string, out: string, options: ReceiveOptions) =>
      runLive('receive', options, (live) => receiveTo(uri, out, options, live)),
    );
}

const notes = [
  'URI is what QEMU takes: tcp:HOST:PORT, unix:PATH, fd:NUMBER, exec:COMMAND, file:PATH[,offset=N], or - for standard input. With tcp:HOST:0 the system chooses a port. The line `listening on URI` on standard error has the URI for the source.',
  'Multifd with any number of channels and compression, XBZRLE, a return path, switchover-ack, postcopy and postcopy-preempt are found from what arrives. The source needs no other setting than to migrate to this URI.',
  'OUT appears whole, and only when it would survive a power cut. With a return path (the capability return-path) the source is told only then, so a failure leaves the guest running there. Without one the source cannot be held back.',
  'Start a guest from OUT with the capability mapped-ram and `migrate-incoming file:OUT`.',
];

const exitCodes = { ...liveExitCodes, 1: 'the stream is invalid, or memory was left out' };

const json = [{ type: 'ReceiveJson', when: '--json' }];

const examples = [
  'vmferry receive tcp:0.0.0.0:4444 guest.mapped-ram',
  'vmferry receive unix:/run/migrate.sock guest.mapped-ram',
  'vmferry receive tcp::4444 guest.mapped-ram --object tls-creds-psk,id=tls0,endpoint=server,dir=/etc/vmferry/psk --tls-creds tls0',
  "vmferry receive 'exec:ssh host cat guest.migration' guest.mapped-ram",
];

const rules = {
  needs: { '--tls-authz': ['--tls-creds'] },
  check([, out = '']: readonly string[], options: ReceiveOptions) {
    chooseForm(out, convertOptions(options));
  },
};

/** The options that convert would have for OUT. */
const convertOptions = ({ json: _, ...options }: ReceiveOptions) => ({
  ...options,
  ...{ to: options.to ?? ('mapped-ram' as const), verify: true, scratch: tmpdir() },
});

/** Writes the guest that arrived in another form. */
async function convertReceived(output: OutputFile, out: string, options: ReceiveOptions): Promise<void> {
  const file = await open(output.unfinishedPath);
  try {
    const chosen = convertOptions(options);
    await convertOpened(file, out, chosen.to, chosen, () => {});
  } finally {
    await file.close();
  }
}

async function receiveTo(uri: string, out: string, options: ReceiveOptions, live: Live): Promise<void> {
  const address = parseMigrationUri(uri);
  requireDescriptor(address, 'read');
  const { tlsCreds, tlsAuthz } = options;
  const tls = tlsCreds === undefined ? undefined : live.objects.serverTls(tlsCreds, tlsAuthz);
  if (address.transport === 'socket' && address.type === 'unix' && resolve(address.path) === resolve(out)) {
    throw new UsageError(`expected different paths for the socket and for OUT, got ${out} twice`);
  }
  const warning = tlsCreds === undefined ? undefined : live.objects.warningOf(tlsCreds);
  if (warning !== undefined) warn(warning);
  const output = openOutput(out);
  try {
    const { record } = options;
    const recording = record === undefined ? undefined : new Recording(new RecordingDirectory(record));
    const { signal, setupTimeoutMs } = live;
    const listener = await listenAt(address, {
      ...{ signal, setupTimeoutMs, onRefused: (error, peer) => live.stranger(peer, error.message) },
      ...(tls === undefined ? {} : { tls }),
    });
    const incoming = new Incoming(listener, {
      ...(recording === undefined ? {} : { onLine: recordedBy(recording) }),
      setupTimeoutMs,
      onStranger: (peer, why) => live.stranger(peer, why),
      ...(tls === undefined ? {} : { handshakeMs: 100 }),
    });
    try {
      live.listening(listener.uri);
      await report(out, await receiveInto(output, out, incoming, options, live), options);
    } finally {
      await incoming.close();
      await recording?.close();
      if (recording?.failure !== undefined) warn(`the recording in ${options.record} is not complete`);
    }
  } finally {
    await output.abandon();
  }
}

/** Records each line by what it is for. */
const recordedBy =
  (recording: Recording) =>
  ({ connection, kind, number }: IncomingLine) => {
    if (kind === 'main' || kind === 'preempt') return recording.wrap(connection, kind);
    return number === undefined ? connection : recording.wrap(connection, number);
  };

/** Opens OUT before anything listens: an output that cannot be written is a usage error. */
export function openOutput(out: string): OutputFile {
  if (statSync(out, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${out}`);
  }
  if (out === '-' || !isReplaceable(out)) throw new UsageError(`expected a regular file to write, got ${out}`);
  return new OutputFile(out);
}

function receiveInto(
  output: OutputFile,
  out: string,
  incoming: Incoming,
  options: ReceiveOptions,
  live: Live,
): Promise<Received> {
  const { allowIncomplete = false, switchoverAck } = options;
  const partial = `${out}.partial`;
  const target = {
    file: output.file,
    async commit(confirm: () => void) {
      await output.seal();
      confirm();
      if (options.to !== 'mapped-ram') return convertReceived(output, out, options);
      output.reveal();
      syncDirectory(output.directory);
    },
    keep: async () => {
      await output.keepAs(partial);
      return partial;
    },
  };
  return receive(incoming, target, {
    ...{ signal: live.signal, codecs: new NodeCodecs(), allowIncomplete },
    onProgress: live.dashboard.show,
    onWaiting: live.waiting,
    onReturnPath(has) {
      live.dashboard.hide();
      if (!has) warn('the source has no return path: it may report completed before OUT is durable');
    },
    ...(live.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: live.idleTimeoutMs }),
    ...(switchoverAck === undefined ? {} : { switchoverAck }),
  });
}

async function report(out: string, received: Received, { json }: ReceiveOptions): Promise<void> {
  const { configuration, blocks, confirmed, missing, found, progress } = received;
  const leftOut = missing?.blocks.map(({ block }) => block) ?? [];
  if (leftOut.length > 0) warn(`memory was left out, and ${out} is marked: ${leftOut.join(', ')}`);
  if (json === true) {
    const machine = configuration?.machine;
    const facts = { output: out, machine, length: statSync(out).size, blocks, confirmed, leftOut, found, progress };
    process.stdout.write(toJson<ReceiveJson>(facts));
    return;
  }
  const ram = blocks.reduce((sum, block) => sum + block.length, 0);
  const how = found.channels > 0 ? `, over ${plural(found.channels, 'channel')} (${found.compression ?? 'none'})` : '';
  const told = confirmed ? 'the source was told' : 'the source could not be told (no return path)';
  const what = `${printable(configuration?.machine ?? 'a machine')}, ${formatBytes(ram)} RAM${how}`;
  process.stdout.write(`${printable(out)}: received ${what}; ${told}\n`);
}
