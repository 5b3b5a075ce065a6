/**
 * Core files of machines that are no PC, and the note that a guest leaves for its dumps, compared byte for byte with
 * `dump-guest-memory` of the same stopped machine. Its registers are set through the gdb stub.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { equalFiles } from './expect-read.ts';
import { GdbStub, type RegisterRange } from './gdb-stub.ts';
import { dumpMemory, save, startPhysical } from './physical-guest.ts';
import { findQemu, Qemu, type QemuTarget, type QemuVersion, qemuVersions } from './qemu.ts';
import { Qtest, qtestArgs } from './qtest.ts';
import { lacksQemu } from './require.ts';

interface Target {
  target: QemuTarget;
  machine: string;
  cpu: string;
  registers: RegisterRange[];
}

const arm64: RegisterRange[] = [
  { first: 0, count: 32, bytes: 8 },
  { first: 34, count: 32, bytes: 16 },
];
const s390x: RegisterRange[] = [
  { first: 2, count: 16, bytes: 8 },
  { first: 18, count: 16, bytes: 4 },
];
const ppc64: RegisterRange[] = [{ first: 0, count: 64, bytes: 8 }];

const targets: Target[] = [
  { target: 'aarch64', machine: 'virt', cpu: 'cortex-a57', registers: arm64 },
  { target: 'aarch64', machine: 'virt', cpu: 'max', registers: arm64 },
  { target: 'aarch64', machine: 'virt', cpu: 'cortex-a15', registers: [{ first: 0, count: 15, bytes: 4 }] },
  { target: 's390x', machine: 's390-ccw-virtio', cpu: 'max', registers: s390x },
  { target: 's390x', machine: 's390-ccw-virtio', cpu: 'qemu', registers: s390x },
  { target: 'ppc64', machine: 'pseries', cpu: 'power9', registers: ppc64 },
];

/** A machine that never ran, with registers of its own. */
async function startTarget(version: QemuVersion, { target, machine, cpu, registers }: Target): Promise<Qemu> {
  const dir = Qemu.makeDir();
  const firmware = join(dir, 'firmware');
  writeFileSync(firmware, new Uint8Array(65536));
  const args = ['-accel', 'tcg', '-nodefaults', '-no-user-config', '-M', machine, '-cpu', cpu, '-smp', '2', '-S'];
  args.push('-m', target === 'aarch64' ? '32M' : '256M', '-gdb', `unix:${join(dir, 'gdb')},server=on,wait=off`);
  if (target === 'ppc64') args.push('-bios', firmware);
  const qemu = await Qemu.start({ version, target, args, dir });
  const stub = await GdbStub.connect(join(dir, 'gdb'));
  await stub.fill(registers);
  stub.close();
  return qemu;
}

/** The core of a saved machine is the QEMU's dump. Returns what the command warned of. */
async function expectSame(qemu: Qemu, ...options: string[]): Promise<string> {
  const dumped = await dumpMemory(qemu);
  const core = join(qemu.dir, 'core');
  const { code, stderr } = await runCli(['extract', await save(qemu), '--elf', '-o', core, ...options]);
  expect(code, stderr).toBe(0);
  expect(await equalFiles(core, dumped), "the core is QEMU's").toBe(true);
  return stderr;
}

describe.skipIf(lacksQemu('7.2', '10.0'))('the core file of', () => {
  for (const version of qemuVersions) {
    for (const machine of targets) {
      const isThere = findQemu(version, machine.target) !== undefined;
      if (!isThere) console.warn(`skipped: QEMU ${version} for ${machine.target} is not installed`);
      test.skipIf(!isThere)(`${machine.machine}, ${machine.cpu}, of ${version}`, async () => {
        await using qemu = await startTarget(version, machine);
        await expectSame(qemu);
      });
    }
  }
});

/** A note as Linux makes it. */
function encodeNote(text: string, name = 'VMCOREINFO'): Buffer {
  const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(name.length + 1, 0);
  head.writeUInt32LE(text.length, 4);
  return Buffer.concat([head, padded(Buffer.from(`${name}\0`)), padded(Buffer.from(text))]);
}

/** Guest-physical addresses: a DMA request to the firmware device, what is transferred, and the note. */
const at = { request: 0x1000, data: 0x2000, note: 0x20_0000 };
/** Selectors of the firmware device: the directory of its files. */
const directory = 0x19;
const control = { read: 2, select: 8, write: 16 } as const;

const write = (qtest: Qtest, address: number, bytes: Buffer) =>
  qtest.command(`write ${address} ${bytes.length} 0x${bytes.toString('hex')}`);
const read = async (qtest: Qtest, address: number, length: number) =>
  Buffer.from((await qtest.command(`read ${address} ${length}`)).trim().slice(2), 'hex');

/** Sends a request to the firmware device, as a driver in the guest does. */
async function request(qtest: Qtest, key: number, how: number, length: number): Promise<void> {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32BE(key * 0x1_0000 + control.select + how, 0);
  bytes.writeUInt32BE(length, 4);
  bytes.writeBigUInt64BE(BigInt(at.data), 8);
  bytes.writeUInt32BE(at.request, 16);
  await write(qtest, at.request, bytes.subarray(0, 16));
  await qtest.command('outl 0x514 0');
  await qtest.command(`outl 0x518 ${bytes.readUInt32LE(16)}`);
  expect((await read(qtest, at.request, 4)).readUInt32BE()).toBe(0);
}

interface Left {
  name: string;
  note: Buffer;
  /** Guest format and size, as the guest says. */
  format?: number;
  size?: number;
  warning?: RegExp;
}

/** Starts a pc whose guest has left a note. */
async function startWithNote(version: QemuVersion, { note, format = 1, size = note.length }: Left): Promise<Qemu> {
  const args = ['-device', 'vmcoreinfo', ...qtestArgs];
  const qemu = await startPhysical({ version, machine: 'pc', ram: '8M', neverRuns: true, args });
  const qtest = Qtest.open(qemu);
  await request(qtest, directory, control.read, 0x1004);
  const files = await read(qtest, at.data, 0x1004);
  const entries = Array.from({ length: files.readUInt32BE() }, (_, i) => files.subarray(4 + 64 * i, 68 + 64 * i));
  const entry = entries.find((each) => each.toString('latin1', 8).startsWith('etc/vmcoreinfo\0'));
  const record = Buffer.alloc(16);
  record.writeUInt16LE(format, 2);
  record.writeUInt32LE(size, 4);
  record.writeBigUInt64LE(BigInt(at.note), 8);
  await write(qtest, at.data, record);
  await write(qtest, at.note, note);
  await request(qtest, entry?.readUInt16BE(4) ?? 0, control.write, record.length);
  qtest.close();
  return qemu;
}

const text = 'OSRELEASE=6.1.0-vmferry\nPAGESIZE=4096\nNUMBER(phys_base)=0\n';
const left: Left[] = [
  { name: 'a note', note: encodeNote(text) },
  { name: 'a note of another name', note: encodeNote(text, 'OURS') },
  { name: 'no note', note: encodeNote(text), format: 0 },
  { name: 'another format', note: encodeNote(text), format: 2, warning: /guest note format is unsupported: 2/ },
  { name: 'a note that is too small', note: encodeNote(text), size: 11, warning: /guest note size is invalid: 11/ },
  { name: 'a note that ends early', note: encodeNote(text), size: 40, warning: /Invalid guest note header/ },
];

describe.skipIf(lacksQemu('7.2', '10.0'))('the core file of a guest that left', () => {
  test.each(left.flatMap((each) => qemuVersions.map((version) => ({ ...each, version }))))(
    '$name, $version',
    async ({ version, ...machine }) => {
      await using qemu = await startWithNote(version, machine);
      const stderr = await expectSame(qemu);
      if (machine.warning === undefined) expect(stderr).not.toMatch(/guest note/);
      else expect(stderr).toMatch(machine.warning);
    },
  );
});
