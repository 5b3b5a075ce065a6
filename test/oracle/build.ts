/** Pieces of hand-built streams: the format's fields, spelled out one by one. */

type Part = Uint8Array | number[] | string;

/** Joins parts; a string stands for its characters' bytes, a list of numbers for bytes. */
export function join(...parts: Part[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array))));
}

export const hex = (digits: string): Uint8Array => new Uint8Array(Buffer.from(digits.replace(/\s/g, ''), 'hex'));

export const u16 = (value: number): number[] => [value >> 8, value & 0xff];

export const u32 = (value: number): number[] => [value >>> 24, (value >>> 16) & 0xff, ...u16(value & 0xffff)];

export function u64(value: number | bigint): number[] {
  const big = BigInt(value);
  return [...u32(Number(big >> 32n)), ...u32(Number(big & 0xffffffffn))];
}

export const counted = (text: string): Uint8Array => join([text.length], text);

export const header = hex('5145564d 00000003');

export const configuration = (machine: string, ...subsections: Uint8Array[]): Uint8Array =>
  join([0x07], u32(machine.length), machine, ...subsections);

export const subsection = (name: string, ...fields: Part[]): Uint8Array =>
  join([0x05], counted(name), u32(1), ...fields);

export const capabilities = (...names: string[]): Uint8Array =>
  subsection('configuration/capabilities', u32(names.length), ...names.map(counted));

export const footer = (id: number): Uint8Array => join([0x7e], u32(id));

/** Items without footers. */
export const bare = {
  start: (id: number, name: string, version: number, ...body: Part[]): Uint8Array =>
    join([0x01], u32(id), counted(name), u32(0), u32(version), ...body),
  part: (id: number, ...body: Part[]): Uint8Array => join([0x02], u32(id), ...body),
  end: (id: number, ...body: Part[]): Uint8Array => join([0x03], u32(id), ...body),
  full: (id: number, name: string, ...body: Part[]): Uint8Array =>
    join([0x04], u32(id), counted(name), u32(0), u32(1), ...body),
};

export const start = (id: number, name: string, version: number, ...body: Part[]): Uint8Array =>
  join(bare.start(id, name, version, ...body), footer(id));
export const part = (id: number, ...body: Part[]): Uint8Array => join(bare.part(id, ...body), footer(id));
export const end = (id: number, ...body: Part[]): Uint8Array => join(bare.end(id, ...body), footer(id));
export const full = (id: number, name: string, ...body: Part[]): Uint8Array =>
  join(bare.full(id, name, ...body), footer(id));

export const command = (cmd: number, ...payload: Part[]): Uint8Array => {
  const bytes = join(...payload);
  return join([0x08], u16(cmd), u16(bytes.length), bytes);
};

export const packaged = (...items: Part[]): Uint8Array => {
  const bytes = join(...items);
  return join(command(7, u32(bytes.length)), bytes);
};

export const EOF = [0x00];

export const vmdescription = (value: unknown): Uint8Array => {
  const json = JSON.stringify(value);
  return join([0x06], u32(json.length), json);
};

/** RAM records. A page without a block name is a CONTINUE. */
export const EOS = u64(0x10);
export const FLUSH = u64(0x200);

const page = (flag: number, offset: number, block: string | undefined, ...data: Part[]): Uint8Array =>
  block === undefined ? join(u64(offset + flag + 0x20), ...data) : join(u64(offset + flag), counted(block), ...data);

export const zeroPage = (offset: number, block?: string): Uint8Array => page(0x02, offset, block, [0]);
export const normalPage = (offset: number, data: Uint8Array, block?: string): Uint8Array =>
  page(0x08, offset, block, data);
export const deltaPage = (offset: number, delta: Part, block?: string): Uint8Array => {
  const bytes = join(delta);
  return page(0x40, offset, block, [1], u16(bytes.length), bytes);
};
export const compressedPage = (offset: number, packed: Uint8Array, block?: string): Uint8Array =>
  page(0x100, offset, block, u32(packed.length), packed);

/** The block list: MEM_SIZE with the total, then the entries, each with the fields that capabilities add. */
export const blockList = (...blocks: [name: string, length: number, ...extra: Part[]][]): Uint8Array => {
  const total = blocks.reduce((sum, [, length]) => sum + length, 0);
  return join(u64(total + 4), ...blocks.flatMap(([name, length, ...extra]) => [counted(name), u64(length), ...extra]));
};

/** The beginning of a stream of machine `none`, and the RAM sections of a guest with one block of 16 pages. */
export const KIB4 = 4096;
export const none = join(header, configuration('none'));
export const ramStart = start(7, 'ram', 4, blockList(['ram', 16 * KIB4]), EOS);
export const ramEnd = end(7, EOS);

export const filled = (value: number, size = KIB4): Uint8Array => new Uint8Array(size).fill(value);

/** The first bytes of a multifd channel. */
export const channelHello = (id: number, uuid = '00'.repeat(16)): Uint8Array =>
  join(hex('11223344 00000001'), hex(uuid), [id], new Uint8Array(39));

export interface PacketParts {
  flags?: number;
  /** Pages allocated. */
  allocated?: number;
  block?: string;
  /** Offsets of pages with data, and of zero pages. */
  normal?: number[];
  zero?: number[];
  /** The payload after the header. */
  payload?: Part;
  /** The payload length in the header; default: the payload's length. */
  length?: number;
  /** Content behind the offsets in use. */
  stale?: number;
  /** The packet's number. */
  number?: number;
}

/** A multifd packet of 4 KiB pages. */
export const packet = (parts: PacketParts): Uint8Array => {
  const {
    flags = 0,
    allocated = 128,
    block = 'ram',
    normal = [],
    zero = [],
    payload = [],
    stale = 0,
    number = 0,
  } = parts;
  const bytes = join(payload);
  return join(
    hex('11223344 00000001'),
    [...u32(flags), ...u32(allocated), ...u32(normal.length), ...u32(parts.length ?? bytes.length), ...u64(number)],
    [...u32(zero.length), ...u32(0)],
    new Uint8Array(24),
    block,
    new Uint8Array(256 - block.length),
    [...normal, ...zero].flatMap((offset) => u64(offset)),
    Array.from({ length: 128 - normal.length - zero.length }, () => u64(stale)).flat(),
    bytes,
  );
};

/** A packet that ends an epoch. */
export const syncPacket = packet({ flags: 1, allocated: 0, block: '' });
