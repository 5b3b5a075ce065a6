/**
 * System calls that Node lacks: receiving descriptors over a unix socket (SCM_RIGHTS), duplicating one, asking how it
 * was opened, and finding the data in a file with holes. They are made through the optional package koffi, and only on 64-bit Linux, whose structures are these:
 *
 *     msghdr                                    control data: one header, then the descriptors
 *     ┌──────┬─────────┬───────┬─────┬─ ─       ┌────────────┬────────────┬───────────┬─────┬─────┬─ ─
 *     │ name │ its len │ iovec │  1  │          │ length u64 │ SOL_SOCKET │ SCM_RIGHTS│ i32 │ i32 │
 *     └──────┴─────────┴───────┴─────┴─ ─       └────────────┴────────────┴───────────┴─────┴─────┴─ ─
 */
import { closeSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';

/** Descriptors that came with bytes. */
export class PassedDescriptors {
  readonly #left: number[];

  constructor(descriptors: readonly number[]) {
    this.#left = [...descriptors];
  }

  /** The first one, which is the taker's from now on. The others are closed, as in QEMU. */
  take(): number | undefined {
    const first = this.#left.shift();
    this.close();
    return first;
  }

  /** Closes those that nobody took. */
  close(): void {
    for (const fd of this.#left.splice(0)) closeSync(fd);
  }
}

/** The calls. */
export interface DescriptorCalls {
  /**
   * Reads from a socket without waiting. Undefined: nothing has come.
   * @throws Error with the system's `code`
   */
  receive(fd: number, target: Uint8Array): { count: number; descriptors: number[] } | undefined;
  /** Another descriptor of the same open file. @throws Error with the system's `code` */
  duplicate(fd: number): number;
  /** The flags that it was opened with. @throws Error with the system's `code` */
  flagsOf(fd: number): number;
  /** The first byte of a file from a position on that is not in a hole; infinity if there is none. */
  nextData(fd: number, position: number): number;
}

/** lseek's SEEK_DATA. */
const seekData = 3;
const [dontWait, closeOnExec] = [0x40, 0x40000000];
const [socketLevel, rights] = [1, 1];
const [getFlags, duplicateCloseOnExec] = [3, 1030];
/** The most that Linux passes at once is 253. */
const controlBytes = 16 + 4 * 254;

let loaded: Promise<DescriptorCalls | undefined> | undefined;

/** The calls, or undefined where koffi is not installed or the structures differ. */
export function loadDescriptorCalls(): Promise<DescriptorCalls | undefined> {
  loaded ??= load().catch(() => undefined);
  return loaded;
}

async function load(): Promise<DescriptorCalls | undefined> {
  if (process.platform !== 'linux' || !['x64', 'arm64', 'riscv64', 'loong64'].includes(process.arch)) return undefined;
  const { default: koffi } = await import('koffi');
  const library = koffi.load(null);
  const vector = koffi.struct({ base: 'void *', length: 'size_t' });
  const message = koffi.struct({
    ...{ name: 'void *', nameLength: 'uint32_t', vector: koffi.pointer(vector), vectorLength: 'size_t' },
    ...{ control: 'void *', controlLength: 'size_t', flags: 'int' },
  });
  const recvmsg = library.func('recvmsg', 'long', ['int', koffi.inout(koffi.pointer(message)), 'int']);
  const fcntl = library.func('int fcntl(int, int, ...)');
  const lseek = library.func('int64_t lseek(int, int64_t, int)');
  const control = new Uint8Array(controlBytes);
  const checked = (result: number): number => {
    if (result < 0) throw systemError(koffi.errno());
    return result;
  };
  return {
    receive(fd, target) {
      const header = {
        ...{ name: null, nameLength: 0, vector: [{ base: target, length: target.length }], vectorLength: 1 },
        ...{ control, controlLength: control.length, flags: 0 },
      };
      const count = Number(recvmsg(fd, header, dontWait | closeOnExec));
      if (count >= 0) return { count, descriptors: descriptorsIn(control.subarray(0, Number(header.controlLength))) };
      const error = systemError(koffi.errno());
      if (error.code === 'EAGAIN' || error.code === 'EINTR') return undefined;
      throw error;
    },
    duplicate: (fd) => checked(fcntl(fd, duplicateCloseOnExec, 'int', 0)),
    flagsOf: (fd) => checked(fcntl(fd, getFlags, 'int', 0)),
    nextData(fd, position) {
      const data = Number(lseek(fd, position, seekData));
      if (data >= 0) return data;
      // ENXIO says that there is none. Whoever cannot tell says that it is all data.
      return systemError(koffi.errno()).code === 'ENXIO' ? Number.POSITIVE_INFINITY : position;
    },
  };
}

function descriptorsIn(control: Uint8Array): number[] {
  if (control.length < 16) return [];
  const view = new DataView(control.buffer, control.byteOffset, control.length);
  if (view.getInt32(8, true) !== socketLevel || view.getInt32(12, true) !== rights) return [];
  const end = Math.min(Number(view.getBigUint64(0, true)), control.length);
  return Array.from({ length: (end - 16) >> 2 }, (_, index) => view.getInt32(16 + 4 * index, true));
}

function systemError(errno: number): Error & { code: string } {
  const [code, text] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, `error ${errno}`];
  return Object.assign(new Error(text), { code });
}
