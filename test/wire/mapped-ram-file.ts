/** Builds small mapped-ram files by hand: page areas every 8 KiB, not every MiB as QEMU does. */
import {
  capabilities,
  configuration,
  counted,
  EOF,
  EOS,
  end,
  filled,
  footer,
  header,
  join,
  KIB4,
  part,
  u32,
  u64,
} from '../oracle/build.ts';

export interface MappedLayout {
  /** Bytes before the stream. Offsets in headers include them. */
  offset?: number;
  version?: number;
  /** Values of the headers. */
  pageSize?: number | bigint;
  /** Added to the bitmap offset of the first block. */
  bitmapShift?: number;
  /** Of the first block. */
  pagesOffset?: number | bigint;
  /** Of the first block. */
  bitmap?: number[];
  /** Replaces a PART with EOS. */
  extra?: Uint8Array;
  hasEnd?: boolean;
  tail?: Uint8Array;
}

const areaStep = 0x2000;
export const blockBytes = 3 * KIB4;

/** Two blocks `a` and `b` of three pages; page i of both areas is filled with i + 1. */
export function mappedRamFile(layout: MappedLayout = {}): Uint8Array {
  const { offset = 0, version = 1, pageSize = KIB4, bitmapShift = 0, bitmap = [0b101], hasEnd = true } = layout;
  const head = join(
    new Uint8Array(offset).fill(0xee),
    header,
    configuration('none', capabilities('mapped-ram')),
    [1],
    u32(1),
    counted('ram'),
    u32(0),
    u32(4),
    u64(2 * blockBytes + 4),
  );
  const area = join(filled(1), filled(2), filled(3));
  const entry = (at: number, name: string, stated: number | bigint | undefined, bits: number[]) => {
    const bitmapOffset = at + 1 + name.length + 8 + 28;
    const pagesAt = Math.ceil((bitmapOffset + 8) / areaStep) * areaStep;
    const fields = join(
      u32(version),
      u64(pageSize),
      u64(bitmapOffset + (name === 'a' ? bitmapShift : 0)),
      u64(stated ?? pagesAt),
    );
    const used = join(counted(name), u64(blockBytes), fields, bits, new Uint8Array(8 - bits.length));
    return join(used, new Uint8Array(pagesAt - at - used.length), area);
  };
  const first = entry(head.length, 'a', layout.pagesOffset, bitmap);
  const second = entry(head.length + first.length, 'b', undefined, [0b010]);
  return join(
    head,
    first,
    second,
    EOS,
    footer(1),
    layout.extra ?? part(1, EOS),
    hasEnd ? end(1, EOS) : [],
    layout.tail ?? EOF,
  );
}

const headBytes = configuration('none', capabilities('mapped-ram')).length;

/** Offset of the header of block `a`. */
export const firstHeader = (offset = 0): number => offset + header.length + headBytes + 17 + 8 + 2 + 8;
