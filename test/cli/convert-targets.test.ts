/** `vmferry convert` into part of a file, past the page cache, and as libvirt save images of all formats. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { libvirtFormats } from '../../src/read/container/libvirt-header.ts';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const xbzrle = fixturePath('pc-xbzrle-10.0.bin');
const truth = loadFixtures().find(({ name }) => name === 'pc-xbzrle-10.0')?.truth ?? [];

let directory = '';
let count = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-targets-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
function emptyDirectory(): string {
  const path = join(directory, `empty-${count++}`);
  mkdirSync(path);
  return path;
}

async function expectTruth(location: string): Promise<void> {
  const { stdout } = await runCli(['inspect', '--hash', '--json', location]);
  const blocks: { idstr: string; sha256: string }[] = JSON.parse(stdout).ram.blocks;
  expect(blocks.map(({ idstr, sha256 }) => [idstr, sha256])).toEqual(truth.map(({ idstr, sha256 }) => [idstr, sha256]));
}

describe('convert to an offset', () => {
  it.each(['stream', 'mapped-ram'])('keeps what a file has before the offset, and cuts the rest: %s', async (form) => {
    const folder = emptyDirectory();
    const path = join(folder, 'disk.img');
    const old = Buffer.alloc(9 << 20, 'what was there. ');
    old.fill(0, 1 << 20, 3 << 20);
    writeFileSync(path, old);
    const offset = (3 << 20) + 5;
    const { code, stderr, stdout } = await runCli(['convert', xbzrle, `${path},offset=${offset}`, '--to', form]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(new RegExp(`disk.img at ${offset}: ${form} of pc-.*verified\n`));
    const now = readFileSync(path);
    expect(now.subarray(0, offset).equals(old.subarray(0, offset))).toBe(true);
    expect(now.subarray(offset, offset + 4).toString()).toBe('QEVM');
    await expectTruth(`${path},offset=${offset}`);
    expect((await runCli(['verify', `${path},offset=${offset}`])).stdout).toMatch(/: OK/);
    expect(readdirSync(folder)).toEqual(['disk.img']);
  });

  it('makes a missing file, with a hole before the stream, and prints the offset', async () => {
    const path = join(emptyDirectory(), 'new');
    const { stdout } = await runCli(['convert', xbzrle, `${path},offset=0x10000`, '--to', 'stream', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ output: path, format: 'stream', offset: 65536, length: statSync(path).size - 65536, isVerified: true },
    });
    expect(
      readFileSync(path)
        .subarray(0, 65536)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  it('reads from an offset of a file and refuses to write to the same file', async () => {
    const path = join(emptyDirectory(), 'both');
    writeFileSync(path, Buffer.concat([Buffer.alloc(4096), readFileSync(xbzrle)]));
    const { code, stderr } = await runCli(['convert', `${path},offset=4K`, `${path},offset=1M`, '--to', 'stream']);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/expected an output other than the input/)]);
  });

  it('leaves the old file unchanged if the input is bad', async () => {
    const folder = emptyDirectory();
    const [cut, path] = [join(folder, 'cut'), join(folder, 'old')];
    writeFileSync(cut, readFileSync(xbzrle).subarray(0, 300_000));
    writeFileSync(path, 'what was there');
    const { code } = await runCli(['convert', cut, `${path},offset=4`, '--to', 'mapped-ram']);
    expect(code).toBe(1);
    expect(readFileSync(path, 'utf8')).toBe('what was there');
    expect(readdirSync(folder).sort()).toEqual(['cut', 'old']);
  });
});

describe('convert with direct I/O', () => {
  /** Bytes of a file in the page cache. */
  const cached = (path: string) => Number(execFileSync('fincore', ['-bnro', 'RES', path], { encoding: 'utf8' }).trim());

  it('writes the same file past the page cache', async () => {
    const folder = emptyDirectory();
    const [stream, plain, direct] = ['in.stream', 'plain.mapped-ram', 'direct.mapped-ram'].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    writeFileSync(stream, await streamOfRam(16));
    expect((await runCli(['convert', stream, plain])).code).toBe(0);
    const { code, stderr } = await runCli(['convert', stream, direct, '--direct-io', '--no-verify']);
    expect(code).toBe(0);
    if (stderr !== '') {
      expect(stderr).toMatch(/no direct I\/O on the file system/);
      console.warn(`skipped: no direct I/O in ${folder}`);
      return;
    }
    if (spawnSync('fincore', ['--version']).error === undefined) {
      expect(cached(direct)).toBeLessThan(4 << 20);
      expect(cached(plain)).toBeGreaterThan(15 << 20);
    } else console.warn('skipped: that the page cache is not used, since fincore is not installed');
    expect(readFileSync(direct).equals(readFileSync(plain))).toBe(true);
    const again = join(folder, 'again.mapped-ram');
    expect((await runCli(['convert', direct, again, '--direct-io'])).code).toBe(0);
    expect(readFileSync(again).equals(readFileSync(plain))).toBe(true);
  });

  it('falls back to buffered writes where direct I/O is not supported, and says so', async () => {
    const path = join('/dev/shm', `vmferry-direct-${process.pid}.mapped-ram`);
    const { code, stderr } = await runCli(['convert', xbzrle, path, '--direct-io']);
    try {
      expect(code).toBe(0);
      // tmpfs supports it since Linux 6.6.
      if (stderr !== '') expect(stderr).toMatch(/no direct I\/O on the file system of \/dev\/shm/);
      await expectTruth(path);
    } finally {
      rmSync(path, { force: true });
    }
  });
});

describe('convert to a libvirt save image', () => {
  it.each(libvirtFormats)('%s', async (format) => {
    if (!['raw', 'gzip', 'sparse'].includes(format) && spawnSync(format, ['--version']).error !== undefined) {
      console.warn(`skipped: ${format} is not installed`);
      return;
    }
    const folder = emptyDirectory();
    const [xml, path] = [join(folder, 'domain.xml'), join(folder, 'guest.save')];
    writeFileSync(xml, "<domain type='kvm'><name>ferry</name></domain>\n");
    const { code, stderr, stdout } = await runCli([
      ...['convert', xbzrle, path, '--to', 'libvirt', '--xml', xml, '--libvirt-format', format],
    ]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/guest.save: libvirt of pc-.* verified\n/);
    const { containers, complete } = JSON.parse((await runCli(['inspect', '--json', path])).stdout);
    expect(complete).toBe(true);
    expect(containers).toMatchObject([{ kind: 'libvirt', isFinished: true, format, domain: { name: 'ferry' } }]);
    await expectTruth(path);
  });

  it('can be compressed into a pipe', async () => {
    const xml = join(emptyDirectory(), 'domain.xml');
    writeFileSync(xml, "<domain type='kvm'><name>ferry</name></domain>\n");
    const args = ['--to', 'libvirt', '--xml', xml, '--libvirt-format'];
    const { code, bytes } = await runCli(['convert', xbzrle, '-', ...args, 'gzip']);
    expect(code).toBe(0);
    expect((await runCli(['verify', '-'], bytes)).stdout).toMatch(/: OK/);
    const sparse = await runCli(['convert', xbzrle, '-', ...args, 'sparse']);
    expect([sparse.code, sparse.stderr]).toEqual([2, expect.stringMatching(/a sparse image needs random access/)]);
  });

  it.each<[string, string[], RegExp]>([
    ['a format for a stream', ['OUT.stream', '--libvirt-format', 'gzip'], /--libvirt-format goes with --to libvirt/],
    ['another format', ['OUT', '--to', 'libvirt', '--libvirt-format', 'zip'], /Allowed choices are raw, gzip/],
    ['direct I/O for a stream', ['OUT.stream', '--direct-io'], /--direct-io goes with --to mapped-ram/],
    ['an offset of an image', ['OUT,offset=4K', '--to', 'libvirt', '--xml', 'x'], /an offset goes with --to stream or/],
    ['an offset of a device', ['/dev/null,offset=4K', '--to', 'stream'], /expected a regular file for an offset/],
  ])('refuses %s', async (_, args, message) => {
    const cwd = emptyDirectory();
    const { code, stderr } = await runCli(['convert', xbzrle, ...args], undefined, { cwd });
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(readdirSync(cwd)).toEqual([]);
  });
});

/** A stream with this many MiB of nonzero pages. */
async function streamOfRam(mebibytes: number): Promise<Uint8Array> {
  const { appendTo, MemoryFile, RawRam, writeStream } = await import('../../src/node.ts');
  const image = Uint8Array.from({ length: mebibytes << 20 }, (_, i) => ((i >> 12) % 250) + 1);
  const file = new MemoryFile();
  const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
  await writeStream({ configuration: { machine: 'none', capabilities: [] }, ram }, appendTo(file));
  const bytes = new Uint8Array(file.size);
  file.read(bytes, 0);
  return bytes;
}
