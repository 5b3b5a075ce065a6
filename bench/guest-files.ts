/** The files that a real QEMU 10.0 saves of one stopped guest, as input for `bench/files.ts`. */
import {
  closeSync,
  createWriteStream,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { Qemu } from '../test/qemu/qemu.ts';
import { seeded } from './patterns.ts';

/** A main stream and its channels. */
interface MultifdFiles {
  main: string;
  channels: string[];
}

export interface GuestFiles {
  /** The RAM itself, as a raw image. */
  ram: string;
  stream: string;
  /** From a guest that uses little of its memory, so that most pages are zero. */
  idleStream: string;
  mappedRam: string;
  multifd: Record<'none' | 'zlib' | 'zstd', MultifdFiles>;
}

const MiB = 1 << 20;

/**
 * Fills guest memory with 1 MiB pieces: zeros, machine code and data (from the running program's own file), or random
 * bytes. `shares` are in percent.
 */
function fillRam(path: string, bytes: number, shares: { zero: number; code: number }): void {
  const code = readFileSync(process.execPath);
  const random = seeded(2024);
  const piece = Buffer.alloc(MiB);
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, bytes);
  for (let at = 0, codeAt = 0; at < bytes; at += MiB) {
    const share = random(100);
    if (share < shares.zero) continue;
    if (share < shares.zero + shares.code) {
      codeAt = (codeAt + MiB) % (code.length - MiB);
      code.copy(piece, 0, codeAt, codeAt + MiB);
    } else {
      const words = new Uint32Array(piece.buffer, piece.byteOffset, MiB / 4);
      for (let i = 0; i < words.length; i++) words[i] = random(2 ** 32);
    }
    writeSync(fd, piece, 0, MiB, at);
  }
  closeSync(fd);
}

/** The stream uses an older machine type, since analyze-migration.py does not support commands in a stream. */
const streamMachine = 'pc-i440fx-7.2';

/** Starts a guest that never runs, with its RAM in that file. */
export async function stoppedGuest(ram: string, bytes: number, machine = 'pc-i440fx-10.0'): Promise<Qemu> {
  const backend = `memory-backend-file,id=ram0,size=${bytes},mem-path=${ram},share=on`;
  const qemu = await Qemu.start({
    version: '10.0',
    args: ['-S', '-nodefaults', '-object', backend, '-M', `${machine},memory-backend=ram0`, '-m', `${bytes / MiB}`],
  });
  await qemu.setParameters({ 'max-bandwidth': 0 });
  return qemu;
}

/** Saves such a guest. */
async function save(ram: string, bytes: number, work: (qemu: Qemu) => Promise<void>, machine?: string): Promise<void> {
  await using qemu = await stoppedGuest(ram, bytes, machine);
  await work(qemu);
}

async function saveMultifd(qemu: Qemu, dir: string, compression: 'none' | 'zlib' | 'zstd'): Promise<MultifdFiles> {
  const received: string[] = [];
  const ends: Promise<void>[] = [];
  const server = createServer((socket) => {
    const path = join(dir, `multifd-${compression}-${received.length}`);
    received.push(path);
    ends.push(finished(socket.pipe(createWriteStream(path))));
  });
  const socket = join(qemu.dir, 'multifd');
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  await qemu.migrate(`unix:${socket}`, {
    capabilities: ['multifd'],
    parameters: { 'multifd-channels': 2, 'multifd-compression': compression },
    timeout: 300_000,
  });
  await qemu.quit();
  await Promise.all(ends);
  server.close();
  const isMain = (path: string) => {
    const head = Buffer.alloc(4);
    const fd = openSync(path, 'r');
    readSync(fd, head);
    closeSync(fd);
    return head.toString('latin1') === 'QEVM';
  };
  const main = received.find(isMain);
  if (main === undefined) throw new Error(`no main channel among ${received.length} connections`);
  const named = join(dir, `multifd-${compression}-main`);
  renameSync(main, named);
  return { main: named, channels: received.filter((path) => path !== main) };
}

export async function makeGuestFiles(dir: string, bytes: number): Promise<GuestFiles> {
  const ram = join(dir, 'ram');
  const stream = join(dir, 'stream');
  const idleStream = join(dir, 'idle-stream');
  const mappedRam = join(dir, 'mapped-ram');
  const unhurried = { timeout: 300_000 };
  const saveStream = (path: string) =>
    save(ram, bytes, async (qemu) => void (await qemu.migrate(`file:${path}`, unhurried)), streamMachine);
  fillRam(ram, bytes, { zero: 85, code: 10 });
  await saveStream(idleStream);
  fillRam(ram, bytes, { zero: 45, code: 35 });
  await saveStream(stream);
  await save(ram, bytes, async (qemu) => {
    await qemu.migrate(`file:${mappedRam}`, { ...unhurried, capabilities: ['mapped-ram'] });
  });
  const multifd = {} as GuestFiles['multifd'];
  for (const compression of ['none', 'zlib', 'zstd'] as const) {
    await save(ram, bytes, async (qemu) => {
      multifd[compression] = await saveMultifd(qemu, dir, compression);
    });
  }
  return { ram, stream, idleStream, mappedRam, multifd };
}
