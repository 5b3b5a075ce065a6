/**
 * Which of several files are the channels of a main stream (docs/formats/multifd.md, "Which channels belong together").
 * A file beside the main stream may be left over from an earlier save of the same VM. It has the same UUID, and even its
 * number may be free. So its packets are compared with those of the others: only headers are read, no pages.
 */
import { type ByteSource, readFully } from '../io/byte-source.ts';
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { CommandCode } from '../wire/command.ts';
import {
  devicePacketLength,
  helloLength,
  multifdHeaderLength,
  multifdMagic,
  PacketFlag,
} from '../wire/multifd-packet.ts';
import type { MigrationFile } from './open.ts';

/** What a main stream says about its channels. */
export interface MainFacts {
  /** Marks that each channel answers with a SYNC. */
  marks: number;
  /** The stream was read to its end, so it has no further marks. */
  isWhole: boolean;
  /** Bytes of a page. */
  pageSize: number;
  /** 32 hex digits, if the stream states it. */
  uuid: string | undefined;
}

/** A file that begins like a channel. */
export interface ScannedChannel {
  name: string;
  /** Its number. */
  id: number;
  uuid: string;
  /** Packet numbers, each once, in the order of the file. */
  numbers: readonly number[];
  /** Packet numbers of the SYNCs. */
  syncs: readonly number[];
  /** Packets are numbered without gaps: no SYNC of before 9.0, and no device state. */
  isGapless: boolean;
  /** The file is readable to its end. */
  isWhole: boolean;
}

/** A file that is not used, and the reason. */
export interface RefusedChannel {
  name: string;
  reason: string;
}

/** The channels of a main stream, in the order of their numbers, and the files that do not belong to it. */
export interface ChosenChannels {
  channels: string[];
  refused: RefusedChannel[];
}

/** Bytes of a header up to its number of zero pages. */
const fixedHeader = 36;
/** The most packets that are compared: those of 4 TiB of pages. */
const maxPackets = 1 << 23;

/**
 * Reads a main stream without its channels. Undefined if it is not one: it has pages with data, or no marks. Pages that
 * follow a switchover to postcopy do not go through channels.
 */
export async function readMainFacts(file: MigrationFile): Promise<MainFacts | undefined> {
  if (file.format === 'mapped-ram') return undefined;
  let [flushes, sections, flushesInStart, pageSize] = [0, 0, 0, 4096];
  let uuid: string | undefined;
  let isPostcopy = false;
  let isWhole = false;
  try {
    for await (const item of file.flow({ read: 'bitmaps' })) {
      if (item.kind === 'configuration') uuid = item.configuration.uuid;
      else if (item.kind === 'block') pageSize = item.block.pageSize;
      else if (item.kind === 'sync') flushes++;
      else if (item.kind === 'section' && item.section.name === 'ram') {
        if (sections === 1) flushesInStart = flushes;
        sections++;
      } else if (item.kind === 'command' && item.command.code === CommandCode.postcopyRun) isPostcopy = true;
      else if (item.kind === 'pages' && !isPostcopy && hasData(item.batch)) return undefined;
      else if (item.kind === 'eof') isWhole = true;
    }
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
  }
  // Before 8.1 the end of each section is a mark. The last one may be cut off.
  const ends = isWhole ? sections : Math.max(0, sections - 1);
  const marks = flushesInStart > 0 || (sections === 1 && flushes > 0) ? flushes : ends;
  return marks === 0 ? undefined : { marks, isWhole, pageSize, uuid };
}

const hasData = ({ kind, count }: PageBatch) => kind.subarray(0, count).some((each) => each !== PageKind.zero);

/** Reads the headers of a channel's packets. Undefined if the source does not begin like a channel. */
export async function scanChannel(source: ByteSource, pageSize: number): Promise<ScannedChannel | undefined> {
  const { size } = source;
  if (size === undefined || size < helloLength) return undefined;
  const hello = new Uint8Array(helloLength);
  await readFully(source, hello, 0);
  if (new DataView(hello.buffer).getUint32(0) !== multifdMagic) return undefined;
  const uuid = Array.from(hello.subarray(8, 24), (byte) => byte.toString(16).padStart(2, '0')).join('');
  const numbers = new Set<number>();
  const syncs: number[] = [];
  let isGapless = true;
  let at = helloLength;
  const bytes = new Uint8Array(devicePacketLength);
  const view = new DataView(bytes.buffer);
  while (at + fixedHeader <= size && numbers.size < maxPackets) {
    const wanted = bytes.subarray(0, Math.min(devicePacketLength, size - at));
    await readFully(source, wanted, at);
    if (view.getUint32(0) !== multifdMagic) break;
    const flags = view.getUint32(8);
    if ((flags & PacketFlag.deviceState) !== 0) {
      isGapless = false;
      at += devicePacketLength + view.getUint32(272);
      continue;
    }
    const number = Number(view.getBigUint64(24));
    numbers.add(number);
    if ((flags & PacketFlag.sync) !== 0) {
      syncs.push(number);
      if (view.getUint32(12) > 0) isGapless = false;
    }
    at += multifdHeaderLength(pageSize) + payloadLength(view, flags, pageSize);
  }
  const id = hello[24] as number;
  return { name: source.name, id, uuid, numbers: [...numbers], syncs, isGapless, isWhole: at === size };
}

function payloadLength(view: DataView, flags: number, pageSize: number): number {
  const normalPages = view.getUint32(16);
  if (normalPages === 0) return 0;
  return (flags & PacketFlag.compression) === 0 ? normalPages * pageSize : view.getUint32(20);
}

/** Chooses the channels that fit the main stream and each other. */
export function chooseChannels(main: MainFacts, found: readonly ScannedChannel[]): ChosenChannels {
  const refused: RefusedChannel[] = [];
  const fitting: ScannedChannel[] = [];
  for (const channel of [...found].sort((a, b) => a.id - b.id)) {
    const reason = contradictsMain(channel, main) ?? contradictsNumbering(channel, fitting);
    if (reason === undefined) fitting.push(channel);
    else refused.push({ name: channel.name, reason });
  }
  const names = (channels: readonly ScannedChannel[]) => channels.map(({ name }) => name);
  if (findConflict(fitting) === undefined) return { channels: names(fitting), refused };
  // A later, smaller set has overwritten the channels with the lowest numbers.
  for (let count = fitting.length - 1; count > 0; count--) {
    const set = fitting.slice(0, count);
    if (findConflict(set) !== undefined || !isComplete(set)) continue;
    for (const channel of fitting.slice(count)) {
      const reason = findConflict([...set, channel]) ?? 'its packets are not those of this migration';
      refused.push({ name: channel.name, reason: `${reason}: it is left over from another save` });
    }
    return { channels: names(set), refused };
  }
  const conflict = findConflict(fitting) as string;
  const reason = `${conflict}: they are of different saves, and nothing shows which belongs to the main stream`;
  return { channels: [], refused: [...refused, ...fitting.map(({ name }) => ({ name, reason }))] };
}

function contradictsMain({ uuid, syncs, isWhole }: ScannedChannel, main: MainFacts): string | undefined {
  if (main.uuid !== undefined && uuid !== main.uuid) {
    return `its guest UUID is ${uuid}, that of the main stream ${main.uuid}`;
  }
  const isFew = isWhole && syncs.length < main.marks;
  const isMany = main.isWhole && syncs.length > main.marks;
  return isFew || isMany ? `it has ${syncs.length} SYNCs, and the main stream has ${main.marks} marks` : undefined;
}

function contradictsNumbering(channel: ScannedChannel, others: readonly ScannedChannel[]): string | undefined {
  const same = others.find(({ id }) => id === channel.id);
  if (same !== undefined) return `it is channel ${channel.id}, and so is ${same.name}`;
  const other = others.find(({ uuid }) => uuid !== channel.uuid);
  return other === undefined ? undefined : `its guest UUID is ${channel.uuid}, that of ${other.name} ${other.uuid}`;
}

/**
 * Why channels cannot be of one migration: a packet number occurs in two of them, or a SYNC has a higher number than one of
 * the next round. A channel may repeat its own numbers (7.2).
 */
function findConflict(channels: readonly ScannedChannel[]): string | undefined {
  const owners = new Map<number, ScannedChannel>();
  for (const channel of channels) {
    for (const number of channel.numbers) {
      const owner = owners.get(number);
      if (owner !== undefined) return `${owner.name} and ${channel.name} both have packet ${number}`;
      owners.set(number, channel);
    }
  }
  const rounds = Math.max(0, ...channels.map(({ syncs }) => syncs.length));
  for (let round = 1; round < rounds; round++) {
    for (const early of channels) {
      for (const late of channels) {
        const [one = -1, other = Number.POSITIVE_INFINITY] = [early.syncs[round - 1], late.syncs[round]];
        if (one > other) return `SYNC ${one} of ${early.name} comes after SYNC ${other} of ${late.name}`;
      }
    }
  }
  return undefined;
}

/**
 * Whether channels are all channels of a migration: their packets are numbered from 0 without a gap. Before 9.0 numbers are
 * left out, but the first SYNCs have the numbers from 0 on. A single channel of that time proves nothing.
 */
function isComplete(channels: readonly ScannedChannel[]): boolean {
  if (channels.every(({ isGapless }) => isGapless)) {
    const count = channels.reduce((sum, { numbers }) => sum + numbers.length, 0);
    return channels.every(({ numbers }) => numbers.every((number) => number < count));
  }
  return channels.length > 1 && channels.every(({ syncs: [first = 0] }) => first < channels.length);
}
