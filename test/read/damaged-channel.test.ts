/** A multifd channel that is damaged in the middle: without `partial` the set is refused; with it, all else is there. */
import { expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { open } from '../../src/node.ts';
import { extractBlocks } from '../../src/tasks/extract/extract.ts';
import { loadFixtures } from '../fixture-files.ts';

/** Bytes of a packet's header, for pages of 4 KiB. */
const headLength = 1344;

/** Where the payloads of a channel are that have compressed pages. */
function payloads(channel: Uint8Array): { at: number; length: number }[] {
  const view = new DataView(channel.buffer, channel.byteOffset, channel.byteLength);
  const found: { at: number; length: number }[] = [];
  for (let at = 64; at < channel.length; ) {
    const hasPages = view.getUint32(at + 16) > 0;
    const length = hasPages ? view.getUint32(at + 20) : 0;
    if (hasPages) found.push({ at: at + headLength, length });
    at += headLength + length;
  }
  return found;
}

async function ramOf(main: Uint8Array, channels: Uint8Array[], partial: boolean) {
  await using file = await open(main, { channels });
  const images = new Map<string, MemoryFile>();
  const blocks = await extractBlocks(
    file,
    ({ idstr }) => {
      const image = new MemoryFile(idstr);
      images.set(idstr, image);
      return image;
    },
    undefined,
    { partial },
  );
  const image = images.get('pc.ram') as MemoryFile;
  const bytes = Buffer.alloc(image.size);
  image.read(bytes, 0);
  return { bytes, missing: blocks.find(({ idstr }) => idstr === 'pc.ram')?.missing };
}

it.each(['zlib', 'zstd'])('with %s', async (method) => {
  const { bytes, channels } = loadFixtures().find(({ name }) => name === `pc-multifd-${method}-zero-multifd-10.0`) ?? {
    bytes: new Uint8Array(),
    channels: [],
  };
  const whole = await ramOf(bytes, channels, false);
  const [good, other] = channels as [Uint8Array, Uint8Array];
  const damaged = good.slice();
  const all = payloads(good);
  const { at, length } = all[Math.floor(all.length / 2)] as { at: number; length: number };
  damaged.fill(0xee, at, at + length);
  await expect(ramOf(bytes, [damaged, other], false)).rejects.toMatchObject({ code: 'bad-compressed-data' });
  const partial = await ramOf(bytes, [damaged, other], true);
  const pages = Array.from({ length: whole.bytes.length / 4096 }, (_, page) => page * 4096);
  const lost = pages.filter((offset) => {
    const end = offset + 4096;
    return !partial.bytes.subarray(offset, end).equals(whole.bytes.subarray(offset, end));
  });
  expect(lost.length).toBeGreaterThan(0);
  expect(lost.length).toBeLessThan(pages.length / 2);
  const listed = partial.missing?.ranges ?? [];
  for (const offset of lost) {
    expect(listed.some((range) => range.offset <= offset && offset < range.offset + range.length)).toBe(true);
    expect(partial.bytes.subarray(offset, offset + 4096).every((byte) => byte === 0)).toBe(true);
  }
});
