/**
 * A saved guest of real QEMU 10.0 for the benchmarks of `resume`: its files, and what shows that it runs. It sends a dot to its
 * serial port again and again. All but every fourth MiB of RAM have data, up to a limit; the rest is zero, and files have holes
 * there.
 */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Qemu } from '../test/qemu/qemu.ts';
import { seeded } from './patterns.ts';

const MiB = 1 << 20;
export const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** A directory of files that is removed at the end. */
export function makeDir(parent: string): string {
  const dir = mkdtempSync(join(parent, 'vmferry-bench-'));
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Boot code: a dot to COM1, a pause, and again. */
function writeDisk(path: string): void {
  const sector = Buffer.alloc(MiB);
  // mov dx,0x3f8; mov al,'.'; out dx,al; mov cx,0x4000; loop $; jmp to the mov al
  sector.set([0xba, 0xf8, 0x03, 0xb0, 0x2e, 0xee, 0xb9, 0x00, 0x40, 0xe2, 0xfe, 0xeb, 0xf6]);
  sector.set([0x55, 0xaa], 510);
  writeFileSync(path, sector);
}

/** Memory with zeros and up to `data` MiB of data; what the firmware needs is below 16 MiB. */
function writeMemory(path: string, mib: number, data: number): void {
  const random = seeded(7);
  const words = new Uint32Array(MiB / 4);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, mib * MiB);
  for (let at = 16, left = data; at < mib - 16 && left > 0; at++) {
    if (at % 4 === 3) continue;
    for (let i = 0; i < words.length; i++) words[i] = random(at % 4 === 2 ? 2 ** 32 : 64);
    writeSync(fd, new Uint8Array(words.buffer), 0, MiB, at * MiB);
    left--;
  }
  closeSync(fd);
}

/** The arguments of the machine, whose disk is in `dir`. */
export const machine = (dir: string, mib: number, serial: string) => [
  ...['-M', 'pc', '-m', String(mib), '-nodefaults', '-display', 'none', '-accel', 'tcg', '-serial', serial],
  ...['-drive', `file=${join(dir, 'disk')},format=raw,if=ide,readonly=off,snapshot=on`],
];

/** The files of a guest. */
export interface Saved {
  mib: number;
  stream: string;
  mapped: string;
  small: string;
  /** What --stream printed. */
  words: string[];
}

/** Makes the files of a guest with that much RAM in `dir`, `data` MiB of it with data. */
export async function save(dir: string, mib: number, data: number): Promise<Saved> {
  writeDisk(join(dir, 'disk'));
  const [ram, stream, mapped, small] = ['ram', 'stream', 'mapped', 'small'].map((name) => join(dir, name));
  writeMemory(ram as string, mib, data);
  const backend = `memory-backend-file,id=pc.ram,mem-path=${ram},size=${mib}M,share=on`;
  {
    const output = join(dir, 'output');
    const args = [...machine(dir, mib, `file:${output}`), '-object', backend, '-machine', 'memory-backend=pc.ram'];
    await using source = await Qemu.start({ version: '10.0', args });
    while (execFileSync('cat', [output]).length < 10) await new Promise((resolve) => setTimeout(resolve, 20));
    // It runs when it is loaded, because it runs now.
    await source.migrate(`file:${stream}`, { parameters: { 'max-bandwidth': 0 } });
    await source.execute('cont');
    await source.migrate(`file:${mapped}`, { capabilities: ['mapped-ram'] });
  }
  rmSync(ram as string);
  const line = execFileSync(process.execPath, [
    cli,
    'resume',
    mapped as string,
    '--map',
    '--stream',
    small as string,
    '-q',
  ]);
  const words = line.toString().trim().split(' ');
  return { mib, stream, mapped, small, words } as Saved;
}

/** Waits for the first dot on standard output, and then counts dots for a second. */
export async function dots(child: ChildProcess): Promise<{ at: number; count: number }> {
  let count = 0;
  const at = await new Promise<number>((resolve, reject) => {
    child.stdout?.on('data', (text: Buffer) => {
      count += text.length;
      resolve(performance.now());
    });
    child.once('exit', (code) => reject(new Error(`QEMU ended with ${code}`)));
  });
  const first = count;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return { at, count: count - first };
}

/** Ends a QEMU. */
export async function end(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
  else return;
  await gone;
}

export const at = (list: number[], share: number) =>
  list.toSorted((a, b) => a - b)[Math.floor((list.length - 1) * share)] as number;
export const median = (list: number[]) => at(list, 0.5);
