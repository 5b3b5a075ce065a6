/** Captures of real QEMU, decoded and encoded again. test/encode-again.ts explains what is compared. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { encodeFlow, FlowWriter, MemoryFile, open, StreamWriter, writerArenaBytes } from '../../src/node.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { decodeReturnPath, encodeReturnMessage, type ReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { expectChannelAgain, expectMappedAgain, expectStreamAgain, expectStreamsAgain } from '../encode-again.ts';
import { fixturePath, loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { run } from '../wire/decoding.ts';

const isMapped = ({ name }: { name: string }) => name.includes('mapped-ram');
const fixtures = loadFixtures();
const sink = { write: () => {} };

describe('written again, byte for byte', () => {
  it.each(fixtures.filter((fixture) => !isMapped(fixture)))('the stream $name', ({ bytes, offset }) =>
    expectStreamAgain(bytes, offset),
  );

  it.each(loadPartedFixtures())('each of the streams of $name', ({ bytes, resumeOf, preempt }) =>
    expectStreamsAgain({ main: bytes, resumeOf, preempt }),
  );

  it.each(fixtures.filter(({ channels }) => channels.length > 0))('the channels of $name', ({ name, channels }) => {
    for (const bytes of channels) expectChannelAgain(bytes, !name.endsWith('7.2'));
  });

  it.each(fixtures.filter(isMapped))('the bytes that the format fixes of $name', async ({ bytes, offset }) => {
    expect(await expectMappedAgain(bytes, offset)).toBeGreaterThan(30);
  });

  it.each(readdirSync(fixturePath('')).filter((name) => /\.return(-\d+)?\.bin$/.test(name)))(
    'the return path %s',
    (name) => {
      const bytes = new Uint8Array(readFileSync(fixturePath(name)));
      const out = new ByteWriter();
      run<ReturnMessage, void>(bytes, bytes.length, decodeReturnPath, (message) => {
        const { type, offset, length, bitmapBytes = 0 } = message;
        const end = offset + length - 8;
        const bits = type === ReturnType.recvBitmap ? bytes.subarray(end - bitmapBytes, end) : undefined;
        encodeReturnMessage(out, message, bits);
      });
      expect(bytes.length).toBeGreaterThan(0);
      expect(Buffer.compare(out.bytes(), bytes)).toBe(0);
    },
  );
});

describe('a Flow cannot be written again', () => {
  const find = (name: string) => fixtures.find((fixture) => fixture.name === name) as (typeof fixtures)[number];

  it('of a mapped-ram file', async () => {
    const file = await open(find('none-mapped-ram-10.0').bytes, { spareBytes: writerArenaBytes });
    await expect(encodeFlow(file, sink)).rejects.toThrow(/expected a plain stream, got pages of "ram"/);
  });

  it('of a migration in several streams, as one', async () => {
    const { bytes, channels } = find('pc-multifd-none-7.2');
    const files = channels.map((channel, i) => new MemoryFile(`channel ${i}`, channel));
    const file = await open(bytes, { channels: files, spareBytes: writerArenaBytes });
    await expect(encodeFlow(file, sink)).rejects.toThrow(/expected one stream, got several/);
  });

  it('without space for the writer', async () => {
    const file = await open(find('none-plain-10.0').bytes);
    await expect(encodeFlow(file, sink)).rejects.toThrow(/arena of \d+ bytes is full/);
  });

  it('without the bytes of sections that it does not contain', async () => {
    const file = await open(find('pc-dirty-bitmaps-10.0').bytes, { spareBytes: writerArenaBytes });
    const again = new FlowWriter(new StreamWriter(file.kernel, sink));
    const work = async () => {
      for await (const item of file.flow()) await again.take(item);
    };
    await expect(work()).rejects.toThrow(/bytes of a section of "dirty-bitmap", got undefined/);
  });
});
