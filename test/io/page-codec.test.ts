/** The same claims for all engines: Node's own, and the portable ones. */
import { constants, createDeflate, type Deflate, deflateRawSync, deflateSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { CodecError, type PageCodecs, type PageDecoder, type StreamFormat } from '../../src/io/page-codec.ts';
import { PortableCodecs } from '../../src/io/portable-codecs.ts';

const engines: [string, PageCodecs][] = [
  ['Node', new NodeCodecs()],
  ['portable', new PortableCodecs()],
];
const page = 4096;

/** Pages that repeat earlier ones, so that the window across packets matters. */
function somePages(count: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(count * page);
  for (let i = 0; i < bytes.length; i++) bytes[i] = i % 3 === 0 ? (i * seed) >> 7 : seed + (i >> 9);
  return bytes;
}

/** The output of one deflate stream for each packet, flushed at the end of each. */
async function deflatePackets(packets: readonly Uint8Array[], flush: number): Promise<Uint8Array[]> {
  const stream: Deflate = createDeflate({ level: 1 });
  const out: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => out.push(chunk));
  const payloads: Uint8Array[] = [];
  for (const packet of packets) {
    stream.write(packet);
    await new Promise<void>((resolve) => stream.flush(flush, resolve));
    payloads.push(new Uint8Array(Buffer.concat(out.splice(0))));
  }
  stream.destroy();
  return payloads;
}

/** Feeds a payload in pieces, each to be decompressed at once. */
async function decodePieces(decoder: PageDecoder, payload: Uint8Array, target: Uint8Array, step: number) {
  let written = 0;
  for (let at = 0; at < payload.length; at += step) {
    written += await decoder.decode(payload.subarray(at, at + step), target.subarray(written));
  }
  return written;
}

/** zstd data written by hand: raw blocks and blocks of one byte repeated. */
const zstd = {
  head: [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x48],
  raw: (bytes: Uint8Array, last = false) => [...block(bytes.length, 0, last), ...bytes],
  repeated: (byte: number, count: number, last = false) => [...block(count, 1, last), byte],
};
function block(size: number, type: number, last: boolean): number[] {
  const head = (size << 3) | (type << 1) | (last ? 1 : 0);
  return [head & 0xff, (head >> 8) & 0xff, head >> 16];
}

describe.each(engines)('the codecs of %s', (_, codecs) => {
  it.each([
    ['sync', constants.Z_SYNC_FLUSH],
    ['full', constants.Z_FULL_FLUSH],
    ['partial', constants.Z_PARTIAL_FLUSH],
  ])('return all of each packet of a zlib stream at a %s flush', async (_flush, flush) => {
    const packets = [somePages(128, 3), somePages(1, 3), somePages(30, 5), somePages(128, 3)];
    const payloads = await deflatePackets(packets, flush);
    for (const step of [1 << 20, 999]) {
      const decoder = await codecs.openDecoder('zlib');
      for (const [i, packet] of packets.entries()) {
        const target = new Uint8Array(packet.length);
        expect(await decodePieces(decoder, payloads[i] as Uint8Array, target, step)).toBe(packet.length);
        expect(Buffer.compare(target, packet)).toBe(0);
      }
      decoder.close();
    }
  });

  it('return all of each packet of one zstd frame, and of frames that end', async () => {
    const a = somePages(1, 9);
    const ones = new Uint8Array(31 * page).fill(1);
    const packets: [number[], Uint8Array][] = [
      [[...zstd.head, ...zstd.raw(a)], a],
      [zstd.repeated(1, ones.length), ones],
      [zstd.raw(new Uint8Array(), true), new Uint8Array()],
      // Two frames in one packet, with a skippable frame between them.
      [
        [
          ...zstd.head,
          ...zstd.raw(a, true),
          0x50,
          0x2a,
          0x4d,
          0x18,
          1,
          0,
          0,
          0,
          7,
          ...zstd.head,
          ...zstd.repeated(1, page, true),
        ],
        new Uint8Array(Buffer.concat([a, ones.subarray(0, page)])),
      ],
    ];
    for (const step of [1 << 20, 1, 4097]) {
      const decoder = await codecs.openDecoder('zstd');
      for (const [payload, expected] of packets) {
        const target = new Uint8Array(expected.length);
        expect(await decodePieces(decoder, Uint8Array.from(payload), target, step)).toBe(expected.length);
        expect(Buffer.compare(target, expected)).toBe(0);
      }
      decoder.close();
    }
  });

  it.each<[string, StreamFormat, number[]]>([
    ['zlib data that is none', 'zlib', [0x78, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
    ['zstd data without its magic', 'zstd', [1, 2, 3, 4, 5, 6]],
    ['a zstd block of an unknown type', 'zstd', [...zstd.head, 0x06, 0, 0]],
    ['a zstd block that is too large', 'zstd', [...zstd.head, ...block(128 * 1024 + 1, 1, false), 0]],
    ['a zstd window over 32 MiB', 'zstd', [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x79, ...zstd.repeated(0, page)]],
    ['a compressed zstd block that is none', 'zstd', [...zstd.head, ...block(4, 2, false), 0xff, 0xff, 0xff, 0xff]],
  ])('refuse %s', async (_what, format, payload) => {
    const decoder = await codecs.openDecoder(format);
    const decoding = (async () => decoder.decode(Uint8Array.from(payload), new Uint8Array(2 * page)))();
    await expect(decoding).rejects.toThrow(CodecError);
    decoder.close();
  });

  it('refuse output that does not fit, without allocating memory for it', async () => {
    const bomb = deflateSync(new Uint8Array(16 << 20));
    const zlib = await codecs.openDecoder('zlib');
    await expect((async () => zlib.decode(bomb, new Uint8Array(page)))()).rejects.toThrow(/expected 4096 bytes/);
    zlib.close();
    const frame = [...zstd.head, ...Array.from({ length: 64 }, () => zstd.repeated(0, 128 * 1024)).flat()];
    const frames = await codecs.openDecoder('zstd');
    await expect((async () => frames.decode(Uint8Array.from(frame), new Uint8Array(page)))()).rejects.toThrow(
      CodecError,
    );
    frames.close();
  });

  it('decode a single page, and nothing else', async () => {
    const bytes = somePages(1, 7);
    const target = new Uint8Array(page);
    const decode = async (format: 'zlib' | 'deflate', input: Uint8Array) => {
      target.fill(0xaa);
      await codecs.decodePage(format, input, target);
      return Buffer.compare(target, bytes);
    };
    const packed = new Uint8Array(deflateSync(bytes));
    expect(await decode('zlib', packed)).toBe(0);
    expect(await decode('deflate', new Uint8Array(deflateRawSync(bytes)))).toBe(0);
    for (const bad of [
      packed.subarray(0, packed.length - 1),
      packed.map((byte, i) => (i === packed.length - 1 ? byte ^ 1 : byte)),
      new Uint8Array([...packed, 0]),
      new Uint8Array(deflateSync(bytes.subarray(1))),
      new Uint8Array(deflateSync(somePages(2, 7))),
      new Uint8Array(),
      Uint8Array.of(0x78),
    ]) {
      await expect(decode('zlib', bad)).rejects.toThrow(CodecError);
    }
  });
});

describe('all engines', () => {
  it('give the same for any packets and any damage, or one of them refuses it', async () => {
    const packets = [somePages(16, 3), somePages(4, 3), somePages(16, 5)];
    const payloads = await deflatePackets(packets, constants.Z_SYNC_FLUSH);
    const outcome = async (codecs: PageCodecs, damaged: readonly Uint8Array[]) => {
      const decoder = await codecs.openDecoder('zlib');
      const outs: string[] = [];
      try {
        for (const [i, payload] of damaged.entries()) {
          const target = new Uint8Array((packets[i] as Uint8Array).length);
          outs.push(`${await decoder.decode(payload, target)} ${Buffer.from(target).toString('base64')}`);
        }
      } catch (error) {
        if (!(error instanceof CodecError)) throw error;
        return undefined;
      } finally {
        decoder.close();
      }
      return outs;
    };
    await fc.assert(
      fc.asyncProperty(fc.nat(2), fc.nat(), fc.nat(255), async (which, at, value) => {
        const damaged = payloads.map((payload, i) =>
          i === which ? payload.map((byte, j) => (j === at % payload.length ? value : byte)) : payload,
        );
        const [one, other] = [await outcome(engines[0]![1], damaged), await outcome(engines[1]![1], damaged)];
        if (one !== undefined && other !== undefined) expect(one).toEqual(other);
      }),
      { numRuns: 200 },
    );
  });
});
