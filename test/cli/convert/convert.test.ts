/** `vmferry convert` as users run it: forms, wrong arguments, pipes, interruptions, a full disk. */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  createReadStream,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadContainerFixture } from '../../container-fixtures.ts';
import { fixturePath, loadFixtures } from '../../fixture-files.ts';
import { join as bytesOf, command, EOF, EOS, end, none, normalPage, part, ramStart } from '../../oracle/build.ts';
import { runCli } from '../../run-cli.ts';
import { StalledInput } from '../../stalled-input.ts';

const xbzrle = fixturePath('pc-xbzrle-10.0.bin');
const truth = loadFixtures().find(({ name }) => name === 'pc-xbzrle-10.0')?.truth ?? [];

let directory = '';
let count = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-convert-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
/** A fresh, empty directory. */
function emptyDirectory(): string {
  const path = join(directory, `empty-${count++}`);
  mkdirSync(path);
  return path;
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

async function expectTruth(path: string): Promise<void> {
  const { stdout } = await runCli(['inspect', '--hash', '--json', path]);
  const blocks: { idstr: string; sha256: string }[] = JSON.parse(stdout).ram.blocks;
  expect(blocks.map(({ idstr, sha256 }) => ({ idstr, sha256 }))).toEqual(
    truth.map(({ idstr, sha256 }) => ({ idstr, sha256 })),
  );
}

describe('convert', () => {
  it('chooses the form by the suffix, reports what it wrote, and verifies it', async () => {
    const folder = emptyDirectory();
    for (const [name, form] of [
      ['a.mapped-ram', 'mapped-ram'],
      ['a.stream', 'stream'],
      ['a.migration', 'stream'],
    ] as const) {
      const path = join(folder, name);
      const { stdout, stderr, code } = await runCli(['convert', xbzrle, path]);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(
        new RegExp(
          `${name}: ${form} of pc-i440fx-10.0, .*42 pages with data, 518 zero pages, 28 device states, verified\n`,
        ),
      );
      expect((await runCli(['verify', path])).stdout).toMatch(/: OK \(/);
      await expectTruth(path);
    }
    expect(readdirSync(folder).sort()).toEqual(['a.mapped-ram', 'a.migration', 'a.stream']);
  });

  it('--json has the documented facts', async () => {
    const path = join(emptyDirectory(), 'out');
    const { stdout, code } = await runCli([
      ...['convert', xbzrle, path, '--to', 'stream', '--json', '--no-verify', '--drop-description'],
    ]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      ...{ jsonVersion: 1, plan: expect.any(Object) },
      ...{ source: xbzrle, output: path, format: 'stream', machine: 'pc-i440fx-10.0', length: statSync(path).size },
      blocks: truth.map(({ idstr, length }) => ({
        ...{ idstr, length, absentPages: 0, dataPages: expect.any(Number), zeroPages: expect.any(Number) },
      })),
      ...{ devices: 28, hasDescription: false, isVerified: false },
    });
    const { stdout: verified } = await runCli(['verify', path]);
    expect(verified).toMatch(/description-missing/);
  });

  it('reads and writes pipes', async () => {
    const path = join(emptyDirectory(), 'piped.mapped-ram');
    expect((await runCli(['convert', '-', path], createReadStream(xbzrle))).code).toBe(0);
    const piped = await runCli(['convert', path, '-', '--to', 'stream']);
    expect([piped.code, piped.stderr]).toEqual([0, '']);
    expect((await runCli(['verify', '-'], piped.bytes)).stdout).toMatch(/standard input: OK/);
    const fifo = join(emptyDirectory(), 'fifo');
    execFileSync('mkfifo', [fifo]);
    const reader = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'inherit'] });
    const read = Readable.from(reader.stdout).toArray();
    const { code, stderr } = await runCli(['convert', path, fifo, '--to', 'stream']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/is not a regular file; writing in place/);
    expect(sha256(Buffer.concat(await read))).toBe(sha256(piped.bytes));
  });

  it('writes a raw image of a block', async () => {
    const path = join(emptyDirectory(), 'ram.raw');
    expect((await runCli(['convert', xbzrle, path, '--block', 'pc.ram'])).code).toBe(0);
    expect(sha256(readFileSync(path))).toBe(truth.find(({ idstr }) => idstr === 'pc.ram')?.sha256);
    const piped = await runCli(['convert', xbzrle, '-', '--to', 'raw', '--block', 'pc.ram']);
    expect(sha256(piped.bytes)).toBe(sha256(readFileSync(path)));
  });

  it('removes the head of a libvirt save image, and adds one with its XML and cookie', async () => {
    const folder = emptyDirectory();
    const saved = join(folder, 'saved');
    writeFileSync(saved, loadContainerFixture('libvirt-gzip').bytes);
    const [bare, again, other] = ['bare.stream', 'again', 'other'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    expect((await runCli(['convert', saved, bare])).code).toBe(0);
    expect(readFileSync(bare).subarray(0, 4).toString()).toBe('QEVM');
    expect((await runCli(['convert', saved, again, '--to', 'libvirt'])).code).toBe(0);
    for (const what of ['--xml', '--cookie']) {
      const [before, after] = [await runCli(['inspect', what, saved]), await runCli(['inspect', what, again])];
      expect(after.stdout).toBe(before.stdout);
      expect(before.stdout).not.toBe('');
    }
    const xml = join(folder, 'domain.xml');
    writeFileSync(xml, "<domain type='kvm'><name>renamed</name></domain>\n");
    expect((await runCli(['convert', bare, other, '--to', 'libvirt', '--xml', xml])).code).toBe(0);
    expect((await runCli(['inspect', other])).stdout).toMatch(/domain +renamed, kvm/);
    expect(readFileSync(other).subarray(-1000).equals(readFileSync(bare).subarray(-1000))).toBe(true);
  });

  it.each<[string, string[], RegExp]>([
    ['no form', [xbzrle, 'OUT'], /expected --to stream\|multifd\|mapped-ram\|raw\|libvirt/],
    ['another form', [xbzrle, 'OUT', '--to', 'tar'], /Allowed choices are stream, multifd, mapped-ram, raw, libvirt/],
    ['no output', [xbzrle], /missing required argument 'OUT'/],
    ['a mapped-ram file for a pipe', [xbzrle, '-', '--to', 'mapped-ram'], /needs random access/],
    ['a raw image of no block', [xbzrle, 'OUT', '--to', 'raw'], /expected --block IDSTR/],
    ['a raw image of a missing block', [xbzrle, 'OUT.raw', '--block', 'x'], /got "x"/],
    ['--block for a stream', [xbzrle, 'OUT.stream', '--block', 'x'], /--block goes with --to raw/],
    ['--xml for a stream', [xbzrle, 'OUT.stream', '--xml', 'x'], /--xml goes with --to libvirt/],
    ['no XML', [xbzrle, 'OUT', '--to', 'libvirt'], /expected --xml FILE/],
    ['missing XML', [xbzrle, 'OUT', '--to', 'libvirt', '--xml', 'nowhere'], /cannot read nowhere: no such file/],
    ['JSON among bytes', [xbzrle, '-', '--to', 'stream', '--json'], /either --json or the bytes/],
    ['a directory', [xbzrle, '.', '--to', 'stream'], /got the directory/],
    ['a missing directory', [xbzrle, 'no/OUT.stream'], /cannot write no.OUT.stream: the directory no does not exist/],
    ['an output without a name', [xbzrle, '', '--to', 'stream'], /expected the name of a file to write/],
    ['an output on a web server', [xbzrle, 'http://127.0.0.1/OUT.stream'], /got the URL http/],
    ['standard input as a channel, too', ['-', 'OUT.stream', '--channel', '-'], /got standard input twice/],
    ['standard input as two channels', [xbzrle, 'OUT.stream', '--channel', '-', '--channel', '-'], /input twice/],
    [
      'an offset that no file can have',
      [xbzrle, 'OUT.stream,offset=8191T'],
      /cannot write OUT.stream: file too large \(at 0x/,
    ],
    ['XML that is none', [xbzrle, 'OUT', '--to', 'libvirt', '--xml', xbzrle], /not well-formed/],
    ['a directory as XML', [xbzrle, 'OUT', '--to', 'libvirt', '--xml', '.'], /cannot read \.: it is a directory/],
  ])('refuses %s, and leaves nothing', async (_, args, message) => {
    const cwd = emptyDirectory();
    const { code, stderr, stdout } = await runCli(['convert', ...args], undefined, { cwd });
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
    expect(readdirSync(cwd)).toEqual([]);
  });

  it('never overwrites its input', async () => {
    const path = join(emptyDirectory(), 'in.stream');
    copyFileSync(xbzrle, path);
    for (const form of ['stream', 'mapped-ram', 'raw']) {
      const { code, stderr } = await runCli([
        ...['convert', path, path, '--to', form, ...(form === 'raw' ? ['--block', 'pc.ram'] : [])],
      ]);
      expect(code).toBe(2);
      expect(stderr).toMatch(/expected an output other than the input/);
    }
    expect(readFileSync(path).equals(readFileSync(xbzrle))).toBe(true);
  });

  it('never overwrites the XML of its output', async () => {
    const xml = join(emptyDirectory(), 'domain.xml');
    writeFileSync(xml, '<domain/>');
    const { code, stderr } = await runCli(['convert', xbzrle, xml, '--to', 'libvirt', '--xml', xml]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/expected an output other than the XML/)]);
    expect(readFileSync(xml, 'utf8')).toBe('<domain/>');
  });

  it.each<[string, string, RegExp]>([
    ['XML that is not closed', "<domain type='kvm'>", /domain.xml: the domain XML is not well-formed: Missing end tag/],
    [
      'XML of another VM',
      "<domain><memory unit='GiB'>4</memory><os><type machine='pc-q35-10.0'>hvm</type></os></domain>",
      /domain.xml: the domain XML does not fit the stream: its machine is pc-q35-10.0, that of the stream pc-i440fx-10.0; its memory is 4294967296 bytes, that of the stream 2097152/,
    ],
  ])('refuses %s, in every format, and leaves no output', async (_, text, message) => {
    const folder = emptyDirectory();
    const [xml, out] = [join(folder, 'domain.xml'), join(folder, 'guest.save')];
    writeFileSync(xml, text);
    for (const format of ['raw', 'gzip', 'sparse']) {
      const args = ['convert', xbzrle, out, '--to', 'libvirt', '--xml', xml, '--libvirt-format', format];
      const { code, stderr } = await runCli(args);
      expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
      expect(readdirSync(folder)).toEqual(['domain.xml']);
    }
    const { code, bytes } = await runCli(['convert', xbzrle, '-', '--to', 'libvirt', '--xml', xml]);
    expect([code, bytes.length]).toEqual([2, 0]);
  });

  it('compares the name of an XML with that of the image', async () => {
    const folder = emptyDirectory();
    const [saved, xml] = [join(folder, 'saved'), join(folder, 'domain.xml')];
    writeFileSync(saved, loadContainerFixture('libvirt-gzip').bytes);
    const own = (await runCli(['inspect', '--xml', saved])).stdout;
    const convert = async (text: string) => {
      writeFileSync(xml, text);
      return await runCli(['convert', saved, join(folder, 'again'), '--to', 'libvirt', '--xml', xml]);
    };
    const { code, stderr } = await convert(own.replace(/<name>.*<\/name>/, '<name>other</name>'));
    expect([code, stderr]).toEqual([2, expect.stringMatching(/its name is "other", that of the image "ferry-/)]);
    const changed = await convert(own.replace(/<uuid>./, '<uuid>0'));
    expect([changed.code, changed.stderr]).toEqual([2, expect.stringMatching(/its UUID is 0f4e1c55-.* 9f4e1c55-/)]);
    expect((await convert(own.replace('</title>', '!</title>'))).code).toBe(0);
  });

  it('reports with --json what it wrote in place', async () => {
    const { code, stdout } = await runCli(['convert', xbzrle, '/dev/null', '--to', 'stream', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ output: '/dev/null', format: 'stream', devices: 28, isVerified: false });
    const own = await runCli(['convert', xbzrle, '/proc/self/fd/1', '--to', 'stream', '--json']);
    expect([own.code, own.stdout]).toEqual([2, '']);
    expect(own.stderr).toMatch(/either --json or the bytes/);
  });

  it('keeps the old file when the input is bad', async () => {
    const folder = emptyDirectory();
    const cut = join(folder, 'cut');
    writeFileSync(cut, readFileSync(xbzrle).subarray(0, 300_000));
    for (const name of ['old.stream', 'old.mapped-ram']) {
      const path = join(folder, name);
      writeFileSync(path, 'what was there');
      const { code, stderr } = await runCli(['convert', cut, path]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/\[truncated\]/);
      expect(readFileSync(path, 'utf8')).toBe('what was there');
    }
    expect(readdirSync(folder).sort()).toEqual(['cut', 'old.mapped-ram', 'old.stream']);
  });

  it('reports missing channels for a stream with marks', async () => {
    const path = join(emptyDirectory(), 'out.mapped-ram');
    const { code, stderr } = await runCli(['convert', fixturePath('none-multifd-uuid-10.0.bin'), path]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/channels, which were not given \[missing-channels\]/);
  });

  it('sends an earlier save first, and then the changes', async () => {
    const folder = emptyDirectory();
    const path = join(folder, 'both.stream');
    const old = fixturePath('pc-plain-10.0.bin');
    const { stdout, code } = await runCli(['convert', xbzrle, path, '--base', old]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/then \d+ deltas of \d+ B, \d+ whole pages, 28 device states, verified\n/);
    await expectTruth(path);
    const { ram } = JSON.parse((await runCli(['inspect', '--json', path])).stdout);
    expect(ram.records.xbzrle.records).toBeGreaterThan(0);
    const other = await runCli([
      'convert',
      xbzrle,
      join(folder, 'x.stream'),
      '--base',
      fixturePath('none-plain-10.0.bin'),
    ]);
    expect([other.code, other.stderr]).toEqual([2, expect.stringMatching(/expected a base with the RAM blocks/)]);
    const over = await runCli(['convert', xbzrle, path, '--base', path]);
    expect([over.code, over.stderr]).toEqual([2, expect.stringMatching(/an output other than the input/)]);
    const form = await runCli(['convert', xbzrle, join(folder, 'x.mapped-ram'), '--base', old]);
    expect([form.code, form.stderr]).toEqual([2, expect.stringMatching(/--base goes with --to stream/)]);
    expect(readdirSync(folder)).toEqual(['both.stream']);
  });

  it('drops commands that need an answer', async () => {
    const folder = emptyDirectory();
    const path = join(folder, 'in');
    const page = normalPage(0, new Uint8Array(4096).fill(1), 'ram');
    writeFileSync(
      path,
      bytesOf(none, command(1), command(2, [0, 0, 0, 1]), ramStart, part(7, page, EOS), end(7, EOS), EOF),
    );
    const out = join(folder, 'out.stream');
    const { code, stderr } = await runCli(['convert', path, out]);
    expect(code).toBe(0);
    expect(stderr).toBe('vmferry: warning: 15 pages of ram were never sent, and are not sent again\n');
    expect(Buffer.from(readFileSync(out)).equals(bytesOf(none, ramStart, part(7, page, EOS), end(7, EOS), EOF))).toBe(
      true,
    );
  });
});

describe('a convert that is interrupted', () => {
  const stalled = () => new StalledInput(readFileSync(xbzrle).subarray(0, 200_000));

  it.each(['out.stream', 'out.mapped-ram'])('leaves nothing of %s', async (name) => {
    const folder = emptyDirectory();
    const { code } = await runCli(['convert', '-', join(folder, name)], stalled(), {
      interrupt: { signal: 'SIGINT', once: () => readdirSync(folder).length > 0 },
    });
    expect(code).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });
});
