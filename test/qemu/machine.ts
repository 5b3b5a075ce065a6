/**
 * The machines of the captures. Source and destination of one capture get the same description.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, copyFileSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Guest, guestPage, guestSerial, type PageRange, writeBios, writeBootDisk } from './guest.ts';
import { Qemu, type QemuTarget, type QemuVersion } from './qemu.ts';
import { truthArgs } from './truth.ts';

/**
 * none     no machine at all: one RAM block `ram`, filled through its backing file
 * bare     a pc with our own BIOS and nothing else, so that its RAM contains no other firmware
 * pc, q35  with ordinary firmware and many devices; our guest boots from a disk
 * board    a machine of another target, named by `type`, that does not run: its firmware, if required (`firmware`), is
 * 64 KiB
 *          of zeros, and its RAM has random bytes from `loadAt` on
 */
export type MachineKind = 'none' | 'bare' | 'pc' | 'q35' | 'board';

export type Machine = {
  version: QemuVersion;
  machine: MachineKind;
  /** For `none` and `board`; default x86_64. */
  target?: QemuTarget;
  firmware?: boolean;
  /** Guest address of the random bytes in a board's RAM. */
  loadAt?: number;
  /** Default 8 (none), 2 (bare), 32 (pc, q35). */
  ramMiB?: number;
  /** Replaces the newest machine type, e.g. `pc-i440fx-2.12`. */
  type?: string;
  /** Machine properties, e.g. `suppress-vmdesc=on`. */
  properties?: readonly string[];
  /** Further arguments, after all others. */
  args?: readonly string[];
  /** Files that are copied to the directory in which QEMU runs, by their names there. */
  files?: Readonly<Record<string, string>>;
};

export const MiB = 1 << 20;
export const PAGE = 4096;

const defaultRam: Record<MachineKind, number> = { none: 8, bare: 2, pc: 32, q35: 32, board: 32 };
const ramMiBOf = (machine: Machine): number => machine.ramMiB ?? defaultRam[machine.machine];

/** The pages that tests may write: above 1 MiB, and below the last MiB, where firmware keeps virtio rings. */
export function pagesOfOurs(machine: Machine): PageRange {
  const pages = (ramMiBOf(machine) * MiB) / PAGE;
  if (machine.machine === 'none') return { first: 0, count: pages };
  return { first: 256, count: pages - (machine.machine === 'bare' ? 256 : 512) };
}

const devices: readonly string[] = [
  'VGA',
  'virtio-net-pci',
  'e1000e',
  'virtio-blk-pci,drive=null0',
  'virtio-scsi-pci,id=scsi',
  'scsi-hd,bus=scsi.0,drive=null1',
  'virtio-serial-pci',
  'virtserialport,chardev=nowhere',
  'virtio-rng-pci',
  'virtio-balloon-pci',
  'qemu-xhci,id=xhci',
  'usb-tablet,bus=xhci.0',
  'pvpanic',
];

/** QEMU's arguments for the machine. Writes the images it needs to `dir`. */
function machineArgs(machine: Machine, dir: string): string[] {
  const ram = ramMiBOf(machine);
  const { machine: kind, properties = [], version } = machine;
  const type = [machine.type ?? (kind === 'bare' ? 'pc' : kind), ...properties];
  for (const [name, path] of Object.entries(machine.files ?? {})) copyFileSync(path, join(dir, name));
  const args = ['-accel', 'tcg', '-nodefaults', '-no-user-config', '-m', String(ram)];
  if (kind !== 'board') args.push('-vga', 'none');
  if (kind === 'none') {
    const path = join(dir, 'ram');
    const file = openSync(path, 'w');
    ftruncateSync(file, ram * MiB);
    closeSync(file);
    args.push('-object', `memory-backend-file,id=ram,mem-path=${path},size=${ram}M,share=on`);
    args.push('-M', [...type, 'memory-backend=ram'].join());
  } else if (kind === 'board') {
    const image = join(dir, 'image');
    writeFileSync(image, randomBytes(300_000));
    args.push('-M', type.join(), '-device', `loader,file=${image},addr=${machine.loadAt ?? MiB},force-raw=on`);
    if (machine.firmware === true) {
      writeFileSync(join(dir, 'firmware'), new Uint8Array(65536));
      args.push('-bios', join(dir, 'firmware'));
    }
  } else if (kind === 'bare') {
    args.push('-M', [...type, 'acpi=off'].join(), '-bios', writeBios(dir), ...guestSerial(dir));
  } else {
    args.push('-M', type.join(), ...guestSerial(dir), '-chardev', 'null,id=nowhere');
    args.push('-blockdev', `raw,node-name=boot,file.driver=file,file.filename=${writeBootDisk(dir)}`);
    args.push('-device', 'ide-hd,bus=ide.0,drive=boot,bootindex=0');
    for (const node of ['null0', 'null1']) {
      args.push('-blockdev', `null-co,node-name=${node},size=16777216,read-zeroes=on`);
    }
    for (const device of devices) args.push('-device', device);
  }
  return [...args, ...truthArgs(version), ...(machine.args ?? [])];
}

/** A running machine whose guest waits for commands; `none` has no guest. */
export type Running = { qemu: Qemu; guest?: Guest; args: readonly string[] };

/** Starts the machine; boots its guest, which then waits. */
export async function startMachine(machine: Machine): Promise<Running> {
  const dir = Qemu.makeDir();
  const args = machineArgs(machine, dir);
  const { version, target } = machine;
  if (machine.machine === 'none') return { qemu: await Qemu.start({ version, target, args, dir }), args };
  if (machine.machine === 'board')
    return { qemu: await Qemu.start({ version, target, args: [...args, '-S'], dir }), args };
  const qemu = await Qemu.start({ version: machine.version, args: [...args, '-S'], dir });
  try {
    return { qemu, guest: await Guest.boot(qemu), args };
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  }
}

/** Starts the machine as a destination that waits for `migrate-incoming`, and then stays paused or runs. */
export async function startDestination(machine: Machine, runs = false): Promise<Qemu> {
  const dir = Qemu.makeDir();
  const args = [...machineArgs(machine, dir), '-incoming', 'defer', ...(runs ? [] : ['-S'])];
  return Qemu.start({ version: machine.version, target: machine.target, args, dir });
}

/** Fills our pages with stripes of 16 zero, same-byte, text and pseudo-random pages; a board is already filled. */
export async function fillStripes({ qemu, guest, args }: Running, ours: PageRange, seed = 7): Promise<void> {
  if (args.some((arg) => arg.startsWith('loader,'))) return;
  if (guest) return guest.fill(ours, 'stripes', seed);
  for (let page = ours.first; page < ours.first + ours.count; page++) {
    if ((page >> 4) & 3) writePage(qemu, page, guestPage('stripes', page, seed));
  }
}

/** Writes a page of a machine `none`, whose RAM is a file. */
export function writePage(qemu: Qemu, page: number, bytes: Uint8Array): void {
  const file = openSync(join(qemu.dir, 'ram'), 'r+');
  try {
    writeSync(file, bytes, 0, bytes.length, page * PAGE);
  } finally {
    closeSync(file);
  }
}
