/**
 * Writes a VM as a mapped-ram file (docs/formats/mapped-ram.md): its pages to their places, zero and absent ones as holes,
 * then bitmaps, device states and the description. What is settled from a Flow need not be read again for this:
 * `convert.ts` has the `MappedRamStore` as its sink.
 */

import { type Abortable, abortableStore } from '../io/abort.ts';
import type { ByteStore } from '../io/byte-source.ts';
import { loadKernelFor } from '../kernel/kernel.ts';
import { PageSlots, pageSlotsArenaBytes } from '../kernel/page-slots.ts';
import { releaseRulesOf } from '../schema/release-rules.ts';
import { abortableVm } from '../store/abortable-ram.ts';
import { MappedRamStore } from '../store/mapped-ram-store.ts';
import type { RawSection, WritableVm } from '../vm/saved-vm.ts';
import { requireVm } from '../wire/require-vm.ts';
import { RamScan, ramScanArenaBytes, type ScannedBlock } from './ram-scan.ts';

/** How a mapped-ram file is written. */
export interface WriteMappedRamOptions extends Abortable {
  /** Where the stream begins in the file, in bytes; all before it is left as it is. Default 0. */
  offset?: number;
  /** Sections of other iterables, in stream order. */
  iterables?: readonly RawSection[];
}

/** What was written to a mapped-ram file. */
export interface WrittenMappedRam {
  /** The file as a store, whose content can be read. Closing it closes the file. */
  store: MappedRamStore;
  /** Of each block: how many pages were found to be what. */
  blocks: ScannedBlock[];
}

/** Most pages of a batch that are data: those of a window with the smallest pages. */
const batchPages = 1024;

/**
 * Writes a mapped-ram file, which ends where what is written ends.
 * @example
 * const file = new MemoryFile();
 * const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
 * await writeMappedRam({ configuration: { machine: 'none', capabilities: [] }, ram }, file);
 *
 * @throws RangeError for a VM without a configuration, which says that the file is one, with blocks whose content it does
 *   not have, and for one that no stream can hold (see `writeStream`).
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
  const { ram, configuration, devices = [], ignored = [], framing } = vm;
  if (configuration === undefined) throw new RangeError('expected a VM with a configuration, got one without');
  const [left] = ignored;
  if (left !== undefined) throw new RangeError(`expected the content of RAM block "${left.idstr}", which was left out`);
  requireVm(vm);
  const kernel = await loadKernelFor([ramScanArenaBytes, pageSlotsArenaBytes(batchPages)]);
  const pageSlots = new PageSlots(kernel, batchPages);
  const store = new MappedRamStore(file, pageSlots, { offset, configuration });
  if (framing?.ramId !== undefined) store.startRam({ id: framing.ramId });
  const replay = new RamScan(kernel);
  const blocks: ScannedBlock[] = [];
  for (const block of ram.blocks) await store.addBlock(block);
  for (const block of ram.blocks) {
    const counts = { block, dataPages: 0, zeroPages: 0, absentPages: 0, records: 0 };
    blocks.push(counts);
    for await (const batch of replay.pages(ram, counts)) await store.apply(block, batch);
  }
  const { footers, switchoverStart } = framing ?? { footers: true, switchoverStart: false };
  await store.finish(devices, vm.description, {
    framing: { footers, switchoverStart: switchoverStart || releaseRulesOf(configuration.machine).switchoverStart },
    iterables,
  });
  return { store, blocks };
}
