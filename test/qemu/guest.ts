/**
 * Drives our guest (guest/guest.S): boots it, sends it commands, and knows what they write.
 *
 * The guest writes only on command, so `guestPage` predicts RAM byte by byte.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { hangGuardMs } from '../limits.ts';
import type { Qemu } from './qemu.ts';
import { waitUntil } from './wait-until.ts';

const PAGE = 4096;
const image = () => readFileSync(new URL('./guest/guest.bin', import.meta.url));

/** Index = number on the wire. */
export const fillKinds = ['zero', 'same', 'text', 'random', 'stripes'] as const;
export type FillKind = (typeof fillKinds)[number];

/** Index = number on the wire. */
export const dirtyKinds = ['few-bytes', 'rewrite', 'zero-in-turn', 'mixed', 'touch', 'every-other-byte'] as const;
export type DirtyKind = (typeof dirtyKinds)[number];

/** Pages by guest-physical page number: `count` pages from `first` on. */
export type PageRange = { first: number; count: number };

/** The socket on which a booted guest listens; its name in the QEMU's directory. */
const SOCKET = 'guest';

/** Arguments that give the machine its serial port. */
export const guestSerial = (dir: string): string[] => [
  '-chardev',
  `socket,id=guest,path=${join(dir, SOCKET)},server=on,wait=off`,
  '-serial',
  'chardev:guest',
];

/** Writes a 1 MiB disk that boots the guest under ordinary firmware; returns its path. */
export function writeBootDisk(dir: string): string {
  const path = join(dir, 'boot.img');
  writeFileSync(path, Buffer.concat([image(), Buffer.alloc(0x100000 - image().length)]));
  return path;
}

/** Writes a 64 KiB `-bios` image that contains only the guest; returns its path. */
export function writeBios(dir: string): string {
  const path = join(dir, 'bios.bin');
  writeFileSync(path, Buffer.concat([Buffer.alloc(0x10000 - image().length), image()]));
  return path;
}

export class Guest {
  #received: number[] = [];
  #wake = () => {};

  private constructor(readonly socket: Socket) {
    socket.on('data', (data: Buffer) => {
      this.#received.push(...data);
      this.#wake();
    });
    socket.on('error', () => {});
  }

  /** Starts the guest in a `qemu` that was started with `-S`, and waits until it is ready. */
  static async boot(qemu: Qemu, timeout = hangGuardMs): Promise<Guest> {
    try {
      return await Guest.#start(qemu, timeout, (guest) => guest.#answer('R', timeout));
    } catch (error) {
      throw new Error(`the guest did not boot: ${(error as Error).message}\n${qemu.stderr}`, { cause: error });
    }
  }

  /** Resumes a guest that was loaded into a `qemu` started with `-S`. */
  static async resume(qemu: Qemu, timeout = hangGuardMs): Promise<Guest> {
    return Guest.#start(qemu, timeout, async () => {});
  }

  static async #start(qemu: Qemu, timeout: number, ready: (guest: Guest) => Promise<unknown>): Promise<Guest> {
    const guest = new Guest(createConnection(join(qemu.dir, SOCKET)));
    try {
      // The chardev would drop output that the guest sends before it sees our connection.
      const connected = async () =>
        (await qemu.execute<{ label: string; filename: string }[]>('query-chardev')).some(
          ({ label, filename }) => label === SOCKET && !filename.startsWith('disconnected'),
        );
      await waitUntil("the guest's serial port connects", connected, timeout);
      await qemu.execute('cont');
      await ready(guest);
      return guest;
    } catch (error) {
      guest.close();
      throw error;
    }
  }

  async fill(range: PageRange, kind: FillKind, seed = 0): Promise<void> {
    await this.#command('F', range, fillKinds.indexOf(kind), seed);
  }

  /** Dirties the range `rounds` times, then answers. */
  async dirty(range: PageRange, kind: DirtyKind, rounds: number): Promise<void> {
    if (rounds < 1) throw new RangeError(`expected at least one round, got ${rounds}`);
    await this.#command('D', range, dirtyKinds.indexOf(kind), rounds);
  }

  /** Keeps dirtying the range until {@link Guest.stop}, with a pause of `pause` port reads after each page. */
  async startDirtying(range: PageRange, kind: DirtyKind, pause = 0): Promise<void> {
    await this.#command('D', range, dirtyKinds.indexOf(kind) | (pause << 8), 0);
  }

  /**
   * From now on rewrites the range again and again beside all other work, so that some page is always dirty. Without a
   * range: stops that.
   */
  async ballast(range: PageRange = { first: 0, count: 0 }): Promise<void> {
    await this.#command('B', range, 0, 0);
  }

  /** Stops dirtying; returns the rounds done. The guest writes nothing after its answer. */
  async stop(): Promise<number> {
    return this.#command('S', { first: 0, count: 0 }, 0, 0);
  }

  /** The rounds done so far. */
  async count(): Promise<number> {
    return this.#command('C', { first: 0, count: 0 }, 0, 0);
  }

  close(): void {
    this.socket.destroy();
  }

  async #command(letter: string, range: PageRange, kind: number, value: number): Promise<number> {
    const frame = Buffer.alloc(17);
    frame.write(letter, 0, 'latin1');
    frame.writeUInt32LE(range.first, 1);
    frame.writeUInt32LE(range.count, 5);
    frame.writeUInt32LE(kind, 9);
    frame.writeUInt32LE(value >>> 0, 13);
    this.socket.write(frame);
    return this.#answer('K', 30_000);
  }

  /** Waits for an answer of five bytes. */
  async #answer(letter: string, timeout: number): Promise<number> {
    const until = performance.now() + timeout;
    while (this.#received.length < 5) {
      const left = until - performance.now();
      if (left <= 0) throw new Error(`the guest did not answer in ${timeout} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const [status, ...word] = this.#received.splice(0, 5);
    const said = String.fromCharCode(status!);
    if (said !== letter) throw new Error(`the guest answered '${said}', expected '${letter}'`);
    return Buffer.from(word).readUInt32LE();
  }
}

/** The content that `fill` writes to page `page`. */
export function guestPage(kind: FillKind, page: number, seed = 0): Uint8Array {
  const bytes = Buffer.alloc(PAGE);
  switch (kind) {
    case 'stripes':
      return guestPage(fillKinds[(page >> 4) & 3]!, page, seed);
    case 'zero':
      break;
    case 'same':
      bytes.fill(((seed + page) & 0xff) | 1);
      break;
    case 'text':
      for (let line = 0; line < 64; line++) {
        const number = ((((page << 6) ^ seed) + line) >>> 0).toString(16).padStart(8, '0');
        bytes.write(`${number} the ferry leaves at dawn and carries every page across\n`, line * 64, 'latin1');
      }
      break;
    case 'random': {
      let x = ((Math.imul(page, 0x9e3779b1) ^ seed) | 1) >>> 0;
      for (let i = 0; i < PAGE; i += 4) {
        x ^= x << 13;
        x ^= x >>> 17;
        x ^= x << 5;
        x >>>= 0;
        bytes.writeUInt32LE(x, i);
      }
    }
  }
  return bytes;
}

/** Applies round `round` (from 0) of `dirty` to page `page`, in place. */
export function dirtyPage(bytes: Uint8Array, kind: DirtyKind, page: number, round: number): void {
  switch (kind) {
    case 'mixed':
      dirtyPage(bytes, mixed[page & 7]!, page, round);
      return;
    case 'touch':
      return;
    case 'few-bytes': {
      const at = (page * 20 + round * 52) & 0xffc;
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, Math.imul(round + 1, 0x01000193) >>> 0, true);
      bytes[PAGE - 1]!++;
      return;
    }
    case 'every-other-byte':
      for (let i = 1; i < PAGE; i += 2) bytes[i]!++;
      return;
    case 'zero-in-turn':
      bytes.set((page + round) & 1 ? new Uint8Array(PAGE) : guestPage('random', page, round + 1));
      return;
    case 'rewrite':
      bytes.set(guestPage('random', page, round + 1));
  }
}

const mixed: readonly DirtyKind[] = [
  'rewrite',
  'zero-in-turn',
  'touch',
  'every-other-byte',
  'few-bytes',
  'few-bytes',
  'few-bytes',
  'few-bytes',
];
