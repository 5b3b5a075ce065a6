/** The compressors of all engines: every decompressor reads their output, and it is about as short as QEMU's. */
import * as zlib from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { CodecError, levelsOf, type PageCodecs, type StreamFormat } from '../../src/io/page-codec.ts';
import { PortableCodecs } from '../../src/io/portable-codecs.ts';
import { ZstdFrames } from '../../src/io/zstd-frames.ts';
import { ByteWindow } from '../../src/wire/byte-window.ts';
import {
  helloLength,
  maxPayload,
  multifdHeaderLength,
  packetRamBytes,
  readPacketFlags,
  readPacketHeader,
} from '../../src/wire/multifd-packet.ts';
import { loadFixtures } from '../fixture-files.ts';

const engines: [string, PageCodecs][] = [
  ['Node', new NodeCodecs()],
  ['portable', new PortableCodecs()],
];
const formats = ['zlib', 'zstd'] as const;
const pageSize = 4096;

/** Pages of some text that repeats, or of noise. */
function pages(count: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(count * pageSize);
  let state = seed + 1;
  for (let i = 0; i < bytes.length; i++) {
    if (seed % 2 === 0 || i % 7 === 0) state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Whether the payloads of a channel are one stream. The portable zstd encoder cannot flush, so its packets are frames. */
function isOneStream(codecs: PageCodecs, format: StreamFormat): boolean {
  return format === 'zlib' || (codecs instanceof NodeCodecs && 'createZstdCompress' in zlib);
}

async function encodeAll(codecs: PageCodecs, format: StreamFormat, level: number, packets: readonly Uint8Array[]) {
  const encoder = await codecs.openEncoder(format, level);
  const payloads: Uint8Array[] = [];
  const room = new Uint8Array(maxPayload);
  for (const packet of packets) payloads.push(room.slice(0, await encoder.encode(packet, room)));
  encoder.close();
  return payloads;
}

async function expectDecoded(format: StreamFormat, payloads: readonly Uint8Array[], packets: readonly Uint8Array[]) {
  for (const [name, codecs] of engines) {
    const decoder = await codecs.openDecoder(format);
    for (const [i, packet] of packets.entries()) {
      const target = new Uint8Array(packet.length);
      expect(await decoder.decode(payloads[i] as Uint8Array, target), name).toBe(packet.length);
      expect(Buffer.compare(target, packet), `${name}, packet ${i}`).toBe(0);
    }
    decoder.close();
  }
}

describe.each(engines)('the encoders of %s', (_, codecs) => {
  it.each(formats)('write packets of %s from which every decoder gets all pages, one by one', async (format) => {
    const shapes = fc.array(fc.tuple(fc.integer({ min: 1, max: 128 }), fc.nat(9)), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(shapes, async (shape) => {
        const packets = shape.map(([count, seed]) => pages(count, seed));
        await expectDecoded(format, await encodeAll(codecs, format, 1, packets), packets);
      }),
      { numRuns: 15 },
    );
  });

  it.each(formats)('write every level of %s that QEMU has', async (format) => {
    const { least, most } = levelsOf[format];
    const packets = [pages(5, 1), pages(3, 1)];
    for (let level = least; level <= most; level++) {
      await expectDecoded(format, await encodeAll(codecs, format, level, packets), packets);
    }
  });

  it.each(formats)("write %s that fits QEMU's buffer, even for noise", async (format) => {
    const packets = [pages(packetRamBytes / pageSize, 2), pages(packetRamBytes / pageSize, 4)];
    const payloads = await encodeAll(codecs, format, 1, packets);
    await expectDecoded(format, payloads, packets);
    for (const { length } of payloads) expect(length).toBeLessThan(packetRamBytes * 1.01);
  });

  it.each(formats)('refuse to write more %s than fits', async (format) => {
    const encoder = await codecs.openEncoder(format, 1);
    await expect((async () => encoder.encode(pages(4, 2), new Uint8Array(100)))()).rejects.toThrow(CodecError);
    encoder.close();
  });

  it.each(formats)('keep the channels of %s separate', async (format) => {
    const [one, other] = await Promise.all([codecs.openEncoder(format, 1), codecs.openEncoder(format, 1)]);
    const packets = [pages(2, 2), pages(1, 4), pages(2, 2)];
    const payloads: [Uint8Array[], Uint8Array[]] = [[], []];
    for (const packet of packets) {
      const rooms = [new Uint8Array(maxPayload), new Uint8Array(maxPayload)] as const;
      const lengths = await Promise.all([one.encode(packet, rooms[0]), other.encode(packet, rooms[1])]);
      payloads[0].push(rooms[0].subarray(0, lengths[0]));
      payloads[1].push(rooms[1].subarray(0, lengths[1]));
    }
    for (const each of payloads) {
      await expectDecoded(format, each, packets);
      // Noise that occurred in an earlier packet takes little space, except if each packet is its own frame.
      if (isOneStream(codecs, format)) expect(each[2]?.length).toBeLessThan(500);
      else expect(each[2]?.length).toBe(each[0]?.length);
    }
  });
});

describe('the portable encoder of zstd', () => {
  it('makes each packet a complete frame with its size, so that no packet needs another', async () => {
    const packets = [pages(3, 1), pages(128, 2), pages(1, 3)];
    const payloads = await encodeAll(new PortableCodecs(), 'zstd', 3, packets);
    for (const [i, payload] of payloads.entries()) {
      const frames = new ZstdFrames();
      let piece = 'part';
      for (let at = 0; at < payload.length; ) {
        expect(piece).not.toBe('frame');
        ({ end: at, piece } = frames.next(payload, at));
      }
      expect(piece).toBe('frame');
      await expectDecoded('zstd', [payload], [packets[i] as Uint8Array]);
    }
  });

  it('splits longer input into frames of 1 MiB', async () => {
    const input = pages(700, 1);
    const room = new Uint8Array(input.length);
    const encoder = await new PortableCodecs().openEncoder('zstd', 1);
    const payload = room.subarray(0, await encoder.encode(input, room));
    encoder.close();
    const frames = new ZstdFrames();
    let ended = 0;
    for (let at = 0; at < payload.length; ) {
      const { end, piece } = frames.next(payload, at);
      if (piece === 'frame') ended++;
      at = end;
    }
    expect(ended).toBe(3);
    await expectDecoded('zstd', [payload], [input]);
  });

  it('works after all encoders were closed, some twice', async () => {
    const codecs = new PortableCodecs();
    for (let round = 0; round < 3; round++) {
      const [one, other] = await Promise.all([codecs.openEncoder('zstd', 1), codecs.openEncoder('zstd', 19)]);
      one.close();
      one.close();
      const packet = pages(2, round);
      const room = new Uint8Array(maxPayload);
      await expectDecoded('zstd', [room.subarray(0, await other.encode(packet, room))], [packet]);
      other.close();
    }
  });
});

describe("real QEMU's packets, compressed again", () => {
  const sets = loadFixtures().flatMap(({ name, channels }) => {
    const format = formats.find((each) => name.startsWith(`pc-multifd-${each}-`));
    return format === undefined ? [] : [{ name, channels, format }];
  });

  it('exist', () => {
    expect(new Set(sets.map(({ format }) => format)).size).toBe(2);
  });

  it.each(sets)('take about as many bytes in $name', async ({ channels, format }) => {
    expect(channels.length).toBeGreaterThan(1);
    for (const [engine, codecs] of engines) {
      let [theirs, ours] = [0, 0];
      for (const channel of channels) {
        const { payloads, packets } = await readPackets(channel, format);
        const encoded = await encodeAll(codecs, format, 1, packets);
        theirs += payloads.reduce((sum, payload) => sum + payload.length, 0);
        ours += encoded.reduce((sum, payload) => sum + payload.length, 0);
      }
      // QEMU 7.2 sent pages again in a later packet of a channel. A frame cannot refer to an earlier frame.
      const most = isOneStream(codecs, format) ? 1.01 : 1.4;
      expect(ours / theirs, `${engine}: ${ours} bytes beside ${theirs}`).toBeLessThan(most);
    }
  });

  /** The payloads of a channel, and the pages in each. */
  async function readPackets(bytes: Uint8Array, format: StreamFormat) {
    const window = new ByteWindow(bytes, 'channel');
    window.limit = bytes.length;
    window.position = helloLength;
    const decoder = await new NodeCodecs().openDecoder(format);
    const [payloads, packets]: [Uint8Array[], Uint8Array[]] = [[], []];
    while (window.position < bytes.length) {
      const flags = readPacketFlags(window);
      const header = readPacketHeader(window, flags, pageSize, new Float64Array(packetRamBytes / 1024));
      window.position += multifdHeaderLength(pageSize);
      if (header.normalPages === 0) continue;
      const payload = bytes.subarray(window.position, window.position + header.payloadLength);
      const packet = new Uint8Array(header.normalPages * pageSize);
      expect(await decoder.decode(payload, packet)).toBe(packet.length);
      window.position += payload.length;
      payloads.push(payload);
      packets.push(packet);
    }
    return { payloads, packets };
  }
});
