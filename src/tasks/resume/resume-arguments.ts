/**
 * resume --map: a mapped-ram file is the guest's memory itself. QEMU maps the machine's RAM from the file, copy on write, and
 * loads only a small stream, so the guest runs before its memory is read:
 *
 *     mapped-ram file ──┬─→ pages of pc.ram, in place ──────→ -object memory-backend-file,offset=...
 *                       └─→ small stream: other blocks, ────→ -incoming ...
 *                           stale pages of pc.ram as ZERO,
 *                           devices
 *
 * Facts: docs/resume.md.
 */
import { type Abortable, abortableSink } from '../../io/abort.ts';
import { type ByteSink, placeIn } from '../../io/byte-source.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { readIterables } from '../../store/iterables.ts';
import { MappedRamReader } from '../../store/mapped-ram-reader.ts';
import { type OpenedVm, openSavedVm } from '../../store/ram-content.ts';
import { noScratch } from '../../store/vm-reading.ts';
import { type Guest, stoppedGuest } from '../../vm/guest.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { PageBitmap } from '../../vm/page-bitmap.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import type { RawSection } from '../../vm/saved-vm.ts';
import { requireVm } from '../../wire/require-vm.ts';
import { Passes } from '../../write/passes.ts';
import { ramScanArenaBytes } from '../../write/ram-scan.ts';
import { StreamWriter, writerArenaBytes } from '../../write/stream-writer.ts';
import { backendProperties, chooseMapped, type MappedBlock } from './mapped-blocks.ts';
import { type FindData, findStalePages } from './stale-pages.ts';

/** What a QEMU gets to run on a file. */
export interface ResumeOptions extends Abortable {
  /** The path of the file, as QEMU opens it. Default: the name of the file's source. */
  path?: string;
  /** Names of the RAM blocks to map. Default: the machine's RAM, or all memory backends if it has none of its own. */
  blocks?: readonly string[];
  /** What -incoming gets, such as `file:/run/guest.small`. Default: the arguments have no -incoming. */
  incoming?: string;
  /** Bytes of a page of the host, a power of two. Default 4,096; in Node 64 KiB on processors other than x86-64. */
  hostPageSize?: number;
  /**
   * The first byte of the file from a position on that may be other than a hole. Default: all places of zero pages are
   * read. In Node it is known by itself where the package koffi is installed.
   */
  findData?: FindData;
}

/** How a QEMU runs on a file, until that is closed. */
export interface Resume {
  /** The machine type, if the file states it. */
  readonly machine: string | undefined;
  /** Arguments to add to those of the machine. */
  readonly arguments: readonly string[];
  /** The RAM blocks that QEMU maps. */
  readonly mapped: readonly MappedBlock[];
  /** All RAM blocks. */
  readonly blocks: readonly RamBlock[];
  /**
   * Writes the small stream, any number of times. Stale pages, which are zero and have other bytes in the file, go as ZERO records.
   * @returns the bytes of the stream, and how many pages were stale
   */
  writeStream(output: ByteSink, options?: Abortable): Promise<{ length: number; stalePages: number }>;
}

/**
 * Reads a mapped-ram file except its pages, and returns the QEMU arguments and the small stream with which a QEMU 8.2 or later
 * runs on the file itself. Nothing may change the file while the guest runs; QEMU does not.
 *
 * @example
 * const file = await open('guest.mapped-ram');
 * const resume = await resumeArguments(file, { incoming: 'file:/tmp/guest.small' });
 * await resume.writeStream(appendTo(smallFile));
 * console.log(['qemu-system-x86_64', '-M', 'q35', '-m', '2G', ...resume.arguments]);
 *
 * @throws MigrationError `unsupported` for a file of another form, or whose blocks are at places that cannot be mapped; others
 *   for a bad file; RangeError for names that are not those of memory backends
 */
export async function resumeArguments(file: MigrationFile, options: ResumeOptions = {}): Promise<Resume> {
  return whileAllowed(options, [file], () => planResume(file, options));
}

/** Whether QEMU can map a file as it is: mapped-ram, and not inside anything that stores it in other pieces. */
export const isMappable = (file: MigrationFile): boolean =>
  file.format === 'mapped-ram' && file.isSeekable && !file.isRemote && file.source === file.input;

async function planResume(file: MigrationFile, options: ResumeOptions): Promise<Resume> {
  const { path = file.input.name, hostPageSize = 4096, incoming, findData } = options;
  if (!isMappable(file)) {
    const message = 'expected a mapped-ram file, which QEMU can map: convert it to one';
    throw new MigrationError('unsupported', message, placeIn(file.source, file.offset));
  }
  const vm = await openSavedVm(file, { makeScratch: noScratch, devices: true, whole: true });
  const { blocks } = vm.ram;
  const mapped = chooseMapped(file.source, blocks, options.blocks, hostPageSize);
  const iterables = await readIterables(file, vm.iterables);
  const ram = new MappedRamReader(file.content, blocks);
  let finding: Promise<Map<number, PageBitmap>> | undefined;
  const findStale = (signal: Abortable['signal']) => {
    finding ??= findStalePages(file.content, ram, mapped, { findData, signal });
    // An aborted search says nothing to the next caller.
    finding.catch(() => (finding = undefined));
    return finding;
  };
  const machine = vm.configuration?.machine;
  return {
    ...{ machine, mapped, blocks },
    arguments: [...argumentsFor(mapped, path, machine), ...(incoming === undefined ? [] : ['-incoming', incoming])],
    writeStream: (output, { signal } = {}) =>
      whileAllowed({ signal }, [file], async () => {
        const stale = await findStale(signal);
        return writeSmall(vm, stale, iterables, abortableSink(output, signal));
      }),
  };
}

/** One mapped block is the machine's RAM. Several belong to NUMA nodes, which the machine's own arguments name. */
function argumentsFor(mapped: readonly MappedBlock[], path: string, machine: string | undefined): string[] {
  const [first, ...others] = mapped;
  const objects = mapped.flatMap((each) => [
    '-object',
    `memory-backend-file,${backendProperties(each, path, machine)}`,
  ]);
  const own = mapped.find(({ isDefault }) => isDefault) ?? (others.length === 0 ? first : undefined);
  return [...objects, ...(own === undefined ? [] : ['-machine', `memory-backend=${own.id}`])];
}

/** Everything but the pages in the mapped blocks. All pages count as dirty, and of mapped blocks only the stale ones. */
async function writeSmall(
  vm: OpenedVm,
  stale: ReadonlyMap<number, PageBitmap>,
  iterables: readonly RawSection[],
  output: ByteSink,
): Promise<{ length: number; stalePages: number }> {
  requireVm(vm);
  const kernel = await loadKernelFor([writerArenaBytes, ramScanArenaBytes]);
  const writer = new StreamWriter(kernel, output, vm.framing);
  const guest: Guest = {
    ...stoppedGuest({ ...vm, ram: withoutData(vm.ram, stale) }),
    syncDirty(dirty) {
      for (const [index, bitmap] of dirty.entries()) markDirty(bitmap, stale.get(index));
    },
  };
  const passes = new Passes(guest, writer, { iterables });
  await passes.begin();
  await passes.sync();
  await passes.finish();
  const stalePages = [...stale.values()].reduce((sum, { count }) => sum + count, 0);
  return { length: writer.length, stalePages };
}

function markDirty(dirty: PageBitmap, stale: PageBitmap | undefined): void {
  if (stale === undefined) dirty.fill();
  else for (let page = stale.nextSet(0); page < stale.pages; page = stale.nextSet(page + 1)) dirty.set(page);
}

/** RAM whose mapped blocks are zero throughout. */
function withoutData(ram: RamReader, mapped: ReadonlyMap<number, unknown>): RamReader {
  return {
    blocks: ram.blocks,
    state: (block, page) => (mapped.has(block.index) ? 'zero' : ram.state(block, page)),
    read: (block, page, target) => ram.read(block, page, target),
    async nextData(block, page, limit) {
      if (!mapped.has(block.index)) return ram.nextData(block, page, limit);
      return { first: pageCount(block), end: pageCount(block) };
    },
    close: () => ram.close(),
  };
}
