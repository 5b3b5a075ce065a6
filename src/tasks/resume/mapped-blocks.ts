/**
 * Which RAM blocks of a mapped-ram file a QEMU can use as guest memory in place, and the memory backend for each:
 *
 *     FILE   header, bitmap ... │ pages of pc.ram, each at its place │ other blocks, devices ...
 *                               └─ offset=      size= ─────────────┘
 *
 * QEMU names the RAM block of a memory backend by the backend's id, so the id follows from the block's name.
 */
import { type ByteSource, placeIn } from '../../io/byte-source.ts';
import { type Release, releaseOf } from '../../schema/release.ts';
import { MigrationError } from '../../vm/migration-error.ts';
import type { MappedPlace, RamBlock } from '../../vm/ram-block.ts';
import { isBackend } from '../extract/ram-blocks.ts';

/** A RAM block that QEMU maps from the file. */
export interface MappedBlock {
  readonly block: RamBlock;
  /** The id of its memory backend. */
  readonly id: string;
  /** Where it begins in the file, in bytes. */
  readonly offset: number;
  /** Bytes of the block. */
  readonly length: number;
  /** QEMU makes it by itself, under this name, if no memory backend is given. */
  readonly isDefault: boolean;
}

/** What machines call their RAM if no memory backend is given. */
const defaultNames = new Set([
  ...['pc.ram', 'ram', 'mach-virt.ram', 'ppc_spapr.ram', 's390.ram', 'riscv_virt_board.ram', 'microvm.ram'],
  ...['loongarch.ram', 'pnv.ram', 'vexpress.highmem', 'sun4u.ram'],
]);
/** Memory of displays and firmware, whose names are not those of memory backends. */
const deviceMemory = /vram|rom|bios|flash|fw_cfg|vgamem/i;
const objectPath = /^\/objects\/(.+)$/;
/** Ids as QEMU takes them. */
const wellFormed = /^[A-Za-z][A-Za-z0-9._-]*$/;
/** Until this release machine types name the blocks of backends by their whole path. */
const lastWithPaths: Release = 400;

/** The id of the memory backend whose RAM block has that name. Undefined if no backend can have it. */
export function backendId(idstr: string): string | undefined {
  const id = objectPath.exec(idstr)?.[1] ?? idstr;
  return wellFormed.test(id) ? id : undefined;
}

/**
 * Chooses the blocks to map: those that are named, otherwise the machine's RAM, or all memory backends if the machine has no RAM of
 * its own.
 * @throws RangeError for a name that is not a memory backend's; MigrationError `unsupported` if no block can be mapped, or one
 *   is at a place that cannot be
 */
export function chooseMapped(
  source: ByteSource,
  blocks: readonly RamBlock[],
  names: readonly string[] | undefined,
  pageSize: number,
): MappedBlock[] {
  const candidates = blocks.filter((block) => isBackend(block) && backendId(block.idstr) !== undefined);
  const chosen = names === undefined ? byDefault(candidates) : byName(blocks, names);
  if (chosen.length === 0) {
    const message = `expected a RAM block that is the machine's memory, got ${listNames(blocks)}`;
    throw new MigrationError('unsupported', message, placeIn(source, 0));
  }
  return chosen.map((block) => place(source, block, pageSize));
}

const listNames = (blocks: readonly RamBlock[]) => blocks.map(({ idstr }) => idstr).join(', ') || 'none';

function byDefault(candidates: readonly RamBlock[]): RamBlock[] {
  const own = candidates.filter(({ idstr }) => defaultNames.has(idstr));
  return own.length > 0 ? own : candidates.filter(({ idstr }) => !deviceMemory.test(idstr));
}

function byName(blocks: readonly RamBlock[], names: readonly string[]): RamBlock[] {
  return [...new Set(names)].map((name) => {
    const block = blocks.find(({ idstr }) => idstr === name);
    if (block !== undefined && block.usedLength > 0 && backendId(name) !== undefined) return block;
    throw new RangeError(`expected a RAM block of a memory backend, got "${name}"`);
  });
}

/** @throws MigrationError */
function place(source: ByteSource, block: RamBlock, pageSize: number): MappedBlock {
  const { idstr, usedLength, mapped } = block;
  const fail = (message: string, offset = 0, code: MigrationError['code'] = 'unsupported') =>
    new MigrationError(code, message, { ...placeIn(source, offset), section: 'ram', block: idstr });
  if (mapped === undefined) throw fail('expected a block with pages in the file, got one without');
  const { pagesOffset } = mapped satisfies MappedPlace;
  if (pagesOffset % pageSize !== 0 || usedLength % pageSize !== 0) {
    const got = `${usedLength} bytes at ${pagesOffset}`;
    throw fail(`expected a block in whole pages of ${pageSize} bytes, which QEMU can map, got ${got}`, pagesOffset);
  }
  const { size = 0 } = source;
  if (pagesOffset + usedLength > size) {
    throw fail(
      `expected the block to end at ${pagesOffset + usedLength}, got a file of ${size} bytes`,
      size,
      'truncated',
    );
  }
  const id = backendId(idstr) as string;
  return { block, id, offset: pagesOffset, length: usedLength, isDefault: defaultNames.has(idstr) };
}

/** The properties of the memory backend of a block, without its type: `id=pc.ram,mem-path=...`. */
export function backendProperties({ block, id, offset, length }: MappedBlock, path: string, machine = ''): string {
  const release = releaseOf(machine);
  const isPath = objectPath.test(block.idstr);
  // What the machine type does not do by itself.
  const naming = isPath || (release !== undefined && release <= lastWithPaths);
  return [
    `id=${id}`,
    `mem-path=${path.replaceAll(',', ',,')}`,
    ...[`offset=${offset}`, `size=${length}`, 'share=off', 'readonly=on', 'rom=off'],
    ...(naming ? [`x-use-canonical-path-for-ramblock-id=${isPath ? 'on' : 'off'}`] : []),
  ].join();
}
