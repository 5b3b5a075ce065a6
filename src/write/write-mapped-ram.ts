/**
 * Writes a VM as a mapped-ram file (docs/formats/mapped-ram.md): pages to their places, with holes for zero and absent
 * pages, then bitmaps, device states and the description. A Flow does not need this second reading: `convert.ts`
 * settles it directly into a `MappedRamStore`.
 */

import { type Abortable, abortableStore } from '../io/abort.ts';
import type { ByteStore } from '../io/byte-source.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { abortableVm } from '../store/abortable-ram.ts';
import type { MappedRamStore } from '../store/mapped-ram-store.ts';
import { stoppedGuest } from '../vm/guest.ts';
import type { RawSection, WritableVm } from '../vm/saved-vm.ts';
import { requireVm } from '../wire/require-vm.ts';
import { MappedRamWriter, mappedRamArenaBytes } from './mapped-ram-writer.ts';
import { Passes } from './passes.ts';
import { ramScanArenaBytes, type ScannedBlock } from './ram-scan.ts';

/** How a mapped-ram file is written. */
export interface WriteMappedRamOptions extends Abortable {
  /** Where the stream begins in the file, in bytes. Everything before it stays unchanged. Default 0. */
  offset?: number;
  /** Sections of iterables other than RAM, in stream order. */
  iterables?: readonly RawSection[];
}

/** What was written to a mapped-ram file. */
export interface WrittenMappedRam {
  /** The file as a store with readable content. Closing it closes the file. */
  store: MappedRamStore;
  /** Page counts of each block, by state. */
  blocks: ScannedBlock[];
}

/**
 * Writes a mapped-ram file. The file ends after the last byte written.
 * @example
 * const file = new MemoryFile();
 * const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
 * await writeMappedRam({ configuration: { machine: 'none', capabilities: [] }, ram }, file);
 *
 * @throws RangeError for a VM without a configuration (which marks a file as mapped-ram), for a VM with ignored blocks,
 *   and for a VM that no stream can contain (see `writeStream`).
 */
export async function writeMappedRam(
  vm: WritableVm,
  file: ByteStore,
  options: WriteMappedRamOptions = {},
): Promise<WrittenMappedRam> {
  const { signal } = options;
  signal?.throwIfAborted();
  return writePages(abortableVm(vm, options), abortableStore(file, signal), options);
}

async function writePages(
  vm: WritableVm,
  file: ByteStore,
  { offset = 0, iterables = [] }: WriteMappedRamOptions,
): Promise<WrittenMappedRam> {
  const { configuration, ignored = [], framing } = vm;
  if (configuration === undefined) throw new RangeError('expected a VM with a configuration, got one without');
  const [left] = ignored;
  if (left !== undefined) throw new RangeError(`expected the content of RAM block "${left.idstr}", which was left out`);
  requireVm(vm);
  const kernel = await loadKernelFor([ramScanArenaBytes, mappedRamArenaBytes]);
  const writer = new MappedRamWriter(kernel, file, { offset, framing });
  const passes = new Passes(stoppedGuest(vm), writer, { iterables });
  await passes.begin();
  const blocks = await passes.sendAll();
  await passes.finish();
  const { store } = writer;
  return { store, blocks };
}
