import type { Cursor } from './cursor.ts';

/** Bodies of the iterable sections other than "ram". Each marks its own end; none changes RAM. */

/** A dirty bitmap of a disk. */
export interface SlowDirtyBitmap {
  node: string;
  name: string;
  granularity: number;
  enabled: boolean;
  persistent: boolean;
  coveredBytes: number;
  dirtyBits: number;
  complete: boolean;
}

/** State of the dirty-bitmap sections so far: names persist from chunk to chunk. */
export interface SlowDirtyBitmaps {
  node: string | undefined;
  name: string | undefined;
  list: SlowDirtyBitmap[];
}

export type ReadIterable = (cursor: Cursor, isStart: boolean, bitmaps: SlowDirtyBitmaps) => void;

export const iterables: ReadonlyMap<string, ReadIterable> = new Map([
  ['dirty-bitmap', readDirtyBitmap],
  ['spapr/htab', readHashTable],
  ['s390-storage_attributes', readStorageAttributes],
  ['block', readBlockMigration],
]);

function readDirtyBitmap(cursor: Cursor, _isStart: boolean, bitmaps: SlowDirtyBitmaps): void {
  for (;;) {
    cursor.mark();
    const at = cursor.at;
    const current = () => bitmaps.list.find(({ node, name }) => node === bitmaps.node && name === bitmaps.name);
    const flags = cursor.u8('a dirty-bitmap chunk');
    // Bit 7 would announce more flag bytes, which no QEMU sends so far.
    if (flags & 0x80) throw cursor.error('a dirty-bitmap chunk with long flags', at);
    if (flags & 0x08) bitmaps.node = cursor.counted('a node alias');
    if (flags & 0x04) bitmaps.name = cursor.counted('a bitmap alias');
    const isZeroes = (flags & 0x02) !== 0;
    const kind = flags & ~0x0e;
    if (isZeroes && kind !== 0x40) throw cursor.error(`dirty-bitmap flags 0x${flags.toString(16)}`, at);
    switch (kind) {
      case 0x01: // EOS
        return;
      case 0x10: // START: granularity, flags
        {
          const granularity = cursor.u32('the start of a dirty bitmap');
          const bits = cursor.u8('the start of a dirty bitmap');
          const { node, name } = bitmaps;
          if (node === undefined || name === undefined) throw cursor.error('a dirty bitmap without a name', at);
          if (current() !== undefined) throw cursor.error('a second start of a dirty bitmap', at);
          if (granularity < 512 || (granularity & (granularity - 1)) !== 0) {
            throw cursor.error(`a granularity of ${granularity} bytes`, at);
          }
          if (bits > 3) throw cursor.error(`dirty-bitmap start flags 0x${bits.toString(16)}`, at);
          const states = { enabled: (bits & 1) !== 0, persistent: (bits & 2) !== 0, complete: false };
          bitmaps.list.push({ node, name, granularity, ...states, coveredBytes: 0, dirtyBits: 0 });
        }
        break;
      case 0x20: // COMPLETE
        {
          const bitmap = current();
          if (bitmap === undefined) throw cursor.error('a dirty bitmap that was not started', at);
          bitmap.complete = true;
        }
        break;
      case 0x40: // BITS: first sector, sectors, bytes
        {
          const bitmap = current();
          if (bitmap === undefined) throw cursor.error('a dirty bitmap that was not started', at);
          const first = cursor.u64('the range of dirty bits') * 512n;
          const covered = cursor.u32('the range of dirty bits') * 512;
          if (first % BigInt(bitmap.granularity) !== 0n) throw cursor.error('dirty bits that begin within a bit', at);
          if (first + BigInt(covered) >= 2n ** 53n) throw cursor.error('dirty bits beyond any disk', at);
          bitmap.coveredBytes += covered;
          if (isZeroes) break;
          const length = cursor.size64('the length of dirty bits');
          const count = Math.ceil(covered / bitmap.granularity);
          if (length < Math.ceil(count / 8) || length > Math.ceil(count / 256) * 32) {
            throw cursor.error(`${length} bytes for ${count} dirty bits`, at);
          }
          const bytes = cursor.take(length, 'dirty bits');
          for (const byte of bytes) bitmap.dirtyBits += byte.toString(2).replaceAll('0', '').length;
        }
        break;
      default:
        throw cursor.error(`dirty-bitmap flags 0x${flags.toString(16)}`, at);
    }
  }
}

function readHashTable(cursor: Cursor, isStart: boolean): void {
  const at = cursor.at;
  const header = cursor.u32('an htab section'); // in a start: the table's size, which is not needed here
  if (isStart || header === 0xffffffff) return;
  if (header !== 0) throw cursor.error(`htab header ${header}`, at);
  for (;;) {
    cursor.mark();
    const index = cursor.u32('an htab chunk');
    const valid = cursor.u16('an htab chunk');
    const invalid = cursor.u16('an htab chunk');
    cursor.skip(valid * 16, 'htab entries');
    if (index === 0 && valid === 0 && invalid === 0) return;
  }
}

function readStorageAttributes(cursor: Cursor): void {
  for (;;) {
    cursor.mark();
    const at = cursor.at;
    const flags = Number(cursor.u64('a storage-attributes word') & 0xfffn);
    switch (flags) {
      case 0x01: // EOS
        return;
      case 0x02: // MORE, at the address in the upper bits of the word
        cursor.skip(cursor.size64('the length of storage attributes'), 'storage attributes');
        break;
      case 0x08: // DONE; EOS follows
        break;
      default: // 0x04 is ERROR
        throw cursor.error(`storage-attributes flags 0x${flags.toString(16)}`, at);
    }
  }
}

function readBlockMigration(cursor: Cursor): void {
  for (;;) {
    cursor.mark();
    const at = cursor.at;
    const flags = Number(cursor.u64('a block-migration word') & 0x1ffn);
    switch (flags) {
      case 0x01: // a block with its data
        cursor.counted('a device name');
        cursor.skip(1 << 20, 'a block of a disk');
        break;
      case 0x02: // EOS
        return;
      case 0x04: // progress, in the upper bits of the word
        break;
      case 0x09: // a block of zeros
        cursor.counted('a device name');
        break;
      default:
        throw cursor.error(`block-migration flags 0x${flags.toString(16)}`, at);
    }
  }
}
