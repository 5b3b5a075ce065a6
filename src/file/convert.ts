/**
 * convert: a migration in another form. To a mapped-ram file the Flow is settled right into its place, whatever its
 * encoding and however often pages come; a stream is written from the settled VM, in one pass. Device states and other
 * iterables go over as they are, byte for byte. What is not in the input is not invented: a form that would need it is
 * refused.
 */
import { type ByteSink, type ByteStore, placeIn, readFully } from '../io/byte-source.ts';
import type { Section } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { SavedVm } from '../vm/saved-vm.ts';
import { MigrationError } from '../wire/migration-error.ts';
import { checkCopy } from './check-copy.ts';
import { MappedRamReader, MappedRamStore } from './mapped-ram-store.ts';
import type { MigrationFile } from './open.ts';
import { isMappedRam, openSavedVm, type SavedVmOptions } from './ram-content.ts';
import { settle } from './settle.ts';
import type { Verification } from './verify.ts';
import { announcesSwitchover, type RawSection, writeStream } from './write-stream.ts';

/** Bytes of iterables other than RAM that are taken over, in all. */
const maxIterableBytes = 128 << 20;

export interface ConvertOptions {
  /** Keep the VM description. Default true. */
  description?: boolean;
}

export interface ConvertToStreamOptions extends ConvertOptions, Pick<SavedVmOptions, 'makeScratch'> {
  /** Called when the VM is known, before anything is written: what it returns goes in front of the stream. */
  begin?: (vm: SavedVm) => Uint8Array | undefined;
}

export interface ConvertedBlock {
  idstr: string;
  /** Bytes of the block. */
  length: number;
  dataPages: number;
  zeroPages: number;
  /** Pages that were never sent. They are not sent again; a mapped-ram file cannot say so, and has zeros. */
  absentPages: number;
  /** Shared memory that the migration left out (x-ignore-shared): it is listed, and its content is still missing. */
  ignored?: true;
}

/** What was written, and what it was written from, until it is closed. */
export class Conversion {
  readonly format: 'stream' | 'mapped-ram';
  /** Bytes of the output, from the stream's first. */
  readonly length: number;
  readonly blocks: readonly ConvertedBlock[];
  readonly vm: SavedVm;
  /** The content, if it can be read beside the output. */
  readonly #ram: RamReader | undefined;

  constructor(
    format: 'stream' | 'mapped-ram',
    length: number,
    blocks: readonly ConvertedBlock[],
    vm: SavedVm,
    ram: RamReader | undefined,
  ) {
    this.format = format;
    this.length = length;
    this.blocks = blocks;
    this.vm = vm;
    this.#ram = ram;
  }

  /**
   * Reads what was written: it is sound, and holds what was to be written. Device states are compared byte for byte, and
   * so is RAM where the content can still be read: all but mapped-ram files that were made of a stream.
   * @throws CopyError if it is not so
   */
  check(copy: MigrationFile): Promise<Verification> {
    // A mapped-ram file has all pages, absent ones as zeros.
    const all = this.format === 'mapped-ram';
    const pages = this.blocks.map(
      ({ dataPages, zeroPages, absentPages }) => dataPages + zeroPages + (all ? absentPages : 0),
    );
    return checkCopy(copy, this.vm, pages, this.#ram);
  }

  /** Closes the content, and a scratch file with it; not the files. */
  async close(): Promise<void> {
    await this.#ram?.close();
  }
}

/**
 * Writes a file as a plain stream, in order.
 * @throws MigrationError if the input is bad, or has what cannot be taken over.
 */
export async function convertToStream(
  file: MigrationFile,
  output: ByteSink,
  { description = true, begin, makeScratch }: ConvertToStreamOptions,
): Promise<Conversion> {
  const opened = await openSavedVm(file, { makeScratch, devices: true });
  try {
    const vm = description ? opened : { ...opened, description: undefined };
    const iterables = await readIterables(file, vm.iterables);
    const front = begin?.(vm);
    if (front !== undefined) await output.write(front);
    const { length, blocks } = await writeStream(vm, output, { iterables });
    const converted = blocks.map(({ block, ...counts }) => ({
      ...{ idstr: block.idstr, length: block.usedLength, ...counts },
      ...(vm.ignored.some(({ index }) => index === block.index) ? { ignored: true as const } : {}),
    }));
    return new Conversion('stream', length, converted, vm, vm.ram);
  } catch (error) {
    await opened.ram.close();
    throw error;
  }
}

/**
 * Writes a file as a mapped-ram file that begins at `offset` of a store. Zero pages become holes.
 * @throws MigrationError if the input is bad, or has what cannot be taken over.
 */
export async function convertToMappedRam(
  file: MigrationFile,
  output: ByteStore,
  { description = true, offset = 0 }: ConvertOptions & { offset?: number } = {},
): Promise<Conversion> {
  const store = new MappedRamStore(output, file.staging, { offset });
  const inputBlocks: RamBlock[] = [];
  let isConfigured = false;
  const settled = await settle(
    file,
    {
      configure(configuration) {
        isConfigured = true;
        store.configure(configuration);
      },
      startRam(section) {
        if (!isConfigured) throw withoutConfiguration(file, section);
        store.startRam(section);
      },
      addBlock(block) {
        inputBlocks.push(block);
        return store.addBlock(block);
      },
      apply: (block, batch) => store.apply(block, batch),
      discard: (block, firstPage, pages) => store.discard(block, firstPage, pages),
      lostPage: () => store.lostPage(),
    },
    { devices: true },
  );
  const [ignored] = settled.ignored;
  if (ignored !== undefined) throw withoutContent(file, ignored);
  const vm = { ...settled, ram: store, description: description ? settled.description : undefined };
  const { footers, switchoverStart } = vm.framing;
  await store.finish(vm.devices, vm.description, {
    framing: { footers, switchoverStart: switchoverStart || announcesSwitchover(vm.configuration) },
    iterables: await readIterables(file, vm.iterables),
  });
  const blocks = store.blocks.map((block) => ({
    ...{ idstr: block.idstr, length: block.usedLength },
    ...store.countPages(block),
  }));
  const isReadable = file.isSeekable && (await isMappedRam(file));
  const ram = isReadable ? new MappedRamReader(file.content, inputBlocks) : undefined;
  return new Conversion('mapped-ram', output.size - offset, blocks, vm, ram);
}

function withoutConfiguration(file: MigrationFile, { offset }: { offset: number }): MigrationError {
  const message = 'a mapped-ram file says in its configuration that it is one, and this stream has no configuration';
  return new MigrationError('unsupported', message, placeIn(file.source, offset));
}

function withoutContent(file: MigrationFile, { idstr }: RamBlock): MigrationError {
  const message = `RAM block "${idstr}" was left out (x-ignore-shared): a mapped-ram file needs its content`;
  return new MigrationError('unsupported', message, { ...placeIn(file.source, file.offset), block: idstr });
}

/** The sections of iterables other than RAM, as they stand in the file. */
async function readIterables(file: MigrationFile, sections: readonly Section[]): Promise<RawSection[]> {
  const [first] = sections;
  if (first === undefined) return [];
  const place = { ...placeIn(file.source, first.offset), section: first.name };
  if (!file.isSeekable || file.parts.resumeOf.length > 0) {
    const where = 'a file that can be read twice, of a migration that was not recovered';
    throw new MigrationError('unsupported', `sections of ${first.name} can be taken over only from ${where}`, place);
  }
  const bytes = sections.reduce((sum, { length }) => sum + length, 0);
  if (bytes > maxIterableBytes) {
    const message = `expected at most ${maxIterableBytes} bytes of iterables other than RAM, got ${bytes}`;
    throw new MigrationError('limit-exceeded', message, place);
  }
  const read: RawSection[] = [];
  for (const { kind, offset, length } of sections) {
    const section = { kind, bytes: new Uint8Array(length) };
    await readFully(file.content, section.bytes, offset);
    read.push(section);
  }
  return read;
}
