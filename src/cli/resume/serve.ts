/** `vmferry resume --serve`: a page server for one guest. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { orAborted } from '../../io/abort.ts';
import { type Connection, PeerError } from '../../io/connection.ts';
import { connectTo } from '../../io/node/connect.ts';
import { requireDescriptor } from '../../io/node/descriptor.ts';
import { NodeFile } from '../../io/node/file.ts';
import { lockFile } from '../../io/node/file-lock.ts';
import { listenAt } from '../../io/node/listen.ts';
import { OutputFile, openScratch } from '../../io/node/output-file.ts';
import type { ServeEventJson } from '../../migrate/json.ts';
import { LiveError } from '../../migrate/live-error.ts';
import { formatOrder, type OrderLine, parseOrder } from '../../migrate/page-order.ts';
import type { PageRange } from '../../migrate/push-order.ts';
import { serveFile } from '../../migrate/serve-file.ts';
import type { ServedGuest } from '../../migrate/serve-options.ts';
import type { ServeStatistics } from '../../migrate/serve-statistics.ts';
import type { MigrationFile } from '../../read/open.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import { ExitCode, UsageError } from '../exit-codes.ts';
import { toJsonLine } from '../json.ts';
import type { Live } from '../live/live-command.ts';
import { requireUserfaultfd } from '../live/userfaultfd.ts';
import { note, reportError } from '../messages.ts';
import { formatBytes, plural, printable } from '../print/format.ts';
import { showProgress } from '../progress.ts';
import { openServed, type ServedInput } from './remote.ts';
import { type ServeCommandOptions, type Target, targetOf } from './serve-options.ts';

/** The most bytes of an order. */
const maxOrderBytes = 64 << 20;

/** Least time between two lines of progress, in ms. */
const progressMs = 1000;

export async function serve(location: string, options: ServeCommandOptions, live: Live): Promise<void> {
  const uri = options.serve ?? '';
  const target = targetOf(uri, options);
  const order = options.order === undefined ? undefined : readOrder(options.order);
  if (!target.listens) requireDescriptor(target.address, 'write');
  if (!target.listens) requireUserfaultfd(target.address);
  const record = options.record === undefined ? undefined : new OutputFile(options.record);
  const input = await orAborted(openServed(location, options, live.signal), live.signal);
  const serving = new Serving(input, uri, options, live);
  try {
    requireUnchanging(input.file);
    serving.report(await serving.run(target, order));
  } catch (error) {
    // Only FILE makes such errors here: it is the input, and not a line that broke.
    if (!(error instanceof LiveError && error.cause instanceof MigrationError)) throw error;
    live.dashboard.hide();
    process.exitCode = reportError(error, ExitCode.badInput);
  } finally {
    await input.close();
    if (record !== undefined) await writeRecord(record, serving.recorded());
  }
}

/** Locks a file on this host against everything of vmferry that writes files. @throws UsageError */
function requireUnchanging({ source }: MigrationFile): void {
  if (!(source instanceof NodeFile) || lockFile(source.fd, 'shared') !== 'refused') return;
  throw new UsageError(`${source.name} is being written by another process, which has locked it`);
}

/** @throws UsageError for what is not an order */
function readOrder(path: string): OrderLine[] {
  if (statSync(path).size > maxOrderBytes) {
    throw new UsageError(`expected an order of at most ${maxOrderBytes} bytes in ${path}`);
  }
  try {
    return parseOrder(readFileSync(path, 'utf8'));
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(`${path}: ${error.message}`) : error;
  }
}

/** An order that is empty replaces none. */
async function writeRecord(output: OutputFile, recorded: readonly PageRange[]): Promise<void> {
  try {
    await output.file.write(new TextEncoder().encode(formatOrder(recorded)), 0);
    await output.commit();
  } finally {
    await output.abandon();
  }
}

class Serving {
  recorded: () => readonly PageRange[] = () => [];
  readonly #input: ServedInput;
  readonly #file: MigrationFile;
  readonly #uri: string;
  readonly #options: ServeCommandOptions;
  readonly #live: Live;
  #look: (() => ServeStatistics) | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(input: ServedInput, uri: string, options: ServeCommandOptions, live: Live) {
    this.#input = input;
    this.#file = input.file;
    this.#uri = uri;
    this.#options = options;
    this.#live = live;
  }

  async run(target: Target, order: OrderLine[] | undefined): Promise<ServedGuest> {
    const { signal, idleTimeoutMs, waiting, dashboard } = this.#live;
    const { postcopyPreempt: preempt, maxPostcopyBandwidth, recover, compat, scratch } = this.#options;
    const reading = showProgress('check', this.#file);
    const { connect, close } = this.#connector(target);
    try {
      return await serveFile(this.#file, connect, {
        ...{ signal, idleTimeoutMs, preempt, maxPostcopyBandwidth, recover, compat, order },
        makeScratch: () => openScratch(realpathSync(scratch)),
        onWaiting: waiting,
        onProgress: (progress) => {
          dashboard.show(progress);
          this.#tellProgress();
        },
        checked: (vm) => {
          reading.stop();
          if (this.#file.source instanceof NodeFile) this.#file.source.overlapsReads = true;
          this.#input.prefetch(vm, order ?? []);
        },
        onStart: (look, recorded) => {
          this.#look = look;
          this.recorded = recorded;
        },
        onRunning: (statistics) => {
          dashboard.hide();
          this.#toldAt = performance.now();
          if (this.#options.json === true) this.#print('running', statistics);
          else note(recover === true ? 'the guest is served again' : 'the guest runs at the target');
        },
      });
    } finally {
      reading.stop();
      await close();
    }
  }

  /** What connects to the target, or waits for its connections. */
  #connector({ listens, address }: Target): { connect: () => Promise<Connection>; close: () => Promise<void> } {
    const { signal, setupTimeoutMs, objects, listening, stranger } = this.#live;
    const { tlsCreds, tlsHostname, tlsAuthz } = this.#options;
    if (!listens) {
      const tls = tlsCreds === undefined ? undefined : objects.clientTls(tlsCreds, tlsHostname);
      return { connect: () => connectTo(address, { tls, signal, setupTimeoutMs }), close: async () => {} };
    }
    const tls = tlsCreds === undefined ? {} : { tls: objects.serverTls(tlsCreds, tlsAuthz) };
    let opening: ReturnType<typeof listenAt> | undefined;
    const open = async () => {
      const onRefused = (error: Error, peer: string) => stranger(peer, error.message);
      const listener = await listenAt(address, { signal, setupTimeoutMs, onRefused, ...tls });
      listening(listener.uri);
      return listener;
    };
    return {
      async connect() {
        opening ??= open();
        const line = await (await opening).accept();
        if (line === undefined) throw signal.reason ?? new PeerError('nobody connects any more');
        return line;
      },
      close: async () => (await opening)?.close(),
    };
  }

  #tellProgress(): void {
    const now = performance.now();
    if (this.#options.json !== true || this.#look === undefined || !(now >= this.#toldAt + progressMs)) return;
    // Before the guest runs there is nothing to tell.
    if (this.#toldAt === Number.NEGATIVE_INFINITY) return;
    this.#toldAt = now;
    this.#print('progress', this.#look());
  }

  #print(event: ServeEventJson['event'], statistics: ServeStatistics): void {
    const { remainingBytes = null, resident = null, expectedEndMs = null } = statistics;
    const facts = { ...statistics, remainingBytes, resident, expectedEndMs };
    process.stdout.write(
      toJsonLine<ServeEventJson>({ event, source: this.#file.source.name, target: this.#uri, ...facts }),
    );
  }

  report({ statistics, progress, isPostcopy }: ServedGuest): void {
    this.#live.dashboard.hide();
    if (!isPostcopy)
      note('the guest was paused when it was saved: all of its RAM was sent first, so that it stays paused');
    if (this.#options.json === true) {
      this.#print('complete', statistics);
      return;
    }
    const { faults, latency, sentBytes } = statistics;
    const facts = [
      `${formatBytes(sentBytes)} of pages in ${(progress['total-time'] / 1000).toFixed(1)} s`,
      ...(isPostcopy
        ? [`${plural(faults, 'fault')}${faults === 0 ? '' : ` (p50 ${latency.p50} ms, p99 ${latency.p99} ms)`}`]
        : []),
      'the target has the guest',
    ];
    const [from, to] = [printable(this.#file.source.name), printable(this.#uri)];
    process.stdout.write(`${from}: served to ${to}: ${facts.join(', ')}\n`);
  }
}
