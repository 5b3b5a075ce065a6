import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { hasZstdThreads, ZstdThreads } from '../../src/io/node/zstd-threads.ts';
import { PortableCodecs } from '../../src/io/portable-codecs.ts';

const packet = (seed: number) =>
  Uint8Array.from({ length: 512 * 1024 }, (_, i) => ((i >> 12) % 2 === 0 ? (i * seed) >> 7 : 42) & 0xff);

test('threads make the frames that the main thread makes, for many channels at a time', async () => {
  expect(hasZstdThreads()).toBe(true);
  const threads = new ZstdThreads(2);
  const portable = await new PortableCodecs().openEncoder('zstd', 1);
  const encoders = Array.from({ length: 5 }, () => threads.openEncoder(1));
  const frames = await Promise.all(
    encoders.map(async (encoder, i) => {
      const target = new Uint8Array(600 * 1024);
      return target.subarray(0, await encoder.encode(packet(i + 3), target));
    }),
  );
  for (const [i, frame] of frames.entries()) {
    const target = new Uint8Array(600 * 1024);
    const expected = target.subarray(0, await portable.encode(packet(i + 3), target));
    expect(Buffer.from(frame).equals(expected)).toBe(true);
  }
  for (const encoder of encoders) encoder.close();
  portable.close();
});

test('a frame that does not fit is an error, and so is what a closed encoder had to do', async () => {
  const threads = new ZstdThreads(1);
  const encoder = threads.openEncoder(1);
  await expect(encoder.encode(randomBytes(4096), new Uint8Array(100))).rejects.toThrow('100');
  const late = encoder.encode(packet(1), new Uint8Array(600 * 1024));
  const refused = expect(late).rejects.toThrow('the encoder was closed');
  encoder.close();
  await refused;
});
