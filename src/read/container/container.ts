/**
 * Files that contain a stream: finds what is around the stream, and where it begins. A compressed stream, a libvirt
 * save image (docs/formats/libvirt.md), a qcow2 image with internal snapshots (docs/formats/qcow2.md) and a zip archive
 * are recognized by their first bytes. They may be nested where that makes sense.
 */
import type { Abortable } from '../../io/abort.ts';
import { BlockCache } from '../../io/block-cache.ts';
import { type ByteSource, placeIn, readFully } from '../../io/byte-source.ts';
import {
  type Compression,
  type Decompress,
  decompressSource,
  findCompression,
  portableDecompress,
} from '../../io/compression.ts';
import { peek } from '../../io/peeked-source.ts';
import { type SpoolOptions, spoolSource } from '../../io/spool.ts';
import { isZip, openZipMember, readZip, type ZipMember } from '../../io/zip.ts';
import { type Finding, MigrationError, makeFinding } from '../../vm/migration-error.ts';
import { streamMagic } from '../../wire/stream.ts';
import {
  decodeLibvirtData,
  decodeLibvirtHeader,
  isLibvirtMagic,
  type LibvirtData,
  type LibvirtHeader,
  libvirtHeaderLength,
} from './libvirt-header.ts';
import { type Qcow2Snapshot, qcow2Magic } from './qcow2-header.ts';
import { openSnapshot, readQcow2, SnapshotError } from './qcow2-snapshots.ts';
import { chooseMember, closingBoth } from './zip-members.ts';

/** A container in which a stream was found. */
export type Container =
  | { kind: 'compressed'; format: Compression }
  | { kind: 'libvirt'; header: LibvirtHeader; data: LibvirtData }
  | { kind: 'qcow2'; snapshot: Qcow2Snapshot }
  | { kind: 'zip'; member: ZipMember };

/** Selects the part of a container to open. */
export interface ContainerOptions {
  /** The snapshot of a qcow2 image: its name, or else its id. */
  snapshot?: string;
  /**
   * The member of a zip archive. Default: the only one, or the main stream of the multifd set in the archive. Without
   * given channels, its channels `MEMBER.0`, `MEMBER.1` and so on are found automatically.
   */
  member?: string;
  /** Selects a snapshot or a member, depending on the file, as in `FILE#INSIDE`. */
  inside?: string;
  /**
   * Whether a stored member of a zip archive is read completely when it is opened, to check its CRC-32. Default true.
   */
  checkMember?: boolean;
  /** Decompresses compressed files. Default: a decompressor that works on every platform. */
  decompress?: Decompress;
}

/** Where a stream is. */
export interface Located {
  source: ByteSource;
  offset: number;
  /** The containers around it, from the outside in. */
  containers: Container[];
  /** Findings about them. */
  findings: Finding[];
  /** Multifd channels that were found beside the stream. */
  channels: ByteSource[];
}

/** How deep compressed files inside compressed files are opened. */
const maxDepth = 3;
/** The longest magic. */
const headLength = 16;

/**
 * Finds the stream in a source: at `offset`, or in what begins there. `onSource` is called with each source that is
 * opened around the given one. Closing the last of them closes all.
 * @throws MigrationError for a bad container; {@link SnapshotError} for a qcow2 image without the name of an existing
 *   snapshot; {@link MemberError} likewise for a zip archive; MissingDecompressorError
 */
export async function locateStream(
  source: ByteSource,
  offset: number,
  options: ContainerOptions & SpoolOptions & Abortable & { findChannels?: boolean },
  onSource: (outermost: ByteSource) => void,
): Promise<Located> {
  const { decompress = portableDecompress, member } = options;
  const containers: Container[] = [];
  let snapshot = options.snapshot ?? options.inside;
  let channels: ByteSource[] = [];
  let at = { source, offset };
  for (;;) {
    const { head, source: whole, failure } = await peek(at.source, at.offset, headLength, isKnown);
    if (failure !== undefined) throw failure;
    at = { source: whole, offset: at.offset };
    const format = findCompression(head);
    if (at.source.size === undefined && (isQcow2(head) || isZip(head)) && options.spool !== 'never') {
      at.source = await spoolSource(at.source, at.offset, options);
      onSource(at.source);
    }
    if (isLibvirtMagic(head) && snapshot === undefined)
      return { ...(await locateInLibvirt(at.source, at.offset, containers, options)), channels };
    if (isQcow2(head)) return { ...(await locateInQcow2(at.source, at.offset, containers, snapshot)), channels };
    if (containers.length >= maxDepth) break;
    if (isZip(head)) {
      const isInside = containers.some(({ kind }) => kind === 'zip');
      const wanted = isInside ? undefined : (member ?? options.inside);
      const found = await openInZip(at.source, at.offset, wanted, options);
      containers.push({ kind: 'zip', member: found.member });
      if (!isInside && options.snapshot === undefined) snapshot = found.inside;
      channels = found.channels;
      at = { source: found.source, offset: 0 };
    } else if (format !== undefined) {
      containers.push({ kind: 'compressed', format });
      at = { source: decompressSource(at.source, at.offset, format, decompress), offset: 0 };
    } else break;
    onSource(at.source);
  }
  if (snapshot !== undefined || (member !== undefined && !containers.some(({ kind }) => kind === 'zip'))) {
    throw new MigrationError('bad-disk-image', describeMissing(options, snapshot), placeIn(source, offset));
  }
  return { ...at, containers, findings: [], channels };
}

/** Describes what was requested of a file that is not such a container. */
function describeMissing({ member, snapshot, inside }: ContainerOptions, rest: string | undefined): string {
  if (member !== undefined && rest === undefined) {
    return `expected a zip archive with a member "${member}", got another kind of file`;
  }
  const isEither = snapshot === undefined && inside === rest;
  const other = isEither ? `, or a zip archive with that member` : '';
  return `expected a qcow2 image with a snapshot "${rest}"${other}, got another kind of file`;
}

/** Opens the selected member of an archive, and the channels beside it. */
async function openInZip(
  outer: ByteSource,
  start: number,
  wanted: string | undefined,
  { checkMember: check = true, findChannels = false }: ContainerOptions & { findChannels?: boolean },
) {
  if (start !== 0) throw new RangeError(`expected a zip archive at offset 0, got one at ${start}`);
  const archive = await readZip(outer);
  const { member, channels, inside } = chooseMember(archive, wanted);
  const source = closingBoth(await openZipMember(archive, member, { check }), outer);
  const others: ByteSource[] = [];
  for (const each of findChannels ? channels : []) others.push(await openZipMember(archive, each, { check }));
  return { source, member, channels: others, inside };
}

const magicOf = (head: Uint8Array) =>
  head.length < 4 ? undefined : new DataView(head.buffer, head.byteOffset).getUint32(0);
const isQcow2 = (head: Uint8Array) => magicOf(head) === qcow2Magic;

/** Whether the first bytes are enough: those of a stream, or of nothing with a longer magic. */
function isKnown(head: Uint8Array): boolean {
  if (head.length < 4) return false;
  const isShort = findCompression(head) !== undefined || magicOf(head) === streamMagic || isQcow2(head);
  const first = head[0] as number;
  // L of libvirt's magic, 0xfd of xz's, 0x89 of lzop's.
  return isShort || (first !== 0x4c && first !== 0xfd && first !== 0x89);
}

async function locateInLibvirt(
  outer: ByteSource,
  start: number,
  containers: Container[],
  { decompress = portableDecompress }: ContainerOptions,
): Promise<Omit<Located, 'channels'>> {
  const place = placeIn(outer, start);
  const head = new Uint8Array(libvirtHeaderLength);
  await readFully(outer, head, start);
  const header = decodeLibvirtHeader(head, place);
  const dataStart = start + libvirtHeaderLength;
  const offset = dataStart + header.dataLength;
  if (outer.size !== undefined && offset > outer.size) {
    const message = `expected ${header.dataLength} bytes of XML, got ${outer.size - dataStart}`;
    throw new MigrationError('truncated', message, placeIn(outer, outer.size));
  }
  const area = new Uint8Array(header.dataLength);
  await readFully(outer, area, dataStart);
  const data = decodeLibvirtData(area, header, placeIn(outer, dataStart));
  containers.push({ kind: 'libvirt', header, data });
  const findings: Finding[] = [];
  if (!header.isFinished) {
    // libvirt refuses such an image. Its stream may still be complete, and can be opened by itself.
    const message = `libvirt did not finish this image; the stream in it begins at offset ${offset}`;
    findings.push(makeFinding('incomplete-save', message, place));
  }
  const { format } = header;
  if (format === 'raw' || format === 'sparse') return { source: outer, offset, containers, findings };
  return { source: decompressSource(outer, offset, format, decompress), offset: 0, containers, findings };
}

async function locateInQcow2(
  outer: ByteSource,
  start: number,
  containers: Container[],
  wanted: string | undefined,
): Promise<Omit<Located, 'channels'>> {
  if (outer.size === undefined) {
    throw new MigrationError('unsupported', 'a qcow2 image can be read only with random access', placeIn(outer, start));
  }
  if (start !== 0) throw new RangeError(`expected a qcow2 image at offset 0, got one at ${start}`);
  const image = await readQcow2(outer, new BlockCache(outer));
  if (wanted === undefined) throw new SnapshotError(image, undefined);
  const { source, snapshot, findings } = openSnapshot(outer, image, wanted);
  containers.push({ kind: 'qcow2', snapshot });
  return { source, offset: 0, containers, findings };
}
