/**
 * `vmferry convert` that is killed at random points, and that runs out of disk: afterwards the output is the old file, or the
 * complete new one, and what is left over beside it is judged truly by `vmferry verify`. VMFERRY_KILLS=N for more.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendTo, MemoryFile, RawRam, writeStream } from '../../src/node.ts';
import { cliPath, runCli } from '../run-cli.ts';

const kills = Number(process.env.VMFERRY_KILLS ?? 2);
const ramBytes = 96 << 20;

let directory = '';
let large = '';
let older = '';
let xml = '';
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-killed-'));
  [large, older, xml] = ['large.stream', 'older.stream', 'domain.xml'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(large, await stream(1));
  writeFileSync(older, await stream(2));
  writeFileSync(xml, "<domain type='kvm'><name>ferry</name></domain>\n");
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
function emptyDirectory(): string {
  const path = join(directory, `case-${count++}`);
  mkdirSync(path);
  return path;
}

/** A VM without devices, whose pages are not zero; each `seed` has other bytes in some places. */
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
  /** What is behind `convert large`, with OUT for the file. */
  args: string[];
  /** What `verify` is asked, with OUT for the file. */
  location?: string;
}
const forms: Form[] = [
  { name: 'a stream', args: ['OUT', '--to', 'stream'] },
  { name: 'a mapped-ram file', args: ['OUT', '--to', 'mapped-ram'] },
  { name: 'a mapped-ram file by direct I/O', args: ['OUT', '--to', 'mapped-ram', '--direct-io'] },
  {
    name: 'a mapped-ram file behind other bytes',
    args: ['OUT,offset=1M', '--to', 'mapped-ram'],
    location: 'OUT,offset=1M',
  },
  { name: 'a stream with deltas', args: ['OUT', '--to', 'stream', '--base', 'OLDER'] },
  { name: 'a libvirt save image', args: ['OUT', '--to', 'libvirt', '--xml', 'XML', '--libvirt-format', 'gzip'] },
  { name: 'a sparse libvirt image', args: ['OUT', '--to', 'libvirt', '--xml', 'XML', '--libvirt-format', 'sparse'] },
];

const fill = (args: readonly string[], out: string) =>
  args.map((arg) => arg.replace('OUT', out).replace('OLDER', older).replace('XML', xml));

/** What `verify` says of a file: whole, with all of RAM, or not. */
async function isWhole(location: string): Promise<boolean> {
  const { stdout, code } = await runCli(['verify', '--json', location]);
  const { ok, ramBytes: bytes } = JSON.parse(stdout);
  expect(code).toBe(ok === true ? 0 : 1);
  if (ok === true) expect(bytes, location).toBe(ramBytes);
  return ok === true;
}

describe('convert that is killed', () => {
  it.each(forms)('at random points leaves the old file or the new one: $name', async ({ args, location = 'OUT' }) => {
    const folder = emptyDirectory();
    const out = join(folder, 'out');
    const old = 'what was there before';
    for (let i = 0; i < kills; i++) {
      writeFileSync(out, old);
      const ms = 100 + Math.random() * 900;
      const child = spawn(process.execPath, [cliPath, 'convert', large, ...fill(args, out)], { stdio: 'ignore' });
      const exited = once(child, 'exit');
      await Promise.race([sleep(ms), exited]);
      child.kill('SIGKILL');
      await exited;
      const [place = ''] = fill([location], out);
      const isOld = statSync(out).size === old.length;
      if (isOld) expect(readFileSync(out, 'utf8')).toBe(old);
      expect(await isWhole(place), `killed after ${ms} ms`).toBe(!isOld);
      // One that was killed between its last byte and its new name is whole, and says so.
      const left = readdirSync(folder).filter((name) => name.startsWith('.vmferry-'));
      expect(left.length).toBeLessThanOrEqual(1);
      for (const name of left) {
        await isWhole(place.replace(out, join(folder, name)));
        rmSync(join(folder, name));
      }
      expect(readdirSync(folder)).toEqual(['out']);
    }
  });
});

describe('convert on a disk that is full', () => {
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
      for (const { name, args } of [
        ...forms,
        { name: 'a raw image', args: ['OUT', '--to', 'raw', '--block', 'ram'] },
      ]) {
        const { code, stderr } = await runCli(['convert', large, ...fill(args, out), '--scratch', directory]);
        // Compressed it is small enough.
        if (args.includes('gzip')) expect([code, stderr], name).toEqual([0, '']);
        else expect([code, stderr], name).toEqual([2, expect.stringMatching(/ENOSPC.*out/)]);
        if (!args.includes('gzip')) expect(readFileSync(out, 'utf8'), name).toBe('what was there before');
        writeFileSync(out, 'what was there before');
        expect(readdirSync(mount), name).toEqual(['out']);
      }
    } finally {
      spawnSync('umount', [mount]);
    }
  });
});
