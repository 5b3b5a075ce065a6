/**
 * Files that contain a stream: what is around it, and where it begins. A compressed stream, a libvirt save image
 * (docs/formats/libvirt.md) and a qcow2 image with internal snapshots (docs/formats/qcow2.md) are known by their first
 * bytes; one may be in another, as far as that makes sense.
 */
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

/** What a stream was found in. */
export type Container =
  | { kind: 'compressed'; format: Compression }
  | { kind: 'libvirt'; header: LibvirtHeader; data: LibvirtData }
  | { kind: 'qcow2'; snapshot: Qcow2Snapshot };

export interface ContainerOptions {
  /** Which snapshot of a qcow2 image: its name, or else its id. */
  snapshot?: string;
  /** Decompresses what is compressed. Default: what there is on every platform. */
  decompress?: Decompress;
}

/** Where a stream is. */
export interface Located {
  source: ByteSource;
  offset: number;
  /** What is around it, from the outside in. */
  containers: Container[];
  /** What is to be said of them. */
  findings: Finding[];
}

/** Compressed files in compressed files are opened this deep. */
const maxDepth = 3;
/** The longest magic. */
const headLength = 16;

/**
 * Finds the stream in a source: at `offset`, or in what begins there. `onSource` is told what is opened around the source
 * on the way: closing the last one closes all.
 * @throws MigrationError for a container that is bad; {@link SnapshotError} for a qcow2 image of which no snapshot was
 *   named, or none that it has; MissingDecompressorError
 */
export async function locateStream(
  source: ByteSource,
  offset: number,
  options: ContainerOptions,
  onSource: (outermost: ByteSource) => void,
): Promise<Located> {
  const { decompress = portableDecompress } = options;
  const containers: Container[] = [];
  let at = { source, offset };
  for (;;) {
    const { head, source: whole } = await peek(at.source, at.offset, headLength, isKnown);
    at = { source: whole, offset: at.offset };
    const format = findCompression(head);
    if (isLibvirtMagic(head) && options.snapshot === undefined)
      return locateInLibvirt(at.source, at.offset, containers, options);
    if (isQcow2(head)) return locateInQcow2(at.source, at.offset, containers, options);
    if (format === undefined || containers.length >= maxDepth) break;
    containers.push({ kind: 'compressed', format });
    at = { source: decompressSource(at.source, at.offset, format, decompress), offset: 0 };
    onSource(at.source);
  }
  if (options.snapshot !== undefined) {
    const message = `expected a qcow2 image with a snapshot "${options.snapshot}", got another kind of file`;
    throw new MigrationError('bad-disk-image', message, placeIn(source, offset));
  }
  return { ...at, containers, findings: [] };
}

const magicOf = (head: Uint8Array) =>
  head.length < 4 ? undefined : new DataView(head.buffer, head.byteOffset).getUint32(0);
const isQcow2 = (head: Uint8Array) => magicOf(head) === qcow2Magic;

/** Whether the first bytes say enough: those of a stream, or of nothing that has a longer magic. */
function isKnown(head: Uint8Array): boolean {
  if (head.length < 4) return false;
  const isShort = findCompression(head) !== undefined || magicOf(head) === streamMagic || isQcow2(head);
  const first = head[0] as number;
  // L of libvirt's, 0xfd of xz, 0x89 of lzop.
  return isShort || (first !== 0x4c && first !== 0xfd && first !== 0x89);
}

async function locateInLibvirt(
  outer: ByteSource,
  start: number,
  containers: Container[],
  { decompress = portableDecompress }: ContainerOptions,
): Promise<Located> {
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
    // libvirt refuses it. What is in it may still be whole: the stream tells, and can be opened by itself.
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
  { snapshot: wanted }: ContainerOptions,
): Promise<Located> {
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
