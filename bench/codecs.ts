/** Our page codecs beside the native libraries, on the payloads of one channel, in one process. */
import { createRequire } from 'node:module';
import { NodeCodecs } from '../src/io/node/codecs.ts';
import type { PageCodecs, StreamFormat } from '../src/io/page-codec.ts';
import { PortableCodecs } from '../src/io/portable-codecs.ts';
import { type Payloads, readPayloads } from './channel-payloads.ts';
import { type Row, rowOf } from './measure.ts';

interface Addon {
  /** Nanoseconds, and the bytes that came out. */
  decode(format: 0 | 1, packets: Uint8Array, lengths: Uint32Array, times: number): [number, number];
}

const room = new Uint8Array(512 * 1024);

/** Nanoseconds that an engine takes for all packets. */
async function decodeAll(codecs: PageCodecs, format: StreamFormat, payloads: Payloads): Promise<number> {
  const decoder = await codecs.openDecoder(format);
  const start = process.hrtime.bigint();
  let at = 0;
  for (const [i, length] of payloads.lengths.entries()) {
    const target = room.subarray(0, payloads.pageBytes[i]);
    const written = await decoder.decode(payloads.bytes.subarray(at, at + length), target);
    if (written !== target.length) throw new Error(`packet ${i}: expected ${target.length} bytes, got ${written}`);
    at += length;
  }
  const taken = Number(process.hrtime.bigint() - start);
  decoder.close();
  return taken;
}

/** Rows in GB/s of pages. */
export async function measureCodecs(format: StreamFormat, channel: string, rounds: number): Promise<Row[]> {
  const addon = createRequire(import.meta.url)('./codecs.node') as Addon;
  const payloads = readPayloads(channel);
  const engines: [name: string, codecs: PageCodecs][] = [
    ['engine of Node', new NodeCodecs()],
    ['portable engine', new PortableCodecs()],
  ];
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
