/**
 * Drives decoders over bytes in memory, delivered in chunks of any size, and returns the results as plain values.
 *
 * The window slides: at every need the unread bytes move, and all others are poisoned. This exposes a decoder that
 * keeps a reference across a need. Batches are taken apart into records, because the number of records in a batch
 * depends on the chunks.
 */
import { expect } from 'vitest';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import type { FlowItem } from '../../src/vm/flow.ts';
import { MigrationError } from '../../src/vm/migration-error.ts';
import { ByteWindow, maxNeed, type Need } from '../../src/wire/byte-window.ts';
import { decodeStream, type StreamOptions } from '../../src/wire/stream.ts';

/** A page record, taken out of its batch. */
export interface PageRecord {
  kind: 'page';
  block: string;
  page: number;
  is: keyof typeof PageKind;
  offset: number;
  size: number;
  payload: Uint8Array;
}

/** A block's bitmap, joined from its pieces. */
interface WholeBitmap {
  kind: 'bitmap-bits';
  block: string;
  bits: number[];
}

export type PlainItem = Exclude<FlowItem, { kind: 'pages' } | { kind: 'bitmap' }> | PageRecord | WholeBitmap;

export interface Decoded<Item> {
  items: Item[];
  /** What the decoder threw, if it threw a MigrationError. */
  error: MigrationError | undefined;
}

const POISON = 0xa5;

/** The bytes of a source, passed to a decoder's window in chunks of `chunk` bytes. */
class ChunkedWindow {
  readonly window: ByteWindow;
  readonly #source: Uint8Array;
  readonly #chunk: number;
  /** Index of the first byte that was valid at any time since the last move. */
  #first = 0;

  constructor(source: Uint8Array, chunk: number, offset: number) {
    this.#source = source;
    this.#chunk = Math.max(1, chunk);
    this.window = new ByteWindow(new Uint8Array(2 * maxNeed + this.#chunk), 'test.bin');
    this.window.base = offset;
    this.window.size = source.length;
  }

  answer(want: Need): void {
    const { window } = this;
    if (want.kind === 'seek') {
      this.#move(window.bytes.subarray(0, 0), want.offset);
      window.ended = false;
      return;
    }
    expect(want.bytes).toBeLessThanOrEqual(maxNeed);
    this.#move(window.bytes.slice(window.position, window.limit), window.offset);
    while (window.available < want.bytes) {
      const at = window.base + window.limit;
      const piece = this.#source.subarray(at, at + this.#chunk);
      window.bytes.set(piece, window.limit);
      window.limit += piece.length;
      if (piece.length > 0) continue;
      window.ended = true;
      return;
    }
  }

  /** Makes `unread` the content of the window, at a new place. */
  #move(unread: Uint8Array, offset: number): void {
    const { window } = this;
    window.bytes.fill(POISON, this.#first, window.limit);
    window.position = (window.position + 13) % 64;
    this.#first = window.position;
    window.limit = window.position + unread.length;
    window.bytes.set(unread, window.position);
    window.base = offset - window.position;
  }
}

/** Runs a decoder to its end. `onItem` sees each yielded item before the decoder continues. */
export function run<Item, Result>(
  source: Uint8Array,
  chunk: number,
  makeDecoder: (window: ByteWindow) => Generator<Need | Item, Result>,
  onItem: (item: Item, window: ByteWindow) => void = () => {},
  offset = 0,
): Result {
  const chunked = new ChunkedWindow(source, chunk, offset);
  const decoder = makeDecoder(chunked.window);
  for (;;) {
    const step = decoder.next();
    if (step.done === true) return step.value;
    const { kind } = step.value as { kind: string };
    if (kind === 'more' || kind === 'seek') chunked.answer(step.value as Need);
    else onItem(step.value as Item, chunked.window);
  }
}

const kernel = await loadKernel({ arenaBytes: 1 << 20 });
const kindNames = Object.fromEntries(Object.entries(PageKind).map(([name, kind]) => [kind, name]));

export interface DecodeOptions extends StreamOptions {
  /** Where the stream begins in the bytes. */
  offset?: number;
  /** The most records in a batch. */
  capacity?: number;
}

const batches = new Map<number, PageBatch>();
function batchOf(capacity: number): PageBatch {
  const batch = batches.get(capacity) ?? new PageBatch(kernel, capacity);
  batches.set(capacity, batch);
  batch.clear();
  return batch;
}

/** Decodes a stream that arrives in chunks of `chunk` bytes. */
export function decodeChunked(bytes: Uint8Array, chunk: number, options: DecodeOptions = {}): Decoded<PlainItem> {
  const items: PlainItem[] = [];
  const batch = batchOf(options.capacity ?? 64);
  const take = (item: FlowItem, window: ByteWindow): void => {
    if (item.kind === 'pages') {
      expect(item.batch.count, 'records in a batch').toBeGreaterThan(0);
      for (let i = 0; i < item.batch.count; i++) items.push(takeRecord(item.block.idstr, item.batch, i, window));
    } else if (item.kind === 'bitmap') {
      expect(item.firstPage % 64, 'first page of a bitmap').toBe(0);
      const last = items.at(-1);
      const { idstr } = item.block;
      if (item.firstPage > 0 && last?.kind === 'bitmap-bits') {
        expect(item.firstPage, 'pages before a piece of a bitmap').toBe(last.bits.length * 8);
        last.bits.push(...item.bits);
      } else items.push({ kind: 'bitmap-bits', block: idstr, bits: [...item.bits] });
    } else items.push(item);
  };
  try {
    run<FlowItem, void>(bytes, chunk, (window) => decodeStream(window, batch, options), take, options.offset ?? 0);
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return { items, error };
  }
  return { items, error: undefined };
}

/**
 * How often a decoder that has all of these bytes, and gets no more, waits for bytes that it can do without, before it passes on
 * the command `last`.
 */
export function silencesBefore(last: string, bytes: Uint8Array): number {
  const window = new ByteWindow(new Uint8Array(bytes.length + maxNeed), 'test.bin');
  window.bytes.set(bytes);
  window.limit = bytes.length;
  let silences = 0;
  for (const step of decodeStream(window, batchOf(64), {})) {
    if (step.kind === 'command' && step.command.name === last) return silences;
    if (step.kind !== 'more') continue;
    expect(step.optional, `at ${window.offset} of ${bytes.length}`).toBe(true);
    silences++;
  }
  throw new Error(`there is no ${last}`);
}

function takeRecord(block: string, batch: PageBatch, i: number, window: ByteWindow): PageRecord {
  const at = batch.data[i] as number;
  return {
    kind: 'page',
    block,
    page: batch.page[i] as number,
    is: kindNames[batch.kind[i] as number] as keyof typeof PageKind,
    offset: batch.offset[i] as number,
    size: batch.size[i] as number,
    payload: window.bytes.slice(at, at + (batch.length[i] as number)),
  };
}

/** Chunk sizes in bytes. Every stream must give the same result with each. */
const chunkings = [1, 7, 4099];

/** Decodes a stream with all chunk sizes, requires that the results agree, and returns the result. */
export function decode(bytes: Uint8Array, options: DecodeOptions = {}): Decoded<PlainItem> {
  const whole = decodeChunked(bytes, bytes.length, options);
  for (const chunk of chunkings) {
    expectSame(decodeChunked(bytes, chunk, options), whole, `chunks of ${chunk}`);
  }
  return whole;
}

/** Requires the same items and the same error. */
export function expectSame(actual: Decoded<PlainItem>, expected: Decoded<PlainItem>, what: string): void {
  // Compares as text first: a diff of pages is slow, and needed only on failure.
  if (print(actual.items) !== print(expected.items)) expect(actual.items, what).toEqual(expected.items);
  expect(actual.error?.message, what).toEqual(expected.error?.message);
  expect(actual.error?.place, what).toEqual(expected.error?.place);
}

function print(items: readonly PlainItem[]): string {
  return JSON.stringify(items, (_, value) =>
    value instanceof Uint8Array
      ? Buffer.from(value).toString('latin1')
      : typeof value === 'bigint'
        ? `${value}n`
        : value,
  );
}

/** The items of a stream that can be read to its end. */
export function itemsOf(bytes: Uint8Array, options: DecodeOptions = {}): PlainItem[] {
  const { items, error } = decode(bytes, options);
  if (error !== undefined) throw error;
  return items;
}

/** The error that ends the decoding of a stream. */
export function errorOf(bytes: Uint8Array, options: DecodeOptions = {}): MigrationError {
  const { error } = decode(bytes, options);
  if (error === undefined) throw new Error('expected an error, got a whole stream');
  return error;
}

/** The items of one kind. */
export function ofKind<Kind extends PlainItem['kind']>(
  items: readonly PlainItem[],
  kind: Kind,
): Extract<PlainItem, { kind: Kind }>[] {
  return items.filter((item): item is Extract<PlainItem, { kind: Kind }> => item.kind === kind);
}

/** Codes of the findings, in order. */
export const codesOf = (items: readonly PlainItem[]): string[] =>
  ofKind(items, 'finding').map(({ finding }) => finding.code);

/** Page records as `block:page kind`, in order, with `|` where a pass ends. */
export function pagesOf(items: readonly PlainItem[]): string[] {
  return items.flatMap((item) =>
    item.kind === 'page' ? [`${item.block}:${item.page} ${item.is}`] : item.kind === 'pass-end' ? ['|'] : [],
  );
}
