/**
 * Drives a device of a stopped machine through QEMU's qtest socket, as a driver in the guest would: ports and memory
 * are read and written without a CPU.
 */
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Qemu } from './qemu.ts';

/** Arguments that open the socket. */
export const qtestArgs: readonly string[] = ['-qtest', 'unix:qtest,server=on,wait=off', '-qtest-log', 'none'];

export class Qtest {
  readonly #socket: Socket;
  readonly #lines: string[] = [];
  #rest = '';
  #wake = () => {};
  #error: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop() ?? '';
      this.#lines.push(...lines.filter((line) => !line.startsWith('IRQ ')));
      this.#wake();
    });
    const end = (error?: Error) => {
      this.#error = error ?? new Error('the qtest socket closed');
      this.#wake();
    };
    socket.on('error', end);
    socket.on('close', () => end());
  }

  /** Connects to a machine that was started with {@link qtestArgs}. */
  static open(qemu: Qemu): Qtest {
    return new Qtest(createConnection(join(qemu.dir, 'qtest')));
  }

  async command(line: string): Promise<string> {
    this.#socket.write(`${line}\n`);
    while (this.#lines.length === 0) {
      if (this.#error !== undefined) throw this.#error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const answer = this.#lines.shift() as string;
    if (!answer.startsWith('OK')) throw new Error(`qtest: ${line}: ${answer}`);
    return answer.slice(3);
  }

  /** Writes in bytes, words, longs or quads. */
  async write(unit: 'b' | 'w' | 'l' | 'q', address: number, value: number): Promise<void> {
    await this.command(`write${unit} ${address} ${value}`);
  }

  async read(unit: 'b' | 'w' | 'l' | 'q', address: number): Promise<number> {
    return Number(await this.command(`read${unit} ${address}`));
  }

  /** Writes a register of the configuration space of a PCI device on bus 0. */
  async configure(device: number, register: number, value: number): Promise<void> {
    await this.command(`outl 0xcf8 ${0x80000000 + device * 0x800 + register}`);
    await this.command(`outl 0xcfc ${value}`);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** Guest-physical addresses of the driver's queue and its only request. */
const queue = { descriptors: 0x10000, available: 0x11000, used: 0x12000, request: 0x13000, response: 0x14000 };
/** Offsets in the common configuration of a virtio device. */
const common = {
  featureSelect: 0,
  features: 4,
  driverSelect: 8,
  driverFeatures: 12,
  status: 20,
  queueSelect: 22,
  queueSize: 24,
  queueEnable: 28,
  descriptors: 32,
  available: 40,
  used: 48,
};
const notify = 0x3000;

/** Plugs pieces of a virtio-mem device: `[guest-physical address, number of pieces]`. */
export async function plugVirtioMem(
  qemu: Qemu,
  device: number,
  plugs: readonly (readonly [number, number])[],
): Promise<void> {
  const test = Qtest.open(qemu);
  const base = 0xe000_0000 + device * 0x10_0000;
  const set = (unit: 'b' | 'w' | 'l', field: keyof typeof common, value: number) =>
    test.write(unit, base + common[field], value);
  try {
    await test.configure(device, 0x20, base + 4);
    await test.configure(device, 0x24, 0);
    await test.configure(device, 0x04, 6);
    for (const status of [0, 1, 3]) await set('b', 'status', status);
    await set('l', 'featureSelect', 0);
    // Its own features are bits 0 and 1. Bit 32 is that of virtio 1.0.
    const own = (await test.read('l', base + common.features)) & 3;
    for (const [word, features] of [own, 1].entries()) {
      await set('l', 'driverSelect', word);
      await set('l', 'driverFeatures', features);
    }
    await set('b', 'status', 11);
    // The last driver may have left its entries.
    for (const ring of [queue.available, queue.used]) await test.write('l', ring, 0);
    await set('w', 'queueSelect', 0);
    await set('w', 'queueSize', 8);
    for (const part of ['descriptors', 'available', 'used'] as const) await set('l', part, queue[part]);
    await set('w', 'queueEnable', 1);
    await set('b', 'status', 15);
    for (const [i, [address, pieces]] of plugs.entries()) await requestPlug(test, base + notify, i, address, pieces);
  } finally {
    test.close();
  }
}

async function requestPlug(test: Qtest, bell: number, turn: number, address: number, pieces: number): Promise<void> {
  for (const [i, value] of [0, address, pieces].entries()) await test.write('q', queue.request + 8 * i, value);
  const descriptors = [
    [queue.request, 24, 1, 1],
    [queue.response, 10, 2, 0],
  ] as const;
  for (const [i, [where, length, flags, next]] of descriptors.entries()) {
    const at = queue.descriptors + 16 * i;
    await test.write('q', at, where);
    await test.write('l', at + 8, length);
    await test.write('w', at + 12, flags);
    await test.write('w', at + 14, next);
  }
  await test.write('w', queue.available + 4 + 2 * (turn % 8), 0);
  await test.write('w', queue.available + 2, turn + 1);
  await test.write('w', bell, 0);
  const answer = await test.read('w', queue.response);
  const used = await test.read('w', queue.used + 2);
  if (answer !== 0 || used !== turn + 1) throw new Error(`virtio-mem did not plug: answer ${answer}, used ${used}`);
}
