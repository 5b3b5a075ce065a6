/** `vmferry receive`: one live migration into a file. */
import { statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { Option } from 'commander';
import type { ByteSource } from '../../io/byte-source.ts';
import { ListenerTurns } from '../../io/listener-turns.ts';
import { parseMigrationUri } from '../../io/migration-address.ts';
import { NodeCodecs } from '../../io/node/codecs.ts';
import { requireDescriptor } from '../../io/node/descriptor.ts';
import { openSource } from '../../io/node/file.ts';
import { listenAt } from '../../io/node/listen.ts';
import { isReplaceable, OutputFile, syncDirectory } from '../../io/node/output-file.ts';
import { RecordingDirectory } from '../../io/node/recording-folder.ts';
import { Incoming, type IncomingLine } from '../../migrate/incoming.ts';
import type { ReceiveJson } from '../../migrate/json.ts';
import type { MigrationProgress } from '../../migrate/progress.ts';
import { receive, recover } from '../../migrate/receive.ts';
import type { Received } from '../../migrate/receive-options.ts';
import { Recording } from '../../migrate/recording.ts';
import { open } from '../../node.ts';
import { type ReleaseName, releaseNames } from '../../schema/release-rules.ts';
import { type RecoveryRecord, readRecoveryRecord } from '../../store/recovery-record.ts';
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
  recover?: string;
  to?: WholeForm;
  xml?: string;
  compat?: ReleaseName;
}

export function addReceive(program: CliCommand): CliCommand {
  return addMultifdOptions(addLiveOptions(program.command('receive').argument('<URI>').argument('[OUT]')))
    .summary('receive a live migration into a file')
    .description('Waits for a live migration, and writes the guest to OUT, a mapped-ram file that QEMU loads.')
    .option('--tls-creds <ID>', 'the TLS credentials, an --object for the endpoint server')
    .option('--tls-authz <ID>', 'the --object that says which clients are allowed')
    .option('--allow-incomplete', 'accept a source that leaves out shared memory (x-ignore-shared), and mark OUT')
    .option('--switchover-ack', 'tell the source at once that it may switch over, as if it had the capability')
    .option(
      '--recover <FILE>',
      'go on with what an earlier receive kept as FILE, OUT.partial, after a break in postcopy; OUT is not given',
    )
    .option('--record <DIR>', 'keep the bytes of each connection in DIR, also of a migration that fails')
    .addOption(new Option('--to <FORM>', 'the form of OUT').choices(receivedForms).default('mapped-ram'))
    .option('--xml <FILE>', 'with --to libvirt: the domain XML')
    .addOption(
      new Option('--compat <VERSION>', 'the QEMU that will load OUT, as of convert; not for mapped-ram').choices(
        releaseNames,
      ),
    )
    .describe({ notes, exitCodes, json, examples, rules })
    .action((uri: string, out: string | undefined, options: ReceiveOptions) =>
      runLive('receive', options, (live) => receiveTo(uri, out, options, live)),
    );
}

const notes = [
  'URI is what QEMU takes: tcp:HOST:PORT, unix:PATH, fd:NUMBER, exec:COMMAND, file:PATH[,offset=N], or - for standard input. With tcp:HOST:0 the system chooses a port. The line `listening on URI` on standard error has the URI for the source.',
  'Multifd with any number of channels and compression, XBZRLE, a return path, switchover-ack, postcopy and postcopy-preempt are found from what arrives. The source needs no other setting than to migrate to this URI.',
  'Once postcopy has begun, a failure keeps what has come as OUT.partial. The command then listens again: the line `recover at URI` on standard error has the URI for `migrate` with `resume: true` at the source. The first Ctrl-C says what is at stake, the second ends the command and keeps the file. --recover goes on with it, even after kill -9 or a power cut, and removes it when OUT stands. Give the other options again.',
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
  'vmferry receive --recover guest.mapped-ram.partial tcp:0.0.0.0:4444',
];

const rules = {
  needs: { '--tls-authz': ['--tls-creds'] },
  check([, out]: readonly string[], options: ReceiveOptions) {
    const { recover: kept } = options;
    if (out === undefined && kept === undefined) throw new UsageError("missing required argument 'OUT'");
    if (out !== undefined && kept !== undefined) throw new UsageError(`OUT cannot be used with --recover, got ${out}`);
    chooseForm(out ?? (kept as string), convertOptions(options));
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

/** Where a guest goes, and what has come of it before. */
interface Place {
  out: string;
  partial: string;
  output: OutputFile;
  /** With --recover. */
  record?: RecoveryRecord;
}

const suffix = '.partial';

/** A new guest in OUT. @throws UsageError if what was kept of another one is there */
async function newPlace(out: string): Promise<Place> {
  const partial = `${out}${suffix}`;
  if ((await findRecord(partial)) !== undefined) {
    throw new UsageError(
      `${partial} has a guest whose migration broke in postcopy: go on with vmferry receive --recover ${partial} URI, or remove it`,
    );
  }
  return { out, partial, output: openOutput(out) };
}

/** The guest that was kept in OUT.partial. @throws UsageError */
async function keptPlace(partial: string): Promise<Place> {
  const out = partial.slice(0, -suffix.length);
  if (!partial.endsWith(suffix) || out === '')
    throw new UsageError(`expected a file named OUT.partial, got ${partial}`);
  const stat = statSync(partial, { throwIfNoEntry: false });
  if (stat === undefined) throw new UsageError(`expected a file to go on with, got ${partial}, which does not exist`);
  const record = await findRecord(partial);
  if (record === undefined) {
    throw new UsageError(
      `${partial} lacks what a migration needs to go on: vmferry receive keeps it once postcopy has begun`,
    );
  }
  return { out, partial, record, output: openOutput(out, partial) };
}

async function findRecord(path: string): Promise<RecoveryRecord | undefined> {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return undefined;
  const file = await openSource(path);
  try {
    return await readRecoveryRecord(file as ByteSource & { size: number });
  } finally {
    await file.close();
  }
}

async function receiveTo(uri: string, out: string | undefined, options: ReceiveOptions, live: Live): Promise<void> {
  const address = parseMigrationUri(uri);
  requireDescriptor(address, 'read');
  const { tlsCreds, tlsAuthz, recover: kept, record: directory } = options;
  const tls = tlsCreds === undefined ? undefined : live.objects.serverTls(tlsCreds, tlsAuthz);
  const name = kept ?? (out as string);
  if (address.transport === 'socket' && address.type === 'unix' && resolve(address.path) === resolve(name)) {
    throw new UsageError(`expected different paths for the socket and for the file, got ${name} twice`);
  }
  const warning = tlsCreds === undefined ? undefined : live.objects.warningOf(tlsCreds);
  if (warning !== undefined) warn(warning);
  const place = kept === undefined ? await newPlace(name) : await keptPlace(kept);
  try {
    const recording = directory === undefined ? undefined : new Recording(new RecordingDirectory(directory));
    const { signal, setupTimeoutMs } = live;
    const listener = await listenAt(address, {
      ...{ signal, setupTimeoutMs, onRefused: (error, peer) => live.stranger(peer, error.message) },
      ...(tls === undefined ? {} : { tls }),
    });
    const turns = new ListenerTurns(listener);
    const accept = (isRecovery: boolean) =>
      new Incoming(turns.turn(), {
        ...(recording === undefined ? {} : { onLine: recordedBy(recording) }),
        ...{ setupTimeoutMs, isRecovery, onStranger: (peer, why) => live.stranger(peer, why) },
        ...(tls === undefined ? {} : { handshakeMs: 100 }),
      });
    try {
      if (place.record !== undefined) live.warning = beforeLeaving(place.partial);
      live.listening(turns.uri);
      await report(place.out, await receiveInto(place, { turns, accept }, options, live), options);
    } finally {
      await turns.close();
      await recording?.close();
      if (recording?.failure !== undefined) warn(`the recording in ${directory} is not complete`);
    }
  } finally {
    await place.output.abandon();
  }
}

/** Records each line by what it is for. */
const recordedBy =
  (recording: Recording) =>
  ({ connection, kind, number }: IncomingLine) => {
    if (kind === 'main' || kind === 'preempt') return recording.wrap(connection, kind);
    return number === undefined ? connection : recording.wrap(connection, number);
  };

/** Opens OUT before anything listens: an output that cannot be written is a usage error. `from`: what was kept of it. */
export function openOutput(out: string, from?: string): OutputFile {
  if (statSync(out, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`expected a file to write to, got the directory ${out}`);
  }
  if (out === '-' || !isReplaceable(out)) throw new UsageError(`expected a regular file to write, got ${out}`);
  return new OutputFile(out, from === undefined ? {} : { from });
}

/** What the first Ctrl-C says. */
const beforeLeaving = (partial: string): string =>
  `postcopy has begun: neither side has all of the guest, which goes on only if the source can send the rest. Press Ctrl-C again to end: what has come stays in ${partial}, and vmferry receive --recover ${partial} URI goes on later`;

interface Lines {
  turns: ListenerTurns;
  /** Waits for a source on the next turn. */
  accept: (isRecovery: boolean) => Incoming;
}

async function receiveInto(
  { out, partial, output, record }: Place,
  { turns, accept }: Lines,
  options: ReceiveOptions,
  live: Live,
): Promise<Received> {
  const { allowIncomplete = false, switchoverAck } = options;
  const target = {
    file: output.file,
    async commit(confirm: () => void) {
      await output.seal();
      confirm();
      if (options.to === 'mapped-ram') output.reveal();
      else {
        await convertReceived(output, out, options);
        await output.removeKept();
      }
      syncDirectory(output.directory);
    },
    keep: async () => {
      await output.keepAs(partial);
      return partial;
    },
  };
  let isFirst = record !== undefined;
  const chosen = {
    ...{ signal: live.signal, codecs: new NodeCodecs(), allowIncomplete },
    onProgress(progress: MigrationProgress) {
      if (progress.status === 'postcopy-active' && !hasBegun) {
        hasBegun = true;
        live.warning = beforeLeaving(partial);
      }
      live.dashboard.show(progress);
    },
    onWaiting: live.waiting,
    onReturnPath(has: boolean) {
      live.dashboard.hide();
      if (!has) warn('the source has no return path: it may report completed before OUT is durable');
    },
    ...(live.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: live.idleTimeoutMs }),
    ...(switchoverAck === undefined ? {} : { switchoverAck }),
    recovery: {
      tellsLate: true,
      onBreak: async (error: unknown) => {
        if (turns.hasEnded) throw error;
        const incoming = accept(true);
        // With --recover the ready line has said where.
        if (!isFirst) live.recoverAt(turns.uri, error instanceof Error ? error.message : String(error));
        isFirst = false;
        return incoming;
      },
    },
  };
  let hasBegun = record !== undefined;
  return record === undefined ? receive(accept(false), target, chosen) : recover(record, target, chosen);
}

const untold = (isPostcopy: boolean) =>
  isPostcopy ? 'its line broke: it may wait in postcopy-paused, and can be ended' : 'no return path';

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
  const told = confirmed ? 'the source was told' : `the source could not be told (${untold(found.postcopy)})`;
  const what = `${printable(configuration?.machine ?? 'a machine')}, ${formatBytes(ram)} RAM${how}`;
  process.stdout.write(`${printable(out)}: received ${what}; ${told}\n`);
}
