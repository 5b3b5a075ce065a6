/**
 * The final content of a file's RAM, for what reads it in address order. A mapped-ram file is read where it lies; so is
 * a stream that can be read twice, if its content is in it as whole pages (`stream-index.ts`). Others are settled into a
 * scratch file first, since their passes overwrite each other.
 */
import { type ByteStore, placeIn } from '../io/byte-source.ts';
import type { MigrationFile } from '../read/open.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { MappedRamReader, MappedRamStore } from './mapped-ram-store.ts';
import { type SettleOptions, settle } from './settle.ts';
import { NotIndexable, StreamIndex } from './stream-index.ts';

/** Bytes handed on at a time. */
const pieceBytes = 1 << 20;

export interface RamContentOptions {
  /** Makes the scratch file, if one is needed. It is closed when the content is. */
  makeScratch: () => ByteStore | Promise<ByteStore>;
  /** Blocks that are wanted; default all. The content of others is not kept. */
  only?: (block: RamBlock) => boolean;
  /** Called when all blocks are known, before the work on their pages, once or twice: it may throw to end it. */
  endBlocks?: (blocks: readonly RamBlock[]) => void;
  /** Called if there are blocks that the migration left out (x-ignore-shared): they read as zeros. */
  noteIgnored?: (blocks: readonly RamBlock[]) => void;
}

/** Opens the final content of RAM alone, see {@link openSavedVm}. */
export async function openRamContent(file: MigrationFile, options: RamContentOptions): Promise<RamReader> {
  const { ram, ignored } = await openSavedVm(file, options);
  if (ignored.length > 0) options.noteIgnored?.(ignored);
  return ram;
}

export interface SavedVmOptions extends RamContentOptions {
  /** Keep the device sections, with their bodies, or some of them. Default false. */
  devices?: SettleOptions['devices'];
  /** The file may hold only what changed since a base (`merge.ts`). Default false. */
  changes?: boolean;
}

/**
 * Opens a file as the SavedVm that it holds. The whole file is read and checked first (of a mapped-ram file all but
 * the pages). Closing its `ram` closes the scratch file, not `file`.
 * @throws MigrationError if the file is bad.
 */
export async function openSavedVm(file: MigrationFile, options: SavedVmOptions): Promise<SavedVm> {
  const { devices = false, changes = false, only = () => true } = options;
  const endBlocks = options.endBlocks === undefined ? {} : { endBlocks: options.endBlocks };
  if (file.isSeekable && file.format === 'mapped-ram') {
    const blocks: RamBlock[] = [];
    const settled = await settle(
      file,
      {
        addBlock: (block) => void blocks.push(block),
        ...endBlocks,
        apply() {},
        takeBitmap: (block, firstPage, bits) => requirePages(file, block, firstPage, bits),
      },
      { devices, changes, read: 'bitmaps' },
    );
    return { ...settled, ram: new MappedRamReader(file.content, blocks) };
  }
  if (file.isSeekable) {
    const indexed = await tryIndex(file, only, endBlocks, devices);
    if (indexed !== undefined) return indexed;
  }
  const scratch = await options.makeScratch();
  try {
    const store = new MappedRamStore(scratch, file.pageSlots);
    const settled = await settle(
      file,
      {
        addBlock: (block) => store.addBlock(block),
        ...endBlocks,
        apply: (block, batch) => (only(block) ? store.apply(block, batch) : undefined),
        discard: (block, firstPage, pages) => (only(block) ? store.discard(block, firstPage, pages) : undefined),
        lostPage: () => store.lostPage(),
      },
      { devices },
    );
    return { ...settled, ram: store };
  } catch (error) {
    await scratch.close();
    throw error;
  }
}

/** The content of a stream that has it as whole pages; undefined if it has not. */
async function tryIndex(
  file: MigrationFile,
  only: (block: RamBlock) => boolean,
  endBlocks: Pick<RamContentOptions, 'endBlocks'>,
  devices: NonNullable<SettleOptions['devices']>,
): Promise<SavedVm | undefined> {
  const index = new StreamIndex(file, only);
  try {
    const settled = await settle(
      file,
      {
        addBlock: (block) => index.addBlock(block),
        ...endBlocks,
        apply: (block, batch) => index.apply(block, batch),
        // Pages that were noted may come again by another way.
        discard: () => {
          throw new NotIndexable();
        },
      },
      { devices },
    );
    index.finish();
    return { ...settled, ram: index };
  } catch (error) {
    if (error instanceof NotIndexable) return undefined;
    throw error;
  }
}

/** Every page that a bitmap promises must lie within the file. */
function requirePages(file: MigrationFile, block: RamBlock, firstPage: number, bits: Uint8Array): void {
  let last = bits.length - 1;
  while (last >= 0 && bits[last] === 0) last--;
  if (last < 0 || block.mapped === undefined) return;
  const page = firstPage + last * 8 + 31 - Math.clz32(bits[last] as number);
  const end = block.mapped.pagesOffset + (page + 1) * block.pageSize;
  const size = file.source.size as number;
  if (end <= size) return;
  throw new MigrationError('truncated', `expected page ${page} to end at ${end}, got a file of ${size} bytes`, {
    ...placeIn(file.source, size),
    section: 'ram',
    block: block.idstr,
    page,
  });
}

/** A piece of a block's content, in address order: `bytes` undefined means zeros. Valid until the next is asked for. */
export interface ContentPiece {
  length: number;
  bytes: Uint8Array | undefined;
}

/** Reads a block from its first byte to its last. */
export async function* readContent(ram: RamReader, block: RamBlock): AsyncGenerator<ContentPiece, void> {
  const { pageSize, usedLength } = block;
  const buffer = new Uint8Array(Math.max(pieceBytes, pageSize));
  const pages = usedLength / pageSize;
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

/** Reads a block from its first byte to its last, zeros included. What it yields is valid until the next is asked for. */
export async function* readBytes(ram: RamReader, block: RamBlock): AsyncGenerator<Uint8Array, void> {
  for await (const { length, bytes } of readContent(ram, block)) {
    if (bytes !== undefined) yield bytes;
    else for (let left = length; left > 0; left -= pieceBytes) yield zeros.subarray(0, Math.min(left, pieceBytes));
  }
}

/** An incremental digest, such as one of node:crypto. */
export interface Digest {
  update(bytes: Uint8Array): unknown;
}

/** Feeds a block's whole content, zeros included, to a digest. */
export async function digestContent(ram: RamReader, block: RamBlock, digest: Digest): Promise<void> {
  for await (const bytes of readBytes(ram, block)) digest.update(bytes);
}
