/**
 * A file's RAM in guest-physical order, for tools that need memory as the guest sees it: one image, or an ELF core
 * file. The layout needs the devices' state, which comes after the pages. So the file is settled first, in place if
 * possible (`ram-content.ts`). Then the content is passed on in the order of the output, which may be a pipe.
 */

import type { DeviceState } from '../../devices/device-state.ts';
import { type Abortable, abortableStore } from '../../io/abort.ts';
import type { ByteStore } from '../../io/byte-source.ts';
import { placeIn } from '../../io/byte-source.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import type { ContentPlan } from '../../store/content-plan.ts';
import type { MissingRam } from '../../store/missing-ram.ts';
import type { ContentPiece } from '../../store/ram-content.ts';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { RamBlock } from '../../vm/ram-block.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { chooseCpu, readPaging } from '../addresses/cpu-paging.ts';
import { EndlessTables } from '../addresses/page-tables.ts';
import { PhysicalRam } from '../addresses/physical-ram.ts';
import { TooManySegments, type VirtualSegment, virtualSegments } from '../addresses/virtual-segments.ts';
import { type CoreGuest, describeGuest } from './core/core-guest.ts';
import { type CoreSegment, coreHeaderLength, encodeCoreHeader, sectionNames } from './core/elf-core.ts';
import { readLeftNote } from './core/vmcoreinfo.ts';
import { type LaidOutOptions, openLaidOutVm } from './laid-out-vm.ts';
import type { PhysicalRange } from './memory-map.ts';
import type { PhysicalLayout } from './physical-layout.ts';
import { readPart } from './range.ts';

/** How guest-physical memory is read. */
export interface PhysicalOptions extends LaidOutOptions {}

/** An output: pieces in order, and their total length. */
export interface PhysicalOutput {
  length: number;
  /** The output from its first byte to its last. A piece is valid until the next one is requested. */
  pieces(): AsyncGenerator<ContentPiece, void>;
}

/** A core file as an output. */
export interface CoreOutput extends PhysicalOutput {
  cpus: number;
  segments: CoreSegment[];
  /** The name of the note that the guest's kernel left for dumps, VMCOREINFO, if there is one. */
  guestNote?: string;
  /** What is wrong with the note that the guest left, in QEMU's words. */
  warnings: string[];
}

/** Whose virtual memory. */
export interface MappedOptions {
  /** The number of a CPU, from 0. Default: all; where they differ, the first one decides. */
  cpu?: number;
  /** Replaces the register with the root of the page tables, see {@link AddressSpaceOptions}; of `cpu`, or of CPU 0. */
  cr3?: bigint;
}

/** The memory of a guest by its addresses. */
export interface PhysicalMemory extends AutoClosed {
  /** How its content is read. */
  readonly plan: ContentPlan;
  readonly machine: string | undefined;
  readonly layout: PhysicalLayout;
  /**
   * Pages of the blocks in the layout that were never sent, which read as zeros. A mapped-ram file does not show them.
   * Unplugged pages of virtio-mem do not count.
   */
  readonly absentPages: { block: RamBlock; pages: number }[];
  /** With `partial`: what the file lacks. Undefined if it is complete. */
  readonly missing: MissingRam | undefined;
  /** The memory from address 0 to the end of RAM. Where the guest sees nothing, there are zeros. */
  image(): PhysicalOutput;
  /**
   * An ELF core file as `dump-guest-memory` writes it.
   * @param mapped its program headers have these virtual addresses
   * @throws MigrationError `unsupported` if the state of the CPUs has no description, or lacks registers
   */
  core(mapped?: readonly VirtualSegment[]): CoreOutput;
  /**
   * The virtual memory of the CPUs, by their page tables. Undefined if none of them translates addresses.
   * @throws RangeError for a CPU that does not exist; MigrationError `unsupported` for page tables of an unknown kind,
   *   `limit-exceeded` for tables that contain one another, or too many segments
   */
  mapped(options?: MappedOptions): Promise<VirtualSegment[] | undefined>;
  /** Closes the scratch file, if there is one, not the file. */
  close(): Promise<void>;
}

/**
 * Reads a file and lays out its RAM. The file is read and checked to its end.
 * @throws RangeError for a machine with an unknown layout, see {@link layOutPhysical}, and for memory that is not in
 *   the file; MigrationError if the file is bad
 */
export async function openPhysical(file: MigrationFile, options: PhysicalOptions): Promise<PhysicalMemory> {
  return whileAllowed(options, [file], () => openAddressed(file, options));
}

async function openAddressed(file: MigrationFile, options: PhysicalOptions): Promise<PhysicalMemory> {
  const { vm, layout, devices, shown } = await openLaidOutVm(file, options);
  const { ram, configuration, plan, missing } = vm;
  try {
    const { ranges, ramEnd } = layout;
    const machine = configuration?.machine;
    const memory = dumpedRanges(ranges);
    const segments = memory.map(({ start, length }) => ({ address: start, length }));
    const physical = new PhysicalRam(ram, ranges);
    const left = await readLeftNote(devices, (address, length) => physical.read(Number(address), length));
    return {
      plan,
      machine,
      layout,
      missing,
      absentPages: shown
        .map((block) => ({ block, pages: (ram.absentPages?.(block) ?? 0) - hiddenPages(layout, block) }))
        .filter(({ pages }) => pages > 0),
      image: () => ({ length: ramEnd, pieces: () => imagePieces(ram, ranges, ramEnd) }),
      core(mapped) {
        const guest = describeGuest({ source: file.source, machine, devices, segments, left });
        return makeCore(ram, memory, mapped === undefined ? guest : { ...guest, mapped });
      },
      mapped: (which = {}) =>
        mapMemory(file, devices, new PhysicalRam(ram, memory), { ...which, signal: options.signal }),
      close: () => ram.close(),
      [asyncDispose]: () => ram.close(),
    };
  } catch (error) {
    await ram.close();
    throw error;
  }
}

async function mapMemory(
  file: MigrationFile,
  devices: readonly DeviceState[],
  memory: PhysicalRam,
  { cpu, cr3, signal }: MappedOptions & Abortable,
): Promise<VirtualSegment[] | undefined> {
  const isOne = cpu !== undefined || cr3 !== undefined;
  const cpus = isOne ? [chooseCpu(devices, cpu ?? 0)] : devices.filter(({ name }) => name === 'cpu');
  const pagings = cpus.map((each) => readPaging(file.source, each, cr3));
  if (pagings.every(({ tables }) => tables.length === 0)) return undefined;
  try {
    return await virtualSegments(memory, pagings, { signal });
  } catch (error) {
    if (!(error instanceof EndlessTables || error instanceof TooManySegments)) throw error;
    throw new MigrationError('limit-exceeded', error.message, placeIn(file.source, cpus[0]?.offset ?? 0));
  }
}

/** The output of {@link extractPhysical} or {@link extractElf}. */
export interface ExtractedPhysical {
  layout: PhysicalLayout;
  /** Bytes of the output. */
  length: number;
}

/**
 * Writes the guest-physical memory, address by address. Zeros and gaps become holes. The store is complete when this
 * resolves; the caller syncs and closes it.
 * @throws the errors of {@link openPhysical}. Discard the output in that case.
 */
export function extractPhysical(
  file: MigrationFile,
  output: ByteStore,
  options: PhysicalOptions,
): Promise<ExtractedPhysical> {
  return extractOutput(file, output, options, (memory) => memory.image());
}

/**
 * Writes an ELF core file like `dump-guest-memory`, with holes for zeros; otherwise like {@link extractPhysical}. With
 * `paging` it has virtual addresses.
 */
export function extractElf(
  file: MigrationFile,
  output: ByteStore,
  options: PhysicalOptions & { paging?: MappedOptions },
): Promise<ExtractedPhysical> {
  const { paging } = options;
  return extractOutput(file, output, options, async (memory) =>
    memory.core(paging === undefined ? undefined : await memory.mapped(paging)),
  );
}

async function extractOutput(
  file: MigrationFile,
  store: ByteStore,
  options: PhysicalOptions,
  choose: (memory: PhysicalMemory) => PhysicalOutput | Promise<PhysicalOutput>,
): Promise<ExtractedPhysical> {
  try {
    return await whileAllowed(options, [file], async () => {
      const memory = await openPhysical(file, options);
      try {
        const output = await choose(memory);
        await storeOutput(output, abortableStore(store, options.signal));
        return { layout: memory.layout, length: output.length };
      } finally {
        await memory.close();
      }
    });
  } catch (error) {
    // An image does not show whether it is complete.
    if (options.signal?.aborted === true) await store.truncate(0);
    throw error;
  }
}

/** Writes pieces to a store, with holes for zeros. */
export async function storeOutput({ length, pieces }: PhysicalOutput, store: ByteStore): Promise<void> {
  let at = 0;
  for await (const piece of pieces()) {
    if (piece.bytes !== undefined) await store.write(piece.bytes, at);
    at += piece.length;
  }
  await store.truncate(length);
}

/** Pages of a virtio-mem block that are not plugged. QEMU does not send them. */
function hiddenPages({ memoryDevices }: PhysicalLayout, block: RamBlock): number {
  const device = memoryDevices.find((each) => each.block === block && each.kind === 'virtio-mem');
  if (device === undefined) return 0;
  const plugged = device.parts.reduce((sum, { length }) => sum + length, 0);
  return (device.length - plugged) / block.pageSize;
}

/** Ranges of memory like in QEMU's dump: neighbours in one block are one range, and flash memory is left out. */
const dumpedRanges = (ranges: readonly PhysicalRange[]) => ranges.filter(({ isFlash }) => isFlash !== true);

function makeCore(ram: RamReader, memory: readonly PhysicalRange[], guest: CoreGuest): CoreOutput {
  const { segments } = guest;
  const bytes = segments.reduce((sum, { length }) => sum + length, 0);
  return {
    ...describeCore(guest),
    length: coreHeaderLength(guest) + bytes + sectionNames.length,
    async *pieces() {
      const header = encodeCoreHeader(guest);
      yield { length: header.length, bytes: header };
      for (const { block, offset, length } of memory) yield* readPart(ram, block, offset, length);
      yield { length: sectionNames.length, bytes: sectionNames };
    },
  };
}

const describeCore = ({ cpus, segments, guestNote, warning }: CoreGuest) => ({
  cpus,
  segments: [...segments],
  ...(guestNote === undefined ? {} : { guestNote: guestNote.name }),
  warnings: warning === undefined ? [] : [warning],
});

/** Yields everything up to the end of RAM, with zeros for the gaps. */
async function* imagePieces(
  ram: RamReader,
  ranges: readonly PhysicalRange[],
  end: number,
): AsyncGenerator<ContentPiece, void> {
  let at = 0;
  for (const { start, length, block, offset } of ranges) {
    const wanted = Math.min(length, end - start);
    if (wanted <= 0) break;
    if (start > at) yield { length: start - at, bytes: undefined };
    yield* readPart(ram, block, offset, wanted);
    at = start + wanted;
  }
  if (end > at) yield { length: end - at, bytes: undefined };
}
