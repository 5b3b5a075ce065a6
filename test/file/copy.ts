import type { ByteSink } from '../../src/node.ts';

/** A sink that keeps what it takes. */
export function makeCopy(): { sink: ByteSink; bytes: () => Uint8Array } {
  const parts: Uint8Array[] = [];
  return {
    sink: { write: (bytes) => void parts.push(bytes.slice()) },
    bytes: () => new Uint8Array(Buffer.concat(parts)),
  };
}
