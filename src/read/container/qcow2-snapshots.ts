/** qcow2 images (docs/formats/qcow2.md): their internal snapshots, and the VM state of one as a source. */
import type { BlockCache } from '../../io/block-cache.ts';
import { type ByteSource, placeIn } from '../../io/byte-source.ts';
import { inflateRaw, unzstd } from '../../io/compression.ts';
import { type Finding, MigrationError, makeFinding } from '../../vm/migration-error.ts';
import {
  decodeQcow2Header,
  decodeSnapshot,
  type Qcow2Header,
  type Qcow2Snapshot,
  qcow2HeaderLength,
  snapshotEntryLength,
  snapshotHeadLength,
} from './qcow2-header.ts';
import { Qcow2Source, type Unpack } from './qcow2-source.ts';

/** The largest snapshot table in bytes. QEMU allows 64 MiB. */
const maxTableBytes = 16 << 20;

/** A qcow2 image with its snapshots. */
export interface Qcow2Image {
  /** Name of the source. */
  name: string;
  header: Qcow2Header;
  snapshots: Qcow2Snapshot[];
}

/** Reads the header and the snapshot table. @throws MigrationError for a violation of the format */
export async function readQcow2(file: ByteSource, tables: BlockCache): Promise<Qcow2Image> {
  const head = await tables.read(0, Math.min(qcow2HeaderLength, file.size ?? 0));
  const header = decodeQcow2Header(head, placeIn(file, 0));
  const entries = await readSnapshotTable(file, tables, header);
  return { name: file.name, header, snapshots: entries.map(({ snapshot }) => snapshot) };
}

/** Reads the snapshot table: each entry as it stands, without its padding, and what it says. */
export async function readSnapshotTable(
  file: ByteSource,
  tables: BlockCache,
  header: Qcow2Header,
): Promise<{ bytes: Uint8Array; snapshot: Qcow2Snapshot }[]> {
  const entries: { bytes: Uint8Array; snapshot: Qcow2Snapshot }[] = [];
  for (let i = 0, at = header.snapshotsOffset; i < header.snapshotCount; i++) {
    const place = placeIn(file, at);
    const length = snapshotEntryLength(await tables.read(at, snapshotHeadLength), place);
    if (at + length - header.snapshotsOffset > maxTableBytes) {
      throw new MigrationError('limit-exceeded', `expected at most ${maxTableBytes} bytes of snapshot table`, place);
    }
    const bytes = (await tables.read(at, length)).slice();
    entries.push({ bytes, snapshot: decodeSnapshot(bytes, header, place) });
    at += Math.ceil(length / 8) * 8;
  }
  return entries;
}

/** No snapshot of a qcow2 image was named, or one that does not exist. The message lists those with a VM state. */
export class SnapshotError extends RangeError {
  override readonly name = 'SnapshotError';
  readonly image: Qcow2Image;
  /** The given name. */
  readonly wanted: string | undefined;

  constructor(image: Qcow2Image, wanted: string | undefined) {
    const names = image.snapshots.filter(({ vmStateSize }) => vmStateSize > 0).map(({ name }) => `"${name}"`);
    const listed = names.slice(0, 20).join(', ') + (names.length > 20 ? ', …' : '');
    const what = names.length === 0 ? 'it has no snapshot with a VM state' : `it has ${listed}`;
    super(
      wanted === undefined
        ? `expected a snapshot of the qcow2 image ${image.name}, as ${image.name}#NAME: ${what}`
        : `expected a snapshot of the qcow2 image ${image.name}, got "${wanted}": ${what}`,
    );
    this.image = image;
    this.wanted = wanted;
  }
}

/** Opens the VM state of the snapshot with the name `wanted`, or else with that id. */
export function openSnapshot(
  file: ByteSource,
  image: Qcow2Image,
  wanted: string,
): { source: ByteSource; snapshot: Qcow2Snapshot; findings: Finding[] } {
  const { header } = image;
  const named = image.snapshots.filter(({ name }) => name === wanted);
  const byId = image.snapshots.filter(({ id }) => id === wanted);
  const snapshot = named[0] ?? byId[0];
  if (snapshot === undefined) throw new SnapshotError(image, wanted);
  requireReadable(file, header);
  if (snapshot.vmStateSize === 0) {
    const message = `the snapshot "${snapshot.name}" contains only the disk: it has no VM state`;
    throw new MigrationError('no-vm-state', message, placeIn(file, header.snapshotsOffset));
  }
  const findings: Finding[] = [];
  const others = new Set([...named, ...byId]).size - 1;
  if (others > 0) {
    const message = `"${wanted}" names ${others + 1} snapshots; this is "${snapshot.name}" with id ${snapshot.id}`;
    findings.push(makeFinding('ambiguous-snapshot', message, placeIn(file, header.snapshotsOffset)));
  }
  if (header.isDirty || header.isCorrupt) {
    const message = `the image is marked ${header.isCorrupt ? 'corrupt' : 'dirty'}: it was not closed, or is damaged`;
    findings.push(makeFinding('unclean-image', message, placeIn(file, 72)));
  }
  return { source: vmStateOf(file, wanted, header, snapshot), snapshot, findings };
}

/** The VM state of a snapshot, called `wanted` in messages. */
export function vmStateOf(file: ByteSource, wanted: string, header: Qcow2Header, snapshot: Qcow2Snapshot): ByteSource {
  const unpack = header.compression === 'deflate' ? inflateRaw : unpackZstd;
  return new Qcow2Source(file, `${file.name}#${wanted}`, header, snapshot, unpack);
}

/** @throws MigrationError `unsupported` for an image whose clusters vmferry cannot read. */
export function requireReadable(file: ByteSource, header: Qcow2Header): void {
  const refuse = (what: string, at: number) => new MigrationError('unsupported', what, placeIn(file, at));
  if (header.encryption !== 'none') throw refuse(`the image is encrypted (${header.encryption})`, 32);
  if (header.hasExternalData) throw refuse('the image keeps its data in another file', 72);
  if (header.unknownFeatures !== 0n) {
    throw refuse(`the image has incompatible features 0x${header.unknownFeatures.toString(16)}`, 72);
  }
}

/** Unpacks a zstd cluster. It stops when the cluster is full, because anything may follow the frame. */
const unpackZstd: Unpack = async (packed, length) => {
  const ending = new AbortController();
  const chunks = (async function* () {
    yield packed;
  })();
  const cluster = new Uint8Array(length);
  let filled = 0;
  try {
    for await (const chunk of unzstd(chunks, ending.signal)) {
      const piece = chunk.subarray(0, length - filled);
      cluster.set(piece, filled);
      filled += piece.length;
      if (filled === length) break;
    }
  } finally {
    ending.abort();
  }
  return cluster.subarray(0, filled);
};
