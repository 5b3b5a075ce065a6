/**
 * The incoming migration of a machine, as `migrate-incoming` starts it. There is only one.
 *
 *     none ──→ setup ──→ active ──→ completed            the guest runs, if it ran before and may
 *               │ ↑        │  │
 *     cannot    │ │        │  └──→ postcopy-active ──→ completed
 *     listen ───┘ │        │              └─────→ postcopy-paused        neither side has all of the guest
 *     a handshake │        └──→ failed                   the process ends, unless exit-on-error is false
 *     that fails ─┘
 *
 *     postcopy-paused ── migrate-recover, and a connection comes ──→ postcopy-recover ──→ postcopy-active
 *               ↑                                                            │
 *               └────────────────────── it breaks again ────────────────────┘
 *
 * The guest arrives in a file (`destination.ts`), which then is its RAM. The source is told that it is here only after
 * the machine has taken it.
 */
import type { ByteStore } from '../io/byte-source.ts';
import { type Listener, PeerError } from '../io/connection.ts';
import type { FileAddress } from '../io/migration-address.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import type { PacketMethod } from '../wire/multifd-packet.ts';
import { type BitmapMapping, receiveBitmaps } from './bitmap-migration.ts';
import type { ColoLine } from './colo-line.ts';
import { Incoming } from './incoming.ts';
import { LiveError } from './live-error.ts';
import { loadFailure } from './load-failure.ts';
import type { Machine, MachineGuest } from './machine.ts';
import {
  type GivenAddress,
  incomingTexts,
  type MachineAddress,
  machineAddress,
  socketAddressesOf,
  type TakeDescriptor,
  withDescriptor,
} from './machine-address.ts';
import { type ExpectedMachine, requireFit } from './machine-fit.ts';
import { MachineSecondary } from './machine-secondary.ts';
import type { MigrationProgress, MigrationStatus } from './progress.ts';
import { receive } from './receive.ts';
import type { ReceiveOptions } from './receive-options.ts';

/** How a machine is reached. */
export interface IncomingLines {
  /** Listens, with TLS if `creds` is not empty. These objects are looked up for each connection. @throws Error */
  listen(address: MachineAddress, tls: { creds: string; authz: string }): Promise<Listener>;
  /** @throws Error with QEMU's text if a file cannot be opened */
  requireReadable(address: FileAddress): Promise<void> | void;
  /** Copies the guest in a mapped-ram file, which then may change. @throws Error with QEMU's text, or MigrationError */
  openFile(address: FileAddress): Promise<MachineGuest>;
  /** Makes the file that takes the guest. */
  makeFile(): ByteStore | Promise<ByteStore>;
  /** Opens the guest in that file, which then belongs to it. */
  open(file: ByteStore): Promise<MachineGuest>;
  codecs: PageCodecs;
  /** Told what QEMU would print on standard error. */
  report(text: string): void;
}

/** What became of an incoming migration. */
export type IncomingEnd = 'completed' | 'failed' | 'paused';

const already = 'The incoming migration has already been started';
export const notPaused = 'Migrate recover can only be run when postcopy is paused.';

export class MachineIncoming {
  readonly #machine: Machine;
  readonly #lines: IncomingLines;
  readonly #expected: ExpectedMachine;
  /** Whether it waits for `migrate-incoming`. */
  readonly #isDeferred: boolean;
  readonly #vcpus: number;
  readonly #cancel = new AbortController();
  #status: MigrationStatus = 'none';
  #listener: Listener | undefined;
  #hasBegun = false;
  /** The source knows that the guest is here. */
  #wasTold = false;
  #error: string | undefined;
  #exitsOnError = true;
  /** The process ends: there is nothing to say about it. */
  #isOver = false;
  /** The source has announced postcopy while postcopy-blocktime was on. */
  #countsBlocktime = false;
  /** COLO, once it has begun. */
  #secondary: MachineSecondary | undefined;
  #end: (end: IncomingEnd) => void = () => {};
  /** Breaks the lines of postcopy. */
  #breakLines: ((error: Error) => void) | undefined;
  /** Goes on with postcopy that is paused. */
  #goOn: ((incoming: Incoming) => void) | undefined;
  /** Waits for the connection that goes on. */
  #next: Incoming | undefined;
  /** Resolves when it has ended. */
  readonly ended: Promise<IncomingEnd>;

  /** `vcpus`: how many processors the machine has. */
  constructor(
    machine: Machine,
    lines: IncomingLines,
    options: ExpectedMachine & { isDeferred: boolean; vcpus?: number },
  ) {
    this.#machine = machine;
    this.#lines = lines;
    this.#expected = options;
    this.#isDeferred = options.isDeferred;
    this.#vcpus = options.vcpus ?? 1;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get status(): MigrationStatus {
    return this.#status;
  }

  /** Whether the process ends if this migration fails. */
  get exitsOnError(): boolean {
    return this.#exitsOnError;
  }

  /** Whether a socket listens. */
  get isListening(): boolean {
    return this.#listener !== undefined && socketAddressesOf(this.#listener.uri).length > 0;
  }

  /** Whether its lines can be broken. */
  get isUnderWay(): boolean {
    return ['setup', 'active', 'colo'].includes(this.#status) || this.#status.startsWith('postcopy');
  }

  /** What `query-migrate` has of the destination. */
  query(): Partial<Omit<MigrationProgress, 'ram'>> & { 'socket-address'?: object[] } {
    const addresses = this.#listener === undefined ? [] : socketAddressesOf(this.#listener.uri);
    const where = addresses.length === 0 ? {} : { 'socket-address': addresses };
    // 7.2 has no status until something comes.
    const isHidden = this.#status === 'setup' && !this.#machine.settings.schema.isFrom('8.2');
    const status = this.#status === 'none' || isHidden ? {} : { status: this.#status };
    const error = this.#error === undefined ? {} : { 'error-desc': this.#error };
    return { ...where, ...status, ...error, ...this.#blocktime() };
  }

  /** How long postcopy blocked the processors. They share one guest, so none of them goes on before another. */
  #blocktime(): object {
    if (this.#status !== 'completed' || !this.#countsBlocktime) return {};
    const ms = Math.round(this.#machine.withoutRamMs);
    return { 'postcopy-blocktime': ms, 'postcopy-vcpu-blocktime': Array.from({ length: this.#vcpus }, () => ms) };
  }

  /** `migrate-incoming`. Resolves when it listens. `take` knows the names of `fd:NAME`. @throws Error with QEMU's text */
  async start(
    given: GivenAddress & { 'exit-on-error'?: boolean },
    take: TakeDescriptor = () => undefined,
  ): Promise<void> {
    const { schema } = this.#machine.settings;
    if (!this.#isDeferred || this.#hasBegun) throw new Error(already);
    // 7.2 reads the address after that event.
    if (!schema.isFrom('8.2')) this.#enter('setup');
    const address = machineAddress(given, incomingTexts(schema));
    await this.#listen(address, given['exit-on-error'] ?? true, take);
  }

  /** Listens at the address of `-incoming`. @throws Error with QEMU's text */
  listen(address: MachineAddress): Promise<void> {
    if (!this.#machine.settings.schema.isFrom('8.2')) this.#enter('setup');
    return this.#listen(address, true, () => undefined);
  }

  async #listen(address: MachineAddress, exitsOnError: boolean, take: TakeDescriptor): Promise<void> {
    const { schema, parameters } = this.#machine.settings;
    if (this.#machine.settings.isOn('mapped-ram') && address.transport !== 'file') {
      throw new Error('Migration requires seekable transport (e.g. file)');
    }
    if (this.#status === 'setup' && schema.isFrom('10.0')) throw new Error('Illegal migration incoming state: setup');
    if (schema.isFrom('8.2')) this.#enter('setup');
    this.#exitsOnError = exitsOnError;
    if (address.transport === 'file' && this.#machine.settings.isOn('mapped-ram')) return this.#load(address);
    const tls = { creds: String(parameters['tls-creds']), authz: String(parameters['tls-authz']) };
    this.#listener = await this.#lines.listen(withDescriptor(address, take), tls);
    this.#hasBegun = true;
    void this.#run(this.#listener, tls.creds !== '');
  }

  /** A mapped-ram file is all there, and needs no line. */
  async #load(address: FileAddress): Promise<void> {
    await this.#lines.requireReadable(address);
    this.#hasBegun = true;
    this.#enter('active');
    void this.#lines.openFile(address).then(
      async (guest) => {
        try {
          const { configuration, ram } = guest;
          const source = { configuration, blocks: ram.blocks, hasAdvice: false, channels: 0 };
          requireFit(this.#machine, this.#expected, source, this.#lines.report);
          this.#takeBitmaps(guest);
          await this.#arrive(guest);
        } catch (error) {
          await this.#fail(error, guest, undefined);
        }
      },
      (error) => this.#fail(error, undefined, undefined),
    );
  }

  #enter(status: MigrationStatus): void {
    // 7.2 repeats the event `setup` with each attempt.
    if (status === this.#status && this.#machine.settings.schema.isFrom('8.2')) return;
    this.#status = status;
    this.#machine.tellStatus(status);
  }

  async #run(listener: Listener, hasTls: boolean): Promise<void> {
    let guest: MachineGuest | undefined;
    const incoming = this.#accept(listener, { hasTls, isRecovery: false });
    let file: ByteStore | undefined;
    try {
      const { signal } = this.#cancel;
      // What connects first is the source, whatever it sends.
      await incoming.main(signal).finally(() => signal.aborted || this.#enter('active'));
      file = await this.#lines.makeFile();
      const taken = file;
      const target = {
        file: taken,
        commit: async (confirm: () => void) => {
          confirm();
          guest = await this.#lines.open(taken);
          this.#takeBitmaps(guest);
        },
      };
      await receive(incoming, target, {
        ...this.#options(signal),
        onColo: (line) => this.#colo(line, guest as unknown as MachineGuest),
      });
      if (this.#secondary !== undefined) this.#end('completed');
      else await this.#arrive(guest as unknown as MachineGuest);
    } catch (error) {
      await this.#fail(error, guest, file);
    } finally {
      this.#listener = undefined;
      await incoming.close();
    }
  }

  #accept(listener: Listener, { hasTls, isRecovery }: { hasTls: boolean; isRecovery: boolean }): Incoming {
    return new Incoming(listener, {
      ...{ clock: this.#machine.clock, isRecovery, connections: () => this.#connections },
      // The first one ends the migration, which says why.
      onStranger: (peer, why) =>
        this.#status === 'setup' || this.#lines.report(`a connection from ${peer} was refused: ${why}`),
      ...(hasTls ? { handshakeMs: 100 } : {}),
    });
  }

  /** How many connections a source makes that is set up in the same way. */
  get #connections(): number {
    const { settings } = this.#machine;
    if (settings.isOn('multifd')) return 1 + Number(settings.parameters['multifd-channels']);
    return settings.isOn('postcopy-preempt') ? 2 : 1;
  }

  #options(signal: AbortSignal): ReceiveOptions {
    return {
      ...{ signal, codecs: this.#lines.codecs, clock: this.#machine.clock },
      compression: this.#machine.settings.parameters['multifd-compression'] as PacketMethod,
      switchoverAck: () => this.#machine.settings.isOn('switchover-ack'),
      onSource: (source) => {
        requireFit(this.#machine, this.#expected, source, this.#lines.report);
        this.#countsBlocktime = source.hasAdvice && this.#machine.settings.isOn('postcopy-blocktime');
      },
      onEnableColo: () => {
        if (this.#machine.settings.isOn('x-colo')) return;
        throw new Error('ENABLE_COLO command come in migration stream, but x-colo capability is not set');
      },
      onTold: () => {
        this.#wasTold = true;
      },
      onProgress: ({ status }) => this.#follow(status),
      recovery: {
        onLines: (breakLines) => {
          this.#breakLines = breakLines;
        },
        onBreak: (error) => {
          this.#lines.report(error instanceof Error ? error.message : String(error));
          return new Promise((resolve) => {
            this.#goOn = resolve;
          });
        },
      },
    };
  }

  /** Takes over what postcopy goes through. */
  #follow(status: MigrationStatus): void {
    if (!status.startsWith('postcopy') || status === this.#status) return;
    const isFirst = this.#status === 'active';
    this.#enter(status);
    if (isFirst) this.#machine.begin();
  }

  /** `migrate-recover`. Each call replaces the listener of the one before. Resolves when it listens. @throws Error with QEMU's text */
  async recover(uri: string): Promise<void> {
    const { schema, parameters } = this.#machine.settings;
    const goOn = this.#goOn;
    if (this.#status !== 'postcopy-paused' || goOn === undefined) throw new Error(notPaused);
    if (!schema.isFrom('8.2')) this.#machine.tellStatus('setup');
    this.#listener = undefined;
    await this.#next?.close();
    const address = machineAddress({ uri }, incomingTexts(schema));
    const tls = { creds: String(parameters['tls-creds']), authz: String(parameters['tls-authz']) };
    const listener = await this.#lines.listen(address, tls);
    this.#listener = listener;
    const next = this.#accept(listener, { hasTls: tls.creds !== '', isRecovery: true });
    this.#next = next;
    next.main(this.#cancel.signal).then(
      () => {
        this.#next = undefined;
        goOn(next);
      },
      // It waits for the next migrate-recover.
      () => next.close(),
    );
  }

  /** The secondary side of COLO, until this side takes over. */
  async #colo(line: ColoLine, guest: MachineGuest): Promise<void> {
    const cache = await guest.beginCheckpoints?.();
    if (cache === undefined) throw new Error('this guest takes no checkpoints');
    const secondary = new MachineSecondary(this.#machine, line, cache, (status) => this.#enter(status));
    this.#secondary = secondary;
    this.#machine.colo.begin('secondary');
    this.#enter('colo');
    await secondary.start(guest);
    await secondary.ended;
  }

  /** x-colo-lost-heartbeat at the secondary side: its guest goes on. @throws Error with QEMU's text */
  async failOver(): Promise<void> {
    await this.#secondary?.failOver();
  }

  /** Gives the disks the bitmaps that came. @throws Error with QEMU's text if one exists already */
  #takeBitmaps({ iterables = [] }: MachineGuest): void {
    const { nodes, settings } = this.#machine;
    const mapping = settings.parameters['block-bitmap-mapping'] as BitmapMapping | undefined;
    const { others, messages } = receiveBitmaps(nodes, iterables, mapping);
    for (const message of messages) this.#lines.report(message);
    this.#machine.iterables = others;
  }

  async #arrive(guest: MachineGuest): Promise<void> {
    this.#listener = undefined;
    await this.#machine.arrive(guest);
    this.#enter('completed');
    this.#end('completed');
  }

  async #fail(error: unknown, guest: MachineGuest | undefined, file: ByteStore | undefined): Promise<void> {
    // The source has let its guest go.
    if (guest !== undefined && this.#wasTold) return this.#arrive(guest);
    this.#listener = undefined;
    const { schema } = this.#machine.settings;
    const { text, reason } = loadFailure(error, !schema.isFrom('8.2'));
    const report = (line: string) => this.#isOver || this.#lines.report(line);
    report(text);
    if (error instanceof LiveError && error.guest === 'split') {
      if (this.#status !== 'postcopy-paused') this.#enter('postcopy-paused');
      this.#end('paused');
      return;
    }
    await (guest ?? file)?.close();
    const failure = `load of migration failed: ${reason}`;
    if (this.#exitsOnError) report(failure);
    if (schema.isFrom('9.1')) this.#error = failure;
    this.#enter('failed');
    this.#end('failed');
  }

  /** `migrate-pause`, if this side can. Returns whether it could. */
  pause(): boolean {
    const isRecovering = this.#status === 'postcopy-recover' && this.#machine.settings.schema.isFrom('9.0');
    const isPausable = this.#status === 'postcopy-active' || isRecovering;
    if (isPausable) this.#breakLines?.(new PeerError('Postcopy migration is paused by the user'));
    return isPausable;
  }

  /** Breaks all lines, as `yank` does. */
  break(): void {
    const error = new PeerError('the lines of the migration were broken');
    if (this.#status === 'postcopy-active' || this.#status === 'postcopy-recover') this.#breakLines?.(error);
    else if (this.#status === 'colo') this.#secondary?.break();
    else if (this.#status !== 'postcopy-paused') this.#cancel.abort(error);
  }

  /** The process ends. */
  close(): void {
    this.#isOver = true;
    this.#cancel.abort(new Error('the VM ended'));
  }
}
