/**
 * Commands that write, killed at random points or run on a full disk. Afterwards the output is the old file or the
 * complete new one; where a form says so, it may be absent. `vmferry verify` judges leftovers correctly.
 * VMFERRY_KILLS=N kills each command N times.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendTo, MemoryFile, RawRam, writeStream } from '../../src/node.ts';
import { allCases, someOf } from '../limits.ts';
import { runCli } from '../run-cli.ts';
import { bytesIn, killAt } from './kill-at.ts';

const kills = Number(process.env.VMFERRY_KILLS ?? (allCases ? 10 : 1));
const ramBytes = (allCases ? 96 : 32) << 20;

let directory = '';
let large = '';
let older = '';
let xml = '';
let changes = '';
let imageHash = '';
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-killed-'));
  const names = ['large.stream', 'older.stream', 'domain.xml', 'changes', 'image'];
  const [path = '', ...rest] = names.map((name) => join(directory, name));
  large = path;
  const image = rest[3] ?? '';
  [older = '', xml = '', changes = ''] = rest;
  writeFileSync(large, await stream(1));
  writeFileSync(older, await stream(2));
  writeFileSync(xml, "<domain type='kvm'><name>ferry</name></domain>\n");
  await runCli(['convert', large, changes, '--only-changed-from', older]);
  await runCli(['extract', large, '--block', 'ram', '-o', image]);
  imageHash = sha256(image);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
function emptyDirectory(): string {
  const path = join(directory, `case-${count++}`);
  mkdirSync(path);
  return path;
}

/** A stream of a VM without devices, whose pages are not zero. Each `seed` gives other bytes in some places. */
async function stream(seed: number): Promise<Uint8Array> {
  const image = new Uint8Array(ramBytes);
  for (let at = 0; at < image.length; at += 4096) {
    image[at] = 1 + ((at >> 12) % 255);
    image[at + 100] = (at >> 13) % 7 === 0 ? seed : 9;
  }
  const file = new MemoryFile();
  const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
  await writeStream({ configuration: { machine: 'none', capabilities: [] }, ram }, appendTo(file));
  const bytes = new Uint8Array(file.size);
  file.read(bytes, 0);
  return bytes;
}

interface Form {
  name: string;
  /** The command. OUT stands for the output; LARGE, OLDER, CHANGES and XML for inputs. */
  args: string[];
  /** The arguments of `verify`. OUT stands for the output. Null: the output is a raw image. */
  verify?: string[] | null;
  /** The old file is removed before the new one appears. */
  mayBeAbsent?: true;
  /** The most files left over when it is killed. */
  leftovers?: number;
}
const forms: Form[] = [
  { name: 'a stream', args: ['convert', 'LARGE', 'OUT', '--to', 'stream'] },
  { name: 'a mapped-ram file', args: ['convert', 'LARGE', 'OUT', '--to', 'mapped-ram'] },
  { name: 'a mapped-ram file by direct I/O', args: ['convert', 'LARGE', 'OUT', '--to', 'mapped-ram', '--direct-io'] },
  {
    name: 'a mapped-ram file behind other bytes',
    args: ['convert', 'LARGE', 'OUT,offset=1M', '--to', 'mapped-ram'],
    verify: ['OUT,offset=1M'],
  },
  { name: 'a stream with deltas', args: ['convert', 'LARGE', 'OUT', '--to', 'stream', '--base', 'OLDER'] },
  {
    name: 'a libvirt save image',
    args: ['convert', 'LARGE', 'OUT', '--to', 'libvirt', '--xml', 'XML', '--libvirt-format', 'gzip'],
  },
  {
    name: 'a sparse libvirt image',
    args: ['convert', 'LARGE', 'OUT', '--to', 'libvirt', '--xml', 'XML', '--libvirt-format', 'sparse'],
  },
  {
    name: 'a multifd set',
    args: ['convert', 'LARGE', 'OUT', '--to', 'multifd'],
    verify: ['OUT', '--channel', 'OUT.0', '--channel', 'OUT.1'],
    mayBeAbsent: true,
    leftovers: 3,
  },
  { name: 'what changed', args: ['convert', 'LARGE', 'OUT', '--only-changed-from', 'OLDER'] },
  { name: 'what is merged', args: ['merge', 'OLDER', 'CHANGES', 'OUT', '--to', 'mapped-ram'] },
  { name: 'a block', args: ['extract', 'LARGE', '--block', 'ram', '-o', 'OUT'], verify: null },
];

const fill = (args: readonly string[], out: string) =>
  args.map((arg) =>
    arg
      .replace('OUT', out)
      .replace('OLDER', older)
      .replace('LARGE', large)
      .replace('CHANGES', changes)
      .replace('XML', xml),
  );

/** Whether `verify` finds a file complete, with all of RAM. */
async function isWhole(args: readonly string[]): Promise<boolean> {
  const { stdout, code } = await runCli(['verify', '--json', ...args]);
  const { ok, ramBytes: bytes } = JSON.parse(stdout);
  expect(code).toBe(ok === true ? 0 : 1);
  if (ok === true) expect(bytes, args.join(' ')).toBe(ramBytes);
  return ok === true;
}

const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

describe('a command killed at random points', () => {
  it.each(someOf(forms, 4, 1))('leaves the old file or the new one: $name', async (form) => {
    const { args, verify = ['OUT'], mayBeAbsent = false, leftovers = 1 } = form;
    const folder = emptyDirectory();
    const out = join(folder, 'out');
    const old = 'what was there before';
    expect((await runCli(fill(args, out))).code).toBe(0);
    const whole = bytesIn(folder);
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
    let killed = 0;
    // A command that ended before its signal is also checked, but does not count.
    while (killed < kills) {
      writeFileSync(out, old);
      const point = Math.floor(Math.random() * whole);
      const { signalCode } = await killAt(point, folder, fill(args, out));
      if (signalCode === 'SIGKILL') killed++;
      const now = statSync(out, { throwIfNoEntry: false });
      if (now === undefined) expect(mayBeAbsent, `absent when killed after ${point} bytes`).toBe(true);
      const isNew = now !== undefined && now.size !== old.length;
      if (now !== undefined && !isNew) expect(readFileSync(out, 'utf8')).toBe(old);
      if (isNew && verify === null) expect(sha256(out)).toBe(imageHash);
      if (isNew && verify !== null) expect(await isWhole(fill(verify, out)), `killed after ${point} bytes`).toBe(true);
      const left = readdirSync(folder).filter((name) => name.startsWith('.vmferry-'));
      expect(left.length).toBeLessThanOrEqual(leftovers);
      for (const name of left) {
        // If it was killed between its last byte and the rename, the leftover is complete, and `verify` says so.
        const [place, ...rest] = verify ?? [];
        if (place !== undefined && rest.length === 0) await isWhole(fill([place], join(folder, name)));
        rmSync(join(folder, name));
      }
      if (!mayBeAbsent) expect(readdirSync(folder)).toEqual(['out']);
    }
  });
});

describe('a command on a full disk', () => {
  it('leaves the old file, and nothing else', async () => {
    const mount = emptyDirectory();
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1100k', 'none', mount]);
    if (status !== 0) {
      console.warn('skipped: a small tmpfs cannot be mounted here');
      return;
    }
    try {
      const out = join(mount, 'out');
      writeFileSync(out, 'what was there before');
      for (const { name, args } of forms) {
        const scratch = args[0] === 'extract' ? [] : ['--scratch', directory];
        const { code, stderr } = await runCli([...fill(args, out), ...scratch]);
        // Compressed, it is small enough.
        if (args.includes('gzip')) expect([code, stderr], name).toEqual([0, '']);
        else
          expect([code, stderr], name).toEqual([
            2,
            expect.stringMatching(/cannot write .*out.*: no space left on device/),
          ]);
        if (!args.includes('gzip')) expect(readFileSync(out, 'utf8'), name).toBe('what was there before');
        writeFileSync(out, 'what was there before');
        expect(readdirSync(mount), name).toEqual(['out']);
      }
    } finally {
      spawnSync('umount', [mount]);
    }
  });
});
