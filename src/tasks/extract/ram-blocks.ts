/** Which RAM blocks of a PC form its RAM, in the order of their addresses (docs/formats/x86-memory.md, "NUMA nodes"). */
import type { RamBlock } from '../../vm/ram-block.ts';
import { pciPrefix, readCmosMemory } from './pc-chipset.ts';
import type { Assumption, LayoutFacts } from './physical-layout.ts';
import type { MemoryNode } from './srat.ts';

/** Blocks that QEMU creates for a machine besides its RAM. */
const machineBlock = /^(pc\.rom|pc\.bios|isa-bios|system\.flash[01]|\/rom@.*)$/;

/** Whether a block may be RAM or a memory device: QEMU names it `pc.ram` or as the memory backend. */
export function isBackend({ idstr, usedLength }: RamBlock): boolean {
  return usedLength > 0 && !machineBlock.test(idstr) && pciPrefix(idstr) === undefined;
}

/** @throws RangeError for RAM in an unknown order, and for stated blocks that cannot be RAM */
export function chooseRam(
  { blocks, devices, acpi }: LayoutFacts,
  stated: readonly string[] | undefined,
  assumed: Assumption[],
): RamBlock[] {
  const backends = blocks.filter(isBackend);
  const names = backends.map(({ idstr }) => idstr).join(', ');
  if (stated !== undefined && stated.length > 0) return findStated(backends, stated);
  const named = backends.find(({ idstr }) => idstr === 'pc.ram');
  if (named !== undefined) return [named];
  if (backends.length === 1) return backends;
  const ofNodes = matchNodes(backends, acpi?.affinity?.nodes ?? [], assumed);
  if (ofNodes !== undefined) return ofNodes;
  const total = backends.reduce((sum, { usedLength }) => sum + usedLength, 0);
  const cmos = readCmosMemory(devices);
  if (cmos !== undefined && agrees(cmos.below4g + cmos.above4g, total) && new Set(sizesOf(backends)).size === 1) {
    const text = `the order of ${names} is not in the file: assumed to be the order in which they were created`;
    assumed.push({ what: 'ram-order', blocks: backends.map(({ idstr }) => idstr), option: 'ram', text });
    return backends;
  }
  const which =
    names === '' ? 'there is no block for it' : `the file does not say which of ${names} are RAM, or in which order`;
  throw new RangeError(`expected to find the machine's RAM: ${which}`);
}

/** The blocks that the caller states to be RAM. @throws RangeError for a block that cannot be RAM, or is stated twice */
export function findStated(backends: readonly RamBlock[], stated: readonly string[]): RamBlock[] {
  const names = backends.map(({ idstr }) => idstr).join(', ');
  return stated.map((idstr, i) => {
    const block = backends.find((each) => each.idstr === idstr);
    if (block !== undefined && stated.indexOf(idstr) === i) return block;
    throw new RangeError(`expected blocks of RAM (${names}), each once, got "${idstr}"`);
  });
}

const sizesOf = (blocks: readonly RamBlock[]) => blocks.map(({ usedLength }) => usedLength);

/** The CMOS counts in 64 KiB. */
export function agrees(inCmos: number, bytes: number): boolean {
  return inCmos <= bytes && bytes - inCmos < 0x1_0000;
}

/** Finds a block of the right size for each node. Undefined if a node has none. */
function matchNodes(
  backends: readonly RamBlock[],
  nodes: readonly MemoryNode[],
  assumed: Assumption[],
): RamBlock[] | undefined {
  const left = [...backends];
  const chosen: RamBlock[] = [];
  for (const { length } of nodes) {
    const at = left.findIndex(({ usedLength }) => usedLength === length);
    if (at === -1) return undefined;
    chosen.push(...left.splice(at, 1));
  }
  if (chosen.length === 0) return undefined;
  const isAmbiguous = (block: RamBlock) =>
    backends.filter(({ usedLength }) => usedLength === block.usedLength).length > 1;
  const alike = chosen.filter(isAmbiguous).map(({ idstr }) => idstr);
  if (alike.length > 0) {
    const text = `${alike.join(', ')} have the same size as others: taken in the order in which they were created`;
    assumed.push({ what: 'ram-order', blocks: alike, option: 'ram', text });
  }
  return chosen;
}
