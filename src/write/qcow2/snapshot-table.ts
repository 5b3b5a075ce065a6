/** Encodes entries of a qcow2 image's snapshot table (docs/formats/qcow2.md, "Snapshot table"). */
import type { Qcow2Snapshot } from '../../read/container/qcow2-header.ts';
import { ByteWriter } from '../../wire/byte-writer.ts';

/** What QEMU writes: the sizes of the VM state and of the disk, and the count of instructions. */
const extraLength = 24;
/** Instructions were not counted. */
const noIcount = 0xffff_ffff_ffff_ffffn;

/** Encodes an entry, without padding. @throws RangeError for a name that is too long. */
export function encodeSnapshot(snapshot: Qcow2Snapshot): Uint8Array {
  const id = new TextEncoder().encode(snapshot.id);
  const name = new TextEncoder().encode(snapshot.name);
  if (name.length > 0xffff) throw new RangeError(`expected a name of at most 65535 bytes, got ${name.length}`);
  const writer = new ByteWriter().u64(snapshot.l1Offset).u32(snapshot.l1Entries).u16(id.length).u16(name.length);
  writer.u32(snapshot.dateSeconds).u32(snapshot.dateNanoseconds).u64(snapshot.vmClock);
  writer.u32(snapshot.vmStateSize < 2 ** 32 ? snapshot.vmStateSize : 0).u32(extraLength);
  writer.u64(snapshot.vmStateSize).u64(snapshot.diskSize).u64(noIcount);
  return writer.raw(id).raw(name).bytes();
}

/** Puts entries together: each begins at a multiple of 8. */
export function joinSnapshots(entries: readonly Uint8Array[]): Uint8Array {
  const writer = new ByteWriter();
  for (const entry of entries) writer.raw(entry).raw(new Uint8Array((8 - (entry.length % 8)) % 8));
  return writer.bytes();
}

/** The id of the next snapshot: the largest number among the ids, and 1. */
export function nextSnapshotId(snapshots: readonly Pick<Qcow2Snapshot, 'id'>[]): string {
  let largest = 0n;
  for (const { id } of snapshots) {
    const number = /^\d+$/.test(id) ? BigInt(id) : 0n;
    if (number > largest) largest = number;
  }
  return `${largest + 1n}`;
}
