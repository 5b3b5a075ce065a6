/**
 * Writes a VM as a mapped-ram file (docs/formats/mapped-ram.md, "Writing one"), from content that is at hand. A file that is
 * converted is settled right into its place instead (`convert.ts`).
 */
import type { ByteStore } from '../io/byte-source.ts';
import { loadKernel } from '../kernel/kernel.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { type FinishOptions, MappedRamStore } from './mapped-ram-store.ts';
import { Replay, type ReplayedBlock, replayArenaBytes } from './replay.ts';
import { Staging, stagingArenaBytes } from './staging.ts';
import { announcesSwitchover, type RawSection } from './write-stream.ts';

/** Records of the batches that a store takes: those of a `Replay`. */
const batchCapacity = 4096;

/** A store for a VM, with its configuration and blocks, and the arena of it and of what fills it. */
export async function beginMappedRam(vm: SavedVm, output: ByteStore, arenaBytes: number) {
  const kernel = await loadKernel({ arenaBytes: (64 << 10) + stagingArenaBytes(batchCapacity) + arenaBytes });
  const staging = new Staging(kernel, batchCapacity, { source: output.name, coordinate: 'file' });
  const store = new MappedRamStore(output, staging);
  if (vm.configuration !== undefined) store.configure(vm.configuration);
  if (vm.framing.ramId !== undefined) store.startRam({ id: vm.framing.ramId });
  for (const block of vm.ram.blocks) await store.addBlock(block);
  return { kernel, store };
}

/** What comes after the pages of a VM. */
export async function finishMappedRam(store: MappedRamStore, vm: SavedVm, options: FinishOptions): Promise<void> {
  const { footers, switchoverStart } = vm.framing;
  await store.finish(vm.devices, vm.description, {
    ...options,
    framing: { footers, switchoverStart: switchoverStart || announcesSwitchover(vm.configuration) },
  });
}

/** Writes a whole VM. Zero pages become holes. */
export async function writeMappedRam(
  vm: SavedVm,
  output: ByteStore,
  iterables: readonly RawSection[] = [],
): Promise<ReplayedBlock[]> {
  const { kernel, store } = await beginMappedRam(vm, output, replayArenaBytes);
  const replay = new Replay(kernel);
  const blocks = vm.ram.blocks.map((block) => {
    return { block, dataPages: 0, zeroPages: 0, absentPages: 0, records: 0 };
  });
  for (const counts of blocks) {
    const place = store.blocks[counts.block.index];
    if (place === undefined) continue;
    for await (const batch of replay.pages(vm.ram, counts)) await store.apply(place, batch);
  }
  await finishMappedRam(store, vm, { iterables });
  return blocks;
}
