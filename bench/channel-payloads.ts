/** The compressed payloads of a multifd channel, as input for decoders. Pages are 4 KiB. */
import { readFileSync } from 'node:fs';
import { ByteWindow } from '../src/wire/byte-window.ts';
import { helloLength, multifdHeaderLength, readPacketFlags, readPacketHeader } from '../src/wire/multifd-packet.ts';

const pageSize = 4096;

export interface Payloads {
  /** All payloads, back to back. */
  bytes: Uint8Array;
  /** Of each payload: its length, and the bytes of pages in it. */
  lengths: Uint32Array;
  pageBytes: Uint32Array;
  /** Pages of all payloads, in bytes. */
  total: number;
}

/** `most`: stop once the payloads hold this many bytes of pages. */
export function readPayloads(path: string, most = Number.POSITIVE_INFINITY): Payloads {
  const file = readFileSync(path);
  const window = new ByteWindow(file, path);
  window.limit = file.length;
  const pages = new Float64Array(512);
  const [parts, lengths, pageBytes]: [Uint8Array[], number[], number[]] = [[], [], []];
  let total = 0;
  for (window.position = helloLength; window.position < file.length && total < most; ) {
    const header = readPacketHeader(window, readPacketFlags(window), pageSize, pages);
    window.position += multifdHeaderLength(pageSize);
    if (header.normalPages === 0) continue;
    parts.push(file.subarray(window.position, window.position + header.payloadLength));
    lengths.push(header.payloadLength);
    pageBytes.push(header.normalPages * pageSize);
    total += header.normalPages * pageSize;
    window.position += header.payloadLength;
  }
  return {
    bytes: Buffer.concat(parts),
    lengths: Uint32Array.from(lengths),
    pageBytes: Uint32Array.from(pageBytes),
    total,
  };
}
