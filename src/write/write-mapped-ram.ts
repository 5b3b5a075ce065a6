/**
 * Writes a VM as a mapped-ram file (docs/formats/mapped-ram.md): pages to their places, with holes for zero and absent
 * pages, then bitmaps, device states and the description. A Flow does not need this second reading: `convert.ts`
 * settles it directly into a `MappedRamStore`.
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

/** The most data pages in a batch: those of a window with the smallest pages. */
const batchPages = 1024;

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
