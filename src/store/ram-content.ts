/**
 * The final content of a file's RAM, for readers in address order. `content-plan.ts` decides how it is read: a
 * mapped-ram file in place, a stream of whole pages through an index (`stream-index.ts`), and everything else from a
 * scratch file, because later passes overwrite earlier ones.
 */
import type { Abortable } from '../io/abort.ts';
import { type ByteStore, placeIn } from '../io/byte-source.ts';
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import type { FlowItem } from '../vm/flow.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, RamReader } from '../vm/ram-store.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { type ContentPlan, planContent } from './content-plan.ts';
import { type FlowSink, onlyPages } from './flow-sink.ts';
import { MappedRamReader, MappedRamStore } from './mapped-ram-store.ts';
import { type SettleOptions, settle } from './settle.ts';
import { NotIndexable, StreamIndex } from './stream-index.ts';

/** Bytes passed on at a time. */
const pieceBytes = 1 << 20;

/** How the content of a file is opened. */
export interface RamContentOptions extends Pick<SettleOptions, 'endBlocks'>, Abortable {
  /** Makes the scratch file, if one is needed. Closing the content closes it. */
  makeScratch: () => ByteStore | Promise<ByteStore>;
  /** Selects the blocks whose content is needed. Default: all. */
  only?: (block: RamBlock) => boolean;
  /** Called if the migration left out blocks (x-ignore-shared). Their content reads as zeros. */
  noteIgnored?: (blocks: readonly RamBlock[]) => void;
  /** Called once the content is open, with the plan for reading it. */
  notePlan?: (plan: ContentPlan) => void;
}

/** Opens only the final content of RAM, see {@link openSavedVm}. */
export async function openRamContent(file: MigrationFile, options: RamContentOptions): Promise<OpenedRam> {
  const { ram, ignored } = await openSavedVm(file, options);
  if (ignored.length > 0) options.noteIgnored?.(ignored);
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
  const vm = await openAsPlanned(file, planContent(file), options);
  options.notePlan?.(vm.plan);
  return vm;
}

async function openAsPlanned(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<OpenedVm> {
  if (plan.how === 'in-place') return openInPlace(file, plan, options);
  if (plan.how !== 'index') return openScratch(file, plan, options);
  try {
    return await openIndex(file, plan, options);
  } catch (error) {
    if (!(error instanceof NotIndexable)) throw error;
    return openScratch(file, { how: plan.otherwise, reason: error.message }, options);
  }
}

async function openInPlace(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<OpenedVm> {
  const bitmaps: FlowSink = { take: (item) => requirePages(file, item) };
  const { blocks, ...rest } = await settle(file, bitmaps, {
    ...settleOptions(options),
    changes: options.changes === true,
    read: 'bitmaps',
  });
  return { ...rest, plan, ram: new MappedRamReader(file.content, blocks) };
}

async function openIndex(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<OpenedVm> {
  const index = new StreamIndex(file, options.only ?? (() => true));
  const { blocks: _, ...rest } = await settle(file, index, settleOptions(options));
  return { ...rest, plan, ram: index };
}

async function openScratch(file: MigrationFile, plan: ContentPlan, options: SavedVmOptions): Promise<OpenedVm> {
  const scratch = await options.makeScratch();
  try {
    const store = new MappedRamStore(scratch, file.pageSlots);
    const { blocks: _, ...rest } = await settle(file, onlyPages(store, options.only), settleOptions(options));
    return { ...rest, plan, ram: store };
  } catch (error) {
    await scratch.close();
    throw error;
  }
}

function settleOptions({ devices = false, endBlocks }: SavedVmOptions): SettleOptions {
  return { devices, ...(endBlocks === undefined ? {} : { endBlocks }) };
}

/** @throws MigrationError `truncated` if a page whose bit is set is not completely within the file. */
function requirePages(file: MigrationFile, item: FlowItem): void {
  if (item.kind !== 'bitmap' || item.block.mapped === undefined) return;
  const { block, firstPage, bits } = item;
  let last = bits.length - 1;
  while (last >= 0 && bits[last] === 0) last--;
  if (last < 0) return;
  const page = firstPage + last * 8 + 31 - Math.clz32(bits[last] as number);
  const end = item.block.mapped.pagesOffset + (page + 1) * block.pageSize;
  const size = file.source.size as number;
  if (end <= size) return;
  throw new MigrationError('truncated', `expected page ${page} to end at ${end}, got a file of ${size} bytes`, {
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
