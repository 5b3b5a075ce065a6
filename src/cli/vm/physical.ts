/** Guest-physical memory of the VM: for the monitor, and into a file (`pmemsave`). What is not RAM reads as zeros, as in QEMU. */
import { type FileHandle, open } from 'node:fs/promises';
import { requireNoGuest } from '../../io/node/file-lock.ts';
import { localError } from '../../io/node/system-text.ts';
import type { MachineGuest } from '../../migrate/machine.ts';
import type { PhysicalMemory } from '../../qmp/machine/human-monitor.ts';
import { decodeDevices } from '../../store/devices.ts';
import type { PhysicalRange } from '../../tasks/extract/memory-map.ts';
import { layOutPhysical } from '../../tasks/extract/physical-layout.ts';
import type { SavedVm } from '../../vm/saved-vm.ts';

const pieceBytes = 1 << 20;

/** @throws Error with QEMU's text if the file cannot be written */
export async function saveMemory(guest: MachineGuest, address: bigint, size: bigint, filename: string): Promise<void> {
  let file: FileHandle;
  requireNoGuest(filename);
  try {
    file = await open(filename, 'w');
  } catch (error) {
    throw localError(`Could not open '${filename}'`, error);
  }
  try {
    const memory = await physicalMemory(guest);
    for (let at = address; at < address + size; at += BigInt(pieceBytes)) {
      const left = address + size - at;
      const piece = new Uint8Array(left < pieceBytes ? Number(left) : pieceBytes);
      if (at < 2n ** 53n - BigInt(pieceBytes)) await memory.read(Number(at), piece);
      await file.writeFile(piece);
    }
  } finally {
    await file.close();
  }
}

/** Where RAM is now, and what is in it. */
export async function physicalMemory(guest: MachineGuest): Promise<PhysicalMemory> {
  await guest.look?.();
  const ranges = await rangesOf(guest);
  return {
    ranges: ranges.map(({ block, start, length }) => ({ name: block.idstr, start, length })),
    read: (at, piece) => readAt(guest, ranges, at, piece),
  };
}

/** Where RAM is. A machine without a known layout has its largest block at address 0. */
async function rangesOf(guest: MachineGuest): Promise<readonly PhysicalRange[]> {
  const { blocks } = guest.ram;
  const saved = await guest.saveDevices();
  try {
    const devices = decodeDevices(saved as Pick<SavedVm, 'devices' | 'description'>);
    return layOutPhysical({ machine: guest.configuration?.machine, blocks, devices }).ranges;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const [main] = [...blocks].sort((a, b) => b.usedLength - a.usedLength);
    return main === undefined ? [] : [{ block: main, start: 0, offset: 0, length: main.usedLength }];
  }
}

async function readAt(
  guest: MachineGuest,
  ranges: readonly PhysicalRange[],
  at: number,
  piece: Uint8Array,
): Promise<void> {
  for (const { block, start, offset, length } of ranges) {
    const [from, end] = [Math.max(at, start), Math.min(at + piece.length, start + length)];
    if (from >= end) continue;
    const first = Math.floor((offset + from - start) / block.pageSize);
    const last = Math.ceil((offset + end - start) / block.pageSize);
    const pages = new Uint8Array((last - first) * block.pageSize);
    await guest.ram.read(block, first, pages);
    const skip = offset + from - start - first * block.pageSize;
    piece.set(pages.subarray(skip, skip + end - from), from - at);
  }
}
