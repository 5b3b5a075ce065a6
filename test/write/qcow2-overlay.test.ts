/** A new overlay, as vmferry itself reads it; real QEMU reads it in test/qemu/resume-map.test.ts. */
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { writeOverlay } from '../../src/write/qcow2/overlay.ts';
import { WritableQcow2 } from '../../src/write/qcow2/qcow2-image.ts';

describe('an overlay', () => {
  it.each([
    [1, 512],
    [512, 512],
    [(1 << 29) + 1, 2 ** 29 + 512],
    [2 ** 43, 2 ** 43],
  ])('of a disk of %i bytes is an empty image of whole sectors', async (diskSize, size) => {
    const store = new MemoryFile('overlay');
    await writeOverlay(store, { path: '/disks/base image.raw', format: 'raw', diskSize });
    const { header, snapshots, hasBitmaps } = await WritableQcow2.open(store);
    expect(header).toMatchObject({ version: 3, clusterBits: 16, diskSize: size, hasBackingFile: true, isDirty: false });
    expect([snapshots, hasBitmaps, store.size % 65536]).toEqual([[], false, 0]);
    const head = new Uint8Array(512);
    await store.read(head, 0);
    const view = new DataView(head.buffer);
    const text = (at: number, length: number) => new TextDecoder().decode(head.subarray(at, at + length));
    expect(text(Number(view.getBigUint64(8)), view.getUint32(16))).toBe('/disks/base image.raw');
    expect([view.getUint32(112), text(120, view.getUint32(116))]).toEqual([0xe2792aca, 'raw']);
  });

  it('refuses a name that no image can hold', async () => {
    const backing = { path: 'x'.repeat(1024), format: 'qcow2', diskSize: 512 } as const;
    await expect(writeOverlay(new MemoryFile('overlay'), backing)).rejects.toThrow(/at most 1023 bytes, got 1024/);
  });
});
