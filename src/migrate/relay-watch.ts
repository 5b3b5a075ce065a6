/**
 * What a relay knows of the migration that passes through it. It looks at the bytes of the main connection, and never
 * changes or holds back one of them.
 *
 *     source → target    OPEN_RETURN_PATH   POSTCOPY_ADVISE   POSTCOPY_RAM_DISCARD or PACKAGED   EOF
 *                        a return path      a preempt         postcopy has begun                 the stream is whole
 *                        follows            channel may come
 *     target → source    REQ_PAGES, PONG 3                    SHUT
 *                        postcopy has begun                   the target has the guest, or refuses it
 *
 * A stream that it cannot decode, of a newer QEMU perhaps, passes all the same. What is known then comes from the return
 * path, whose messages state their lengths.
 */
import type { PageBatch } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { ByteWindow, type Need } from '../wire/byte-window.ts';
import { CommandCode } from '../wire/command.ts';
import { ReturnType } from '../wire/return-path.ts';
import { decodeStream } from '../wire/stream.ts';
import { allPagesPong, allPagesQuestion } from './answers.ts';
import type { Onlooker } from './relay-pump.ts';

/** Commands that a source sends only once it has begun postcopy. */
const postcopyCommands: readonly number[] = [
  ...[CommandCode.postcopyListen, CommandCode.postcopyRun, CommandCode.postcopyRamDiscard, CommandCode.packaged],
  ...[CommandCode.postcopyResume, CommandCode.recvBitmap],
];

/** What is known of the stream of a source. */
export class StreamWatch {
  /** Whether the source opens a return path. Undefined: it may still do so. */
  hasReturnPath: boolean | undefined;
  /** Whether the source may open a preempt channel. Undefined: it is not known yet. */
  mayPreempt: boolean | undefined;
  hasPostcopy = false;
  /** Offset of the byte after the end of the stream, if it has ended in good order, as far as it was decoded. */
  wholeAt: number | undefined;
  /** It is not decoded any more. */
  isLost = false;
  /** Resolves when a preempt channel may come. */
  readonly preempts: Promise<undefined>;
  /** Resolves with whether one may come, at the latest when the stream has ended. */
  readonly advice: Promise<boolean>;
  #onPreempts: () => void = () => {};
  #onAdvice: (mayPreempt: boolean) => void = () => {};
  readonly #batch: PageBatch;
  #window: ByteWindow | undefined;
  #decoder: Generator<Need | FlowItem, void> | undefined;
  /** Bytes without which the decoder does not continue. */
  #wanted = 0;

  /** `batch` is used for nothing else. */
  constructor(batch: PageBatch) {
    this.#batch = batch;
    this.preempts = new Promise((resolve) => {
      this.#onPreempts = () => resolve(undefined);
    });
    this.advice = new Promise((resolve) => {
      this.#onAdvice = resolve;
    });
  }

  /** The stream is the recovery of a migration in postcopy. It cannot be decoded without what went before. */
  beginRecovery(): void {
    this.hasReturnPath = true;
    this.hasPostcopy = true;
    this.#lose();
  }

  /** Looks at the bytes in `memory` from now on. */
  watch(memory: Uint8Array<ArrayBuffer>): Onlooker {
    const window = new ByteWindow(memory, 'main');
    this.#window = window;
    if (!this.isLost) this.#decoder = decodeStream(window, this.#batch);
    return {
      restart: (at) => {
        const rest = window.available;
        window.base += window.position - (at - rest);
        memory.copyWithin(at - rest, window.position, window.limit);
        window.position = at - rest;
        window.limit = at;
      },
      see: (_from, to) => {
        window.limit = to;
        this.#decode();
      },
    };
  }

  /** Takes an item that someone else has decoded, of the end of the stream once it was passed on. */
  note(item: FlowItem): void {
    this.#take(item);
    if (item.kind === 'eof') this.wholeAt = 0;
  }

  /** The stream has ended in good order. */
  get isWhole(): boolean {
    return this.wholeAt !== undefined;
  }

  /** The source has ended the stream. */
  end(): void {
    if (this.#window !== undefined) {
      this.#window.ended = true;
      this.#decode();
    }
    this.#onAdvice(this.mayPreempt === true);
  }

  #decode(): void {
    const window = this.#window as ByteWindow;
    try {
      while (this.#decoder !== undefined && (window.available >= this.#wanted || window.ended)) {
        const { value, done } = this.#decoder.next();
        this.#wanted = 0;
        if (done === true) this.#decoder = undefined;
        else if (value.kind === 'more') this.#wanted = value.bytes;
        else if (value.kind === 'seek') this.#lose();
        else this.#take(value as FlowItem);
      }
    } catch (error) {
      if (!(error instanceof MigrationError)) throw error;
      // A stream that ends early is known as far as it goes.
      if (error.code === 'truncated') this.#decoder = undefined;
      else this.#lose();
    }
    // What is not decoded need not be kept.
    if (this.#decoder === undefined) window.position = window.limit;
  }

  #take(item: FlowItem): void {
    if (item.kind === 'command') {
      const { code } = item.command;
      if (code === CommandCode.openReturnPath) this.hasReturnPath = true;
      else if (code === CommandCode.postcopyAdvise) this.#advised(true);
      else if (postcopyCommands.includes(code)) {
        this.hasPostcopy = true;
        // SHUT tells the rest.
        this.#decoder = undefined;
      }
    } else if (item.kind === 'section') {
      this.hasReturnPath ??= false;
      this.#advised(false);
    } else if (item.kind === 'eof') this.wholeAt = item.offset + 1;
  }

  #advised(mayPreempt: boolean): void {
    if (this.mayPreempt !== undefined) return;
    this.mayPreempt = mayPreempt;
    this.#onAdvice(mayPreempt);
    if (mayPreempt) this.#onPreempts();
  }

  #lose(): void {
    this.isLost = true;
    this.#decoder = undefined;
    this.#advised(true);
  }
}

/** What is known of a return path. */
export class ReturnWatch implements Onlooker {
  /** The status of SHUT, and the offset of the byte after it. */
  shut: { status: number; end: number } | undefined;
  /** The target has asked for a page, or it has run the package: the source has begun postcopy. */
  hasPostcopy = false;
  readonly #memory: Uint8Array;
  readonly #head = new Uint8Array(12);
  /** Bytes of the current field so far, and bytes of a payload to pass over. */
  #length = 0;
  #skip = 0;
  /** Which field comes next: the head of a message, or the size of a bitmap. */
  #field: 'head' | 'bitmap' = 'head';
  #offset = 0;

  constructor(memory: Uint8Array) {
    this.#memory = memory;
  }

  restart(): void {}

  see(from: number, to: number): void {
    for (let at = from; at < to; ) {
      if (this.#skip > 0) {
        const step = Math.min(this.#skip, to - at);
        this.#skip -= step;
        at += step;
        this.#offset += step;
      } else {
        this.#head[this.#length++] = this.#memory[at++] as number;
        this.#offset++;
        this.#field === 'head' ? this.#takeHead() : this.#takeSize();
      }
    }
  }

  /** A message's head: type and length, and a value of four bytes where one is needed. */
  #takeHead(): void {
    if (this.#length < 4) return;
    const view = new DataView(this.#head.buffer);
    const type = view.getUint16(0);
    const length = view.getUint16(2);
    const isValue = (type === ReturnType.shut || type === ReturnType.pong) && length === 4;
    if (isValue && this.#length < 8) return;
    const value = isValue ? view.getUint32(4) : 0;
    if (type === ReturnType.shut) this.shut ??= { status: value, end: this.#offset };
    if (type === ReturnType.reqPages || type === ReturnType.reqPagesId) this.hasPostcopy = true;
    const isQuestion = value === allPagesQuestion || value === allPagesPong;
    if (type === ReturnType.pong && value >= packagePing && !isQuestion) this.hasPostcopy = true;
    this.#skip = isValue ? 0 : length;
    this.#length = 0;
    // The bitmap is not counted in the length: a size, the bits, and an end mark follow the name.
    if (type === ReturnType.recvBitmap) this.#field = 'bitmap';
  }

  #takeSize(): void {
    if (this.#length < 8) return;
    this.#skip = Number(new DataView(this.#head.buffer).getBigUint64(0)) + 8;
    this.#length = 0;
    this.#field = 'head';
  }
}

/** The PING that a source sends right before the package is 2. Precopy sends only PING 1. A page server begins with a question. */
const packagePing = 2;
