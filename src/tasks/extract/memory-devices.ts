/**
 * The places of memory devices (docs/formats/x86-memory.md, "Memory devices"): DIMMs, NVDIMMs and virtio-mem. The file
 * has the addresses of virtio-mem (in its state) and of NVDIMMs that were there at boot (in the ACPI tables), but not
 * those of DIMMs. They follow QEMU's rule unless something else states them.
 */
import { findValue } from '../../devices/find-value.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import type { AcpiMemory } from './acpi-memory.ts';
import type { MemoryMap } from './memory-map.ts';
import { countSlots, type DeviceBody, pciPrefix } from './pc-chipset.ts';
import type { Assumption, LayoutOptions } from './physical-layout.ts';
import type { AddressRange } from './srat.ts';

/** How the address of a memory device is known: `rule` is QEMU's rule for addresses that nobody states. */
export type DevicePlaceFrom = 'stated' | 'device state' | 'acpi' | 'libvirt' | 'rule';

/** A memory device in guest-physical memory. */
export interface MemoryDevice {
  kind: 'dimm' | 'nvdimm' | 'virtio-mem';
  block: RamBlock;
  address: number;
  /** Bytes of address space that it takes. */
  length: number;
  from: DevicePlaceFrom;
  /** The visible parts: of virtio-mem, the plugged ones. Offsets count from `address`, and from the block's beginning. */
  parts: { offset: number; length: number }[];
}

/** A block and the address at which the guest sees it. */
export interface StatedDevice {
  /** Its idstr. */
  block: string;
  address: number;
}

const MiB = 2 ** 20;
const GiB = 2 ** 30;
/** QEMU's alignment of a memory device whose size allows it. */
const dimmAlign = 2 * MiB;
/** The smallest label area of an NVDIMM, and the most bytes at the end of its block that the guest does not see. */
const minLabel = 128 << 10;
const maxLabel = 4 * MiB;

const hex = (address: number) => `0x${address.toString(16)}`;
export const alignUp = (value: number, to: number): number => Math.ceil(value / to) * to;

const whole = (block: RamBlock, address: number, from: DevicePlaceFrom, length = block.usedLength): MemoryDevice => ({
  ...{ kind: 'dimm', block, address, length, from },
  parts: [{ offset: 0, length }],
});

/** The devices that the options state. @throws RangeError for a block that does not exist, or has a place */
export function stateDevices(
  free: readonly RamBlock[],
  nvdimms: readonly AddressRange[],
  { dimms = [] }: LayoutOptions,
): MemoryDevice[] {
  const taken = new Set<RamBlock>();
  return dimms.map(({ block: idstr, address }) => {
    const left = free.filter((each) => !taken.has(each));
    const block = left.find((each) => each.idstr === idstr);
    if (block === undefined) {
      const names = left.map((each) => each.idstr).join(', ') || 'there is none';
      throw new RangeError(`expected a block that has no place yet (${names}), got "${idstr}"`);
    }
    taken.add(block);
    return wholeOr(block, address, 'stated', nvdimms);
  });
}

/** All of a block, or the part of it that an NVDIMM at this address shows. */
function wholeOr(
  block: RamBlock,
  address: number,
  from: DevicePlaceFrom,
  nvdimms: readonly AddressRange[],
): MemoryDevice {
  const nvdimm = nvdimms.find(({ base, length }) => base === address && isSizeOf(block, length));
  return nvdimm === undefined
    ? whole(block, address, from)
    : { ...whole(block, address, from, nvdimm.length), kind: 'nvdimm' };
}

/** virtio-mem, whose state has its address and a bit for each plugged piece. */
export function findVirtioMem(blocks: readonly RamBlock[], devices: readonly DeviceBody[]): MemoryDevice[] {
  return blocks.flatMap((block) => {
    const prefix = pciPrefix(block.idstr);
    if (prefix === undefined || prefix === '') return [];
    const early = devices.find(({ name }) => name === `${prefix}virtio-mem-device-early`)?.data;
    if (early !== undefined) return decodeVirtioMem(block, early, 36);
    const { state } = devices.find(({ name }) => name === `${prefix}virtio-mem`) ?? {};
    const own = state === undefined ? undefined : findValue(state, 'virtio.device');
    return own instanceof Uint8Array ? decodeVirtioMem(block, own, 52) : [];
  });
}

/**
 * Reads the fields of virtio-mem, all big-endian. None if they do not fit the block.
 *
 *     0   8  address            16   8  bytes of a piece
 *     8   8  bytes of address   24   4  node
 *     sizes of no interest here, then the bitmap in words of 64 bits; the lowest bit is the first piece
 */
function decodeVirtioMem(block: RamBlock, fields: Uint8Array, bitmapAt: number): MemoryDevice[] {
  if (fields.length < bitmapAt) return [];
  const view = new DataView(fields.buffer, fields.byteOffset, fields.byteLength);
  const [address, length, piece] = [0, 8, 16].map((at) => Number(view.getBigUint64(at))) as [number, number, number];
  const isKnown = length === block.usedLength && piece > 0 && Number.isInteger(length / piece);
  const isPlace = address + length <= 2 ** 52 && address % block.pageSize === 0;
  if (!isKnown || !isPlace || fields.length < bitmapAt + Math.ceil(length / piece / 64) * 8) return [];
  const parts: MemoryDevice['parts'] = [];
  for (let i = 0; i < length / piece; i++) {
    const byte = fields[bitmapAt + (i >> 6) * 8 + 7 - ((i >> 3) & 7)] as number;
    if (((byte >> (i & 7)) & 1) === 0) continue;
    const last = parts.at(-1);
    if (last !== undefined && last.offset + last.length === i * piece) last.length += piece;
    else parts.push({ offset: i * piece, length: piece });
  }
  return [{ kind: 'virtio-mem', block, address, length, from: 'device state', parts }];
}

/**
 * Finds the block of each NVDIMM in the ACPI tables, by its size: the guest sees all of the block but the labels at its
 * end.
 */
export function matchNvdimms(
  blocks: readonly RamBlock[],
  nvdimms: readonly AddressRange[],
  assumed: Assumption[],
): MemoryDevice[] {
  const left = inPluggingOrder(blocks);
  const found: MemoryDevice[] = [];
  for (const { base, length } of [...nvdimms].sort((a, b) => a.base - b.base)) {
    const fitting = left.filter((block) => isSizeOf(block, length) && base % block.pageSize === 0);
    const [block, ...others] = fitting.sort((a, b) => a.usedLength - b.usedLength);
    if (block === undefined) continue;
    left.splice(left.indexOf(block), 1);
    found.push({ ...whole(block, base, 'acpi', length), kind: 'nvdimm' });
    if (others.length === 0) continue;
    const names = others.map(({ idstr }) => idstr).join(', ');
    assumed.push({
      ...{ what: 'memory-device', blocks: [block.idstr], option: 'dimms', address: base },
      text: `${block.idstr} is assumed to be the NVDIMM at ${hex(base)}, whose size also fits ${names}`,
    });
  }
  return found;
}

function isSizeOf(block: RamBlock, length: number): boolean {
  const label = block.usedLength - length;
  return label === 0 || (label >= minLabel && label <= maxLabel);
}

/** The devices whose addresses are in the configuration of the virtual machine. */
export function findConfigured(
  blocks: readonly RamBlock[],
  nvdimms: readonly AddressRange[],
  configured: readonly StatedDevice[],
): MemoryDevice[] {
  return blocks.flatMap((block) => {
    const device = configured.find((each) => each.block === block.idstr);
    return device === undefined ? [] : [wholeOr(block, device.address, 'libvirt', nvdimms)];
  });
}

/** What QEMU's rule needs besides the blocks. */
export interface RuleFacts {
  devices: readonly DeviceBody[];
  acpi: AcpiMemory | undefined;
  /** The end of the RAM above 4 GiB, or 4 GiB. */
  highEnd: number;
  /** Memory devices with a known place. */
  known: readonly MemoryDevice[];
}

/**
 * Places blocks as QEMU does where no address is stated: each at the first free address, in the order in which the
 * devices were plugged. The file does not have that order. It is assumed that of their names, and among blocks of one
 * size that of their creation. Blocks that do not fit are left out.
 */
export function placeByRule(
  blocks: readonly RamBlock[],
  { devices, acpi, highEnd, known }: RuleFacts,
  assumed: Assumption[],
): MemoryDevice[] {
  const reserved = acpi?.affinity?.deviceMemory;
  // Without a SRAT, slots show that the machine has addresses for memory devices.
  if (reserved === undefined && (countSlots(devices) ?? 0) === 0) return [];
  const base = reserved?.base ?? alignUp(highEnd, GiB);
  const end = base + (reserved?.length ?? 2 ** 52 - base);
  if (!Number.isSafeInteger(base) || base < highEnd || end > 2 ** 52) return [];
  const placed: MemoryDevice[] = [];
  for (const block of inPluggingOrder(blocks)) {
    const address = firstFree(block, base, [...known, ...placed]);
    if (address + block.usedLength > end) continue;
    placed.push(whole(block, address, 'rule'));
  }
  const order = placed.length > 1 ? `, in the order ${placed.map(({ block }) => block.idstr).join(', ')}` : '';
  for (const { block, address } of placed) {
    assumed.push({
      ...{ what: 'memory-device', blocks: [block.idstr], option: 'dimms', address },
      text: `${block.idstr} is assumed to be at ${hex(address)}, where QEMU puts memory devices by default${order}`,
    });
  }
  return placed;
}

function firstFree(block: RamBlock, base: number, taken: readonly MemoryDevice[]): number {
  const align = block.usedLength % dimmAlign === 0 ? Math.max(dimmAlign, block.pageSize) : block.pageSize;
  let address = alignUp(base, align);
  for (const device of [...taken].sort((a, b) => a.address - b.address)) {
    if (address + block.usedLength <= device.address) break;
    address = Math.max(address, alignUp(device.address + device.length, align));
  }
  return address;
}

/** Blocks by their names, with numbers by value; blocks of one size in the order of the stream, that of their creation. */
function inPluggingOrder(blocks: readonly RamBlock[]): RamBlock[] {
  const left = [...blocks];
  return [...blocks].sort(byName).map(({ usedLength }) => {
    const at = left.findIndex((block) => block.usedLength === usedLength);
    return left.splice(at, 1)[0] as RamBlock;
  });
}

/** Texts and numbers of a name, in turn. */
const partsOf = ({ idstr }: RamBlock): string[] => idstr.match(/\d+|\D+/g) ?? [];

function byName(a: RamBlock, b: RamBlock): number {
  const left = partsOf(a);
  const right = partsOf(b);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [x = '', y = ''] = [left[i], right[i]];
    const difference = Number(x) - Number(y) || (x < y ? -1 : x > y ? 1 : 0);
    if (difference !== 0) return difference;
  }
  return a.index - b.index;
}

/**
 * Returns why the device has no place, if it has none.
 * @throws RangeError for a stated address that is impossible, or not free
 */
export function paintDevice(map: MemoryMap, { block, address, length, parts, from }: MemoryDevice): string | undefined {
  const end = address + length;
  const isPlace = Number.isSafeInteger(address) && address >= 0 && address % block.pageSize === 0 && end <= 2 ** 52;
  if (!isPlace && from === 'stated') {
    throw new RangeError(`expected a page's address for ${block.idstr}, got ${address}`);
  }
  if (!isPlace) return 'the address of its device is impossible';
  const isTaken = parts.some((part) => map.has(address + part.offset, part.length));
  if (isTaken && from === 'stated') {
    throw new RangeError(`expected a free place for ${block.idstr}, got ${hex(address)} to ${hex(end)}`);
  }
  if (isTaken) return `other memory is at its address, ${hex(address)}`;
  for (const part of parts)
    map.paint({ start: address + part.offset, length: part.length, block, offset: part.offset });
  return undefined;
}
