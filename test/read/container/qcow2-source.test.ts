import { deflateRawSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inflateRaw } from '../../../src/io/compression.ts';
import type { Qcow2Header, Qcow2Snapshot } from '../../../src/read/container/qcow2-header.ts';
import { Qcow2Source } from '../../../src/read/container/qcow2-source.ts';
import { ScriptedSource } from '../../io/sources.ts';

const clusterSize = 512;
const tableClusters = clusterSize / 8;

type Kind = 'hole' | 'zero' | 'data' | 'next' | 'packed';

/** An image with a VM state of these clusters, behind a disk of one L1 entry; and the state. */
function build(kinds: Kind[], size: number): { image: Uint8Array; state: Uint8Array; snapshot: Qcow2Snapshot } {
  const tables = Math.ceil(kinds.length / tableClusters);
  const image = Buffer.alloc((2 + tables + 3 * kinds.length + 2) * clusterSize);
  const state = Buffer.alloc(kinds.length * clusterSize);
  let free = (2 + tables) * clusterSize;
  const take = (gap: number) => {
    const at = free + gap * clusterSize;
    free = at + clusterSize;
    return at;
  };
  kinds.forEach((kind, i) => {
    const l2 = (2 + Math.floor(i / tableClusters)) * clusterSize;
    image.writeBigUInt64BE(BigInt(l2), clusterSize + 8 * (1 + Math.floor(i / tableClusters)));
    const content = Buffer.alloc(clusterSize, i + 1).fill(i * 7, 100, 200);
    let entry = 0n;
    if (kind === 'zero') entry = 1n;
    if (kind === 'data' || kind === 'next') {
      const at = take(kind === 'data' ? 1 : 0);
      content.copy(image, at);
      entry = BigInt(at);
    }
    if (kind === 'packed') {
      const packed = deflateRawSync(content);
      // Not aligned, and over the end of a sector.
      const at = take(1) + 490;
      free += clusterSize;
      image.set(packed, at);
      const sectors = Math.floor((at + packed.length - 1) / 512) - Math.floor(at / 512);
      entry = (1n << 62n) | (BigInt(sectors) << 61n) | BigInt(at);
    }
    image.writeBigUInt64BE(entry, l2 + 8 * (i % tableClusters));
    if (kind !== 'hole' && kind !== 'zero') content.copy(state, i * clusterSize);
  });
  const snapshot: Qcow2Snapshot = {
    id: '1',
    name: 'one',
    dateSeconds: 0,
    dateNanoseconds: 0,
    vmClock: 0n,
    vmStateSize: size,
    diskSize: 1,
    l1Offset: clusterSize,
    l1Entries: 1 + tables,
  };
  return { image, state: state.subarray(0, size), snapshot };
}

const header: Qcow2Header = {
  version: 3,
  clusterBits: 9,
  diskSize: 1,
  hasBackingFile: false,
  encryption: 'none',
  isDirty: false,
  isCorrupt: false,
  hasExternalData: false,
  hasExtendedL2: false,
  compression: 'deflate',
  unknownFeatures: 0n,
  snapshotCount: 1,
  snapshotsOffset: 0,
};

describe('a VM state of clusters', () => {
  it('reads as a whole and in parts, whatever clusters it is of', async () => {
    const kind = fc.constantFrom<Kind>('hole', 'zero', 'data', 'next', 'next', 'packed');
    const reads = fc.array(fc.tuple(fc.nat(80_000), fc.integer({ min: 1, max: 5000 })), { maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(kind, { minLength: 1, maxLength: 150 }),
        fc.nat(511),
        reads,
        async (kinds, less, parts) => {
          const { image, state, snapshot } = build(kinds, kinds.length * clusterSize - less);
          const file = new ScriptedSource(image, { chunk: 700 });
          const source = new Qcow2Source(file, 'disk#one', header, snapshot, inflateRaw);
          const whole = new Uint8Array(state.length + 100).fill(0xee);
          expect(await source.read(whole, 0)).toBe(state.length);
          expect(Buffer.compare(whole.subarray(0, state.length), state)).toBe(0);
          expect(whole.subarray(state.length).every((byte) => byte === 0xee)).toBe(true);
          for (const [position, length] of parts) {
            const target = new Uint8Array(length);
            const count = await source.read(target, position);
            expect(count).toBe(Math.max(0, Math.min(length, state.length - position)));
            expect(Buffer.compare(target.subarray(0, count), state.subarray(position, position + count))).toBe(0);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('reads clusters that follow each other in one go', async () => {
    const { image, snapshot } = build(new Array<Kind>(60).fill('next'), 60 * clusterSize);
    const file = new ScriptedSource(image);
    const source = new Qcow2Source(file, 'disk#one', header, snapshot, inflateRaw);
    await source.read(new Uint8Array(60 * clusterSize), 0);
    expect(file.reads.filter(({ length }) => length === 60 * clusterSize)).toHaveLength(1);
    expect(file.reads.length).toBeLessThan(4);
  });

  it('that is damaged where it is compressed is refused, with the place in the image', async () => {
    const { image, snapshot } = build(['packed'], clusterSize);
    const at = Buffer.from(image).indexOf(Buffer.from(deflateRawSync(Buffer.alloc(clusterSize, 1).fill(0, 100, 200))));
    image[at] = 0xff;
    const source = new Qcow2Source(new ScriptedSource(image), 'disk#one', header, snapshot, inflateRaw);
    await expect(source.read(new Uint8Array(10), 0)).rejects.toMatchObject({
      code: 'bad-compression',
      place: { source: 'scripted', offset: at, coordinate: 'file' },
    });
  });
});
