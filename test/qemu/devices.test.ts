/**
 * Compares the state of devices with what the stopped source reports (registers, virtio queues, the run state) and with
 * another program that reads the same files (test/qemu/analyze.ts). VMFERRY_QEMU=full runs all machines.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  type DeviceState,
  findValue,
  open,
  readDevices,
  readRunState,
  readVirtioDevice,
  readX86Registers,
} from '../../src/node.ts';
import { runCli } from '../run-cli.ts';
import { analyze, asAnalyzed, hasAnalyze } from './analyze.ts';
import { type Machine, startMachine } from './machine.ts';
import { findQemu, type Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { waitForFile } from './wait-until.ts';

/** QEMU's report on one virtio queue. */
interface QueueTruth {
  'vring-num': number;
  'vring-desc': number;
  'vring-avail': number;
  'vring-used': number;
  'last-avail-idx'?: number;
}

interface Saved {
  file: string;
  devices: DeviceState[];
  registers: string;
  virtio: { id: string; queues: QueueTruth[] }[];
  dispose: () => Promise<void>;
}

const features = ['virtio-net', 'virtio-blk', 'virtio-scsi', 'virtio-console', 'virtio-rng', 'virtio-balloon'];

/** Saves a machine that runs, if it can, and asks the stopped source about itself. */
async function save(machine: Machine): Promise<Saved> {
  const { qemu, guest } = await startMachine(machine);
  try {
    const file = join(qemu.dir, 'capture');
    await qemu.setParameters({ 'max-bandwidth': 0 });
    await qemu.migrate(`exec:cat > '${file}.part' && mv '${file}.part' '${file}'`);
    await waitForFile(file);
    const registers = await qemu.hmp('info registers -a');
    const virtio = machine.machine === 'board' ? [] : await queryVirtio(qemu);
    const opened = await open(file);
    const { devices, error } = await readDevices(opened);
    await opened.close();
    expect(error).toBeUndefined();
    return { file, devices, registers, virtio, dispose: () => qemu[Symbol.asyncDispose]() };
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  } finally {
    guest?.close();
  }
}

async function queryVirtio(qemu: Qemu): Promise<Saved['virtio']> {
  const devices = await qemu.execute<{ path: string; name: string }[]>('x-query-virtio');
  const result: Saved['virtio'] = [];
  for (const { path, name } of devices) {
    const status = await qemu.execute<{ 'num-vqs': number }>('x-query-virtio-status', { path });
    const queues: QueueTruth[] = [];
    for (let queue = 0; queue < status['num-vqs']; queue++) {
      queues.push(await qemu.execute<QueueTruth>('x-query-virtio-queue-status', { path, queue }));
    }
    result.push({ id: name, queues });
  }
  return result;
}

const withoutZeros = (text = '') => BigInt(`0x${text}`);

/** One register from `info registers`: `RIP=…`, or `GDT=     base limit`. */
function registerOf(text: string, name: string): bigint {
  return withoutZeros(new RegExp(`\\b${name} ?= *([0-9a-f]+)`, 'i').exec(text)?.[1]);
}

function expectRegisters({ devices, registers }: Saved): void {
  const cpu = devices.find(({ name }) => name === 'cpu')?.state;
  const ours = cpu === undefined ? undefined : readX86Registers(cpu);
  if (ours === undefined) throw new Error('the file has no x86 CPU');
  // Without 64-bit mode the monitor omits r8 to r15 and calls rax EAX.
  for (const { name, value } of ours.general.slice(0, 8)) {
    expect([name, value & 0xffffffffn]).toEqual([name, registerOf(registers, `[re]${name.slice(1)}`)]);
  }
  expect(ours.ip).toBe(registerOf(registers, '[re]ip'));
  expect(ours.flags).toBe(registerOf(registers, '[re]fl'));
  for (const name of ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const) {
    expect([name, ours[name]]).toEqual([name, registerOf(registers, name)]);
  }
  for (const { name, selector, base, limit } of ours.segments) {
    const line = new RegExp(`^${name} *=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]{8})`, 'im').exec(registers);
    expect([name, BigInt(selector), base, BigInt(limit)]).toEqual([name, ...(line?.slice(1).map(withoutZeros) ?? [])]);
  }
  for (const { name, base, limit } of ours.tables) {
    const line = new RegExp(`^${name} *= *([0-9a-f]+) ([0-9a-f]{8})`, 'im').exec(registers);
    expect([name, base, BigInt(limit)]).toEqual([name, ...(line?.slice(1).map(withoutZeros) ?? [])]);
  }
  expect(ours.mode).toBe(/CS32/.test(registers) ? '32-bit' : /CS64/.test(registers) ? '64-bit' : ours.mode);
}

function expectQueues({ devices, virtio }: Saved): void {
  let used = 0;
  let whole = 0;
  for (const { id, queues } of virtio) {
    const device = devices.find(({ name }) => name.endsWith(`/${id === 'virtio-serial' ? 'virtio-console' : id}`));
    const ours = device?.state === undefined ? undefined : readVirtioDevice(device.state);
    // The monitor counts queues with an end, vmferry counts those sent; the numbers are equal.
    expect([id, ours?.queues.length]).toEqual([id, queues.length]);
    for (const [i, truth] of queues.entries()) {
      const queue = ours?.queues[i];
      if (truth['vring-desc'] !== 0) used++;
      expect({ id, i, size: queue?.size, desc: queue?.desc }).toEqual({
        ...{ id, i, size: truth['vring-num'] },
        desc: BigInt(truth['vring-desc']),
      });
      // Legacy devices are sent without.
      if (queue?.avail === undefined) continue;
      whole++;
      expect([queue.avail, queue.used, queue.lastAvailIndex]).toEqual([
        ...[BigInt(truth['vring-avail']), BigInt(truth['vring-used'])],
        truth['last-avail-idx'] ?? queue.lastAvailIndex,
      ]);
    }
  }
  expect(virtio.map(({ id }) => id.replace('serial', 'console')).sort()).toEqual([...features].sort());
  expect(used, 'queues that the firmware has set up').toBeGreaterThan(0);
  expect(whole, 'queues with all addresses').toBeGreaterThan(0);
}

/** Every device is read to its last byte, and almost nothing stays undecoded except what QEMU does not describe. */
function expectDecoded(devices: readonly DeviceState[], undescribed?: string): void {
  const odd = devices.filter(({ problem }) => problem !== undefined);
  expect(odd.map(({ name }) => name)).toEqual([]);
  const read = devices.filter(({ name }) => name !== undescribed);
  const sum = (of: (device: DeviceState) => number) => read.reduce((total, device) => total + of(device), 0);
  const share = sum(({ undecodedBytes }) => undecodedBytes) / sum(({ length }) => length);
  expect(share).toBeLessThan(0.01);
}

const isFull = process.env.VMFERRY_QEMU === 'full';

/** The last types that send no command, since a command ends the other program. */
const types = { pc: 'pc-i440fx-9.2', q35: 'pc-q35-9.2' };

const machines: { name: string; machine: Machine; essential?: boolean }[] = [];
for (const version of ['7.2', '10.0'] as const) {
  for (const kind of ['pc', 'q35'] as const) {
    const type = version === '10.0' ? { type: types[kind] } : {};
    const essential = (version === '7.2') === (kind === 'pc');
    machines.push({ name: `${kind} ${version}`, machine: { version, machine: kind, ...type }, essential });
  }
}

describe.skipIf(lacksQemu('7.2', '10.0'))('the state of devices of', () => {
  if (!hasAnalyze())
    console.warn('skipped: comparison with analyze-migration.py, which is missing; run bench/fetch-analyze.sh');
  test.each(machines.filter(({ essential }) => isFull || essential))(
    "$name matches the source's report",
    async ({ machine }) => {
      const saved = await save(machine);
      try {
        expectDecoded(saved.devices);
        expectRegisters(saved);
        expectQueues(saved);
        expect(readRunState(saved.devices)).toBe('running');
        const cpu = await runCli(['inspect', '--device', 'cpu', '--json', saved.file]);
        expect(cpu.stderr).toBe('');
        expect(BigInt(JSON.parse(cpu.stdout).registers.rip)).toBe(registerOf(saved.registers, '[re]ip'));
        if (!hasAnalyze()) return;
        const theirs = (await analyze(saved.file)).filter(({ name }) => name !== 'ram');
        expect(theirs.map(({ name }) => name)).toEqual(saved.devices.map(({ name }) => name));
        for (const [i, device] of saved.devices.entries()) {
          expect({ name: device.name, state: asAnalyzed(device) }).toEqual(theirs[i]);
        }
      } finally {
        await saved.dispose();
      }
    },
  );
});

const boards: { name: string; machine: Machine; undescribed?: string; counter?: [string, RegExp] }[] = [];
for (const version of ['7.2', '10.0'] as const) {
  const board = (type: string, target: NonNullable<Machine['target']>, more: Partial<Machine> = {}): Machine => ({
    ...{ version, machine: 'board', type, target },
    ...more,
  });
  boards.push(
    {
      name: `virt, aarch64 ${version}`,
      machine: board('virt', 'aarch64', {
        properties: ['acpi=off'],
        loadAt: 0x4010_0000,
        args: ['-cpu', 'cortex-a57'],
      }),
      counter: ['env.pc', /PC=([0-9a-f]+)/],
    },
    {
      name: `pseries, ppc64 ${version}`,
      machine: board('pseries', 'ppc64', { firmware: true, ramMiB: 256 }),
      counter: ['env.nip', /NIP ([0-9a-f]+)/],
    },
    {
      name: `s390-ccw-virtio, s390x ${version}`,
      machine: board('s390-ccw-virtio', 's390x'),
      // QEMU 7.2 describes its array of pointers by the first pointer, which is NULL.
      ...(version === '7.2' ? { undescribed: 's390_css' } : {}),
      counter: ['env.psw.addr', /addr ([0-9a-f]+)/],
    },
  );
}
const present = boards.filter(({ machine: { version, target } }) => findQemu(version, target) !== undefined);

describe.skipIf(!isFull || lacksQemu('7.2', '10.0'))('the state of devices of other targets:', () => {
  if (present.length < boards.length) console.warn('skipped: missing targets; run test/qemu/install.sh');
  test.each(present)('$name', async ({ machine, undescribed, counter }) => {
    const saved = await save(machine);
    try {
      expectDecoded(saved.devices, undescribed);
      const cpu = saved.devices.find(({ name }) => name === 'cpu')?.state;
      if (cpu === undefined || counter === undefined) throw new Error('the file has no CPU');
      expect(BigInt(findValue(cpu, counter[0]) as number)).toBe(withoutZeros(counter[1].exec(saved.registers)?.[1]));
    } finally {
      await saved.dispose();
    }
  });
});
