/**
 * Finds the target page size if nothing states it (docs/formats/stream.md, "Target page size"). It looks ahead at the
 * first page records before the block list is decoded, because blocks are counted in pages.
 *
 *     block list | EOS | [footer] | PART head | page records
 *
 * A page size is possible if all visible records fit it: offsets are multiples of it, records follow each other, and a
 * record that names its block names one of the list. Data decides at once: a record follows a page of the right size,
 * and no record follows a page of another size. Zero pages alone decide by their offsets, because the first pass sends
 * every page of a block in order. If several page sizes stay possible, the result is undefined. Lists with mapped-ram
 * headers are not examined, because they state the page size.
 */
import { isPageSize, pageSizes } from '../vm/page-size.ts';
import { type ByteWindow, hasSoon, latin1, maxNeed, type Need } from './byte-window.ts';
import { RamFlag } from './ram-record.ts';
import { SectionType } from './section-type.ts';

/** The bits that flags take. Offsets are multiples of a larger number. */
const flagBits = 0x3ff;
/** How many zero pages in a row show the page size. */
const enoughZeroPages = 64;
/** How far ahead to look, in steps: a stream that is still being written may have no more bytes for a while. */
const steps = [4 * 1024, 16 * 1024, maxNeed];

/**
 * Page sizes of machines whose targets have only one. Other machines (`virt`, `none`, Arm boards) exist on several
 * targets.
 */
const machines: readonly [RegExp, number][] = [
  [/^(pc|isapc|microvm|xenpv|xenfv|pseries|powernv|s390-ccw-virtio)\b/, 4096],
  [/^(sun4u|sun4v|niagara|clipper)$/, 8192],
];

/** The page size that the name of the machine implies, if any. */
export function pageSizeOfMachine(machine: string): number | undefined {
  return machines.find(([names]) => names.test(machine))?.[1];
}

/** The page size that the next records show; undefined if they do not. The position is at the block list. */
export function* detectPageSize(window: ByteWindow, ignoreShared: boolean): Generator<Need, number | undefined> {
  for (const bytes of steps) {
    const isAll = !(yield* hasSoon(window, bytes)) || bytes === maxNeed;
    // Look no further, even if more bytes are available: the result must not depend on how the bytes arrived.
    const end = Math.min(window.limit, window.position + bytes);
    const list = findRecords(window, end, ignoreShared);
    if (list === 'none') return undefined;
    if (list === undefined && !isAll) continue;
    if (list === undefined) return undefined;
    // Except for the flags, no page lies beyond all RAM.
    const ramBytes = Number(window.view.getBigUint64(window.position));
    const pageSize = judge(pageSizes.map((size) => walk(window, list, end, ramBytes, size)));
    if (pageSize !== undefined || isAll) return pageSize;
  }
  return undefined;
}

function judge(walks: readonly Walk[]): number | undefined {
  const withData = walks.filter(({ fits, data }) => fits && data);
  if (withData.length > 0) return withData.length === 1 ? withData[0]?.pageSize : undefined;
  // Only zero pages, which every size reads alike: the distance from one to the next is the page size.
  const { step = 0, zeroPages = 0 } = walks.find(({ fits, data }) => fits && !data) ?? {};
  return zeroPages >= enoughZeroPages && isPageSize(step) ? step : undefined;
}

/** What the block list says, and the index of the first record of the first PART after it. */
interface RecordList {
  first: number;
  /** The blocks' names, one character for each byte. */
  names: ReadonlySet<string>;
}

/**
 * Finds the first record of the first PART, if that directly follows the START of RAM. Undefined: there are not enough
 * bytes yet. `none`: something else follows.
 */
function findRecords(
  { bytes, view, position }: ByteWindow,
  limit: number,
  ignoreShared: boolean,
): RecordList | 'none' | undefined {
  if (limit - position < 8) return undefined;
  const word = view.getBigUint64(position);
  if ((word & BigInt(flagBits)) !== BigInt(RamFlag.memSize)) return 'none';
  let left = word - BigInt(RamFlag.memSize);
  let at = position + 8;
  const names = new Set<string>();
  while (left > 0n) {
    if (at >= limit || at + 9 + (bytes[at] as number) > limit) return undefined;
    names.add(nameAt(bytes, at));
    at += 1 + (bytes[at] as number);
    left -= view.getBigUint64(at);
    at += ignoreShared ? 16 : 8;
  }
  if (left < 0n) return 'none';
  if (at + 8 > limit) return undefined;
  // A multifd set has MULTIFD_FLUSH here, and no page records that would help.
  if (view.getBigUint64(at) !== BigInt(RamFlag.eos)) return 'none';
  at += 8;
  if (at < limit && bytes[at] === SectionType.footer) at += 5;
  if (at + 5 >= limit) return undefined;
  return bytes[at] === SectionType.part ? { first: at + 5, names } : 'none';
}

/** The counted name at an index. */
const nameAt = (bytes: Uint8Array, at: number) => latin1(bytes, at + 1, bytes[at] as number);

interface Walk {
  pageSize: number;
  /** Nothing seen contradicts the page size. */
  fits: boolean;
  /** There was data, and something followed it. */
  data: boolean;
  zeroPages: number;
  /** Bytes from each zero page to the next, if constant. */
  step: number | undefined;
}

/** Reads the records as if pages had this size. */
function walk(
  { bytes, view }: ByteWindow,
  { first, names }: RecordList,
  limit: number,
  ramBytes: number,
  pageSize: number,
): Walk {
  const result: Walk = { pageSize, fits: true, data: false, zeroPages: 0, step: undefined };
  let afterData = false;
  let isSteady = true;
  let previous: number | undefined;
  for (let at = first; at + 9 <= limit; ) {
    const low = view.getUint32(at + 4);
    const flags = low & flagBits;
    const kind = flags & ~RamFlag.continue;
    const offset = view.getUint32(at) * 0x1_0000_0000 + (low - flags);
    const isPage = kind === RamFlag.page || kind === RamFlag.zero;
    const isEnd = flags === RamFlag.eos && offset === 0;
    const isFirst = at === first;
    const isNamed = (flags & RamFlag.continue) === 0 && !isEnd;
    const nameEnd = at + 9 + (bytes[at + 8] as number);
    if (isNamed && nameEnd <= limit && !names.has(nameAt(bytes, at + 8))) return { ...result, fits: false };
    // Deltas and compressed pages do not show the page size. What follows them is not examined.
    if ((kind === RamFlag.xbzrle || kind === RamFlag.compressPage) && !isFirst && offset < ramBytes) {
      result.data ||= afterData;
      break;
    }
    if (isPage && offset >= ramBytes) return { ...result, fits: false };
    if ((!isPage && !isEnd) || offset % pageSize !== 0 || (isFirst && (flags & RamFlag.continue) !== 0)) {
      return { ...result, fits: false };
    }
    result.data ||= afterData;
    if (isEnd) break;
    if (isNamed) {
      if (!isFirst) isSteady = false;
      at += 1 + (bytes[at + 8] as number);
    }
    at += 8;
    if (kind === RamFlag.zero && at < limit && bytes[at] !== 0) return { ...result, fits: false };
    at += kind === RamFlag.page ? pageSize : 1;
    afterData = kind === RamFlag.page;
    if (afterData || (isFirst && offset !== 0)) isSteady = false;
    if (isSteady && previous !== undefined) {
      const step = offset - previous;
      if (step !== (result.step ?? step)) isSteady = false;
      result.step = step;
    }
    previous = offset;
    result.zeroPages++;
  }
  return isSteady ? result : { ...result, step: undefined };
}
