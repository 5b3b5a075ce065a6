/**
 * A live migration as a Flow: the main stream, its multifd channels and its preempt channel are decoded as their bytes
 * arrive. A source that fills its channels does not write to the main stream, and waits until they are read. So, unlike
 * the reader of files, this one reads all of them at once, and lets each wait only where the protocol does:
 *
 *     main       START mark ═══╗  PART …            mark ═══╗   END … devices, EOF, description
 *     channel 0  hello  SYNC ══╣  packet, packet …  SYNC ═══╣
 *     channel 1  hello  SYNC ══╝  packet …          SYNC ═══╝
 *     preempt                                                    (postcopy) page, page …
 *
 * At a mark, main waits for the SYNC of every channel, and a channel that has reached its SYNC waits for main. One
 * decoder runs at a time, up to the point where it needs bytes. So the items are in an order that a file could have.
 */
import type { ByteSource } from '../io/byte-source.ts';
import { settledWithin } from '../io/time-limit.ts';
import type { Kernel } from '../kernel/kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../kernel/page-batch.ts';
import type { Configuration, FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError } from '../vm/migration-error.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import type { ByteWindow, InflateRequest, Need } from '../wire/byte-window.ts';
import { decodePreemptChannel } from '../wire/preempt.ts';
import { decodeCheckpoint, decodeRecovery, decodeStream, makeStreamState, type StreamState } from '../wire/stream.ts';
import { maxChannels } from './channels.ts';
import { flowBatchCapacity } from './flow-reader.ts';
import { KeptSections } from './kept-sections.ts';
import { channelBodyBytes, LiveChannels, liveChannelArenaBytes } from './live-channels.ts';
import type { LiveFlowOptions } from './live-flow-options.ts';
import type { FlowChannels } from './open.ts';
import { PageUnpacker, unpackArenaBytes } from './unpack.ts';
import { allocateWindow, isNeed, type WindowBuffers, WindowReader, windowArenaBytes } from './window-reader.ts';

/** How long a source may be silent, in ms, before the decoder goes on without bytes that it does not need. */
const silenceMs = 1000;
/** Bytes that the window of a preempt channel reads at a time. */
const preemptBodyBytes = 64 * 1024;
/** Records of the preempt channel collected at a time. */
const preemptBatchCapacity = 64;
/** Bytes that the main window reads at a time, see `channelBodyBytes`. */
const mainBody = 4 << 20;

/** Bytes of arena that a {@link LiveFlow} takes. */
export const liveFlowArenaBytes = (mostChannels = maxChannels): number =>
  unpackArenaBytes +
  windowArenaBytes(mainBody) +
  windowArenaBytes(preemptBodyBytes) +
  pageBatchArenaBytes(flowBatchCapacity) +
  pageBatchArenaBytes(preemptBatchCapacity) +
  Array.from({ length: mostChannels }, (_, i) => windowArenaBytes(channelBodyBytes(i))).reduce(
    (sum, each) => sum + each,
    0,
  ) +
  mostChannels * liveChannelArenaBytes;

/** What a decoder yields: what it needs, what it found, or `wait` until it may go on. */
type Step = Need | InflateRequest | FlowItem | { kind: 'wait' };

/** A decoder, and what it waits for. */
interface Line {
  readonly reader: WindowReader;
  readonly steps: Iterator<Step, void>;
  readonly isMain: boolean;
  /** Decompresses for it. */
  readonly inflate?: (request: InflateRequest) => Promise<void>;
  /** `ready`: it can run. `busy`: bytes are on their way. `held`: until {@link LiveFlow} lets it go on. */
  state: 'ready' | 'busy' | 'held' | 'ended';
}

/** One live migration while it is being read. */
export class LiveFlow {
  readonly kernel: Kernel;
  readonly #options: LiveFlowOptions;
  readonly #batch: PageBatch;
  readonly #unpacker: PageUnpacker;
  readonly #state: StreamState;
  readonly #channels: LiveChannels;
  readonly #lines: Line[] = [];
  #main: Line | undefined;
  #preempt: Line | undefined;
  /** The buffers of the main stream and the preempt channel, which the lines of a recovery use again. */
  readonly #buffers: { main?: WindowBuffers; preempt?: WindowBuffers; preemptBatch?: PageBatch } = {};
  /** Bytes read from lines that broke in postcopy. */
  #passed = 0;
  readonly #kept = new KeptSections();
  /** A fill of the main window that took too long, and still goes on. */
  #late: Promise<void> | undefined;
  #failure: { error: unknown } | undefined;
  #wake: () => void = () => {};
  #hasBlocks = false;
  /** Another channel was asked for, or will not come. */
  #coming: 'asked' | 'none' | undefined;
  /** Bodies of RAM that ended before the first channel came. */
  #unmarked = 0;
  /** What is wrong with a description that has not come to its end. */
  #brokenDescription: Finding | undefined;

  /** Allocates {@link liveFlowArenaBytes} in the arena. */
  constructor(kernel: Kernel, options: LiveFlowOptions) {
    const { codecs, mostChannels = maxChannels, compression } = options;
    this.kernel = kernel;
    this.#options = options;
    this.#batch = new PageBatch(kernel, flowBatchCapacity);
    this.#unpacker = new PageUnpacker(kernel, codecs);
    this.#state = makeStreamState(this.#batch);
    this.#channels = new LiveChannels(kernel, codecs, this.#state.ram, mostChannels, compression);
  }

  /** What was read from the channels, as of a file. */
  get channels(): FlowChannels {
    return this.#channels.facts;
  }

  /** Bytes read so far, of all lines. */
  get reached(): number {
    return this.#lines.reduce((sum, { reader }) => sum + reader.reached, this.#passed);
  }

  /** What the source states about itself, once it is known. */
  get configuration(): Configuration | undefined {
    return this.#state.configuration;
  }

  /** Whether a mark stands between two passes over RAM. Before 8.1 there is one at the end of each section. */
  get marksEndPasses(): boolean {
    return this.#state.format.syncAtEos !== true;
  }

  /** The sections of iterables other than RAM, as they came. */
  get iterables(): readonly RawSection[] {
    return this.#kept.list;
  }

  /** Adds a multifd channel, whose first bytes are to be read from `source`. @throws RangeError for one too many */
  addChannel(source: ByteSource): void {
    const channel = this.#channels.add(source, channelBodyBytes(this.#channels.count));
    const { format } = this.#state;
    Object.assign(format, { hasChannels: true, looksAhead: false });
    if (this.#unmarked > 0 && format.syncAtEos === undefined) {
      // No mark came so far, so each of these bodies ended with one.
      format.syncAtEos = true;
      for (let i = 0; i < this.#unmarked; i++) this.#channels.pass();
    }
    const { reader } = channel.reader;
    const steps = this.#channels.decode(channel);
    this.#lines.push({
      ...{ reader, steps, isMain: false, state: 'ready' },
      inflate: (request) => channel.reader.unpack(request),
    });
    this.#wake();
  }

  /** Adds the preempt channel. Later ones are ignored. */
  addPreempt(source: ByteSource): void {
    if (this.#preempt !== undefined) return;
    this.#buffers.preempt ??= allocateWindow(this.kernel, preemptBodyBytes);
    const reader = new WindowReader(this.kernel, this.#buffers.preempt, source, 0);
    const steps = this.#decodePreempt(reader.window);
    this.#preempt = { reader, steps, isMain: false, state: 'ready' };
    this.#lines.push(this.#preempt);
    this.#wake();
  }

  *#decodePreempt(window: ByteWindow): Generator<Step, void> {
    while (!this.#hasBlocks) yield { kind: 'wait' };
    this.#buffers.preemptBatch ??= new PageBatch(this.kernel, preemptBatchCapacity);
    yield* decodePreemptChannel(window, this.#state.ram, this.#buffers.preemptBatch);
  }

  /**
   * Reads the migration to its end. Items are valid until the next one is requested.
   * @throws MigrationError if a stream is invalid, or ends too early; whatever a source throws
   */
  read(source: ByteSource): AsyncGenerator<FlowItem, void> {
    return this.#readMain(source, (window) => decodeStream(window, this.#batch, {}, this.#state));
  }

  /** The source has begun postcopy: if its lines break, the migration can go on over others. */
  get isRecoverable(): boolean {
    return this.#state.switchedOver;
  }

  /** Lets go of lines that broke in postcopy, and were destroyed. Another preempt channel can be added then. */
  async leaveLines(): Promise<void> {
    for (const { reader } of this.#lines) await reader.release();
    await this.#late?.catch(() => {});
    this.#passed = this.reached;
    this.#lines.length = 0;
    this.#late = undefined;
    this.#preempt = undefined;
    this.#failure = undefined;
    this.#kept.drop();
  }

  /** Goes on with a migration whose lines broke in postcopy, after {@link leaveLines}. @throws like {@link read} */
  recover(source: ByteSource): AsyncGenerator<FlowItem, void> {
    return this.#readMain(source, (window) => decodeRecovery(window, this.#state));
  }

  async *#readMain(source: ByteSource, decode: (window: ByteWindow) => Line['steps']): AsyncGenerator<FlowItem, void> {
    this.#buffers.main ??= allocateWindow(this.kernel, mainBody);
    const reader = new WindowReader(this.kernel, this.#buffers.main, source, 0);
    const main: Line = { reader, steps: decode(reader.window), isMain: true, state: 'ready' };
    this.#lines.unshift(main);
    yield* this.#runAll(main);
    if (this.#options.drainsPreempt === true) yield* this.#drainPreempt();
  }

  /** Runs all lines until the main one has come to its end. */
  async *#runAll(main: Line): AsyncGenerator<FlowItem, void> {
    this.#main = main;
    while (main.state !== 'ended') {
      if (this.#failure !== undefined) throw this.#failure.error;
      const line = this.#lines.find(({ state }) => state === 'ready');
      if (line === undefined) await this.#change();
      else yield* this.#run(line);
    }
  }

  /** Reads the pages of a checkpoint (COLO), where the main line is now, up to their EOF. @throws like {@link read} */
  checkpoint(): AsyncGenerator<FlowItem, void> {
    const before = this.#main as Line;
    const main: Line = { ...before, steps: decodeCheckpoint(before.reader.window, this.#state), state: 'ready' };
    this.#lines[this.#lines.indexOf(before)] = main;
    return this.#runAll(main);
  }

  /** Waits until a line is ready, or has failed. */
  async #change(isOver = () => false): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#failure !== undefined || isOver() || this.#lines.some(({ state }) => state === 'ready')) resolve();
    });
  }

  /** Runs the decoder of a line until it waits. */
  async *#run(line: Line): AsyncGenerator<FlowItem, void> {
    for (;;) {
      const { done, value: step } = line.steps.next();
      if (done === true) {
        line.state = 'ended';
        return;
      }
      if (isNeed(step)) {
        if (line.isMain) this.#kept.keep(line.reader.window);
        return this.#await(line, this.#satisfy(line, step));
      }
      if (step.kind === 'wait') {
        line.state = 'held';
        return;
      }
      if (isInflateRequest(step)) return this.#await(line, line.inflate?.(step) ?? Promise.resolve());
      if (line.isMain) yield* this.#takeMain(line, step);
      else yield step;
      if (line.state !== 'ready') return;
    }
  }

  #await(line: Line, work: Promise<void>): void {
    line.state = 'busy';
    work.then(
      () => {
        line.state = 'ready';
        this.#wake();
      },
      (error: unknown) => {
        // Lines that broke before a recovery do not count.
        if (this.#lines.includes(line)) this.#failure ??= { error };
        this.#wake();
      },
    );
  }

  /**
   * Makes bytes available. The main stream gets what there is if it can go on without more, and the source has been silent
   * for a while: it may wait for an answer.
   */
  async #satisfy({ reader, isMain }: Line, need: Need): Promise<void> {
    if (!isMain || (need.kind === 'more' && need.optional !== true && this.#late === undefined))
      return reader.satisfy(need);
    const filling = (this.#late ?? Promise.resolve()).then(() => reader.satisfy(need));
    let isFilled = false;
    this.#late = filling.then(() => {
      isFilled = true;
    });
    // A failure is reported here, or where the next bytes are needed.
    this.#late.catch(() => {});
    const isOptional = need.kind === 'more' && need.optional === true;
    await (isOptional ? settledWithin(this.#late, silenceMs) : this.#late);
    if (isFilled) this.#late = undefined;
  }

  /** Handles an item of the main stream. */
  async *#takeMain(line: Line, item: FlowItem): AsyncGenerator<FlowItem, void> {
    switch (item.kind) {
      case 'pages':
        if (!this.#state.ram.postcopy) this.#channels.checkMainPages(item, line.reader.window);
        yield* this.#unpacker.unpack(item);
        return;
      case 'configuration':
        this.#channels.checkConfiguration(item.configuration);
        break;
      case 'blocks-end':
        yield item;
        this.#hasBlocks = true;
        this.#channels.release();
        this.#letGo();
        return;
      case 'section':
        this.#kept.begin(item.section, line.reader.window);
        if (item.section.name === 'ram' && item.section.kind === 'start') await this.#options.channelsKnown?.();
        break;
      case 'section-end':
        if (item.section.name === 'ram' && this.#channels.count === 0) this.#unmarked++;
        this.#kept.end(line.reader.window);
        break;
      case 'sync':
        yield* this.#meet(line, item);
        return;
      case 'eof': {
        const finding = this.#channels.atEnd();
        if (finding !== undefined) yield { kind: 'finding', finding };
        break;
      }
      case 'finding':
        if (item.finding.code === 'bad-description') this.#brokenDescription = item.finding;
        break;
      case 'description':
        this.#brokenDescription = undefined;
        break;
      case 'end':
        // A file that breaks off there has all of the guest. A source that did has not said that it was done.
        if (this.#brokenDescription !== undefined) {
          const { place } = this.#brokenDescription;
          throw new MigrationError('truncated', 'the stream breaks off in the VM description', place);
        }
        break;
      default:
    }
    yield item;
  }

  /** Lets the channels come to the mark of the main stream, passes on their items, and lets them go on behind it. */
  async *#meet(line: Line, item: FlowItem & { kind: 'sync' }): AsyncGenerator<FlowItem, void> {
    const place = { ...line.reader.window.place(item.offset), section: 'ram' };
    line.state = 'held';
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.error;
      const other = this.#lines.find(({ state, isMain }) => state === 'ready' && !isMain);
      if (other !== undefined) {
        yield* this.#run(other);
        continue;
      }
      if (this.#channels.hasReached(place)) {
        if (this.#coming === 'none' || !this.#mayLackChannel) break;
        if (this.#coming === undefined) this.#ask();
      }
      const isAsked = this.#coming === 'asked';
      await this.#change(() => isAsked && this.#coming === 'none');
    }
    line.state = 'ready';
    if (this.#channels.count > 0) this.#channels.pass();
    this.#letGo();
    yield { ...item, channels: this.#channels.count };
  }

  /** Whether a channel is missing at a mark: all of them, or one. */
  get #lacksChannel(): boolean {
    return this.#channels.count === 0 || this.#channels.lacksOne;
  }

  get #mayLackChannel(): boolean {
    return this.#lacksChannel || !this.#channels.showsAll;
  }

  /** Asks for another channel, unless none came when it was asked for before. */
  #ask(): void {
    this.#coming = 'asked';
    const another = this.#options.anotherChannel?.(this.#lacksChannel) ?? Promise.resolve(false);
    void another.then((came) => {
      this.#coming = came ? undefined : 'none';
      this.#wake();
    });
  }

  /** Ends the reading with an error, if no line has failed before. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  async *#drainPreempt(): AsyncGenerator<FlowItem, void> {
    const line = this.#preempt;
    while (line !== undefined && line.state !== 'ended') {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (line.state === 'ready') yield* this.#run(line);
      else await this.#change();
    }
  }

  #letGo(): void {
    for (const line of this.#lines) if (line.state === 'held' && !line.isMain) line.state = 'ready';
  }

  /** Reads the main stream on until its source ends it, and ignores what comes. @throws whatever the source throws */
  async passEnd(): Promise<void> {
    const reader = this.#main?.reader;
    await this.#late;
    while (reader !== undefined && !reader.window.ended) {
      reader.window.position = reader.window.limit;
      await reader.satisfy({ kind: 'more', bytes: 1 });
    }
  }

  /** Reads what follows the stream on the main line: as many bytes as fit, or fewer; 0 at the end of the line. */
  async readOn(target: Uint8Array): Promise<number> {
    const reader = this.#main?.reader;
    await this.#late;
    if (reader === undefined) return 0;
    const { window } = reader;
    if (window.position === window.limit) await reader.satisfy({ kind: 'more', bytes: 1 });
    const count = Math.min(target.length, window.limit - window.position);
    target.set(window.bytes.subarray(window.position, window.position + count));
    window.position += count;
    return count;
  }

  /** Frees the decompressors. The sources must have ended or been destroyed: otherwise they may still write to the arena. */
  close(): void {
    this.#channels.close();
  }
}

function isInflateRequest(step: Step): step is InflateRequest {
  return step.kind === 'unpack';
}
