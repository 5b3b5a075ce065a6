/**
 * The configuration space of PCI devices (docs/check.md, "PCI devices"). A loader compares the bits that the guest cannot
 * write, and refuses another device, or the same one with other capabilities. Only the device knows all of these bits. This
 * compares those that no guest can write on any device: ids, class, kinds of BARs, and the list of capabilities with the
 * sizes in them.
 */
import { isStruct, type StateStruct } from '../../devices/device-state.ts';
import type { SectionFacts } from './check-facts.ts';
import type { CheckEffect, CheckLog } from './check-reason.ts';

const configSize = 256;
/** Byte ranges of the header: vendor and device, revision and class, header type, subsystem. */
const header: readonly Part[] = [
  ['vendor and device id', 0, 4],
  ['revision and class', 8, 12],
  ['header type', 14, 15],
];
/** Of header type 0: six base address registers, whose low bits state their kind. */
const bars = { from: 0x10, to: 0x28, low: 0x0f, wide: 0x04, kind: 0x07 };
/** Of header type 0. Only some devices compare it, such as e1000e. */
const subsystem: Part = ['subsystem ids', 0x2c, 0x30];
const typeMask = 0x7f;

/** Compares the configuration of a device in the file with that in the target's file. */
export function comparePciConfig(section: SectionFacts, other: SectionFacts, log: CheckLog): void {
  const mine = findConfig(section);
  const theirs = findConfig(other);
  if (mine === undefined || theirs === undefined) return;
  const add = (effect: CheckEffect, [what, from, to]: Part, more = '') => {
    const message = `the PCI device has ${what} ${hex(mine.bytes, from, to)}, the target's has ${hex(theirs.bytes, from, to)}${more}`;
    const advice = 'give the target the same -device, with the same properties';
    log.add({ effect, rule: 'pci-config', message, advice, place: { ...section.place, offset: mine.offset + from } });
  };
  const difference = findDifference(mine.bytes, theirs.bytes);
  const [, from, to] = subsystem;
  const isPlain = ((mine.bytes[14] as number) & typeMask) === 0;
  if (difference !== undefined) add('refused', difference);
  else if (isPlain && hex(mine.bytes, from, to) !== hex(theirs.bytes, from, to)) {
    add('doubt', subsystem, '; some devices refuse that');
  }
}

/** Its name, its bytes, and a mask for the last one. */
type Part = readonly [what: string, from: number, to: number, mask?: number];

/** The first part that differs and that no guest can write. */
function findDifference(mine: Uint8Array, theirs: Uint8Array): Part | undefined {
  const differs = ([, from, to, mask = 0xff]: Part) => {
    const last = to - 1;
    const isSameEnd = (((mine[last] as number) ^ (theirs[last] as number)) & mask) === 0;
    return !isSameEnd || hex(mine, from, last) !== hex(theirs, from, last);
  };
  const type = (mine[14] as number) & typeMask;
  const ofHeader = [...header, ...(type === 0 ? listBars(mine) : [])].find(differs);
  if (ofHeader !== undefined) return ofHeader;
  const capabilities = listCapabilities(mine);
  const expected = listCapabilities(theirs);
  for (const [i, { id, at }] of capabilities.entries()) {
    const same = expected[i];
    if (same?.id !== id || same.at !== at) return [`capability at ${at}`, at, at + 2];
    const part = fixedParts(mine, id, at).find(differs);
    if (part !== undefined) return part;
  }
  const more = expected[capabilities.length];
  return more === undefined ? undefined : [`capability at ${more.at}`, more.at, more.at + 2];
}

/** The byte of each base address register that states its kind; a 64-bit one takes two registers. */
function listBars(bytes: Uint8Array): Part[] {
  const parts: Part[] = [];
  for (let at = bars.from; at < bars.to; at += 4) {
    parts.push([`kind of BAR ${(at - bars.from) / 4}`, at, at + 1, bars.low]);
    if (((bytes[at] as number) & bars.kind) === bars.wide) at += 4;
  }
  return parts;
}

/** Parts of a capability that no guest writes: the MSI-X tables, and a vendor's own data. */
function fixedParts(bytes: Uint8Array, id: number, at: number): Part[] {
  if (id === 0x11 && at + 12 <= configSize) {
    // The two bits above the number of vectors belong to the guest.
    return [
      ['number of MSI-X vectors', at + 2, at + 4, 0x07],
      ['place of the MSI-X tables', at + 4, at + 12],
    ];
  }
  if (id !== 0x09 || at + 16 > configSize) return [];
  // A guest may write the window through which it reaches a virtio device.
  return bytes[at + 3] === 5 ? [] : [['virtio capability', at + 2, at + 16]];
}

/** Ids and positions in list order, at most as many as fit. */
function listCapabilities(bytes: Uint8Array): { id: number; at: number }[] {
  const hasList = ((bytes[6] as number) & 0x10) !== 0;
  const list: { id: number; at: number }[] = [];
  let at = hasList ? (bytes[0x34] as number) & 0xfc : 0;
  while (at >= 0x40 && at + 2 <= configSize && list.length < 48) {
    list.push({ id: bytes[at] as number, at });
    at = (bytes[at + 1] as number) & 0xfc;
  }
  return list;
}

interface Config {
  bytes: Uint8Array;
  /** In the source. */
  offset: number;
}

/** The first 256 bytes of a PCI device's configuration space. */
function findConfig({ state }: SectionFacts): Config | undefined {
  if (state?.state === undefined) return undefined;
  const at = findConfigIn(state.state, state.data, 0);
  if (at === undefined || at + configSize > state.data.length) return undefined;
  return { bytes: state.data.subarray(at, at + configSize), offset: state.offset + at };
}

/** The structs that a PCI device's part of a state may be nested in. */
const maxDepth = 8;

function findConfigIn(struct: StateStruct, data: Uint8Array, depth: number): number | undefined {
  for (const field of struct.fields) {
    if (field.type === 'pci config') return field.offset;
    if (field.type === 'virtio') return findInVirtio(data, field.offset);
    // Parts of a device come in the order of its ancestry, so PCI is in the first field.
    if (field.type !== 'struct' || depth === maxDepth) continue;
    const { value } = field;
    const found = isStruct(value) ? findConfigIn(value, data, depth + 1) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A virtio device on PCI begins with the version of the PCI state, 2, and the configuration space: be32 | 256 bytes. */
function findInVirtio(data: Uint8Array, at: number): number | undefined {
  if (at + 4 + configSize > data.length) return undefined;
  const view = new DataView(data.buffer, data.byteOffset + at, 8);
  const redHat = 0xf41a;
  return view.getUint32(0) === 2 && view.getUint16(4) === redHat ? at + 4 : undefined;
}

function hex(bytes: Uint8Array, from: number, to: number): string {
  return Array.from(bytes.subarray(from, to), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
