/**
 * merge: combines a base and a file of changes (`changes.ts`) into the VM that the changes were made from. RAM is the
 * base overlaid with the changes; devices, description and configuration come from the changes. Before anything is
 * written, the two are checked to belong together.
 */

import { abortableSink, abortableStore } from '../../io/abort.ts';
import { type ByteSink, type ByteStore, placeIn } from '../../io/byte-source.ts';
import { loadKernelFor } from '../../kernel/load-kernel.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { readIterables } from '../../store/iterables.ts';
import { OverlayRam } from '../../store/overlay-ram.ts';
import { PagePairs, pagePairsArenaBytes } from '../../store/page-pairs.ts';
import { type OpenedVm, openRamContent, openSavedVm, type SavedVmOptions } from '../../store/ram-content.ts';
import { ResizedRam } from '../../store/resized-ram.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import { pageCount } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { changesCapability } from '../../wire/configuration.ts';
import { writeMappedRam } from '../../write/write-mapped-ram.ts';
import { writeStream } from '../../write/write-stream.ts';
import { ContentIds, contentIdsArenaBytes } from './content-id.ts';
import { Conversion, type ConvertToStreamOptions, saveVm } from './convert.ts';

/**
 * Opens the VM that results from a base and its changes. Closing its `ram` closes scratch files, not the two files.
 * @throws MigrationError `bad-changes` for a file without changes, or with damaged ones; `wrong-base` for another base.
 */
export async function openMerged(
  base: MigrationFile,
  changes: MigrationFile,
  options: Pick<SavedVmOptions, 'makeScratch' | 'signal'>,
): Promise<OpenedVm> {
  return whileAllowed(options, [base, changes], () => openLaidOver(base, changes, options));
}

async function openLaidOver(
  base: MigrationFile,
  changes: MigrationFile,
  { makeScratch }: Pick<SavedVmOptions, 'makeScratch'>,
): Promise<OpenedVm> {
  const refuse = (message: string) =>
    new MigrationError('bad-changes', message, placeIn(changes.source, changes.offset));
  if (!changes.isSeekable) throw refuse('changes are read in place: expected an uncompressed file, not a pipe');
  if (changes.format === 'stream') throw refuse('expected a file of changes, got a whole stream');
  const vm = await openSavedVm(changes, { makeScratch, devices: true, changes: true });
  const ids = vm.configuration?.changes;
  if (vm.configuration === undefined || ids === undefined) {
    throw refuse('expected a file of changes, got a mapped-ram file of a whole VM');
  }
  const before = new ResizedRam(await openRamContent(base, { makeScratch }), vm.ram.blocks);
  const ram = new OverlayRam(before, vm.ram);
  try {
    const found = await findIds(before, ram);
    if (found.old !== ids.base) {
      const message = `expected the base that the changes were made against (${ids.base}), got another (${found.old})`;
      throw new MigrationError('wrong-base', message, placeIn(base.source, base.offset));
    }
    if (found.new !== ids.content) {
      throw refuse(`expected base and changes to produce ${ids.content}, got ${found.new}: the changes are damaged`);
    }
  } catch (error) {
    await ram.close();
    throw error;
  }
  const { changes: _, ...configuration } = vm.configuration;
  const capabilities = configuration.capabilities.filter((name) => name !== changesCapability);
  return { ...vm, ram, configuration: { ...configuration, capabilities } };
}

async function findIds(before: RamReader, ram: RamReader): Promise<ContentIds> {
  const kernel = await loadKernelFor([pagePairsArenaBytes, contentIdsArenaBytes]);
  const ids = new ContentIds(kernel);
  const walker = new PagePairs(kernel);
  for (const block of ram.blocks) {
    for await (const span of walker.spans(before, ram, { oldBlock: block, newBlock: block })) {
      if (!span.isGap) ids.add(block, span);
    }
  }
  return ids;
}

/** How a base and its changes are merged into a stream. */
export type MergeToStreamOptions = Pick<ConvertToStreamOptions, 'makeScratch' | 'signal'>;

/** Writes base and changes as a stream of one pass, in order. @throws as {@link openMerged} */
export async function mergeToStream(
  base: MigrationFile,
  changes: MigrationFile,
  output: ByteSink,
  options: MergeToStreamOptions,
): Promise<Conversion> {
  return whileAllowed(options, [base, changes], () =>
    mergeAsStream(base, changes, abortableSink(output, options.signal), options),
  );
}

async function mergeAsStream(
  base: MigrationFile,
  changes: MigrationFile,
  output: ByteSink,
  options: MergeToStreamOptions,
): Promise<Conversion> {
  const vm = await openMerged(base, changes, options);
  return saveVm(changes, vm, 'stream', options, undefined, (merged, written) => writeStream(merged, output, written));
}

/** Writes base and changes as a mapped-ram file. @throws as {@link openMerged} */
export async function mergeToMappedRam(
  base: MigrationFile,
  changes: MigrationFile,
  output: ByteStore,
  options: MergeToStreamOptions,
): Promise<Conversion> {
  return whileAllowed(options, [base, changes], () =>
    mergeAsMappedRam(base, changes, abortableStore(output, options.signal), options),
  );
}

async function mergeAsMappedRam(
  base: MigrationFile,
  changes: MigrationFile,
  output: ByteStore,
  options: MergeToStreamOptions,
): Promise<Conversion> {
  const vm = await openMerged(base, changes, options);
  try {
    const written = await writeMappedRam(vm, output, { iterables: await readIterables(changes, vm.iterables) });
    const blocks = written.blocks.map(({ block, records: _, ...counts }) => {
      return { idstr: block.idstr, length: block.usedLength, ...counts };
    });
    // All pages are included.
    return new Conversion('mapped-ram', output.size, blocks, vm, vm.ram.blocks.map(pageCount), vm.ram);
  } catch (error) {
    await vm.ram.close();
    throw error;
  }
}
