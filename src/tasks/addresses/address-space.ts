/**
 * A guest's memory by the addresses that people have: guest-physical, or virtual as one of its CPUs sees it. It consists of
 * runs of contiguous addresses. A run looks like a RAM block, whose pages lie in one or more real blocks.
 *
 *     virtual      |-- run --|          |------ run ------|
 *                    |     |              |       |
 *     physical     page   page          pages    pages        by the page tables
 *                    |     |              |       |
 *     RAM blocks   block, offset        block, offset         by the layout of the machine
 */
import { placeIn } from '../../io/byte-source.ts';
import { type MigrationFile, whileAllowed } from '../../read/open.ts';
import type { ContentPlan } from '../../store/content-plan.ts';
import type { MissingRam } from '../../store/missing-ram.ts';
import { type AutoClosed, asyncDispose } from '../../vm/auto-closed.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { RamReader } from '../../vm/ram-store.ts';
import { type LaidOutOptions, type LaidOutVm, openLaidOutVm } from '../extract/laid-out-vm.ts';
import type { PhysicalLayout } from '../extract/physical-layout.ts';
import { chooseCpu, readPaging } from './cpu-paging.ts';
import {
  addressOf,
  EndlessTables,
  maxTablesOf,
  type PageTables,
  unitBytes,
  unitRanges,
  walkTables,
} from './page-tables.ts';
import { PhysicalRam } from './physical-ram.ts';
import { type BlockPlace, type Part, placeOf, type SpaceRun, spaceReader } from './space-reader.ts';

/** Which addresses, and of which CPU. */
export interface AddressSpaceOptions extends LaidOutOptions {
  /** What addresses are. */
  kind: AddressSpace['kind'];
  /** The CPU whose page tables translate virtual addresses: its number, from 0. Default 0. */
  cpu?: number;
  /** Replaces the register with the root of its page tables: CR3 of x86, TTBR0 of ARM, satp of RISC-V. */
  cr3?: bigint;
}

/** Memory by address. */
export interface AddressSpace extends AutoClosed {
  readonly kind: 'physical' | 'virtual';
  /** How its content is read. */
  readonly plan: ContentPlan;
  readonly layout: PhysicalLayout;
  /** How virtual addresses are translated, such as `x86-64, 4 levels`. Undefined for physical ones. */
  readonly paging: string | undefined;
  /** With `partial`: what the file lacks. */
  readonly missing: MissingRam | undefined;
  /** Reads the runs as if they were RAM blocks. */
  readonly ram: RamReader;
  /** Reads the RAM blocks themselves. */
  readonly content: RamReader;
  /** The address without what the CPU ignores: the top byte of ARM's tagged addresses. */
  normalize(address: bigint): bigint;
  /**
   * The runs of memory from address `from` up to `end`, ascending; all by default. What is not RAM is not part of any.
   * @throws MigrationError `limit-exceeded` for page tables that contain one another
   */
  runs(from?: bigint, end?: bigint): AsyncGenerator<SpaceRun, void>;
  /** The place in a real block of a byte of a run. */
  locate(run: SpaceRun, offset: number): BlockPlace;
  /** Closes the scratch file, if there is one, not the file. */
  close(): Promise<void>;
}

/** More than all addresses. */
const endOfAll = 1n << 64n;

/** Parts that a run may have: its pages can be scattered. */
const maxParts = 1 << 23;

/**
 * Opens a file's memory by address. The file is read to its end and checked.
 * @throws RangeError for a machine with an unknown layout, or a CPU that does not exist; MigrationError if the file is bad, or
 *   `unsupported` if the CPU's page tables are of an unknown kind
 */
export async function openAddressSpace(file: MigrationFile, options: AddressSpaceOptions): Promise<AddressSpace> {
  return whileAllowed(options, [file], async () => {
    const laidOut = await openLaidOutVm(file, options);
    try {
      return makeSpace(file, laidOut, options);
    } catch (error) {
      await laidOut.vm.ram.close();
      throw error;
    }
  });
}

function makeSpace(
  file: MigrationFile,
  { vm, layout, devices }: LaidOutVm,
  options: AddressSpaceOptions,
): AddressSpace {
  const { kind, cpu = 0, cr3, signal } = options;
  const { ram } = vm;
  const physical = new PhysicalRam(ram, layout.ranges);
  const paging = kind === 'physical' ? undefined : readPaging(file.source, chooseCpu(devices, cpu), cr3);
  const normalize = (address: bigint) => paging?.normalize?.(address) ?? address;
  const pieces = async function* (from: bigint, end: bigint) {
    if (paging === undefined || paging.tables.length === 0) yield* physicalPieces(physical, from, end);
    else yield* virtualPieces(physical, paging.tables, from, end, signal);
  };
  return {
    kind,
    plan: vm.plan,
    layout,
    paging: paging?.name,
    missing: vm.missing,
    ram: spaceReader(ram),
    content: ram,
    normalize,
    async *runs(from = 0n, end = endOfAll) {
      try {
        const first = normalize(from);
        yield* joinPieces(pieces(first, first + end - from), kind);
      } catch (error) {
        if (!(error instanceof EndlessTables)) throw error;
        throw new MigrationError('limit-exceeded', error.message, placeIn(file.source, 0));
      }
    },
    locate: placeOf,
    close: () => ram.close(),
    [asyncDispose]: () => ram.close(),
  };
}

/** Memory at an address. */
type Piece = { address: bigint } & Omit<Part, 'page'>;

function* physicalPieces(physical: PhysicalRam, from: bigint, end: bigint): Generator<Piece, void> {
  for (const { start, length, block, offset } of physical.ranges) {
    const first = from > BigInt(start) ? Number(from) - (Number(from) % unitBytes) : start;
    const last = end < BigInt(start + length) ? Math.ceil(Number(end) / unitBytes) * unitBytes : start + length;
    if (first >= last || first >= start + length) continue;
    yield { address: BigInt(first), pages: (last - first) / unitBytes, block, offset: offset + first - start };
  }
}

async function* virtualPieces(
  physical: PhysicalRam,
  tables: readonly PageTables[],
  from: bigint,
  end: bigint,
  signal: AddressSpaceOptions['signal'],
): AsyncGenerator<Piece, void> {
  const read = (address: number, length: number) => physical.view(address, length);
  const maxTables = maxTablesOf(physical.bytes);
  for (const tree of tables) {
    for (const units of unitRanges(tree, from, end)) {
      for await (const mapping of walkTables(tree, read, { ...units, maxTables, signal })) {
        for (const { start, length, block, offset } of physical.parts(mapping.physical, mapping.units * unitBytes)) {
          const unit = mapping.unit + (start - mapping.physical) / unitBytes;
          yield { address: addressOf(tree, unit), pages: length / unitBytes, block, offset };
        }
      }
    }
  }
}

/** Joins pieces with contiguous addresses. */
async function* joinPieces(pieces: AsyncIterable<Piece>, kind: string): AsyncGenerator<SpaceRun, void> {
  let index = 0;
  let run: { address: bigint; pages: number; parts: Part[] } | undefined;
  const finish = ({ address, pages, parts }: NonNullable<typeof run>): SpaceRun => ({
    ...{ index: index++, idstr: kind, usedLength: pages * unitBytes, pageSize: unitBytes, address, parts },
  });
  for await (const { address, pages, block, offset } of pieces) {
    if (run === undefined || run.address + BigInt(run.pages * unitBytes) !== address || run.parts.length === maxParts) {
      if (run !== undefined) yield finish(run);
      run = { address, pages: 0, parts: [] };
    }
    const last = run.parts.at(-1);
    if (last !== undefined && last.block === block && last.offset + last.pages * unitBytes === offset)
      last.pages += pages;
    else run.parts.push({ page: run.pages, pages, block, offset });
    run.pages += pages;
  }
  if (run !== undefined) yield finish(run);
}
