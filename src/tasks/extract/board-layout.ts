/**
 * The guest-physical layout of machines whose RAM begins at a fixed address and is contiguous: one base address a machine type.
 * Flash, and the memory of devices, are left out. Found by `info mtree -f` of QEMU 7.2 and 10.0.
 */
import { type Architecture, architectureOf } from '../../devices/cpu-architecture.ts';
import { maxRamBytes, type RamBlock } from '../../vm/ram-block.ts';
import { paintDevice, type StatedDevice, stateDevices } from './memory-devices.ts';
import { MemoryMap } from './memory-map.ts';
import { pciPrefix } from './pc-chipset.ts';
import type { Assumption, LayoutFacts, LayoutOptions, PhysicalLayout } from './physical-layout.ts';
import { findStated } from './ram-blocks.ts';

interface Board {
  name: string;
  machine: RegExp;
  architecture: Architecture;
  /** Guest-physical address of the first byte of RAM. */
  base: number;
  /** What QEMU names the RAM unless a memory backend has a name of its own. */
  ram: string;
}

const boards: readonly Board[] = [
  { name: 'virt', machine: /^virt(-|$)/, architecture: 'arm', base: 0x4000_0000, ram: 'mach-virt.ram' },
  { name: 'sbsa-ref', machine: /^sbsa-ref$/, architecture: 'arm', base: 0x100_0000_0000, ram: 'sbsa-ref.ram' },
  { name: 'virt', machine: /^virt(-|$)/, architecture: 'riscv', base: 0x8000_0000, ram: 'riscv_virt_board.ram' },
  { name: 'spike', machine: /^spike$/, architecture: 'riscv', base: 0x8000_0000, ram: 'riscv.spike.ram' },
  { name: 'sifive_u', machine: /^sifive_u$/, architecture: 'riscv', base: 0x8000_0000, ram: 'riscv.sifive.u.ram' },
  { name: 's390-ccw-virtio', machine: /^s390-ccw-virtio/, architecture: 's390x', base: 0, ram: 's390.ram' },
  { name: 'pseries', machine: /^pseries(-|$)/, architecture: 'ppc', base: 0, ram: 'ppc_spapr.ram' },
  { name: 'powernv', machine: /^powernv/, architecture: 'ppc', base: 0, ram: 'pnv.ram' },
];

/** Blocks that QEMU creates for a board besides its RAM. */
const boardBlock = /^(\/rom@.*|.*\.(flash\d*|rom|mrom|sram|secure-ram)|.*-(memory|sram))$/;

/**
 * Lays out the memory of a board. If the machine is unknown, only what the options place has an address.
 * @throws RangeError for an unknown machine of which nothing is placed, for RAM that cannot be told from other blocks, and for
 *   impossible options
 */
export function layOutBoard(facts: LayoutFacts, options: LayoutOptions): PhysicalLayout {
  const { machine, blocks } = facts;
  const board = findBoard(facts);
  if (board === undefined && options.dimms === undefined) {
    const known = `pc, q35, ${[...new Set(boards.map(({ name }) => name))].join(', ')}`;
    const got = machine ?? 'a file that does not name its machine';
    throw new RangeError(`expected a machine whose guest-physical layout is known (${known}), got ${got}`);
  }
  const assumed: Assumption[] = [];
  const ram = board === undefined ? [] : chooseBoardRam(board, blocks, options, assumed);
  const ramBytes = ram.reduce((sum, { usedLength }) => sum + usedLength, 0);
  if (ramBytes > maxRamBytes) throw new RangeError(`expected at most ${maxRamBytes} bytes of RAM, got ${ramBytes}`);
  const map = new MemoryMap();
  const base = board?.base ?? 0;
  let at = base;
  for (const block of ram) {
    map.paint({ start: at, length: block.usedLength, block, offset: 0 });
    at += block.usedLength;
  }
  const free = blocks.filter((block) => !ram.includes(block));
  const memoryDevices = stateDevices(free, [], options);
  for (const device of memoryDevices) paintDevice(map, device);
  const placed = new Set([...ram, ...memoryDevices.map(({ block }) => block)]);
  const ends = map.ranges.map(({ start, length }) => start + length);
  return {
    ramBytes,
    memoryDevices,
    ramEnd: Math.max(0, ...ends),
    ranges: map.ranges,
    unplaced: blocks
      .filter((block) => !placed.has(block) && isBoardBackend(block))
      .map((block) => ({ block, reason: 'the address of a memory device is not in the file' })),
    leftOut: [],
    ...{ assumed, notes: assumed.map(({ text }) => text) },
  };
}

function findBoard({ machine, devices, blocks }: LayoutFacts): Board | undefined {
  if (machine === undefined) return undefined;
  const architecture = architectureOf(devices);
  return boards.find(
    (board) =>
      board.machine.test(machine) &&
      (board.architecture === architecture ||
        (architecture === undefined && blocks.some(({ idstr }) => idstr === board.ram))),
  );
}

const isBoardBackend = ({ idstr, usedLength }: RamBlock): boolean =>
  usedLength > 0 && !boardBlock.test(idstr) && pciPrefix(idstr) === undefined;

/** The blocks of RAM in the order of their addresses. @throws RangeError */
function chooseBoardRam(
  { ram: name }: Board,
  blocks: readonly RamBlock[],
  { ram: stated, dimms = [] }: LayoutOptions,
  assumed: Assumption[],
): RamBlock[] {
  const backends = blocks.filter(isBoardBackend);
  if (stated !== undefined && stated.length > 0) return findStated(backends, stated);
  const named = backends.find(({ idstr }) => idstr === name);
  if (named !== undefined) return [named];
  const left = backends.filter(({ idstr }) => !isStated(dimms, idstr));
  if (left.length === 0) throw new RangeError("expected to find the machine's RAM: there is no block for it");
  if (left.length > 1) {
    const all = left.map(({ idstr }) => idstr);
    const text = `the order of ${all.join(', ')} is not in the file: assumed to be the order in which they were created`;
    assumed.push({ what: 'ram-order', blocks: all, option: 'ram', text });
  }
  return left;
}

const isStated = (dimms: readonly StatedDevice[], idstr: string): boolean => dimms.some(({ block }) => block === idstr);
