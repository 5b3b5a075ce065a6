/**
 * Compares guest-physical memory with real QEMU: the core file equals `dump-guest-memory`'s byte for byte, the image
 * equals what `pmemsave` reads. The essential part runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { execFile } from 'node:child_process';
import { createReadStream, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { equalFiles } from './expect-read.ts';
import { startMachine } from './machine.ts';
import {
  dumpMemory,
  linearVga,
  longRegisters,
  markAt,
  type PhysicalMachine,
  readMap,
  readPhysical,
  save,
  setConfig,
  startPhysical,
} from './physical-guest.ts';
import type { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitUntil } from './wait-until.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const isFull = process.env.VMFERRY_QEMU === 'full';

interface Range {
  start: number;
  length: number;
  block: string;
  offset: number;
}

interface Report {
  length: number;
  below4g: number;
  splitFrom: string;
  ramEnd: number;
  ranges: Range[];
  unplaced: { block: string }[];
  notes: string[];
}

async function extract(saved: string, out: string, ...args: string[]): Promise<Report> {
  const { code, stdout, stderr } = await runCli(['extract', saved, '-o', out, '--json', ...args]);
  expect(`${stderr}`.replace(/^vmferry: warning: .*\n/gm, '')).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout);
}

/** Bytes of a file that may exceed memory. */
function bytesAt(path: string, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  expect(readSync(openSync(path, 'r'), bytes, 0, length, position)).toBe(length);
  return bytes;
}

/** The image equals what the CPU sees in these ranges, each `[address, length]`. */
async function expectSeen(qemu: Qemu, image: string, ranges: readonly (readonly [number, number])[]): Promise<void> {
  for (const [address, length] of ranges) {
    const seen = await readPhysical(qemu, address, length);
    const differs = bytesAt(image, address, length).findIndex((byte, i) => byte !== seen[i]);
    expect(differs, `first difference from 0x${address.toString(16)} on`).toBe(-1);
  }
}

/** The core equals the dump of the machine, byte for byte. */
async function expectSameCore(qemu: Qemu, saved: string, dumped: string, ...args: string[]): Promise<string> {
  const core = join(qemu.dir, 'core');
  await extract(saved, core, '--elf', ...args);
  expect(statSync(core).size).toBe(statSync(dumped).size);
  expect(await equalFiles(core, dumped), "the core is QEMU's").toBe(true);
  return core;
}

interface Case extends PhysicalMachine {
  name: string;
  /** Changes the stopped machine. */
  change?: (qemu: Qemu) => Promise<void>;
  args?: string[];
  /** Options for extract. */
  options?: string[];
  /** The parts of the image that must equal pmemsave's. */
  seen: readonly (readonly [number, number])[];
  check?: (report: Report) => void;
  essential?: boolean;
}

const low = (bytes: number) => [0, bytes] as const;
const high = (bytes: number) => [4 * GiB, bytes] as const;
const vga = ['-device', 'VGA,vgamem_mb=2,addr=2'];
/** One of each kind: RAM, read-only RAM, write-only RAM, ROM. */
const mixedPam = [0x10, 0x01, 0x20, 0x30, 0x03, 0x00, 0x13];
const setPam = async (qemu: Qemu, first: number) => {
  for (const [i, value] of mixedPam.entries()) await setConfig(qemu, 0, first + i, value);
};

const cases: Case[] = [
  {
    name: 'pc, protected mode, no VGA: RAM also at 0xa0000',
    ...{ version: '7.2', machine: 'pc', ram: '32M', cpus: 3, essential: true },
    seen: [low(32 * MiB)],
    check: ({ ramEnd, below4g }) => expect([ramEnd, below4g]).toEqual([32 * MiB, 32 * MiB]),
  },
  {
    name: 'pc with less RAM than 16 MiB',
    ...{ version: '10.0', machine: 'pc', ram: '4M' },
    seen: [low(4 * MiB)],
    check: ({ splitFrom }) => expect(splitFrom).toBe('cmos'),
  },
  {
    name: 'q35, long mode, RAM on both sides of the hole, a linear VGA, mixed PAM registers',
    ...{
      version: '10.0',
      machine: 'q35,max-ram-below-4g=64M',
      ram: '96M',
      isLong: true,
      cpus: 3,
      args: vga,
      essential: true,
    },
    prepare: (qemu) => linearVga(qemu, 2),
    change: (qemu) => setPam(qemu, 0x90),
    seen: [low(0xb0000), [0xc0000, 64 * MiB - 0xc0000], high(32 * MiB), [0xfd000000, 2 * MiB], [0xffff0000, 0x10000]],
    check: ({ splitFrom, below4g, ramEnd }) => {
      expect([splitFrom, below4g, ramEnd]).toEqual(['cmos', 64 * MiB, 4 * GiB + 32 * MiB]);
    },
  },
  {
    name: 'pc, long mode, RAM on both sides of the hole, a linear VGA, mixed PAM registers',
    ...{ version: '7.2', machine: 'pc,max-ram-below-4g=48M', ram: '64M', isLong: true, cpus: 2, args: vga },
    prepare: (qemu) => linearVga(qemu, 2),
    change: (qemu) => setPam(qemu, 0x59),
    seen: [low(0xb0000), [0xc0000, 48 * MiB - 0xc0000], high(16 * MiB), [0xfd000000, 2 * MiB]],
  },
  {
    name: 'pc, SMRAM open over the VGA',
    ...{ version: '10.0', machine: 'pc', ram: '32M', args: vga },
    change: (qemu) => setConfig(qemu, 0, 0x72, 0x4a),
    seen: [low(32 * MiB)],
  },
  {
    name: 'q35 with a TSEG',
    ...{ version: '7.2', machine: 'q35', ram: '64M', isLong: true },
    change: async (qemu) => {
      await setConfig(qemu, 0, 0x9e, 0x03);
      await setConfig(qemu, 0, 0x9d, 0x0a);
    },
    seen: [low(62 * MiB)],
    check: ({ ranges }) => expect(ranges.some(({ start, length }) => start + length === 62 * MiB)).toBe(true),
  },
  {
    name: 'two NUMA nodes of different sizes, in the order of the ACPI tables',
    ...{ version: '10.0', machine: 'pc,max-ram-below-4g=40M', ram: '64M', isLong: true, essential: true },
    args: [
      ...['-object', 'memory-backend-ram,id=small,size=16M', '-object', 'memory-backend-ram,id=large,size=48M'],
      ...['-numa', 'node,memdev=small', '-numa', 'node,memdev=large'],
    ],
    seen: [low(40 * MiB), high(24 * MiB)],
    check: ({ ranges, notes }) => {
      expect(ranges.filter(({ start }) => (start >= MiB && start < 0xf0000000) || start === 4 * GiB)).toEqual([
        { start: MiB, length: 15 * MiB, block: 'small', offset: MiB },
        { start: 16 * MiB, length: 24 * MiB, block: 'large', offset: 0 },
        { start: 4 * GiB, length: 24 * MiB, block: 'large', offset: 24 * MiB },
      ]);
      expect(notes).toEqual([]);
    },
  },
  {
    name: 'two NUMA nodes of one size, with the order given',
    ...{ version: '7.2', machine: 'q35', ram: '64M', options: ['--ram', 'b', '--ram', 'a'] },
    args: [
      ...['-object', 'memory-backend-ram,id=a,size=32M', '-object', 'memory-backend-ram,id=b,size=32M'],
      ...['-numa', 'node,memdev=b', '-numa', 'node,memdev=a'],
    ],
    seen: [low(64 * MiB)],
  },
  {
    name: "a DIMM at QEMU's default address",
    ...{ version: '7.2', machine: 'pc', ram: '32M,slots=2,maxmem=1G', essential: true },
    args: ['-object', 'memory-backend-ram,id=mem,size=16M', '-device', 'pc-dimm,id=dimm,memdev=mem'],
    change: async (qemu) => {
      expect(await qemu.hmp('info memory-devices')).toContain('addr: 0x100000000');
    },
    seen: [low(32 * MiB), high(16 * MiB)],
    check: ({ unplaced, ramEnd }) => expect([unplaced, ramEnd]).toEqual([[], 4 * GiB + 16 * MiB]),
  },
  {
    name: 'a DIMM at a given address',
    ...{ version: '7.2', machine: 'pc', ram: '32M,slots=2,maxmem=1G', options: ['--dimm', 'mem@0x110000000'] },
    args: ['-object', 'memory-backend-ram,id=mem,size=16M', '-device', 'pc-dimm,id=dimm,memdev=mem,addr=0x110000000'],
    change: async (qemu) => {
      expect(await qemu.hmp('info memory-devices')).toContain('addr: 0x110000000');
    },
    seen: [low(32 * MiB), [0x110000000, 16 * MiB] as const],
    check: ({ unplaced, ramEnd }) => expect([unplaced, ramEnd]).toEqual([[], 0x110000000 + 16 * MiB]),
  },
];

describe.skipIf(lacksQemu('7.2', '10.0'))('guest-physical memory', () => {
  test.each(cases.filter(({ essential }) => isFull || essential))('$name', async (options) => {
    await using qemu = await startPhysical(options);
    await options.change?.(qemu);
    const dumped = await dumpMemory(qemu);
    const saved = await save(qemu);
    const image = join(qemu.dir, 'image');
    const report = await extract(saved, image, '--physical', ...(options.options ?? []));
    expect(statSync(image).size).toBe(report.ramEnd);
    options.check?.(report);
    await expectSeen(qemu, image, options.seen);
    // The guest's writes to the window went to the second 64 KiB of video memory.
    if (options.prepare) expect(bytesAt(image, 0xa1234, 4).readUInt32LE()).toBe(0xa1234);
    const core = await expectSameCore(qemu, saved, dumped, ...(options.options ?? []));
    if (options.isLong === true) await expectDebuggable(core, options.cpus ?? 1);
  });

  const big: [PhysicalMachine['version'], string, string][] = [
    ['10.0', 'pc', '3584M'],
    ['7.2', 'q35', '2816M'],
    ['10.0', 'pc', '3583M'],
    ['7.2', 'q35', '2815M'],
    ['7.2', 'pc', '5G'],
    ['10.0', 'q35', '5G'],
    ['7.2', 'pc-i440fx-2.1', '5G'],
    ['10.0', 'pc,max-ram-below-4g=1G', '4G'],
    ['7.2', 'q35,max-ram-below-4g=3G', '4G'],
  ];
  test.each(isFull ? big : big.slice(0, 1))(
    'the ranges of %s, %s with %s match its memory tree',
    async (version, machine, ram) => {
      await using qemu = await startPhysical({ version, machine, ram, neverRuns: true });
      const map = await readMap(qemu);
      const report = await extract(await save(qemu), join(qemu.dir, 'image'), '--physical');
      const end = report.ramEnd;
      expect(report.ranges.map(({ start, length, block, offset }) => ({ start, length, name: block, offset }))).toEqual(
        map.filter(({ start }) => start < end),
      );
    },
  );

  test.each(['7.2', '10.0'] as const)('an ordinary guest with many devices, also through pipes %s', async (version) => {
    const { qemu: started, guest } = await startMachine({ version, machine: version === '7.2' ? 'pc' : 'q35' });
    await using qemu = started;
    await guest?.fill({ first: 256, count: 1000 }, 'stripes', 3);
    guest?.close();
    await qemu.execute('stop');
    const dumped = await dumpMemory(qemu);
    const saved = await save(qemu);
    await expectSameCore(qemu, saved, dumped);
    const image = join(qemu.dir, 'image');
    const { ramEnd } = await extract(saved, image, '--physical');
    await expectSeen(qemu, image, [low(0xa0000), [0xc0000, ramEnd - 0xc0000]]);
    const piped = await runCli(['extract', '-', '--physical', '-o', '-'], createReadStream(saved));
    expect(piped.bytes.equals(bytesAt(image, 0, ramEnd))).toBe(true);
  });

  const displays = ['cirrus-vga', 'virtio-vga', 'vmware-svga', 'bochs-display', 'secondary-vga'];
  test.each(isFull ? displays : [])('the memory of a %s, where firmware places it', async (device) => {
    for (const version of ['7.2', '10.0'] as const) {
      const args = ['-device', device];
      await using qemu = await startPhysical({ version, machine: 'pc', ram: '32M', args, neverRuns: true });
      await qemu.execute('cont');
      const isPlaced = async () =>
        (await readMap(qemu)).some(({ start, name }) => start < 0xfffc0000 && /vram/.test(name));
      await waitUntil(`firmware places the memory of ${device}`, isPlaced);
      await qemu.execute('stop');
      expect(await isPlaced()).toBe(true);
      const dumped = await dumpMemory(qemu);
      await expectSameCore(qemu, await save(qemu), dumped);
    }
  });

  test('machines with an unsupported layout are refused, and nothing is written', async () => {
    for (const machine of ['isapc', 'none', 'microvm']) {
      await using qemu = await startPhysical({ version: '10.0', machine, ram: '8M', neverRuns: true });
      const out = join(qemu.dir, 'image');
      const { code, stderr } = await runCli(['extract', await save(qemu), '--physical', '-o', out]);
      expect(stderr).toMatch(/^vmferry: error: expected a machine whose guest-physical layout is known \(.*\), got /);
      expect(code).toBe(2);
      expect(statSync(out, { throwIfNoEntry: false })).toBeUndefined();
    }
  });
});

const run = promisify(execFile);

/**
 * gdb reads each CPU's registers, and the marks in RAM. Without gdb this prints that it skips, or fails if all is
 * required.
 */
async function expectDebuggable(core: string, cpus: number): Promise<void> {
  const marks = [0x1000000];
  const commands = Array.from({ length: cpus }, (_, i) => [`thread ${i + 1}`, 'info registers']).flat();
  const words = marks.map((address) => `x/gx ${address}`);
  const args = [`core-file ${core}`, ...commands, ...words].flatMap((command) => ['-ex', command]);
  const found = await run('gdb', ['-batch', '-nx', ...args]).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' || process.env.VMFERRY_REQUIRE_QEMU === '1') throw error;
    console.warn('skipped: gdb is not installed: opened no core file with it');
  });
  if (found === undefined) return;
  const values = [...found.stdout.matchAll(/^(r[a-z0-9]{1,2}) +(0x[0-9a-f]+)/gm)];
  const got = Array.from({ length: cpus }, () => ({}) as Record<string, bigint>);
  const starts = values.flatMap(([, name], i) => (name === 'rax' ? [i] : []));
  for (const [i, [, name = '', value = '']] of values.entries()) {
    const cpu = starts.filter((start) => start <= i).length - 1;
    if (name !== 'rip') (got[cpu] as Record<string, bigint>)[name] = BigInt(value);
  }
  expect(got).toEqual(Array.from({ length: cpus }, (_, cpu) => longRegisters(cpu)));
  for (const address of marks) {
    const word = markAt(address).toString(16).padStart(16, '0');
    expect(found.stdout).toContain(`0x${address.toString(16)}:\t0x${word}`);
  }
}
