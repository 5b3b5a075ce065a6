/** A copy of an expensive source that fills up: each block is fetched once, and a whole copy is the file. */
import { describe, expect, it } from 'vitest';
import type { ByteSource } from '../../src/io/byte-source.ts';
import { readFully } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { mirrorBlockBytes as blockBytes, MirrorSource } from '../../src/io/mirror-source.ts';

const blocks = 40;
const size = blocks * blockBytes - 1000;
const content = new Uint8Array(size).map((_, i) => (i * 31 + (i >> 12)) & 0xff);

/** A source whose reads wait until the test lets them go, and are counted. */
function makeSource({ isHeld = false } = {}) {
  const reads: number[] = [];
  let waiting: (() => void)[] = [];
  const state = { isHeld, failsAt: -1 };
  const source: ByteSource = {
    ...{ name: 'a server', size },
    async read(target, position) {
      reads.push(Math.floor(position / blockBytes));
      if (state.isHeld) await new Promise<void>((resolve) => waiting.push(resolve));
      if (state.failsAt === Math.floor(position / blockBytes)) throw new Error('the server is gone');
      const piece = content.subarray(position, position + target.length);
      target.set(piece);
      return piece.length;
    },
    close: async () => {},
  };
  const letGo = () => {
    for (const go of waiting) go();
    waiting = [];
  };
  return { source, reads, state, letGo };
}

const read = async (mirror: MirrorSource, position: number, length: number) => {
  const bytes = new Uint8Array(length);
  await readFully(mirror, bytes, position);
  return bytes;
};

describe('a mirror', () => {
  it('reads what the source has, across blocks and at the end', async () => {
    const { source } = makeSource();
    const mirror = new MirrorSource(source, new MemoryFile());
    for (const [position, length] of [
      [0, 10],
      [blockBytes - 5, 10],
      [3 * blockBytes + 7, 2 * blockBytes],
      [size - 20, 20],
    ] as const) {
      const bytes = await read(mirror, position, length);
      expect(Buffer.compare(bytes, content.subarray(position, position + length))).toBe(0);
    }
    expect(await mirror.read(new Uint8Array(10), size)).toBe(0);
    await mirror.close();
  });

  it('fetches each block once, and the blocks behind a read before they are asked for', async () => {
    const { source, reads } = makeSource();
    const mirror = new MirrorSource(source, new MemoryFile());
    await read(mirror, 10 * blockBytes + 5, 100);
    await mirror.close();
    expect(reads.toSorted((a, b) => a - b)).toEqual([10, 11, 12, 13]);
    const again = new MirrorSource(source, new MemoryFile());
    await Promise.all(Array.from({ length: 20 }, (_, i) => read(again, 4096 * i, 4096)));
    await again.close();
    expect(reads.slice(4).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3]);
  });

  it('fetches many blocks at a time if it knows them, and lets a read pass them', async () => {
    const { source, reads, state, letGo } = makeSource({ isHeld: true });
    const mirror = new MirrorSource(source, new MemoryFile());
    mirror.prefetch(0, 30 * blockBytes);
    expect(reads).toEqual(Array.from({ length: 16 }, (_, i) => i));
    const reading = read(mirror, 35 * blockBytes, 10);
    expect(reads.at(-1)).toBe(35);
    state.isHeld = false;
    letGo();
    expect(Buffer.compare(await reading, content.subarray(35 * blockBytes, 35 * blockBytes + 10))).toBe(0);
    await read(mirror, 29 * blockBytes, 10);
    await mirror.close();
    expect(new Set(reads).size).toBe(reads.length);
  });

  it('is whole when all blocks are there, and reads nothing any more', async () => {
    const { source, reads } = makeSource();
    const copy = new MemoryFile();
    let written = 0;
    const mirror = new MirrorSource(source, copy, { onBlock: () => written++ });
    expect(mirror.isWhole).toBe(false);
    expect(Buffer.compare(await read(mirror, 0, size), content)).toBe(0);
    expect([mirror.isWhole, written, reads.length]).toEqual([true, blocks, blocks]);
    await mirror.close();
    const whole = new Uint8Array(size);
    await readFully(copy, whole, 0);
    expect(Buffer.compare(whole, content)).toBe(0);
  });

  it('goes on with a copy that was begun', async () => {
    const { source, reads } = makeSource();
    const copy = new MemoryFile();
    const first = new MirrorSource(source, copy);
    await read(first, 5 * blockBytes, 10);
    await first.close();
    const before = reads.length;
    const second = new MirrorSource(source, copy, { present: first.present.slice() });
    await read(second, 5 * blockBytes, 10);
    expect(reads.length).toBe(before);
    await second.close();
  });

  it('reports a failed request to the read that needs it, and tries again for the next', async () => {
    const { source, state } = makeSource();
    const mirror = new MirrorSource(source, new MemoryFile());
    state.failsAt = 3;
    // Block 3 is fetched beside this, and nobody needs it.
    await read(mirror, 0, 10);
    await expect(read(mirror, 3 * blockBytes, 10)).rejects.toThrow('the server is gone');
    state.failsAt = -1;
    expect(await read(mirror, 3 * blockBytes, 10)).toEqual(content.slice(3 * blockBytes, 3 * blockBytes + 10));
    await mirror.close();
  });

  it('needs random access', () => {
    const { source } = makeSource();
    const forward = { ...source, size: undefined };
    expect(() => new MirrorSource(forward, new MemoryFile())).toThrow('expected a source with random access');
  });
});
