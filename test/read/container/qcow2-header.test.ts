import { describe, expect, it } from 'vitest';
import {
  decodeL1Entry,
  decodeL2Entry,
  decodeQcow2Header,
  decodeSnapshot,
  geometryOf,
  type Qcow2Header,
  snapshotEntryLength,
  vmStateOffset,
} from '../../../src/read/container/qcow2-header.ts';
import type { Place } from '../../../src/vm/migration-error.ts';

const place: Place = { source: 'disk.qcow2', offset: 0, coordinate: 'file' };

/** A header of version 3, clusters of 64 KiB. */
function header(change: (view: DataView) => void = () => {}): Uint8Array {
  const bytes = new Uint8Array(112);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, 3);
  view.setUint32(20, 16);
  view.setBigUint64(24, 1n << 30n);
  view.setUint32(100, 112);
  change(view);
  return bytes;
}

const decode = (change?: (view: DataView) => void) => decodeQcow2Header(header(change), place);

describe('a qcow2 header', () => {
  it('states how the image is divided and what it contains', () => {
    expect(decode()).toEqual({
      version: 3,
      clusterBits: 16,
      diskSize: 2 ** 30,
      hasBackingFile: false,
      encryption: 'none',
      isDirty: false,
      isCorrupt: false,
      hasExternalData: false,
      hasExtendedL2: false,
      compression: 'deflate',
      unknownFeatures: 0n,
      snapshotCount: 0,
      snapshotsOffset: 0,
    });
  });

  it('of version 2 has no features, whatever its bytes', () => {
    const old = decode((view) => {
      view.setUint32(4, 2);
      view.setBigUint64(72, 2n ** 64n - 1n);
    });
    expect(old).toMatchObject({ version: 2, isDirty: false, unknownFeatures: 0n });
    expect(decodeQcow2Header(header((view) => view.setUint32(4, 2)).subarray(0, 72), place).version).toBe(2);
  });

  it('names its features', () => {
    const all = decode((view) => {
      view.setBigUint64(72, 0x13fn);
      view.setUint8(104, 1);
      view.setUint32(32, 2);
      view.setBigUint64(8, 1n);
    });
    expect(all).toMatchObject({
      isDirty: true,
      isCorrupt: true,
      hasExternalData: true,
      hasExtendedL2: true,
      compression: 'zstd',
      unknownFeatures: 0x120n,
      encryption: 'LUKS',
      hasBackingFile: true,
    });
  });

  it.each<[string, string, (view: DataView) => void]>([
    ['another magic', 'bad-disk-image', (view) => view.setUint32(0, 1)],
    ['version 4', 'unsupported', (view) => view.setUint32(4, 4)],
    ['clusters of 256 bytes', 'bad-disk-image', (view) => view.setUint32(20, 8)],
    ['clusters of 4 MiB', 'bad-disk-image', (view) => view.setUint32(20, 22)],
    ['too many snapshots', 'limit-exceeded', (view) => view.setUint32(60, 65_537)],
    [
      'a snapshot table amid a cluster',
      'bad-disk-image',
      (view) => {
        view.setUint32(60, 1);
        view.setBigUint64(64, 512n);
      },
    ],
    ['snapshots and no table', 'bad-disk-image', (view) => view.setUint32(60, 1)],
    ['a disk beyond 2^53', 'limit-exceeded', (view) => view.setBigUint64(24, 2n ** 63n)],
    ['a short header', 'bad-disk-image', (view) => view.setUint32(100, 96)],
    ['compression 2', 'unsupported', (view) => view.setUint8(104, 2)],
    ['zstd without its feature bit', 'bad-disk-image', (view) => view.setUint8(104, 1)],
    ['the feature bit without zstd', 'bad-disk-image', (view) => view.setBigUint64(72, 8n)],
  ])('with %s is refused', (_, code, change) => {
    expect(() => decode(change)).toThrow(expect.objectContaining({ code }));
  });

  it('is refused if it is truncated', () => {
    expect(() => decodeQcow2Header(header().subarray(0, 71), place)).toThrow(/truncated/);
    expect(() => decodeQcow2Header(header().subarray(0, 103), place)).toThrow(/truncated/);
  });
});

/** An entry of the snapshot table. */
function snapshot(extra: bigint[], change: (view: DataView) => void = () => {}): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((40 + extra.length * 8 + 8) / 8) * 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, 0x50000n);
  view.setUint32(8, 4);
  view.setUint16(12, 2);
  view.setUint16(14, 5);
  view.setUint32(16, 1_700_000_000);
  view.setUint32(20, 5);
  view.setBigUint64(24, 6_000_000_000n);
  view.setUint32(32, 777);
  view.setUint32(36, extra.length * 8);
  extra.forEach((word, i) => void view.setBigUint64(40 + 8 * i, word));
  bytes.set(new TextEncoder().encode('42first'), 40 + extra.length * 8);
  change(view);
  return bytes;
}

describe('a snapshot', () => {
  it('has its sizes in its extra data', () => {
    const entry = snapshot([1n << 33n, 1n << 20n, 2n ** 64n - 1n]);
    expect(snapshotEntryLength(entry, place)).toBe(40 + 24 + 7);
    expect(decodeSnapshot(entry, decode(), place)).toEqual({
      id: '42',
      name: 'first',
      dateSeconds: 1_700_000_000,
      dateNanoseconds: 5,
      vmClock: 6_000_000_000n,
      vmStateSize: 2 ** 33,
      diskSize: 2 ** 20,
      l1Offset: 0x50000,
      l1Entries: 4,
    });
  });

  it('of an old image has the size from the header', () => {
    expect(decodeSnapshot(snapshot([]), decode(), place)).toMatchObject({
      name: 'first',
      vmStateSize: 777,
      diskSize: 2 ** 30,
    });
  });

  it.each<[string, string, (view: DataView) => void]>([
    ['an L1 table amid a cluster', 'bad-disk-image', (view) => view.setBigUint64(0, 512n)],
    ['an L1 table beyond 2^53', 'limit-exceeded', (view) => view.setBigUint64(0, 2n ** 60n)],
    ['an L1 table of more than 32 MiB', 'limit-exceeded', (view) => view.setUint32(8, (4 << 20) + 1)],
    ['a VM state beyond 2^53', 'limit-exceeded', (view) => view.setBigUint64(40, 2n ** 60n)],
  ])('with %s is refused', (_, code, change) => {
    expect(() => decodeSnapshot(snapshot([1n, 1n], change), decode(), place)).toThrow(
      expect.objectContaining({ code }),
    );
  });

  it('with much extra data is refused', () => {
    const entry = snapshot([], (view) => view.setUint32(36, 1025));
    expect(() => snapshotEntryLength(entry, place)).toThrow(/limit-exceeded/);
  });
});

describe('the VM state', () => {
  it('begins after the disk, at a multiple of the range of an L1 entry', () => {
    const geometry = geometryOf(decode());
    expect(geometry).toEqual({ clusterSize: 65536, tableClusters: 8192, entryLength: 8 });
    expect(vmStateOffset(1, geometry)).toBe(2 ** 29);
    expect(vmStateOffset(2 ** 29, geometry)).toBe(2 ** 29);
    expect(vmStateOffset(2 ** 29 + 1, geometry)).toBe(2 ** 30);
    const extended = geometryOf(decode((view) => view.setBigUint64(72, 16n)));
    expect(extended).toEqual({ clusterSize: 65536, tableClusters: 4096, entryLength: 16 });
  });
});

describe('an L1 entry', () => {
  const geometry = geometryOf(decode());
  it('names an L2 table, or none', () => {
    expect(decodeL1Entry(0x8000000000070000n, geometry, place)).toBe(0x70000);
    expect(decodeL1Entry(0n, geometry, place)).toBe(0);
  });
  it.each([0x70001n, 0x70200n, 1n << 62n, 1n << 56n])('of 0x%x is refused', (entry) => {
    expect(() => decodeL1Entry(entry, geometry, place)).toThrow(/bad-disk-image/);
  });
});

describe('an L2 entry', () => {
  const v3: Qcow2Header = decode();
  const v2: Qcow2Header = { ...v3, version: 2 };

  it('is a cluster, zeros, or compressed data', () => {
    expect(decodeL2Entry(0x8000000000070000n, v3, place)).toEqual({ kind: 'data', offset: 0x70000 });
    expect(decodeL2Entry(0n, v3, place)).toEqual({ kind: 'zero' });
    expect(decodeL2Entry(1n, v3, place)).toEqual({ kind: 'zero' });
    // A cluster may be allocated for zeros.
    expect(decodeL2Entry(0x8000000000070001n, v3, place)).toEqual({ kind: 'zero' });
    // 62 - 8 bits of offset, then sectors beyond the first.
    const packed = (1n << 62n) | (2n << 54n) | 0x70123n;
    expect(decodeL2Entry(packed, v3, place)).toEqual({ kind: 'compressed', offset: 0x70123, length: 3 * 512 - 0x123 });
  });

  it('with subclusters states for each whether it exists', () => {
    const bitmap = 0b101n | (0b010n << 32n);
    const kinds = [0, 1, 2, 3].map((i) => decodeL2Entry(0x70000n, v3, place, bitmap, i).kind);
    expect(kinds).toEqual(['data', 'zero', 'data', 'zero']);
  });

  it.each<[string, bigint, Qcow2Header, bigint?]>([
    ['a flag of zeros in version 2', 1n, v2],
    ['reserved bits', 0x70002n, v3],
    ['high reserved bits', 1n << 60n, v3],
    ['a cluster amid another', 0x70200n, v3],
    ['compressed and writable', (3n << 62n) | 0x70000n, v3],
    ['compressed at 0', 1n << 62n, v3],
    ['compressed with subclusters', (1n << 62n) | 0x70000n, v3, 1n],
    ['a subcluster that is both', 0x70000n, v3, 1n | (1n << 32n)],
    ['a subcluster of no cluster', 0n, v3, 1n],
    ['a flag of zeros beside subclusters', 0x70001n, v3, 0n],
  ])('of %s is refused', (_, entry, image, bitmap) => {
    expect(() => decodeL2Entry(entry, image, place, bitmap)).toThrow(/bad-disk-image/);
  });
});
