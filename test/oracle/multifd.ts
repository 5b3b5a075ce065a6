/**
 * The channels of a multifd migration. Each is read whole into a list of packets; its compressed payloads are joined
 * and decompressed together. Epoch i of a channel is the data before its i-th SYNC.
 */
import { constants, inflateRawSync, inflateSync } from 'node:zlib';
import { Decompress } from 'fzstd';
import { Cursor } from './cursor.ts';
import { LAST_NORMAL, LAST_ZERO, type RamBlock } from './ram.ts';

const MAGIC = 0x11223344;
const SYNC = 0x01;
const DEVICE_STATE = 0x40;
const METHODS: Record<number, string> = { 0: 'none', 2: 'zlib', 4: 'zstd', 8: 'qpl', 16: 'uadk' };
const PACKET_RAM = 512 * 1024;

interface Packet {
  at: number;
  isSync: boolean;
  block: string;
  normal: number[];
  zero: number[];
  method: string;
  payload: Uint8Array;
  /** The data of the normal pages. */
  data: Uint8Array;
}

export class Channels {
  private readonly cursors: Cursor[] = [];
  private readonly uuids: string[] = [];
  private packets: Packet[][] | undefined;

  constructor(channels: readonly Uint8Array[]) {
    for (const bytes of channels) {
      const cursor = new Cursor(bytes, 0);
      cursor.mark();
      if (cursor.u32('a channel') !== MAGIC) throw cursor.error('not a multifd channel', 0);
      if (cursor.u32('a channel') !== 1) throw cursor.error('another version of multifd', 0);
      const uuid = Buffer.from(cursor.take(16, 'a channel')).toString('hex');
      const id = cursor.u8('a channel');
      cursor.skip(39, 'a channel');
      if (id >= channels.length) throw cursor.error(`channel ${id} of ${channels.length}`, 0);
      if (this.cursors[id] !== undefined) throw cursor.error(`a second channel ${id}`, 0);
      this.cursors[id] = cursor;
      this.uuids.push(uuid);
    }
    if (new Set(this.uuids).size > 1) throw new Cursor(new Uint8Array(), 0).error('channels of different guests');
  }

  get isEmpty(): boolean {
    return this.cursors.length === 0;
  }

  checkUuid(uuid: string): void {
    for (const [i, each] of this.uuids.entries()) {
      if (each !== uuid) throw this.cursors[i]!.error('a channel of another guest', 0);
    }
  }

  /** Boundaries of the packets and payloads of each channel, by channel number. */
  boundaries(): number[][] {
    return this.cursors.map((cursor) => [...cursor.boundaries].sort((a, b) => a - b));
  }

  /** Applies the data of every channel up to its next SYNC. */
  applyEpoch(blocks: readonly RamBlock[], pageSize: number): void {
    this.packets ??= this.readAll(pageSize);
    for (const [i, packets] of this.packets.entries()) {
      for (;;) {
        const packet = packets.shift();
        if (packet === undefined) throw this.cursors[i]!.error('a channel with too few SYNCs', this.cursors[i]!.limit);
        this.applyPacket(packet, blocks, pageSize, this.cursors[i]!);
        if (packet.isSync) break;
      }
    }
  }

  /** After the last mark, only packets without pages may follow. */
  end(): void {
    for (const [i, packets] of (this.packets ?? []).entries()) {
      for (const { isSync, normal, zero, at } of packets) {
        if (isSync || normal.length + zero.length > 0)
          throw this.cursors[i]!.error('more data than the marks require', at);
      }
    }
  }

  private applyPacket(packet: Packet, blocks: readonly RamBlock[], pageSize: number, cursor: Cursor): void {
    const { normal, zero, data, at } = packet;
    if (normal.length + zero.length === 0) return;
    const block = blocks.find(({ idstr }) => idstr === packet.block);
    if (block === undefined) throw cursor.error(`pages of unknown block "${packet.block}"`, at);
    for (const page of [...zero, ...normal]) {
      if (page >= block.usedLength / pageSize) throw cursor.error(`page ${page} outside its block`, at);
    }
    for (const page of zero) block.pages.set(page, { last: LAST_ZERO, data: undefined });
    for (const [i, page] of normal.entries()) {
      block.pages.set(page, { last: LAST_NORMAL, data: data.subarray(i * pageSize, (i + 1) * pageSize) });
    }
  }

  private readAll(pageSize: number): Packet[][] {
    const all = this.cursors.map((cursor) => {
      const packets: Packet[] = [];
      while (cursor.at < cursor.limit) {
        const packet = readPacket(cursor, pageSize);
        if (packet !== undefined) packets.push(packet);
      }
      cursor.mark();
      return packets;
    });
    const methods = new Set(all.flat().flatMap(({ normal, method }) => (normal.length > 0 ? [method] : [])));
    if (methods.size > 1) throw this.cursors[0]!.error('channels with different compression', 0);
    for (const [i, packets] of all.entries()) unpackAll(packets, pageSize, this.cursors[i]!);
    return all;
  }
}

/** Reads a packet and its payload; returns nothing for a packet with a device's state. */
function readPacket(cursor: Cursor, pageSize: number): Packet | undefined {
  const capacity = PACKET_RAM / pageSize;
  cursor.mark();
  const at = cursor.at;
  if (cursor.u32('a packet') !== MAGIC || cursor.u32('a packet') !== 1) throw cursor.error('not a packet', at);
  const flags = cursor.u32('a packet');
  if (flags === DEVICE_STATE) {
    const name = cursor.take(256, 'a device packet');
    if (!name.includes(0)) throw cursor.error('a device name without end', at);
    cursor.skip(4, 'a device packet');
    const length = cursor.u32('a device packet');
    if (length === 0) throw cursor.error('an empty device packet', at);
    cursor.skip(length, 'the state of a device');
    return undefined;
  }
  const method = METHODS[flags & ~SYNC];
  if (method === undefined) throw cursor.error(`packet flags 0x${flags.toString(16)}`, at);
  const allocated = cursor.u32('a packet');
  const normalCount = cursor.u32('a packet');
  const payloadLength = cursor.u32('a packet');
  cursor.skip(8, 'the number of a packet');
  const zeroCount = cursor.u32('a packet');
  cursor.skip(28, 'a packet');
  if (allocated > capacity || normalCount + zeroCount > allocated) throw cursor.error('too many pages in a packet', at);
  const name = cursor.text(256, 'the block name of a packet').split('\0')[0]!;
  const pages: number[] = [];
  for (let i = 0; i < capacity; i++) {
    const offset = cursor.u64('the pages of a packet');
    if (i >= normalCount + zeroCount) continue;
    if (offset % BigInt(pageSize) !== 0n) throw cursor.error('an offset that is not a page boundary', at);
    pages.push(Number(offset / BigInt(pageSize)));
  }
  cursor.mark();
  // The length is meaningful only with normal pages and compression.
  const length = normalCount === 0 ? 0 : method === 'none' ? normalCount * pageSize : payloadLength;
  if (length > 2 * PACKET_RAM) throw cursor.error('a payload that is too long', at);
  const payload = cursor.take(length, 'the payload of a packet');
  cursor.mark();
  const [normal, zero] = [pages.slice(0, normalCount), pages.slice(normalCount)];
  return { at, isSync: (flags & SYNC) !== 0, block: name, normal, zero, method, payload, data: payload };
}

/** Finds the data of all the packets of a channel. */
function unpackAll(packets: readonly Packet[], pageSize: number, cursor: Cursor): void {
  const packed = packets.filter(({ normal }) => normal.length > 0);
  const method = packed[0]?.method;
  if (method === undefined || method === 'none') return;
  if (method === 'qpl' || method === 'uadk') {
    for (const packet of packed) packet.data = unpackPages(packet, pageSize, cursor);
    return;
  }
  const whole = Buffer.concat(packed.map(({ payload }) => payload));
  let data: Uint8Array;
  try {
    // Neither format's stream is ever finished.
    data = method === 'zlib' ? inflateSync(whole, { finishFlush: constants.Z_SYNC_FLUSH }) : unpackZstd(whole);
  } catch (error) {
    throw cursor.error(`a channel that does not decompress (${(error as Error).message})`, 0);
  }
  let from = 0;
  for (const packet of packed) {
    const to = from + packet.normal.length * pageSize;
    if (to > data.length) throw cursor.error('a channel that decompresses to too little', packet.at);
    packet.data = new Uint8Array(data.subarray(from, to));
    from = to;
  }
  if (from !== data.length) throw cursor.error('a channel that decompresses to too much', cursor.limit);
}

function unpackZstd(whole: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  new Decompress((part) => parts.push(part.slice())).push(whole);
  return Buffer.concat(parts);
}

/** Lengths of the pages, then each page by itself; a page of full size is uncompressed. */
function unpackPages({ method, normal, payload, at }: Packet, pageSize: number, cursor: Cursor): Uint8Array {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const inflate = method === 'qpl' ? inflateRawSync : inflateSync;
  const pages: Uint8Array[] = [];
  let from = 4 * normal.length;
  for (let i = 0; i < normal.length; i++) {
    const length = view.getUint32(4 * i);
    const packed = payload.subarray(from, from + length);
    pages.push(length === pageSize ? packed : inflate(packed));
    from += length;
  }
  const data = Buffer.concat(pages);
  if (from !== payload.length || data.length !== normal.length * pageSize) throw cursor.error('bad page lengths', at);
  return data;
}
