/** Hand-made zip archives, correct or lying. */
import * as zlib from 'node:zlib';
import { Crc32 } from '../../src/io/crc32.ts';

export interface MadeMember {
  name: string;
  data: Uint8Array;
  deflate?: boolean;
  /** False values for the directory. */
  lies?: Partial<Record<'size' | 'compressedSize' | 'crc32' | 'offset' | 'method' | 'flags', number>>;
}

const bytesOf = (size: number, ...fields: [at: number, bytes: 2 | 4 | 8, value: number][]) => {
  const bytes = Buffer.alloc(size);
  for (const [at, length, value] of fields) {
    if (length === 8) bytes.writeBigUInt64LE(BigInt(value), at);
    else bytes.writeUIntLE(value, at, length);
  }
  return bytes;
};

function crcOf(bytes: Uint8Array): number {
  const crc = new Crc32();
  crc.update(bytes);
  return crc.value;
}

/** `zip64`: every size and offset is in a zip64 field. */
export function makeZip(members: readonly MadeMember[], { zip64 = false } = {}): Buffer {
  const parts: Buffer[] = [];
  const entries: Buffer[] = [];
  const length = () => parts.reduce((sum, part) => sum + part.length, 0);
  for (const { name, data, deflate = false, lies = {} } of members) {
    const packed = deflate ? zlib.deflateRawSync(data) : Buffer.from(data);
    const truth = { size: data.length, compressedSize: packed.length, crc32: crcOf(data), offset: length() };
    const { size, compressedSize, crc32, offset } = { ...truth, ...lies };
    const { method = deflate ? 8 : 0, flags = 0x800 } = lies;
    const nameBytes = Buffer.from(name);
    parts.push(
      bytesOf(30, [0, 4, 0x04034b50], [8, 2, method], [14, 4, truth.crc32], [26, 2, nameBytes.length]),
      nameBytes,
      packed,
    );
    const extra = zip64
      ? bytesOf(28, [0, 2, 1], [2, 2, 24], [4, 8, size], [12, 8, compressedSize], [20, 8, offset])
      : '';
    const short = (value: number) => (zip64 ? 0xffffffff : value);
    entries.push(
      bytesOf(
        46,
        ...(<[number, 2 | 4, number][]>[
          [0, 4, 0x02014b50],
          [8, 2, flags],
          [10, 2, method],
          [16, 4, crc32],
          [20, 4, short(compressedSize)],
          [24, 4, short(size)],
          [28, 2, nameBytes.length],
          [30, 2, extra.length],
          [42, 4, short(offset)],
        ]),
      ),
      nameBytes,
      Buffer.from(extra),
    );
  }
  const start = length();
  const directory = Buffer.concat(entries);
  const count = members.length;
  const end64 = start + directory.length;
  const ends = zip64
    ? [
        bytesOf(
          56,
          [0, 4, 0x06064b50],
          [4, 8, 44],
          [24, 8, count],
          [32, 8, count],
          [40, 8, directory.length],
          [48, 8, start],
        ),
        bytesOf(20, [0, 4, 0x07064b50], [8, 8, end64], [16, 4, 1]),
        bytesOf(22, [0, 4, 0x06054b50], [8, 2, 0xffff], [10, 2, 0xffff], [12, 4, 0xffffffff], [16, 4, 0xffffffff]),
      ]
    : [bytesOf(22, [0, 4, 0x06054b50], [8, 2, count], [10, 2, count], [12, 4, directory.length], [16, 4, start])];
  return Buffer.concat([...parts, directory, ...ends]);
}
