/**
 * A file of changes (docs/formats/incremental.md): a mapped-ram file with the pages of a VM that differ from a base,
 * and everything else of the VM. It marks itself as incomplete: no QEMU loads it, and only `merge.ts` uses its RAM.
 */

import { type Abortable, abortableStore } from '../../io/abort.ts';
import type { ByteStore } from '../../io/byte-source.ts';
import type { Kernel } from '../../kernel/kernel.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../../kernel/page-batch.ts';
import { PageSlots, pageSlotsArenaBytes } from '../../kernel/page-slots.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { releaseRulesOf } from '../../schema/release-rules.ts';
import { readIterables } from '../../store/iterables.ts';
import { MappedRamStore } from '../../store/mapped-ram-store.ts';
import { OverlayRam } from '../../store/overlay-ram.ts';
import { PagePairs, type PairWindow, pagePairsArenaBytes, pairWindowPages } from '../../store/page-pairs.ts';
import { openSavedVm, type SavedVmOptions } from '../../store/ram-content.ts';
import { ResizedRam } from '../../store/resized-ram.ts';
import { noScratch } from '../../store/vm-reading.ts';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import { isBitSet } from '../../vm/bits.ts';
import type { ChangesIds } from '../../vm/flow.ts';
import { pageCount, type RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import { changesCapability } from '../../wire/configuration.ts';
import type { Verification } from '../inspect/verify.ts';
import { type CommonPages, countCommon, doubtsAbout } from './base-doubts.ts';
import { CopyError, checkCopy } from './check-copy.ts';
import { ContentIds, contentIdsArenaBytes } from './content-id.ts';
import { withoutConfiguration } from './convert.ts';

const noIds = { base: '0'.repeat(16), content: '0'.repeat(16) };

/** What a file of changes contains of a block. */
export interface ChangedBlock {
  idstr: string;
  /** Bytes of the block. */
  length: number;
  /** Pages of the block, and how many of them are in the file. */
  pages: number;
  changedPages: number;
  /** How many of these are zero and take no space. */
  zeroPages: number;
}

/** The output's facts, and the content that it was written from. Close it when it is no longer needed. */
export class SavedChanges implements AutoClosed {
  /** Bytes of the file. */
  readonly length: number;
  readonly blocks: readonly ChangedBlock[];
  readonly ids: ChangesIds;
  /** What suggests that the base is a state of another VM, one sentence each. Empty if nothing does. */
  readonly doubts: readonly string[];
  readonly vm: SavedVm;
  readonly #base: RamReader;

  constructor(
    { length, blocks, ids, doubts }: Pick<SavedChanges, 'length' | 'blocks' | 'ids' | 'doubts'>,
    vm: SavedVm,
    base: RamReader,
  ) {
    this.length = length;
    this.blocks = blocks;
    this.ids = ids;
    this.doubts = doubts;
    this.vm = vm;
    this.#base = base;
  }

  /**
   * Reads the output back. It must be sound, have the same devices byte for byte, and give the same RAM with its base,
   * page by page.
   * @throws CopyError if the output is wrong
   */
  async check(copy: MigrationFile, options: Abortable = {}): Promise<Verification> {
    return whileAllowed(options, [copy], () => this.#compare(copy));
  }

  async #compare(copy: MigrationFile): Promise<Verification> {
    const verification = await checkCopy(copy, this.vm, this.vm.ram.blocks.map(pageCount), undefined);
    const { configuration, ram } = await openSavedVm(copy, { makeScratch: noScratch, changes: true });
    const { base, content } = configuration?.changes ?? noIds;
    if (base !== this.ids.base || content !== this.ids.content) throw new CopyError('what was written has other ids');
    const merged = new OverlayRam(this.#base, ram);
    const kernel = await loadKernelFor([pagePairsArenaBytes]);
    const walker = new PagePairs(kernel);
    for (const newBlock of this.vm.ram.blocks) {
      const oldBlock = merged.blocks[newBlock.index] as RamBlock;
      for await (const span of walker.spans(merged, this.vm.ram, { oldBlock, newBlock })) {
        if (span.isGap || span.changedCount === 0) continue;
        const what = `${span.changedCount} of ${span.count} pages of ${newBlock.idstr} from page ${span.first} on`;
        throw new CopyError(
          `the changes were written wrongly: merged with the base, they give other content in ${what}`,
        );
      }
    }
    return verification;
  }

  /** Closes the contents with their scratch files, but not the files. */
  async close(): Promise<void> {
    await this.#base.close();
    await this.vm.ram.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Writes a file of changes: the pages of a file's VM that differ from `base`, an earlier state in any form.
 * @throws MigrationError if an input is bad, or has what cannot be taken over; RangeError for a base with pages of
 *   another size.
 */
export async function convertToChanges(
  file: MigrationFile,
  base: MigrationFile,
  output: ByteStore,
  options: Pick<SavedVmOptions, 'makeScratch' | 'signal'>,
): Promise<SavedChanges> {
  return whileAllowed(options, [file, base], () =>
    writeChanges(file, base, abortableStore(output, options.signal), options),
  );
}

async function writeChanges(
  file: MigrationFile,
  base: MigrationFile,
  output: ByteStore,
  { makeScratch }: Pick<SavedVmOptions, 'makeScratch'>,
): Promise<SavedChanges> {
  const vm = await openSavedVm(file, { makeScratch, devices: true });
  let before: RamReader | undefined;
  try {
    if (vm.configuration === undefined) throw withoutConfiguration(file, { offset: file.offset });
    const { configuration } = vm;
    const capabilities = [...new Set([...configuration.capabilities, 'mapped-ram', changesCapability])];
    const old = await openSavedVm(base, { makeScratch });
    before = new ResizedRam(old.ram, vm.ram.blocks);
    const marked = { ...vm, configuration: { ...configuration, capabilities, changes: noIds } };
    const { blocks, ids, common } = await write(marked, before, output, () => readIterables(file, vm.iterables));
    const doubts = doubtsAbout(old, vm, common);
    return new SavedChanges({ length: output.size, blocks, ids, doubts }, vm, before);
  } catch (error) {
    await before?.close();
    await vm.ram.close();
    throw error;
  }
}

async function write(
  vm: SavedVm,
  before: RamReader,
  output: ByteStore,
  iterables: () => ReturnType<typeof readIterables>,
): Promise<{ blocks: ChangedBlock[]; ids: ChangesIds; common: CommonPages }> {
  const kernel = await loadKernelFor([
    pagePairsArenaBytes,
    contentIdsArenaBytes,
    pageBatchArenaBytes(pairWindowPages),
    pageSlotsArenaBytes(pairWindowPages),
  ]);
  const pageSlots = new PageSlots(kernel, pairWindowPages);
  const { configuration } = vm;
  const store = new MappedRamStore(output, pageSlots, { configuration });
  if (vm.framing.ramId !== undefined) store.startRam({ id: vm.framing.ramId });
  for (const block of vm.ram.blocks) await store.addBlock(block);
  const ids = new ContentIds(kernel);
  const walker = new PagePairs(kernel);
  const writer = new ChangesWriter(kernel, store);
  const blocks: ChangedBlock[] = [];
  const common: CommonPages = { base: 0, same: 0 };
  for (const block of vm.ram.blocks) {
    const { idstr, usedLength: length } = block;
    const counts = { idstr, length, pages: pageCount(block), changedPages: 0, zeroPages: 0 };
    for await (const span of walker.spans(before, vm.ram, { oldBlock: block, newBlock: block })) {
      if (span.isGap) continue;
      ids.add(block, span);
      countCommon(span, common);
      if (span.changedCount > 0) await writer.take(store.blocks[block.index] as RamBlock, span, counts);
    }
    blocks.push(counts);
  }
  const found = { base: ids.old, content: ids.new };
  const { footers } = vm.framing;
  const switchoverStart = vm.framing.switchoverStart || releaseRulesOf(configuration?.machine).switchoverStart;
  await store.finish(vm.devices, vm.description, {
    framing: { footers, switchoverStart },
    iterables: await iterables(),
    changes: found,
  });
  return { blocks, ids: found, common };
}

/** Writes the changed pages of a window to the store. */
class ChangesWriter {
  readonly #store: MappedRamStore;
  readonly #batch: PageBatch;

  constructor(kernel: Kernel, store: MappedRamStore) {
    this.#store = store;
    this.#batch = new PageBatch(kernel, pairWindowPages);
  }

  async take(block: RamBlock, window: PairWindow, counts: ChangedBlock): Promise<void> {
    const batch = this.#batch;
    batch.clear();
    for (let i = 0; i < window.count; i++) {
      if (!isBitSet(window.changed, i)) continue;
      counts.changedPages++;
      if (isBitSet(window.newZero, i)) {
        this.#store.applyHoles(block, window.first + i, 1);
        counts.zeroPages++;
        continue;
      }
      batch.push(PageKind.data, window.first + i, 0, 0, window.new + i * block.pageSize, block.pageSize);
    }
    if (batch.count > 0) await this.#store.apply(block, batch);
  }
}
