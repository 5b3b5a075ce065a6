/**
 * What is beside the main stream, decoded and encoded again: multifd channels packet by packet, and return paths. The
 * bytes are those of real QEMU; main streams are in test/file/flow-writer.test.ts.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ByteWindow } from '../../src/wire/byte-window.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import {
  type ChannelHello,
  decodeHello,
  encodeHello,
  encodePacketHeader,
  helloLength,
  packetHeaderLength,
  packetPages,
  pageOffsetAt,
  readPacketFlags,
  readPacketHeader,
} from '../../src/wire/multifd-packet.ts';
import { decodeReturnPath, encodeReturnMessage, type ReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import { run } from './decoding.ts';

const PAGE = 4096;
const headerLength = packetHeaderLength(PAGE);

/** Goes through a channel; payloads pass as they are. Counts bytes of headers that come out otherwise. */
function encodeChannel(bytes: Uint8Array): { payloads: number; otherUsed: number; otherUnused: number } {
  const window = new ByteWindow(bytes, 'channel.bin');
  window.limit = bytes.length;
  const hello = run<never, ChannelHello>(bytes.subarray(0, helloLength), helloLength, decodeHello);
  const out = new ByteWriter();
  encodeHello(out, hello);
  expect(Buffer.compare(out.bytes(), bytes.subarray(0, helloLength))).toBe(0);
  window.position = helloLength;
  const pages = new Float64Array(packetPages(PAGE));
  let [payloads, otherUsed, otherUnused] = [0, 0, 0];
  while (window.position < bytes.length) {
    const header = readPacketHeader(window, readPacketFlags(window), PAGE, pages);
    const count = header.normalPages + header.zeroPages;
    const again = new ByteWriter();
    encodePacketHeader(again, header, PAGE, [...pages.subarray(0, count)]);
    const original = bytes.subarray(window.position, window.position + headerLength);
    expect(again.length).toBe(headerLength);
    again.bytes().forEach((byte, i) => {
      if (byte === original[i]) return;
      if (i < pageOffsetAt(count)) otherUsed++;
      else otherUnused++;
    });
    const isPlain = header.method === 'none';
    const length = header.normalPages === 0 ? 0 : isPlain ? header.normalPages * PAGE : header.payloadLength;
    window.position += headerLength + length;
    if (length > 0) payloads++;
  }
  expect(window.position).toBe(bytes.length);
  return { payloads, otherUsed, otherUnused };
}

describe('multifd channels', () => {
  const sets = loadFixtures().filter(({ channels }) => channels.length > 0);

  const sum = (of: Uint8Array[], what: 'payloads' | 'otherUsed' | 'otherUnused') =>
    of.map(encodeChannel).reduce((total, counts) => total + counts[what], 0);

  it.each(sets)('$name: all that a header says is what QEMU wrote', ({ channels }) => {
    expect(sum(channels, 'payloads')).toBeGreaterThan(0);
    expect(sum(channels, 'otherUsed')).toBe(0);
  });

  // 7.2 leaves offsets of earlier packets behind those of this one.
  it.each(sets.filter(({ name }) => name.endsWith('10.0')))('$name: and so is what it does not use', ({ channels }) => {
    expect(sum(channels, 'otherUnused')).toBe(0);
  });
});

describe('return paths', () => {
  const files = readdirSync(fixturePath('')).filter((name) => /\.return(-\d+)?\.bin$/.test(name));

  it.each(files)('%s is what was encoded', (name) => {
    const bytes = new Uint8Array(readFileSync(fixturePath(name)));
    const out = new ByteWriter();
    run<ReturnMessage, void>(bytes, bytes.length, decodeReturnPath, (message) => {
      const { type, offset, length, bitmapBytes = 0 } = message;
      const end = offset + length - 8;
      encodeReturnMessage(
        out,
        message,
        type === ReturnType.recvBitmap ? bytes.subarray(end - bitmapBytes, end) : undefined,
      );
    });
    expect(Buffer.compare(out.bytes(), bytes)).toBe(0);
    expect(bytes.length).toBeGreaterThan(0);
  });
});
