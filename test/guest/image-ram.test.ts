/** RAM out of raw images, and a guest that is larger than the memory of most hosts. */
import { ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { ImageRam } from '../../src/guest/image-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeFile } from '../../src/io/node/file.ts';
import { PageBitmap } from '../../src/vm/page-bitmap.ts';
import { ManualClock } from '../support/manual-clock.ts';

const page = 4096;
const MiB = 1 << 20;
const GiB = 2 ** 30;

describe('RAM out of images', () => {
  const image = new Uint8Array(2 * page + 100).fill(7);
  const makeRam = () =>
    new ImageRam([
      { idstr: 'ram', size: 8 * page, image: new MemoryFile('image', image) },
      { idstr: 'more', size: 4 * page },
    ]);

  it('is the image, then zeros', async () => {
    const ram = makeRam();
    const bytes = new Uint8Array(4 * page).fill(1);
    await ram.read(ram.blocks[0]!, 1, bytes);
    const expected = new Uint8Array(4 * page).fill(7, 0, page + 100);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    await ram.read(ram.blocks[1]!, 0, bytes);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });

  it('has data where the image has bytes', async () => {
    const ram = makeRam();
    const [block, more] = ram.blocks as [(typeof ram.blocks)[0], (typeof ram.blocks)[0]];
    expect([0, 2, 3].map((number) => ram.state(block, number))).toEqual(['data', 'data', 'zero']);
    expect(await ram.nextData(block, 1, 8)).toEqual({ first: 1, end: 3 });
    expect(await ram.nextData(block, 0, 2)).toEqual({ first: 0, end: 2 });
    expect(await ram.nextData(block, 3, 8)).toEqual({ first: 8, end: 8 });
    expect(await ram.nextData(more, 0, 8)).toEqual({ first: 4, end: 4 });
  });

  it('refuses an image that is too long', () => {
    expect(() => new ImageRam([{ idstr: 'ram', size: 2 * page, image: new MemoryFile('image', image) }])).toThrow(
      new RangeError('expected at most 8192 bytes for RAM block "ram", got 8292'),
    );
  });
});

describe('a guest of 64 GiB', () => {
  it('needs a few MiB of memory, and as much of its file as it has written', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vmferry-ram-'));
    const makeFile = (name: string, size: number) => {
      const path = join(directory, name);
      const fd = openSync(path, 'w+');
      ftruncateSync(fd, size);
      return { path, fd, file: new NodeFile(fd, path, size) };
    };
    try {
      const image = makeFile('image', 64 * GiB);
      writeSync(image.fd, Buffer.alloc(page, 9), 0, page, 63 * GiB);
      const store = makeFile('store', 0);
      const before = process.memoryUsage().arrayBuffers;
      const clock = new ManualClock();
      const ram = new GuestRam(store.file, new ImageRam([{ idstr: 'ram', size: 64 * GiB, image: image.file }]));
      const [block] = ram.blocks as [(typeof ram.blocks)[0]];
      const guest = new SyntheticGuest({ ram, workload: { rate: 16 * MiB, workingSet: 8 * MiB }, clock });
      const dirty = new PageBitmap(block);
      await clock.advance(250);
      await guest.syncDirty([dirty]);
      expect(dirty.count).toBe(1024);
      const frozen = ram.freeze();
      await clock.advance(60_000);
      await guest.syncDirty([dirty]);
      expect(dirty.count).toBe(2048);
      await ram.write(block, (64 * GiB) / page - 1, new Uint8Array(page).fill(5));
      const bytes = new Uint8Array(page);
      const firstByte = async (reader: typeof ram | typeof frozen, at: number) => {
        await reader.read(block, at / page, bytes);
        return bytes[0];
      };
      expect(await firstByte(ram, 63 * GiB)).toBe(9);
      expect(await firstByte(ram, 64 * GiB - page)).toBe(5);
      expect(await firstByte(frozen, 64 * GiB - page)).toBe(0);
      expect(await firstByte(frozen, 2 * MiB)).toBe(1);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * MiB);
      expect(statSync(store.path).blocks * 512).toBeLessThan(32 * MiB);
      await frozen.close();
      await guest.close();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
