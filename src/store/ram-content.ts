/**
 * The final content of a file's RAM, for readers in address order. `content-plan.ts` decides how it is read: a
 * mapped-ram file in place, a stream of whole pages through an index (`stream-index.ts`), and everything else from a
 * scratch file, because later passes overwrite earlier ones.
 */
import { type MigrationFile, whileAllowed } from '../read/open.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { OpenedRam, RamReader } from '../vm/ram-store.ts';
import { type OpenedVm, type RamContentOptions, type SavedVmOptions, VmReading } from './vm-reading.ts';

export type { OpenedVm, RamContentOptions, SavedVmOptions } from './vm-reading.ts';

/** Bytes passed on at a time. */
const pieceBytes = 1 << 20;

/** Opens only the final content of RAM, see {@link openSavedVm}. */
export async function openRamContent(file: MigrationFile, options: RamContentOptions): Promise<OpenedRam> {
  const { ram } = await openSavedVm(file, options);
  return ram;
}

/**
 * Opens the VM in a file. The file is first read to its end and checked (a mapped-ram file except for its pages). Closing the
 * `ram` of the result closes the scratch file, not `file`.
 * @throws MigrationError if the file is bad
 */
export async function openSavedVm(file: MigrationFile, options: SavedVmOptions): Promise<OpenedVm> {
  return whileAllowed(options, [file], () => openVm(file, options));
}

async function openVm(file: MigrationFile, options: SavedVmOptions): Promise<OpenedVm> {
  const reading = new VmReading(file, options);
  try {
    for await (const item of file.flow({ read: reading.read, partial: options.partial === true })) {
      const taken = reading.take(item);
      if (taken !== undefined) await taken;
    }
    const vm = await reading.finish();
    options.notePlan?.(vm.plan);
    if (vm.missing !== undefined) options.noteMissing?.(vm.missing);
    return vm;
  } catch (error) {
    await reading.discard();
    throw error;
  }
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
