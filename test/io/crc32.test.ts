import * as zlib from 'node:zlib';
import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { Crc32 } from '../../src/io/crc32.ts';

/** gzip's own CRC: the first of the last two words. */
const gzipCrc = (bytes: Uint8Array) => {
  const packed = zlib.gzipSync(bytes, { level: 0 });
  return packed.readUInt32LE(packed.length - 8);
};

it("equals gzip's, in whatever pieces the bytes come", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }), (pieces) => {
      const crc = new Crc32();
      for (const piece of pieces) crc.update(piece);
      expect(crc.value).toBe(gzipCrc(Buffer.concat(pieces)));
    }),
  );
});
