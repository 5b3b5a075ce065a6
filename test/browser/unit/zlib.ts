/** Stands for `node:zlib` in the page, as far as the unit tests and the oracle use it: by pako, which is zlib. */
import { deflate, deflateRaw, gzip, Inflate, ungzip } from 'pako';

export const constants = { Z_SYNC_FLUSH: 2 } as const;
export const gzipSync = gzip;
export const gunzipSync = ungzip;
export const deflateSync = deflate;
export const deflateRawSync = deflateRaw;

interface InflateOptions {
  /** Give how much of the input was used, too. */
  info?: boolean;
  maxOutputLength?: number;
}

function inflateWith(raw: boolean, input: Uint8Array, { info = false, maxOutputLength }: InflateOptions): unknown {
  const stream = new Inflate({ raw });
  stream.push(input, constants.Z_SYNC_FLUSH);
  if (stream.err !== 0) throw new Error(stream.msg);
  const pieces = stream.result as Uint8Array | undefined;
  const buffer = pieces ?? new Uint8Array();
  if (buffer.length > (maxOutputLength ?? Number.POSITIVE_INFINITY)) throw new Error('more than was expected');
  const { strm } = stream as unknown as { strm: { total_in: number } };
  return info ? { buffer, engine: { bytesWritten: strm.total_in } } : buffer;
}

export const inflateSync = (input: Uint8Array, options: InflateOptions = {}) => inflateWith(false, input, options);
export const inflateRawSync = (input: Uint8Array, options: InflateOptions = {}) => inflateWith(true, input, options);
