/**
 * The final content of a file's RAM, for readers in address order. `content-plan.ts` decides how it is read: a
 * mapped-ram file in place, a stream of whole pages through an index (`stream-index.ts`), and everything else from a
 * scratch file, because later passes overwrite earlier ones.
 */
import type { Abortable } from '../io/abort.ts';
import { type ByteStore, placeIn } from '../io/byte-source.ts';
import { FindingLog } from '../read/finding-log.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import { type Finding, MigrationError, makeFinding } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, RamReader } from '../vm/ram-store.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { type ContentPlan, planContent } from './content-plan.ts';
import { type FlowSink, onlyPages } from './flow-sink.ts';
import { MappedRamReader } from './mapped-ram-reader.ts';
import { MappedRamStore } from './mapped-ram-store.ts';
import { findMissing, type MissingRam } from './missing-ram.ts';
import { type Settled, type SettleOptions, settle } from './settle.ts';
import { NotIndexable, StreamIndex } from './stream-index.ts';

/** Bytes passed on at a time. */
const pieceBytes = 1 << 20;

/** How the content of a file is opened. */
export interface RamContentOptions extends Pick<SettleOptions, 'endBlocks'>, Abortable {
  /** Makes the scratch file, if one is needed. Closing the content closes it. */
  makeScratch: () => ByteStore | Promise<ByteStore>;
  /** Selects the blocks whose content is needed. Default: all. */
  only?: (block: RamBlock) => boolean;
  /** Accept blocks that the migration left out (x-ignore-shared). Their content reads as zeros. Default false. */
  acceptIgnored?: boolean;
  /**
   * Accept a file that is incomplete or damaged, and read what it has. What is missing reads as zeros. Default false.
   */
  partial?: boolean;
  /** With `partial`: called once the content is open, if something is missing. */
  noteMissing?: (missing: MissingRam) => void;
  /** Called once the content is open, with the plan for reading it. */
  notePlan?: (plan: ContentPlan) => void;
}

/** Opens only the final content of RAM, see {@link openSavedVm}. */
export async function openRamContent(file: MigrationFile, options: RamContentOptions): Promise<OpenedRam> {
  const { ram } = await openSavedVm(file, options);
  return ram;
}

/** How a file is opened as a SavedVm. */
export interface SavedVmOptions extends RamContentOptions, Pick<SettleOptions, 'devices'> {
  /** Accept a mapped-ram file with only the pages that changed since a base (`merge.ts`). Default false. */
  changes?: boolean;
}

/** A SavedVm that was opened from a file. */
export interface OpenedVm extends SavedVm {
  ram: OpenedRam;
  /** How its RAM is read. */
  plan: ContentPlan;
  /** With `partial`: what is missing. Undefined if the file is complete. */
  missing: MissingRam | undefined;
}

/**
 * Opens the VM in a file. The file is first read to its end and checked (a mapped-ram file except for its pages). If an
 * index turns out to be impossible, the file is read a second time, and `endBlocks` is called again. Closing the `ram`
 * of the result closes the scratch file, not `file`.
 * @throws MigrationError if the file is bad
 */
export async function openSavedVm(file: MigrationFile, options: SavedVmOptions): Promise<OpenedVm> {
  return whileAllowed(options, [file], () => openVm(file, options));
}

async function openVm(file: MigrationFile, options: SavedVmOptions): Promise<OpenedVm> {
  const { gaps, hasRamEnd: _, blocks: __, ...vm } = await openAsPlanned(file, planContent(file), options);
  options.notePlan?.(vm.plan);
  try {
    const missing = await findMissing(vm.ram, gaps, vm.ignored, options.only);
    if (missing !== undefined) options.noteMissing?.(missing);
    return { ...vm, missing };
  } catch (error) {
    await vm.ram.close();
    throw error;
  }
}

/** A VM whose missing pages have not been looked for. */
type PlannedVm = Settled & Pick<OpenedVm, 'ram' | 'plan'>;

async function openAsPlanned(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<PlannedVm> {
  if (plan.how === 'in-place') return openInPlace(file, plan, options);
  if (plan.how !== 'index') return openScratch(file, plan, options);
  try {
    return await openIndex(file, plan, options);
  } catch (error) {
    if (!(error instanceof NotIndexable)) throw error;
    return openScratch(file, { how: plan.otherwise, reason: error.message }, options);
  }
}

async function openInPlace(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<PlannedVm> {
  const cut: Finding[] = [];
  const bitmaps: FlowSink = {
    take(item) {
      const finding = findCut(file, item);
      if (finding === undefined) return;
      if (options.partial !== true) throw MigrationError.from(finding);
      if (cut.length === 0) cut.push(finding);
    },
  };
  const settled = await settle(file, bitmaps, {
    ...settleOptions(options),
    changes: options.changes === true,
    read: 'bitmaps',
  });
  const gaps = [...settled.gaps, ...cut];
  const clearBit = gaps.some(({ code }) => code === 'changes-only') ? ('absent' as const) : ('zero' as const);
  const lacks = { size: file.source.size, clearBit, isUnmarked: !settled.hasRamEnd };
  const ram = new MappedRamReader(file.content, settled.blocks, options.partial === true ? lacks : {});
  return { ...settled, gaps, plan, ram };
}

async function openIndex(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<PlannedVm> {
  const index = new StreamIndex(file, options.only ?? (() => true));
  return { ...(await settle(file, index, settleOptions(options))), plan, ram: index };
}

async function openScratch(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<PlannedVm> {
  const scratch = await options.makeScratch();
  try {
    const lost = new FindingLog();
    const noteLost = options.partial === true ? (finding: Finding) => lost.add(finding) : undefined;
    const store = new MappedRamStore(scratch, file.pageSlots, { noteLost });
    const settled = await settle(file, onlyPages(store, options.only), settleOptions(options));
    return { ...settled, gaps: [...settled.gaps, ...lost.list()], plan, ram: store };
  } catch (error) {
    await scratch.close();
    throw error;
  }
}

function settleOptions({
  devices = false,
  endBlocks,
  only,
  acceptIgnored,
  partial = false,
}: SavedVmOptions): SettleOptions {
  const needs = acceptIgnored === true ? () => false : only;
  return {
    devices,
    partial,
    ...(needs === undefined ? {} : { needs }),
    ...(endBlocks === undefined ? {} : { endBlocks }),
  };
}

/** The finding for a page whose bit is set, but that is not completely within the file. */
function findCut(file: MigrationFile, item: FlowItem): Finding | undefined {
  if (item.kind !== 'bitmap' || item.block.mapped === undefined) return undefined;
  const { block, firstPage, bits } = item;
  let last = bits.length - 1;
  while (last >= 0 && bits[last] === 0) last--;
  if (last < 0) return undefined;
  const page = firstPage + last * 8 + 31 - Math.clz32(bits[last] as number);
  const end = item.block.mapped.pagesOffset + (page + 1) * block.pageSize;
  const size = file.source.size as number;
  if (end <= size) return undefined;
  return makeFinding('truncated', `expected page ${page} to end at ${end}, got a file of ${size} bytes`, {
    ...placeIn(file.source, size),
    section: 'ram',
    block: block.idstr,
    page,
  });
}

/** A piece of a block's content, in address order. `bytes` undefined means zeros. Valid until the next is requested. */
export interface ContentPiece {
  length: number;
  bytes: Uint8Array | undefined;
}

/** Reads a block from its first byte to its last. */
export async function* readContent(ram: RamReader, block: RamBlock): AsyncGenerator<ContentPiece, void> {
  const { pageSize, usedLength } = block;
  const buffer = new Uint8Array(Math.max(pieceBytes, pageSize));
  const pages = usedLength / pageSize;
  ram.willRead?.(block, 0, pages);
  for (let page = 0; page < pages; ) {
    const { first, end } = await ram.nextData(block, page, buffer.length / pageSize);
    if (first > page) yield { length: (first - page) * pageSize, bytes: undefined };
    if (end > first) {
      const bytes = buffer.subarray(0, (end - first) * pageSize);
      await ram.read(block, first, bytes);
      yield { length: bytes.length, bytes };
    }
    page = end;
  }
}

const zeros = new Uint8Array(pieceBytes);

/** Reads a block from its first byte to its last, including zeros. Each result is valid until the next is requested. */
export async function* readBytes(ram: RamReader, block: RamBlock): AsyncGenerator<Uint8Array, void> {
  for await (const { length, bytes } of readContent(ram, block)) {
    if (bytes !== undefined) yield bytes;
    else for (let left = length; left > 0; left -= pieceBytes) yield zeros.subarray(0, Math.min(left, pieceBytes));
  }
}

/** An incremental digest, such as one of node:crypto. */
export interface Digest {
  /** Takes the next bytes. */
  update(bytes: Uint8Array): unknown;
}

/** Feeds a block's whole content, including zeros, to a digest. */
export async function digestContent(ram: RamReader, block: RamBlock, digest: Digest): Promise<void> {
  for await (const bytes of readBytes(ram, block)) digest.update(bytes);
}
