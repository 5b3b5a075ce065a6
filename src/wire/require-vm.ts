/**
 * Requires that a stream or mapped-ram file of a VM can be read again. Writers call these checks before they write
 * anything, because most such mistakes would not stop a writer. Each of them is the caller's mistake, so it is a
 * RangeError.
 */
import { type PageBatch, PageKind } from '../kernel/page-batch.ts';
import type { Configuration } from '../vm/flow.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';
import { maxRamBytes, pageCount, type RamBlock } from '../vm/ram-block.ts';
import type { WritableDevice, WritableVm } from '../vm/saved-vm.ts';
import { requireName } from './byte-writer.ts';
import { pageSizeOfMachine } from './page-size.ts';

/** @throws RangeError for a VM that could be written, but not read again. Its devices may be added later. */
export function requireVm({ ram, configuration, framing, devices = [] }: WritableVm): void {
  requireBlocks(ram.blocks);
  requirePageSize(configuration, ram.blocks[0]);
  requireDevices(devices, framing?.ramId ?? 1);
}

/**
 * Requires that blocks are numbered in order, have different names of 1 to 255 bytes, and consist of whole pages of one
 * size. The last block must not be empty, because the list ends when the lengths add up.
 * @throws RangeError
 */
export function requireBlocks(blocks: readonly RamBlock[]): void {
  const names = new Set<string>();
  for (const [i, block] of blocks.entries()) {
    requireBlock(block);
    const { idstr, index, pageSize } = block;
    if (index !== i) throw new RangeError(`expected RAM block "${idstr}" to have index ${i}, got ${index}`);
    if (names.has(idstr)) throw new RangeError(`expected RAM blocks of different names, got "${idstr}" twice`);
    names.add(idstr);
    const [first = block] = blocks;
    if (pageSize === first.pageSize) continue;
    const got = `${first.pageSize} bytes in "${first.idstr}" and ${pageSize} in "${idstr}"`;
    throw new RangeError(`expected RAM blocks with pages of one size, got ${got}`);
  }
  requireLastBlock(blocks);
  const total = blocks.reduce((sum, { usedLength }) => sum + usedLength, 0);
  if (total > maxRamBytes) throw new RangeError(`expected at most ${maxRamBytes} bytes of RAM, got ${total}`);
}

/** @throws RangeError for a list that ends with an empty block. */
export function requireLastBlock(blocks: readonly RamBlock[]): void {
  const last = blocks.at(-1);
  if (last?.usedLength !== 0) return;
  throw new RangeError(`expected a list of RAM blocks that does not end with an empty one ("${last.idstr}")`);
}

/**
 * Requires that all records are of pages within the block, and that the data has the length of a page.
 * @throws RangeError
 */
export function requireRecords(block: RamBlock, { count, kind, page, length }: PageBatch): void {
  const pages = pageCount(block);
  for (let i = 0; i < count; i++) {
    const at = page[i] as number;
    const isPage = kind[i] !== PageKind.data || length[i] === block.pageSize;
    if (isPage && at >= 0 && at < pages && Number.isInteger(at)) continue;
    const got = `kind ${kind[i]} of ${length[i]} bytes for page ${at}`;
    throw new RangeError(`expected a record of a page of RAM block "${block.idstr}", which has ${pages}, got ${got}`);
  }
}

/** @throws RangeError for an impossible block. */
export function requireBlock({ idstr, usedLength, pageSize }: RamBlock): void {
  requireName(idstr);
  if (!isPageSize(pageSize)) {
    throw new RangeError(`expected a page size that is ${pageSizeRule}, got ${pageSize} ("${idstr}")`);
  }
  if (!Number.isSafeInteger(usedLength) || usedLength < 0 || usedLength % pageSize !== 0) {
    throw new RangeError(`expected RAM block "${idstr}" of whole pages of ${pageSize} bytes, got ${usedLength} bytes`);
  }
}

/** Requires the page size that a reader would assume. @throws RangeError */
export function requirePageSize(configuration: Configuration | undefined, block: RamBlock | undefined): void {
  if (configuration === undefined || block === undefined) return;
  const { machine, targetPageBits } = configuration;
  const expected = targetPageBits === undefined ? pageSizeOfMachine(machine) : 2 ** targetPageBits;
  if (expected === undefined || expected === block.pageSize) return;
  const says = targetPageBits === undefined ? `the machine type ${machine}` : `${targetPageBits} target page bits`;
  throw new RangeError(`expected pages of ${expected} bytes, as ${says} has it, got ${block.pageSize}`);
}

/**
 * Requires that devices are FULL sections with unique ids.
 * @throws RangeError
 */
export function requireDevices(devices: readonly WritableDevice[], ramId: number): void {
  const owners = new Map([[ramId, 'ram#0']]);
  for (const { kind, id, name, instanceId } of devices) {
    requireName(name);
    if (kind !== 'full') throw new RangeError(`expected device "${name}" as a section of kind full, got ${kind}`);
    const owner = owners.get(id) ?? `${name}#${instanceId}`;
    if (owner !== `${name}#${instanceId}`) {
      throw new RangeError(
        `expected a unique section id for ${name}#${instanceId}, got ${id}, which ${owner} already has`,
      );
    }
    owners.set(id, owner);
  }
}
