/**
 * convert: writes a migration in another form. For a mapped-ram file, the Flow is settled directly into its place,
 * whatever its encoding and passes. A stream is written from the settled VM, in one pass. Device states and other
 * iterables are copied byte for byte. Nothing is invented: a form that needs content which the input lacks is refused.
 */

import { type Abortable, abortableSink, abortableStore } from '../../io/abort.ts';
import { type ByteSink, type ByteStore, placeIn } from '../../io/byte-source.ts';
import { FindingLog } from '../../read/finding-log.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import { type ReleaseName, releaseRulesOf } from '../../schema/release-rules.ts';
import { planContent } from '../../store/content-plan.ts';
import { refusing } from '../../store/flow-sink.ts';
import { readIterables } from '../../store/iterables.ts';
import { MappedRamReader } from '../../store/mapped-ram-reader.ts';
import { MappedRamStore } from '../../store/mapped-ram-store.ts';
import { findMissing, type MissingRam } from '../../store/missing-ram.ts';
import { type OpenedVm, openRamContent, openSavedVm, type SavedVmOptions } from '../../store/ram-content.ts';
import { type Settled, settle } from '../../store/settle.ts';
import { noScratch } from '../../store/vm-reading.ts';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import type { Description } from '../../vm/flow.ts';
import { type Finding, MigrationError } from '../../vm/migration-error.ts';
import { pageCount } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';
import { changesCapability } from '../../wire/configuration.ts';
import { markIncomplete } from '../../wire/vm-description.ts';
import type { BlockChanges } from '../../write/delta-scan.ts';
import { defaultRules } from '../../write/passes.ts';
import { writeMappedRam } from '../../write/write-mapped-ram.ts';
import { type WriteMultifdOptions, writeMultifd } from '../../write/write-multifd.ts';
import { type WriteStreamOptions, type WrittenStream, writeStream } from '../../write/write-stream.ts';
import type { Verification } from '../inspect/verify.ts';
import { checkCopy, compareSettled } from './check-copy.ts';

/** How a file is converted. */
export interface ConvertOptions extends Abortable {
  /** Keep the VM description. Default true. */
  description?: boolean;
  /**
   * Accept a file that is incomplete or damaged, and write what it has. The output is marked as incomplete, in its VM
   * description, and `vm.missing` says what is missing. Default false.
   */
  partial?: boolean;
}

/** Options for output that is written as a stream, alone or with channels. */
export interface ConvertFromVmOptions extends ConvertOptions, Pick<SavedVmOptions, 'makeScratch'> {
  /**
   * The version of QEMU that will load the output, see {@link releaseRulesOf}. Default: by the machine type, and the
   * input.
   */
  compat?: ReleaseName;
}

export interface ConvertToStreamOptions extends ConvertFromVmOptions {
  /** Called when the VM is known, before anything is written. It may write bytes before the stream. */
  begin?: (vm: SavedVm) => Promise<void> | void;
  /** A file with an earlier state of the same VM. It is sent first, followed by the changes as XBZRLE deltas. */
  base?: MigrationFile;
}

export interface ConvertToMappedRamOptions extends ConvertOptions {
  /** Where the file begins in the output, in bytes. Default 0. */
  offset?: number;
  /** Called when all blocks are known: early in a stream, after the pages in a mapped-ram file. It may throw. */
  endBlocks?: (vm: Pick<Settled, 'configuration' | 'blocks'>) => void;
}

export interface ConvertToMultifdOptions
  extends ConvertFromVmOptions,
    Pick<WriteMultifdOptions, 'compression' | 'level' | 'uuid' | 'codecs'> {}

/** What was written for a block. */
export interface ConvertedBlock {
  idstr: string;
  /** Bytes of the block. */
  length: number;
  dataPages: number;
  zeroPages: number;
  /** Pages that were never sent. They are not sent now either. A mapped-ram file cannot mark them, and has zeros. */
  absentPages: number;
  /** Shared memory that the migration left out (x-ignore-shared). The output lists it, also without its content. */
  ignored?: true;
  /** With a base: the records of the second pass. */
  changes?: BlockChanges;
}

/** The output's facts, and the content that it was written from. Close it when it is no longer needed. */
export class Conversion implements AutoClosed {
  readonly format: 'stream' | 'multifd' | 'mapped-ram';
  /** Bytes of the output, from the beginning of the stream. For a multifd set, bytes of its main stream. */
  readonly length: number;
  readonly blocks: readonly ConvertedBlock[];
  readonly vm: OpenedVm;
  readonly #records: readonly number[];
  /** The content, if it can be read along with the output. */
  readonly #ram: RamReader | undefined;
  /** Set if the stream has deltas, and must be settled before it is compared. */
  readonly #makeScratch: SavedVmOptions['makeScratch'] | undefined;

  constructor(
    format: Conversion['format'],
    length: number,
    blocks: readonly ConvertedBlock[],
    vm: OpenedVm,
    records: readonly number[],
    ram: RamReader | undefined,
    makeScratch?: SavedVmOptions['makeScratch'],
  ) {
    this.format = format;
    this.length = length;
    this.blocks = blocks;
    this.vm = vm;
    this.#records = records;
    this.#ram = ram;
    this.#makeScratch = makeScratch;
  }

  /**
   * Reads the output back, and requires that it is sound and has the right content. Device states are compared byte for
   * byte. RAM is also compared if the content can still be read, which is the case except for mapped-ram files that
   * were made from a stream.
   * @throws CopyError if the output is wrong
   */
  async check(copy: MigrationFile, options: Abortable = {}): Promise<Verification> {
    return whileAllowed(options, [copy], () => this.#compare(copy));
  }

  async #compare(copy: MigrationFile): Promise<Verification> {
    const makeScratch = this.#makeScratch;
    if (makeScratch === undefined) return checkCopy(copy, this.vm, this.#records, this.#ram);
    const verification = await checkCopy(copy, this.vm, this.#records, undefined);
    await compareSettled(copy, this.vm, makeScratch);
    return verification;
  }

  /** Closes the content with its scratch file, but not the files. */
  async close(): Promise<void> {
    await this.#ram?.close();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Writes a file as a stream, in order: plain and of one pass, or of two with deltas if there is a base.
 * @throws MigrationError if the input is bad, or has what cannot be taken over; RangeError for a base with other blocks, and
 *   for a version of QEMU that does not have the machine type.
 */
export async function convertToStream(
  file: MigrationFile,
  output: ByteSink,
  options: ConvertToStreamOptions,
): Promise<Conversion> {
  return whileAllowed(options, [file, options?.base ?? []].flat(), () =>
    convertFileToStream(file, abortableSink(output, options.signal), options),
  );
}

async function convertFileToStream(
  file: MigrationFile,
  output: ByteSink,
  options: ConvertToStreamOptions,
): Promise<Conversion> {
  const { begin, base, makeScratch } = options;
  return convertVm(file, 'stream', options, base === undefined ? undefined : makeScratch, async (vm, written) => {
    await begin?.(vm);
    return writeFrom(base, vm, output, written, makeScratch);
  });
}

/**
 * Writes a file as a multifd set, see {@link writeMultifd}. The guest's UUID is that of the input, if it says one.
 * @throws MigrationError if the input is bad, or has what cannot be taken over; RangeError as `writeMultifd`, and for a
 *   version of QEMU that does not have the machine type.
 */
export async function convertToMultifd(
  file: MigrationFile,
  main: ByteSink,
  channels: readonly ByteSink[],
  options: ConvertToMultifdOptions,
): Promise<Conversion> {
  return whileAllowed(options, [file], () => {
    const [first, ...others] = [main, ...channels].map((sink) => abortableSink(sink, options.signal));
    return convertFileToMultifd(file, first as ByteSink, others, options);
  });
}

async function convertFileToMultifd(
  file: MigrationFile,
  main: ByteSink,
  channels: readonly ByteSink[],
  options: ConvertToMultifdOptions,
): Promise<Conversion> {
  const { compression = 'none', level, codecs } = options;
  return convertVm(file, 'multifd', options, undefined, async (vm, written) => {
    const uuid = options.uuid ?? vm.configuration?.uuid ?? file.channels.uuid;
    return writeMultifd(vm, main, channels, {
      ...written,
      compression,
      ...(level === undefined ? {} : { level }),
      ...(uuid === undefined ? {} : { uuid }),
      ...(codecs === undefined ? {} : { codecs }),
    });
  });
}

/**
 * Opens the VM of a file and writes it. `scratch`: the output has deltas, and is settled there before it is compared.
 */
async function convertVm(
  file: MigrationFile,
  format: Conversion['format'],
  options: ConvertFromVmOptions,
  scratch: SavedVmOptions['makeScratch'] | undefined,
  write: VmWriter,
): Promise<Conversion> {
  const { makeScratch, partial = false } = options;
  const opened = withoutChanges(await openSavedVm(file, { makeScratch, devices: true, partial }));
  return saveVm(file, opened, format, options, scratch, write);
}

/** Changes without their base are an incomplete VM, and no longer a file of changes. */
function withoutChanges(vm: OpenedVm): OpenedVm {
  if (vm.configuration?.changes === undefined) return vm;
  const { changes: _, ...configuration } = vm.configuration;
  const capabilities = configuration.capabilities.filter((name) => name !== changesCapability);
  return { ...vm, configuration: { ...configuration, capabilities } };
}

/** The VM description of an output, which marks it if something is missing. */
function describeOutput(
  description: Description | undefined,
  missing: MissingRam | undefined,
): Description | undefined {
  if (missing === undefined) return description;
  const [first] = missing.evidence;
  const why = first === undefined ? [] : [`${first.message} [${first.code}]`];
  const what = missing.blocks.map(({ block, pages }) => `${pages} pages of ${block}`);
  return markIncomplete(description, [...why, ...what].join('; '));
}

type VmWriter = (vm: SavedVm, options: Pick<WriteStreamOptions, 'iterables' | 'rules'>) => Promise<WrittenStream>;

/** Writes a VM that was opened from a file. On failure, closes its content. */
export async function saveVm(
  file: MigrationFile,
  opened: OpenedVm,
  format: Conversion['format'],
  { description = true, compat }: ConvertFromVmOptions,
  scratch: SavedVmOptions['makeScratch'] | undefined,
  write: VmWriter,
): Promise<Conversion> {
  try {
    const vm = { ...opened, description: describeOutput(description ? opened.description : undefined, opened.missing) };
    const rules = compat === undefined ? {} : { rules: releaseRulesOf(vm.configuration?.machine, compat) };
    const iterables = await readIterables(file, vm.iterables);
    const { length, blocks } = await write(vm, { iterables, ...rules });
    const converted = blocks.map(({ block, records: _, ...counts }) => ({
      ...{ idstr: block.idstr, length: block.usedLength, ...counts },
      ...(vm.ignored.some(({ index }) => index === block.index) ? { ignored: true as const } : {}),
    }));
    const records = blocks.map((block) => block.records);
    return new Conversion(format, length, converted, vm, records, vm.ram, scratch);
  } catch (error) {
    await opened.ram.close();
    throw error;
  }
}

/** Writes the stream, after the content of `base` if given. */
async function writeFrom(
  base: MigrationFile | undefined,
  vm: SavedVm,
  output: ByteSink,
  options: WriteStreamOptions,
  makeScratch: SavedVmOptions['makeScratch'],
): Promise<WrittenStream> {
  if (base === undefined) return writeStream(vm, output, options);
  const ram = await openRamContent(base, { makeScratch });
  try {
    return await writeStream(vm, output, { ...options, base: ram });
  } finally {
    await ram.close();
  }
}

/**
 * Writes a file as a mapped-ram file that begins at `offset` of a store. Zero pages become holes.
 * @throws MigrationError if the input is bad, or has what cannot be taken over.
 */
export async function convertToMappedRam(
  file: MigrationFile,
  output: ByteStore,
  options: ConvertToMappedRamOptions = {},
): Promise<Conversion> {
  return whileAllowed(options, [file], () => settleToMappedRam(file, abortableStore(output, options.signal), options));
}

async function settleToMappedRam(
  file: MigrationFile,
  output: ByteStore,
  options: ConvertToMappedRamOptions,
): Promise<Conversion> {
  const { description = true, offset = 0, partial = false } = options;
  const isReadable = planContent(file).how === 'in-place';
  if (partial && isReadable) return copyToMappedRam(file, output, options);
  const lost = new FindingLog();
  const noteLost = partial ? (finding: Finding) => lost.add(finding) : undefined;
  const store = new MappedRamStore(output, file.pageSlots, { offset, noteLost });
  // Refuses it at the RAM section, before a long read: only the configuration marks a file as a mapped-ram file.
  const sink = refusing(store, (item) => {
    const isRam = item.kind === 'section' && item.section.name === 'ram';
    return isRam && store.configuration === undefined ? withoutConfiguration(file, item.section) : undefined;
  });
  const {
    blocks: inputBlocks,
    gaps,
    hasRamEnd: _,
    ...settled
  } = await settle(file, sink, {
    devices: true,
    partial,
    endBlocks: (known) => options.endBlocks?.({ configuration: store.configuration, blocks: [...known] }),
  });
  const missing = await findMissing(store, [...gaps, ...lost.list()], settled.ignored);
  const plan = planContent(file, { toOutput: true });
  const written = describeOutput(description ? settled.description : undefined, missing);
  const vm = { ...settled, plan, missing, ram: store, description: written };
  const { switchoverStart } = defaultRules(vm);
  await store.finish(vm.devices, vm.description, {
    framing: { footers: vm.framing.footers, switchoverStart },
    iterables: await readIterables(file, vm.iterables),
  });
  const blocks = store.blocks.map((block) => ({
    ...{ idstr: block.idstr, length: block.usedLength },
    ...store.countPages(block),
  }));
  const ram = isReadable ? new MappedRamReader(file.content, inputBlocks) : undefined;
  // All pages are included, absent ones as zeros.
  const records = store.blocks.map(pageCount);
  return new Conversion('mapped-ram', output.size - offset, blocks, vm, records, ram);
}

/** Copies what a partial mapped-ram file has, page by page. */
async function copyToMappedRam(
  file: MigrationFile,
  output: ByteStore,
  { description = true, offset = 0 }: ConvertOptions & { offset?: number },
): Promise<Conversion> {
  const opened = withoutChanges(await openSavedVm(file, { makeScratch: noScratch, devices: true, partial: true }));
  try {
    const text = describeOutput(description ? opened.description : undefined, opened.missing);
    const vm = { ...opened, ignored: [], description: text };
    const iterables = await readIterables(file, vm.iterables);
    const written = await writeMappedRam(vm, output, { offset, iterables });
    const blocks = written.blocks.map(({ block, records: _, ...counts }) => {
      return { idstr: block.idstr, length: block.usedLength, ...counts };
    });
    return new Conversion('mapped-ram', output.size - offset, blocks, vm, vm.ram.blocks.map(pageCount), vm.ram);
  } catch (error) {
    await opened.ram.close();
    throw error;
  }
}

export function withoutConfiguration(file: MigrationFile, { offset }: { offset: number }): MigrationError {
  const message = 'a mapped-ram file needs a configuration that declares it as one, and this stream has none';
  return new MigrationError('unsupported', message, placeIn(file.source, offset));
}
