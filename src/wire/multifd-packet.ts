/**
 * The first bytes of a multifd channel, and the headers of its packets (docs/formats/multifd.md). All integers
 * big-endian.
 *
 *     hello, 64 bytes                        RAM packet, 320 + 8 * P bytes; P = 512 KiB / page size
 *     0   be32  magic 0x11223344             0    be32   magic 0x11223344
 *     4   be32  version 1                    4    be32   version 1
 *     8   16    guest UUID                   8    be32   flags
 *     24  u8    channel number               12   be32   pages allocated, at most P
 *     25  39    zero                         16   be32   pages with data (normal)
 *                                            20   be32   bytes of payload; means nothing without normal pages
 *     device-state packet, 276 bytes         24   be64   number of the packet
 *     0   12    magic, version, flags        32   be32   zero pages (9.0 and later)
 *     12  256   idstr, ends with a zero      36   28     zero
 *     268 be32  instance id                  64   256    name of the RAM block, padded with zeros
 *     272 be32  bytes that follow            320  be64[] offsets in the block: normal pages, then zero pages
 *
 * multifd-channel.ts handles the payload and the order of packets.
 */

import { MigrationError } from '../vm/migration-error.ts';
import { type ByteWindow, latin1, type Need, need } from './byte-window.ts';
import { type ByteWriter, requireName } from './byte-writer.ts';

export const multifdMagic = 0x11223344;
export const multifdVersion = 1;

export const helloLength = 64;
const uuidOffset = 8;
const uuidLength = 16;
const idOffset = 24;

/** What a channel states about itself. */
export interface MultifdHello {
  /** Guest UUID as 32 hex digits; all zero if the guest has none. */
  uuid: string;
  /** Number of the channel, from 0. */
  id: number;
}

/** Decodes a channel's first bytes. @throws MigrationError `bad-channel` for another magic or version. */
export function* decodeHello(window: ByteWindow): Generator<Need, MultifdHello> {
  yield* need(window, helloLength, 'the first bytes of a multifd channel');
  const { bytes, view, position } = window;
  const magic = view.getUint32(position);
  const version = view.getUint32(position + 4);
  if (magic !== multifdMagic || version !== multifdVersion) {
    const isMain = latin1(bytes, position, 4) === 'QEVM';
    const got = isMain ? 'a migration stream' : `magic 0x${magic.toString(16)}, version ${version}`;
    throw new MigrationError(
      'bad-channel',
      `expected the first bytes of a multifd channel, got ${got}`,
      window.place(),
    );
  }
  const uuid = bytes.subarray(position + uuidOffset, position + uuidOffset + uuidLength);
  const hello = { uuid: toHex(uuid), id: bytes[position + idOffset] as number };
  window.position += helloLength;
  return hello;
}

/** The number in the first bytes of a channel; undefined if there are too few. */
export const numberOfHello = (bytes: Uint8Array): number | undefined => bytes[idOffset];

const toHex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Encodes a channel's first bytes. @throws RangeError for a malformed UUID or a channel number out of range. */
export function encodeMultifdHello(out: ByteWriter, { uuid, id }: MultifdHello): void {
  out.u32(multifdMagic).u32(multifdVersion).hex(uuid, uuidLength).u8(id);
  out.raw(new Uint8Array(helloLength - idOffset - 1));
}

export const PacketFlag = {
  sync: 0x01,
  compression: 0x3e,
  deviceState: 0x40,
} as const;

/** Compression methods by their value in the flags. */
const methods = { 0: 'none', 2: 'zlib', 4: 'zstd', 8: 'qpl', 16: 'uadk', 32: 'qatzip' } as const;
/** How the pages of multifd packets are compressed. */
export type PacketMethod = (typeof methods)[keyof typeof methods];

const methodFlag = (method: PacketMethod): number =>
  Number(Object.entries(methods).find(([, name]) => name === method)?.[0]);

/** The most guest memory that a packet can hold, in bytes. */
export const packetRamBytes = 512 * 1024;
/** The largest payload that QEMU accepts, in bytes. */
export const maxPayload = 2 * packetRamBytes;

const nameOffset = 64;
const nameLength = 256;
const offsetsOffset = 320;

/** The most pages that a packet can hold. */
export const multifdPacketPages = (pageSize: number): number => packetRamBytes / pageSize;

/** Bytes of a packet's header. */
export const multifdHeaderLength = (pageSize: number): number => offsetsOffset + 8 * multifdPacketPages(pageSize);

/** A RAM packet's header without its offsets. */
export interface MultifdHeader {
  /** The packet ends the channel's part of an epoch. */
  sync: boolean;
  /** How the payload is compressed. */
  method: PacketMethod;
  /** Pages that the sender allocated: {@link multifdPacketPages}, or 0 in a SYNC of QEMU 10.0. */
  pagesAllocated: number;
  /** Pages with data in the payload. */
  normalPages: number;
  /** Bytes of the payload, which follows the header. */
  payloadLength: number;
  /** Number of the packet, counted over all channels. */
  packetNumber: bigint;
  /** Pages that are only listed, without data. */
  zeroPages: number;
  /** Idstr of the block. In packets without pages it may be that of an earlier packet. */
  block: string;
}

/** Bytes of the header that identify the kind of a packet. */
export const packetStart = 12;

/** Reads the flags of the packet at the window's position. @throws MigrationError `bad-packet`. */
export function readPacketFlags(window: ByteWindow): number {
  const { view, position } = window;
  const magic = view.getUint32(position);
  const version = view.getUint32(position + 4);
  if (magic !== multifdMagic || version !== multifdVersion) {
    throw badPacket(window, `expected a multifd packet, got magic 0x${magic.toString(16)}, version ${version}`);
  }
  const flags = view.getUint32(position + 8);
  const known = PacketFlag.sync | PacketFlag.compression | PacketFlag.deviceState;
  const method = flags & PacketFlag.compression;
  const isAlone = (flags & PacketFlag.deviceState) === 0 || flags === PacketFlag.deviceState;
  if ((flags & ~known) !== 0 || (method & (method - 1)) !== 0 || !isAlone) {
    throw badPacket(window, `expected a valid combination of flags, got 0x${flags.toString(16)}`);
  }
  return flags;
}

/**
 * Reads the header at the window's position, and the pages that it names. The window must contain the whole header.
 * `pages` receives page numbers within the block, not checked against its length. The position does not change.
 * @throws MigrationError `bad-packet` for counts beyond the limits, and offsets inside a page.
 */
export function readPacketHeader(
  window: ByteWindow,
  flags: number,
  pageSize: number,
  pages: Float64Array,
): MultifdHeader {
  const { bytes, view, position } = window;
  const pagesAllocated = view.getUint32(position + 12);
  const normalPages = view.getUint32(position + 16);
  const zeroPages = view.getUint32(position + 32);
  if (pagesAllocated > multifdPacketPages(pageSize)) {
    throw badPacket(window, `expected at most ${multifdPacketPages(pageSize)} pages allocated, got ${pagesAllocated}`);
  }
  const count = normalPages + zeroPages;
  if (count > pagesAllocated) throw badPacket(window, `expected at most ${pagesAllocated} pages, got ${count}`);
  for (let i = 0; i < count; i++) {
    const at = position + offsetsOffset + 8 * i;
    const page = (view.getUint32(at) * 0x1_0000_0000 + view.getUint32(at + 4)) / pageSize;
    // A page far beyond any block may lose its low bits when it becomes a number. It is refused as beyond its block.
    if (!Number.isInteger(page)) {
      throw badPacket(
        window,
        `expected offsets of pages of ${pageSize} bytes, got 0x${view.getBigUint64(at).toString(16)}`,
      );
    }
    pages[i] = page;
  }
  const name = bytes.subarray(position + nameOffset, position + nameOffset + nameLength);
  const end = name.indexOf(0);
  return {
    sync: (flags & PacketFlag.sync) !== 0,
    method: methods[(flags & PacketFlag.compression) as keyof typeof methods],
    pagesAllocated,
    normalPages,
    payloadLength: view.getUint32(position + 20),
    packetNumber: view.getBigUint64(position + 24),
    zeroPages,
    block: latin1(name, 0, end === -1 ? nameLength : end),
  };
}

/** The position of the offset of page `i`, from the beginning of the packet. */
export const pageOffsetAt = (i: number): number => offsetsOffset + 8 * i;

/**
 * Encodes a header at the beginning of `target`, with the numbers of its pages: the normal ones, then the zero ones.
 * Unused fields are zero, as in QEMU 10.0.
 * @throws RangeError for a name or a number of pages that does not fit, impossible pages, and a target that is too
 *   small.
 */
export function encodeMultifdHeader(
  target: Uint8Array,
  header: MultifdHeader,
  pageSize: number,
  pages: ArrayLike<number>,
): void {
  const { block, normalPages, zeroPages, packetNumber } = header;
  const count = normalPages + zeroPages;
  const most = multifdPacketPages(pageSize);
  if (count > most) throw new RangeError(`expected at most ${most} pages in a packet, got ${count}`);
  if (count > 0) requireCString(block);
  const length = multifdHeaderLength(pageSize);
  if (target.length < length)
    throw new RangeError(`expected a target of at least ${length} bytes, got ${target.length}`);
  const view = new DataView(target.buffer, target.byteOffset, length);
  target.fill(0, 0, view.byteLength);
  view.setUint32(0, multifdMagic);
  view.setUint32(4, multifdVersion);
  view.setUint32(8, (header.sync ? PacketFlag.sync : 0) | methodFlag(header.method));
  view.setUint32(12, header.pagesAllocated);
  view.setUint32(16, normalPages);
  view.setUint32(20, header.payloadLength);
  view.setBigUint64(24, packetNumber);
  view.setUint32(32, zeroPages);
  for (let i = 0; i < block.length; i++) target[nameOffset + i] = block.charCodeAt(i);
  for (let i = 0; i < count; i++) {
    const offset = (pages[i] as number) * pageSize;
    if (!(Number.isSafeInteger(offset) && offset >= 0)) throw new RangeError(`expected a page, got ${pages[i]}`);
    view.setUint32(offsetsOffset + 8 * i, Math.floor(offset / 0x1_0000_0000));
    view.setUint32(offsetsOffset + 8 * i + 4, offset >>> 0);
  }
}

/** Requires a name without a zero byte, because names in packets end with one. */
function requireCString(name: string): void {
  requireName(name);
  if (name.includes('\0'))
    throw new RangeError(`expected a name without zeros in a packet, got ${JSON.stringify(name)}`);
}

export const devicePacketLength = 276;
const deviceNameOffset = 12;
const instanceOffset = 268;

/** A part of a device's state. */
export interface DevicePacket {
  name: string;
  instanceId: number;
  /** Bytes that follow the header. */
  length: number;
}

/** Reads a device-state header at the window's position. The window must contain the whole header. */
export function readDevicePacket(window: ByteWindow): DevicePacket {
  const { bytes, view, position } = window;
  const name = bytes.subarray(position + deviceNameOffset, position + deviceNameOffset + nameLength);
  const end = name.indexOf(0);
  const length = view.getUint32(position + 272);
  if (end === -1 || length === 0) {
    const got = end === -1 ? 'an unterminated name' : '0 bytes';
    throw badPacket(window, `expected a part of a device's state, got ${got}`);
  }
  return { name: latin1(name, 0, end), instanceId: view.getUint32(position + instanceOffset), length };
}

/** Encodes the header; `length` bytes of the device's state follow it. @throws RangeError for a name that does not fit. */
export function encodeDevicePacket(out: ByteWriter, { name, instanceId, length }: DevicePacket): void {
  requireCString(name);
  out.u32(multifdMagic).u32(multifdVersion).u32(PacketFlag.deviceState);
  out
    .text(name)
    .raw(new Uint8Array(nameLength - name.length))
    .u32(instanceId)
    .u32(length);
}

/** An error about the packet at the window's position. */
export function badPacket(window: ByteWindow, message: string): MigrationError {
  return new MigrationError('bad-packet', message, window.place());
}
