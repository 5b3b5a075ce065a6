/** A slow and obvious reader of ELF core files for tests, by the ELF specification. */
export interface DecodedCore {
  elfClass: number;
  type: number;
  machine: number;
  segments: { type: number; offset: number; virtual: bigint; physical: number; length: number; inMemory: number }[];
  notes: { name: string; type: number; content: Buffer }[];
  sections: { name: string; offset: number; length: number }[];
}

export function decodeCore(bytes: Uint8Array): DecodedCore {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (file.toString('latin1', 0, 4) !== '\x7fELF' || file[5] !== 1) throw new Error('no little-endian ELF file');
  const is64 = file[4] === 2;
  const word = (at: number) => (is64 ? Number(file.readBigUInt64LE(at)) : file.readUInt32LE(at));
  const width = is64 ? 8 : 4;
  const programs = word(24 + width);
  const table = word(24 + 2 * width);
  const counts = 24 + 3 * width + 4;
  const half = (index: number) => file.readUInt16LE(counts + 2 * index);
  const [, programSize = 0, programCount = 0, sectionSize = 0, sectionCount = 0, nameSection = 0] = [
    0, 1, 2, 3, 4, 5,
  ].map(half);

  // Where 16 bits do not count them, sh_info of the null section does.
  const count = programCount < 0xffff ? programCount : file.readUInt32LE(table + (is64 ? 44 : 28));
  const segments = Array.from({ length: count }, (_, i) => {
    const at = programs + i * programSize;
    const fields = at + (is64 ? 8 : 4);
    const [offset = 0, physical = 0, length = 0, inMemory = 0] = [0, 2, 3, 4].map((n) => word(fields + n * width));
    const virtual = is64 ? file.readBigUInt64LE(fields + width) : BigInt(file.readUInt32LE(fields + width));
    return { type: file.readUInt32LE(at), offset, virtual, physical, length, inMemory };
  });
  const section = (i: number) => {
    const at = table + i * sectionSize;
    return { name: file.readUInt32LE(at), offset: word(at + 8 + 2 * width), length: word(at + 8 + 3 * width) };
  };
  const names = section(nameSection).offset;
  const notes: DecodedCore['notes'] = [];
  for (const { offset, length } of segments.filter(({ type }) => type === 4)) {
    const pad = (n: number) => Math.ceil(n / 4) * 4;
    for (let at = offset; at < offset + length; ) {
      const [nameLength, contentLength, type] = [0, 4, 8].map((n) => file.readUInt32LE(at + n)) as [
        number,
        number,
        number,
      ];
      const content = at + 12 + pad(nameLength);
      notes.push({
        name: file.toString('latin1', at + 12, at + 12 + nameLength - 1),
        type,
        content: file.subarray(content, content + contentLength),
      });
      at = content + pad(contentLength);
    }
  }
  return {
    elfClass: is64 ? 64 : 32,
    type: file.readUInt16LE(16),
    machine: file.readUInt16LE(18),
    segments,
    notes,
    sections: Array.from({ length: sectionCount }, (_, i) => section(i)).map(({ name, ...rest }) => ({
      name: file.toString('latin1', names + name, file.indexOf(0, names + name)),
      ...rest,
    })),
  };
}
