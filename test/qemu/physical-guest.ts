/**
 * Drives our BIOS in guest/physical.S: a stopped machine whose CPUs all have different registers and whose RAM is
 * marked, and the changes that a test may make to its chipset through the monitor.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Guest, guestSerial } from './guest.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { waitForFile, waitUntil } from './wait-until.ts';

export interface PhysicalMachine {
  version: QemuVersion;
  /** With its properties, such as `q35,max-ram-below-4g=64M`. */
  machine: string;
  /** In the form that `-m` takes. */
  ram: string;
  isLong?: boolean;
  cpus?: number;
  args?: readonly string[];
  /** Without a guest: the machine never runs, and has QEMU's firmware. */
  neverRuns?: boolean;
  /** Changes the machine before its guest runs. */
  prepare?: (qemu: Qemu) => Promise<void>;
}

/** Offset of its parameters in the image. */
const parameters = 0xffe0;

function writeImage(dir: string, { isLong = false, cpus = 1 }: PhysicalMachine): string {
  const image = readFileSync(new URL('./guest/physical.bin', import.meta.url));
  image[parameters] = isLong ? 1 : 0;
  image[parameters + 1] = cpus - 1;
  const path = join(dir, 'bios.bin');
  writeFileSync(path, image);
  return path;
}

/** Starts the machine; its guest marks RAM, sets registers and halts. Then stops the machine. */
export async function startPhysical(machine: PhysicalMachine): Promise<Qemu> {
  const { version, cpus = 1, neverRuns = false } = machine;
  const dir = Qemu.makeDir();
  const args = ['-accel', 'tcg', '-nodefaults', '-no-user-config', '-vga', 'none', '-S', '-M', machine.machine];
  args.push('-m', machine.ram, '-smp', String(cpus));
  if (!neverRuns) args.push('-bios', writeImage(dir, machine), ...guestSerial(dir));
  const qemu = await Qemu.start({ version, args: [...args, ...(machine.args ?? [])], dir });
  if (neverRuns) return qemu;
  try {
    await machine.prepare?.(qemu);
    const guest = await Guest.boot(qemu);
    guest.close();
    const halted = async () => ((await qemu.hmp('info registers -a')).match(/HLT=1/g)?.length ?? 0) === cpus;
    await waitUntil(`${cpus} CPUs halt`, halted);
    await qemu.execute('stop');
    return qemu;
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  }
}

/** The word at a marked address. */
export function markAt(address: number): bigint {
  return BigInt(address) ^ 0x5af35af3n;
}

/** rax to r15 of a CPU halted in long mode. */
export function longRegisters(cpu: number): Record<string, bigint> {
  const top = {
    ...{ rax: 0xa0, rbx: 0xb0, rcx: 0xc0, rdx: 0xd0, rsi: 0x51, rdi: 0xd1, rbp: 0xbb, rsp: 0x55 },
    ...{ r8: 0x08, r9: 0x09, r10: 0x10, r11: 0x11, r12: 0x12, r13: 0x13, r14: 0x14, r15: 0 },
  };
  const each = 0x0101010101010101n * BigInt(cpu);
  return Object.fromEntries(Object.entries(top).map(([name, byte]) => [name, (BigInt(byte) << 56n) + each]));
}

/** Writes a byte, word or long of the configuration space of PCI function 0 of a device on bus 0. */
export async function setConfig(qemu: Qemu, device: number, register: number, value: number, size = 1): Promise<void> {
  const address = 0x80000000 + device * 0x800 + (register & 0xfc);
  await qemu.hmp(`o /w 0xcf8 0x${address.toString(16)}`);
  const letter = { 1: 'b', 2: 'h', 4: 'w' }[size];
  await qemu.hmp(`o /${letter} 0x${(0xcfc + (register & 3)).toString(16)} 0x${value.toString(16)}`);
}

/** Puts the VGA, PCI device `device`, at 0xfd000000, in chain-4 mode with 64 KiB of window, bank 1. */
export async function linearVga(qemu: Qemu, device: number): Promise<void> {
  await setConfig(qemu, device, 0x10, 0xfd000000, 4);
  await setConfig(qemu, device, 0x04, 0x07, 2);
  for (const [port, index, value] of [
    [0x3c4, 2, 0x0f],
    [0x3c4, 4, 0x0e],
    [0x3ce, 6, 0x05],
  ] as const) {
    await qemu.hmp(`o /b ${port} ${index}`);
    await qemu.hmp(`o /b ${port + 1} ${value}`);
  }
  // Linear access through the bank is a mode of the display interface: enabled, then the bank.
  for (const [index, value] of [
    [4, 0x41],
    [5, 1],
  ] as const) {
    await qemu.hmp(`o /h 0x1ce ${index}`);
    await qemu.hmp(`o /h 0x1cf ${value}`);
  }
}

/** Saves the stopped machine as a stream. */
export async function save(qemu: Qemu): Promise<string> {
  const path = join(qemu.dir, 'saved');
  await qemu.setParameters({ 'max-bandwidth': 0 });
  const uri = `exec:cat > '${path}.part' && mv '${path}.part' '${path}'`;
  await qemu.migrate(uri);
  await waitForFile(path);
  return path;
}

/** The file that `dump-guest-memory` writes. */
export async function dumpMemory(qemu: Qemu): Promise<string> {
  const path = join(qemu.dir, 'dumped');
  await qemu.execute('dump-guest-memory', { paging: false, protocol: `file:${path}` });
  return path;
}

/** The bytes that the CPU sees at these addresses. */
export async function readPhysical(qemu: Qemu, address: number, length: number): Promise<Buffer> {
  const path = join(qemu.dir, 'pmem');
  await qemu.execute('pmemsave', { val: address, size: length, filename: path });
  return readFileSync(path);
}

/** RAM, ROM and flash in the CPU's address space, by `info mtree -f`. */
export async function readMap(qemu: Qemu): Promise<{ start: number; length: number; name: string; offset: number }[]> {
  const views = (await qemu.hmp('info mtree -f')).split('FlatView #');
  const view = views.find((each) => each.includes('AS "memory"')) ?? '';
  const line =
    /^ {2}([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:ram|rom|romd|nv-ram)\): (\S+)(?: @([0-9a-f]{16}))?/gm;
  return [...view.matchAll(line)].map(([, first = '', last = '', name = '', offset = '0']) => ({
    start: parseInt(first, 16),
    length: parseInt(last, 16) + 1 - parseInt(first, 16),
    name,
    offset: parseInt(offset, 16),
  }));
}
