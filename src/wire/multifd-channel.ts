/**
 * A multifd channel (docs/formats/multifd.md): the packets of one epoch, up to and including the SYNC that ends it.
 *
 *     packet · payload · packet · payload · … · SYNC        the main stream has a mark for every SYNC
 *
 * Uncompressed pages are passed on in place, in the window. Compressed pages are decompressed through an
 * {@link InflateRequest} into slots for the pages of one packet. This file knows no compression library.
 */
import type { BatchOrigin, PageBatch } from '../kernel/page-batch.ts';
import { PageKind } from '../kernel/page-batch.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError, makeFinding, type Place } from '../vm/migration-error.ts';
import { pageCount, type RamBlock } from '../vm/ram-block.ts';
import { type ByteWindow, has, type InflateFormat, type InflateRequest, type Need, need, skip } from './byte-window.ts';
import {
  badPacket,
  devicePacketLength,
  type MultifdHeader,
  type MultifdHello,
  maxPayload,
  multifdHeaderLength,
  PacketFlag,
  type PacketMethod,
  packetRamBytes,
  packetStart,
  pageOffsetAt,
  readDevicePacket,
  readPacketFlags,
  readPacketHeader,
} from './multifd-packet.ts';
import type { PacketNumbers } from './packet-numbers.ts';
import type { RamState } from './ram-record.ts';
import { findPacket, isWithinDamage } from './salvage.ts';

/** What a channel has sent so far. */
interface ChannelCounts {
  /** Packets of all kinds. */
  packets: number;
  syncs: number;
  normalPages: number;
  zeroPages: number;
  devicePackets: number;
  /** Bytes of output of the decompressor. */
  decompressedBytes: number;
}

export interface ChannelState {
  readonly hello: MultifdHello;
  readonly counts: ChannelCounts;
  /** The compressed stream of the channel is damaged, so no later page can be decompressed. */
  isBroken?: boolean;
}

/** What the channels of a migration share. */
export interface PacketContext {
  readonly ram: RamState;
  readonly batch: PageBatch;
  /** Arena address of {@link packetRamBytes} bytes for decompressed pages. */
  readonly slots: number;
  /** `bitmaps`: payloads are skipped, and batches have no data. */
  readonly read: 'pages' | 'bitmaps';
  readonly shared: SharedByChannels;
}

/** What all channels of a migration have in common. */
export interface SharedByChannels {
  readonly numbers: PacketNumbers;
  /** The compression method. Undefined until the first packet with data. */
  method: PacketMethod | undefined;
}

type Item = Need | InflateRequest | FlowItem;

/**
 * Page numbers of the current packet. Only one packet is decoded at a time, and the decoder never yields a need between
 * reading and copying them.
 */
const maxPages = packetRamBytes / 1024;

/**
 * Decodes packets up to and including the next SYNC. `mark` is the place of the corresponding mark in the main stream.
 */
export function* decodeEpoch(
  window: ByteWindow,
  channel: ChannelState,
  context: PacketContext,
  mark: Place,
): Generator<Item, void> {
  const pages = new Float64Array(maxPages);
  const ended = () => {
    const message = `expected a SYNC for the mark at ${mark.offset} of ${mark.source}, got the end of the channel`;
    return new MigrationError('sync-missing', message, window.place());
  };
  for (;;) {
    if (!(yield* has(window, 1))) throw ended();
    const start = window.offset;
    try {
      if (yield* decodePacket(window, channel, context, pages)) return;
    } catch (error) {
      if (!context.ram.partial || !isWithinDamage(error)) throw error;
      yield { kind: 'finding', finding: error.toFinding() };
      // A packet whose pages do not decompress has been passed.
      if (window.offset === start) window.position += 1;
      if (!(yield* findPacket(window))) throw ended();
    }
  }
}

/** Decodes a packet. Returns whether it ends the epoch. */
function* decodePacket(
  window: ByteWindow,
  channel: ChannelState,
  context: PacketContext,
  pages: Float64Array,
): Generator<Item, boolean> {
  const { counts } = channel;
  const { pageSize } = context.ram;
  yield* need(window, packetStart, 'a multifd packet');
  const flags = readPacketFlags(window);
  counts.packets++;
  if ((flags & PacketFlag.deviceState) !== 0) {
    yield* decodeDevicePacket(window);
    counts.devicePackets++;
    context.shared.numbers.disable();
    return false;
  }
  yield* need(window, multifdHeaderLength(pageSize), 'a multifd packet');
  const header = readPacketHeader(window, flags, pageSize, pages);
  context.shared.numbers.add(header.packetNumber, header);
  if (header.normalPages + header.zeroPages > 0) yield* decodePages(window, header, pages, channel, context);
  else window.position += multifdHeaderLength(pageSize);
  if (header.sync) counts.syncs++;
  return header.sync;
}

/** Decodes what follows the last epoch: only packets without pages, which an idle QEMU 7.2 sends. */
export function* decodeChannelEnd(
  window: ByteWindow,
  { counts }: ChannelState,
  { ram }: PacketContext,
): Generator<Need | FlowItem, void> {
  const headerLength = multifdHeaderLength(ram.pageSize);
  const pages = new Float64Array(maxPages);
  while (yield* has(window, 1)) {
    yield* need(window, packetStart, 'a multifd packet');
    const flags = readPacketFlags(window);
    if (flags !== 0) break;
    yield* need(window, headerLength, 'a multifd packet');
    const { normalPages, zeroPages } = readPacketHeader(window, flags, ram.pageSize, pages);
    if (normalPages + zeroPages > 0) break;
    counts.packets++;
    window.position += headerLength;
  }
  if (window.available === 0) return;
  const message = "the channel goes on after the SYNC of the main stream's last mark";
  yield { kind: 'finding', finding: makeFinding('sync-mismatch', message, window.place()) };
}

function* decodeDevicePacket(window: ByteWindow): Generator<Item, void> {
  yield* need(window, devicePacketLength, 'a device-state packet');
  const place = window.place();
  const device = readDevicePacket(window);
  window.position += devicePacketLength;
  yield* skip(window, device.length, 'the state of a device');
  yield { kind: 'device-packet', device, place };
}

function* decodePages(
  window: ByteWindow,
  header: MultifdHeader,
  pages: Float64Array,
  channel: ChannelState,
  context: PacketContext,
): Generator<Item, void> {
  const { ram, batch, read, shared } = context;
  const { normalPages, zeroPages, method } = header;
  const place = window.place();
  const block = ram.byName.get(header.block);
  if (block === undefined) {
    throw new MigrationError('unknown-block', `pages of RAM block "${header.block}", which was not listed`, place);
  }
  if (normalPages > 0) {
    shared.method ??= method;
    if (method !== shared.method) throw badPacket(window, `expected compression ${shared.method}, got ${method}`);
    if (method !== 'none' && header.payloadLength > maxPayload) {
      throw badPacket(window, `expected at most ${maxPayload} bytes of compressed pages, got ${header.payloadLength}`);
    }
  }
  channel.counts.normalPages += normalPages;
  channel.counts.zeroPages += zeroPages;
  const { source, coordinate } = window;
  const origin: BatchOrigin = { source, coordinate, channel: channel.hello.id };
  const offsets = window.offset;
  window.position += multifdHeaderLength(ram.pageSize);

  batch.begin(origin);
  const inBlock = pageCount(block);
  for (let i = normalPages; i < normalPages + zeroPages; i++) {
    const page = pages[i] as number;
    if (page < inBlock) batch.push(PageKind.zero, page, offsets + pageOffsetAt(i), 8, 0, 0);
    else yield outside(block, page, place);
  }
  yield* flush(block, batch);
  if (normalPages === 0) return;

  const length = method === 'none' ? normalPages * ram.pageSize : header.payloadLength;
  const payload: Payload = { block, pages, count: normalPages, length, place };
  if (ram.partial && method !== 'none' && read === 'pages') {
    // If they do not decompress, an earlier copy is stale.
    for (const page of pages.subarray(0, normalPages)) {
      if (page < inBlock) yield { kind: 'discard', block, firstPage: page, pages: 1 };
    }
    if (channel.isBroken === true) {
      yield* skip(window, length, 'the pages of a multifd packet');
      return;
    }
  }
  if (read === 'bitmaps') yield* passOver(window, payload, batch);
  else if (method === 'none') yield* readPages(window, payload, batch);
  else if (method === 'qatzip') yield* refuse(window, payload, method);
  else {
    if (method === 'zlib' || method === 'zstd') yield* unpackTogether(window, payload, channel, context, method);
    else yield* unpackOneByOne(window, payload, context, method === 'qpl' ? 'deflate-page' : 'zlib-page');
    batch.begin({ ...origin, coordinate: 'decompressed' });
    const each = Math.floor(length / normalPages);
    for (let i = 0; i < normalPages; i++) {
      const page = pages[i] as number;
      const at = channel.counts.decompressedBytes + i * ram.pageSize;
      // One page's share of the payload.
      const size = 8 + (i === 0 ? length - each * (normalPages - 1) : each);
      if (page < inBlock) batch.push(PageKind.data, page, at, size, context.slots + i * ram.pageSize, ram.pageSize);
      else yield outside(block, page, place);
    }
    channel.counts.decompressedBytes += normalPages * ram.pageSize;
    yield* flush(block, batch);
  }
}

/** The data of a packet. */
interface Payload {
  block: RamBlock;
  /** Page numbers; the first `count` are those of the data. */
  pages: Float64Array;
  count: number;
  /** Bytes. */
  length: number;
  /** The place of the packet. */
  place: Place;
}

/** Reads uncompressed pages, as many at a time as the window holds. */
function* readPages(
  window: ByteWindow,
  { block, pages, count, place }: Payload,
  batch: PageBatch,
): Generator<Item, void> {
  const { pageSize } = block;
  const inBlock = pageCount(block);
  for (let i = 0; i < count; ) {
    if (window.available < pageSize) {
      yield* flush(block, batch);
      yield* need(window, pageSize, 'the pages of a multifd packet');
    }
    const whole = Math.min(count - i, Math.floor(window.available / pageSize));
    const end = endBelow(pages, i, i + whole, inBlock);
    batch.pushPages(pages.subarray(i, end), window.offset, window.position, pageSize);
    window.position += (end - i) * pageSize;
    const isAll = end === i + whole;
    i = end;
    if (isAll) continue;
    yield outside(block, pages[i] as number, place);
    window.position += pageSize;
    i++;
  }
  yield* flush(block, batch);
}

/** The index of the first page from `from` on that is not below `limit`; `end` if there is none. */
function endBelow(pages: Float64Array, from: number, end: number, limit: number): number {
  let i = from;
  while (i < end && (pages[i] as number) < limit) i++;
  return i;
}

/** Skips pages whose content is not needed. */
function* passOver(
  window: ByteWindow,
  { block, pages, count, length, place }: Payload,
  batch: PageBatch,
): Generator<Item, void> {
  const offset = window.offset;
  yield* skip(window, length, 'the pages of a multifd packet');
  const each = Math.floor(length / count);
  for (let i = 0; i < count; i++) {
    const size = 8 + (i === 0 ? length - each * (count - 1) : each);
    const page = pages[i] as number;
    if (page < pageCount(block)) batch.push(PageKind.data, page, offset, size, 0, 0);
    else yield outside(block, page, place);
  }
  yield* flush(block, batch);
}

/** Reports pages in a format that vmferry cannot decompress, and skips them. */
function* refuse(window: ByteWindow, payload: Payload, method: string): Generator<Item, void> {
  const { block, pages, count, length, place } = payload;
  yield* skip(window, length, 'the pages of a multifd packet');
  const numbers: number[] = [];
  for (const page of pages.subarray(0, count)) {
    if (page < pageCount(block)) numbers.push(page);
    else yield outside(block, page, place);
  }
  yield { kind: 'unread-pages', block, pages: numbers, method, place };
}

/** zlib, zstd: each channel has one compressed stream, which continues in every packet. */
function* unpackTogether(
  window: ByteWindow,
  { block, count, length, place }: Payload,
  channel: ChannelState,
  context: PacketContext,
  format: InflateFormat,
): Generator<Item, void> {
  const size = count * block.pageSize;
  let written = 0;
  for (let left = length; left > 0; ) {
    if (window.available === 0) yield* need(window, 1, 'the pages of a multifd packet');
    const step = Math.min(left, window.available);
    const input = window.bytes.subarray(window.position, window.position + step);
    const target = window.bytes.subarray(context.slots + written, context.slots + size);
    const want: InflateRequest = { kind: 'unpack', format, input, target, written: 0, place };
    yield want;
    if (want.error !== undefined) {
      channel.isBroken = true;
      if (context.ram.partial) yield* skip(window, left, 'the pages of a multifd packet');
      throw want.error;
    }
    written += want.written;
    window.position += step;
    left -= step;
  }
  if (written === size) return;
  channel.isBroken = true;
  throw badData(`expected ${size} bytes of pages to come out, got ${written}`, place);
}

/**
 * qpl, uadk: a table of be32 lengths, then the pages one by one. A page whose length is the page size is uncompressed.
 * It is unknown whether the payload's length includes the table, so both are accepted.
 */
function* unpackOneByOne(
  window: ByteWindow,
  { block, count, length, place }: Payload,
  context: PacketContext,
  format: InflateFormat,
): Generator<Item, void> {
  const { pageSize } = block;
  yield* need(window, 4 * count, 'the lengths of compressed pages');
  const lengths = Array.from({ length: count }, (_, i) => window.view.getUint32(window.position + 4 * i));
  const sum = lengths.reduce((total, each) => total + each, 0);
  if (sum !== length && sum + 4 * count !== length) {
    throw badPacket(window, `expected lengths of pages that add up to ${length}, got ${sum}`);
  }
  window.position += 4 * count;
  for (const [i, each] of lengths.entries()) {
    if (each > pageSize)
      throw badPacket(window, `expected a compressed page of at most ${pageSize} bytes, got ${each}`);
    yield* need(window, each, 'a compressed page');
    const input = window.bytes.subarray(window.position, window.position + each);
    const target = window.bytes.subarray(context.slots + i * pageSize, context.slots + (i + 1) * pageSize);
    if (each === pageSize) target.set(input);
    else {
      const want: InflateRequest = { kind: 'unpack', format, input, target, written: 0, place };
      yield want;
      if (want.error !== undefined) throw want.error;
      if (want.written !== pageSize) throw badData(`expected a page of ${pageSize} bytes, got ${want.written}`, place);
    }
    window.position += each;
  }
}

function badData(message: string, place: Place): MigrationError {
  return new MigrationError('bad-compressed-data', message, place);
}

/** Reports a page beyond the end of its block. The page is skipped. */
function outside(block: RamBlock, page: number, place: Place): FlowItem {
  const message = `expected an offset below ${block.usedLength}, got ${page * block.pageSize}`;
  const where = { ...place, section: 'ram', block: block.idstr, page };
  return { kind: 'finding', finding: makeFinding('page-out-of-range', message, where) };
}

function* flush(block: RamBlock, batch: PageBatch): Generator<FlowItem, void> {
  if (batch.count === 0) return;
  sortByPage(batch);
  yield { kind: 'pages', block, batch };
  batch.clear();
}

const keys = new Float64Array(maxPages);

/**
 * Sorts the records of one packet in ascending order, as in every batch. QEMU 10.0 reverses some pages of a packet when
 * it separates the zero pages. If a page occurs twice, the last record counts.
 */
function sortByPage(batch: PageBatch): void {
  const { count, page } = batch;
  let isSorted = true;
  for (let i = 1; i < count && isSorted; i++) isSorted = (page[i - 1] as number) < (page[i] as number);
  if (isSorted) return;
  for (let i = 0; i < count; i++) keys[i] = (page[i] as number) * maxPages + i;
  const order = keys.subarray(0, count).sort();
  const { offset, data, length, size } = batch;
  const [offsets, addresses, lengths, sizes] = [
    offset.slice(0, count),
    data.slice(0, count),
    length.slice(0, count),
    size.slice(0, count),
  ];
  let kept = 0;
  for (let i = 0; i < count; i++) {
    const key = order[i] as number;
    const from = key % maxPages;
    const number = (key - from) / maxPages;
    if (i + 1 < count && (order[i + 1] as number) < (number + 1) * maxPages) continue;
    page[kept] = number;
    offset[kept] = offsets[from] as number;
    data[kept] = addresses[from] as number;
    length[kept] = lengths[from] as number;
    size[kept] = sizes[from] as number;
    kept++;
  }
  batch.count = kept;
}
