/** Compares our page codecs with the native libraries, both ways, on the payloads of one channel, in one process. */
import { createRequire } from 'node:module';
import { NodeCodecs } from '../src/io/node/codecs.ts';
import type { PageCodecs, StreamFormat } from '../src/io/page-codec.ts';
import { PortableCodecs } from '../src/io/portable-codecs.ts';
import { type Payloads, readPayloads } from './channel-payloads.ts';
import { type Row, rowOf } from './measure.ts';

interface Addon {
  /** Nanoseconds, and the bytes that came out. */
  decode(format: 0 | 1, packets: Uint8Array, lengths: Uint32Array, times: number): [number, number];
  encode(format: 0 | 1, packets: Uint8Array, lengths: Uint32Array, level: number): [number, number];
}

const engines: [name: string, codecs: PageCodecs][] = [
  ['engine of Node', new NodeCodecs()],
  ['portable engine', new PortableCodecs()],
];

const pageBuffer = new Uint8Array(512 * 1024);

/** Nanoseconds that an engine takes for all packets. */
async function decodeAll(codecs: PageCodecs, format: StreamFormat, payloads: Payloads): Promise<number> {
  const decoder = await codecs.openDecoder(format);
  const start = process.hrtime.bigint();
  let at = 0;
  for (const [i, length] of payloads.lengths.entries()) {
    const target = pageBuffer.subarray(0, payloads.pageBytes[i]);
    const written = await decoder.decode(payloads.bytes.subarray(at, at + length), target);
    if (written !== target.length) throw new Error(`packet ${i}: expected ${target.length} bytes, got ${written}`);
    at += length;
  }
  const taken = Number(process.hrtime.bigint() - start);
  decoder.close();
  return taken;
}

const payloadBuffer = new Uint8Array(1 << 20);

/** Nanoseconds that an engine takes to compress all packets, and the bytes that come out. */
async function encodeAll(codecs: PageCodecs, format: StreamFormat, level: number, pages: Payloads) {
  const encoder = await codecs.openEncoder(format, level);
  const start = process.hrtime.bigint();
  let [at, bytes] = [0, 0];
  for (const length of pages.lengths) {
    bytes += await encoder.encode(pages.bytes.subarray(at, at + length), payloadBuffer);
    at += length;
  }
  const taken = Number(process.hrtime.bigint() - start);
  encoder.close();
  return { taken, bytes };
}

/** Rows in GB/s of pages, compressed at a level, and each engine's output size relative to the native library's. */
export async function measureEncoders(
  format: StreamFormat,
  level: number,
  pages: Payloads,
  rounds: number,
): Promise<{ rows: Row[]; sizes: number[] }> {
  const addon = createRequire(import.meta.url)('./codecs.node') as Addon;
  const native: number[] = [];
  const ours: number[][] = engines.map(() => []);
  const sizes: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const [taken, size] = addon.encode(format === 'zlib' ? 0 : 1, pages.bytes, pages.lengths, level);
    native.push(pages.total / taken);
    for (const [i, [, codecs]] of engines.entries()) {
      const made = await encodeAll(codecs, format, level, pages);
      ours[i]?.push(pages.total / made.taken);
      sizes[i] = made.bytes / size;
    }
  }
  const name = `${format} level ${level}`;
  const rows = engines.map(([engine], i) => rowOf(`${name}, ${engine} / native library`, ours[i] as number[], native));
  return { rows, sizes };
}

/** Rows in GB/s of pages, decompressed. */
export async function measureCodecs(format: StreamFormat, channel: string, rounds: number): Promise<Row[]> {
  const addon = createRequire(import.meta.url)('./codecs.node') as Addon;
  const payloads = readPayloads(channel);
  const native: number[] = [];
  const ours: number[][] = engines.map(() => []);
  for (let round = 0; round < rounds; round++) {
    const [taken, total] = addon.decode(format === 'zlib' ? 0 : 1, payloads.bytes, payloads.lengths, 1);
    if (total !== payloads.total) throw new Error(`the native library gives ${total} bytes, not ${payloads.total}`);
    native.push(total / taken);
    for (const [i, [, codecs]] of engines.entries()) {
      ours[i]?.push(total / (await decodeAll(codecs, format, payloads)));
    }
  }
  return engines.map(([name], i) => rowOf(`${format}, ${name} / native library`, ours[i] as number[], native));
}
