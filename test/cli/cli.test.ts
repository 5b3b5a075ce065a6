/** The command line as users run it: output, exit codes, wrong arguments, pipes, interruptions, no leftovers. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Fixture, fixturePath, loadFixtures } from '../fixture-files.ts';
import { someOf } from '../limits.ts';
import { cliPath, runCli } from '../run-cli.ts';
import { StalledInput } from '../stalled-input.ts';

const fixtures = loadFixtures();
const named = (name: string): Fixture => {
  const fixture = fixtures.find((each) => each.name === name);
  if (fixture === undefined) throw new Error(`there is no fixture ${name}`);
  return fixture;
};
const xbzrle = named('pc-xbzrle-10.0');

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Saves the fixture as an ordinary file. Returns its location as the command line takes it. */
function placeFixture({ name, bytes, offset }: Fixture): string {
  const path = join(directory, `${name}.bin`);
  if (!existsSync(path)) writeFileSync(path, bytes);
  return offset === 0 ? path : `${path},offset=${offset}`;
}

/** The arguments for the fixture and its channels. */
function inputOf(fixture: Fixture): string[] {
  const channels = fixture.channels.map((bytes, i) => {
    const path = join(directory, `${fixture.name}.channel-${i}`);
    if (!existsSync(path)) writeFileSync(path, bytes);
    return path;
  });
  return [placeFixture(fixture), ...channels.flatMap((path) => ['--channel', path])];
}

let emptyCount = 0;
/** A fresh, empty directory. */
function emptyDirectory(): string {
  const path = join(directory, `empty-${emptyCount++}`);
  mkdirSync(path);
  return path;
}

describe('inspect', () => {
  it('shows what is in a file', async () => {
    const { stdout, stderr, code } = await runCli([
      'inspect',
      '--sections',
      '--pages',
      fixturePath('pc-xbzrle-10.0.bin'),
    ]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toMatch(/format +QEMU migration stream, version 3, complete/);
    expect(stdout).toMatch(/machine +pc-i440fx-10\.0/);
    expect(stdout).toMatch(/pc\.ram +2 MiB/);
    expect(stdout).toMatch(/full +\d+ +globalstate/);
    expect(stdout).toMatch(/\|[·█▒x ]{64}\|/);
    // Not a terminal: no colours, no progress.
    expect(stdout).not.toContain('\x1b');
  });

  it('--json has the documented facts, with counts of the final content', async () => {
    const { stdout, code } = await runCli(['inspect', '--json', fixturePath('pc-xbzrle-10.0.bin')]);
    expect(code).toBe(0);
    const inspection = JSON.parse(stdout);
    expect(inspection).toMatchObject({ format: 'stream', version: 3, machine: 'pc-i440fx-10.0', complete: true });
    expect(inspection.ram.totalBytes).toBe(xbzrle.truth.reduce((sum, { length }) => sum + length, 0));
    for (const { idstr, usedLength, pageSize, pages } of inspection.ram.blocks) {
      expect(usedLength).toBe(xbzrle.truth.find((block) => block.idstr === idstr)?.length);
      const { zero, normal, xbzrle: deltas, absent } = pages;
      expect(zero + normal + deltas + absent).toBe(usedLength / pageSize);
    }
    expect(inspection.ram.records.xbzrle.records).toBeGreaterThan(0);
    // Sections, commands and the rest follow each other without a gap.
    for (const section of inspection.sections) {
      expect(section).toMatchObject({
        name: expect.any(String),
        instanceId: expect.any(Number),
        versionId: expect.any(Number),
      });
      expect(xbzrle.bytes[section.offset]).toBe({ start: 1, part: 2, end: 3, full: 4 }[section.kind as string]);
      expect(xbzrle.bytes[section.offset + section.length - 5]).toBe(0x7e);
    }
    expect(inspection.length).toBe(xbzrle.bytes.length);
  });

  it.each(someOf(fixtures, 8, 4))(
    '--hash gives the sha256 of each block of $name, from a file and from a pipe',
    async (fixture) => {
      const [location, ...channels] = inputOf(fixture) as [string, ...string[]];
      const expected = fixture.truth.map(({ idstr, sha256 }) => ({ idstr, sha256 }));
      const hashes = (stdout: string) =>
        JSON.parse(stdout).ram.blocks.map(({ idstr, sha256 }: Record<string, string>) => ({ idstr, sha256 }));
      expect(hashes((await runCli(['inspect', '--hash', '--json', location, ...channels])).stdout)).toEqual(expected);
      if (fixture.offset !== 0) return;
      const piped = await runCli(['inspect', '--hash', '--json', '-', ...channels], createReadStream(location));
      expect(hashes(piped.stdout)).toEqual(expected);
    },
  );

  it('shows the readable part of a truncated file, and exits with 1', async () => {
    const path = join(directory, 'cut.bin');
    writeFileSync(path, xbzrle.bytes.subarray(0, 100_000));
    const { stdout, code } = await runCli(['inspect', path]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/not complete/);
    expect(stdout).toMatch(/pc\.ram +2 MiB/);
    expect(stdout).toMatch(/error truncated: .*0x186a0 \(100000\), section ram/);
  });

  it('reads a file at an offset, decimal, hex or with a suffix', async () => {
    const path = join(directory, 'shifted.bin');
    writeFileSync(path, Buffer.concat([Buffer.alloc(4096, 0xaa), xbzrle.bytes]));
    for (const offset of ['4096', '0x1000', '4K']) {
      const { stdout, code } = await runCli(['inspect', '--json', `${path},offset=${offset}`]);
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ complete: true, length: xbzrle.bytes.length });
    }
  });

  it('makes control characters in names harmless', async () => {
    const path = join(directory, 'escape.bin');
    const bytes = Buffer.from(xbzrle.bytes);
    bytes.write('\x1b[31mevil', bytes.indexOf('pc-i440fx'), 'latin1');
    writeFileSync(path, bytes);
    const { stdout } = await runCli(['inspect', path]);
    expect(stdout).not.toContain('\x1b');
    expect(stdout).toContain('\\x1b[31mevil');
  });

  it('ends quietly when its reader ends', () => {
    const command = `node ${JSON.stringify(join(import.meta.dirname, '../../dist/cli.js'))} inspect --json ${fixturePath('pc-xbzrle-10.0.bin')} | head -n 1`;
    expect(execFileSync('bash', ['-o', 'pipefail', '-c', command], { stdio: 'pipe' }).toString()).toBe('{\n');
  });
});

describe('verify', () => {
  it.each(someOf(fixtures, 4, 2))('reports $name as sound', async (fixture) => {
    const { stdout, stderr, code } = await runCli(['verify', ...inputOf(fixture)]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/: OK \(/);
  });

  it('finds a broken delta, names the place, and exits with 1', async () => {
    const inspection = JSON.parse((await runCli(['inspect', '--json', fixturePath('pc-xbzrle-10.0.bin')])).stdout);
    expect(inspection.ram.records.xbzrle.records).toBeGreaterThan(0);
    const bytes = Buffer.from(xbzrle.bytes);
    // An XBZRLE record that continues its block: flags 0x60 in the low byte, header byte 1, a length below the page size.
    let at = bytes.length;
    for (let i = 0; i < bytes.length - 11; i++) {
      const isRecord =
        bytes.readUInt32BE(i) === 0 && (bytes.readUInt32BE(i + 4) & 0xfff) === 0x60 && bytes[i + 8] === 1;
      if (isRecord && bytes.readUInt16BE(i + 9) < 4096 && bytes.readUInt32BE(i + 4) < 0x20_0000) {
        at = i;
        break;
      }
    }
    expect(at).toBeLessThan(bytes.length);
    bytes.set([5, 0], at + 11); // Five equal bytes, then an empty run of new ones.
    const path = join(directory, 'delta.bin');
    writeFileSync(path, bytes);
    const { stdout, code } = await runCli(['verify', '--json', path]);
    expect(code).toBe(1);
    const { ok, findings } = JSON.parse(stdout);
    expect(ok).toBe(false);
    expect(findings[0]).toMatchObject({ severity: 'error', code: 'bad-delta', place: { offset: at, block: 'pc.ram' } });
    const text = await runCli(['verify', path]);
    expect(text.stdout).toMatch(/^error bad-delta: .* block pc\.ram, page/);
    expect(text.stdout).toMatch(/: BAD: 1 error \(/);
  });

  it('reads a pipe', async () => {
    const { stdout, code } = await runCli(['verify', '-'], xbzrle.bytes);
    expect(stdout).toMatch(/^standard input: OK/m);
    expect(code).toBe(0);
  });

  it('reads a FIFO', async () => {
    const path = join(directory, 'fifo');
    execFileSync('mkfifo', [path]);
    const writer = execFileSync.bind(null, 'bash', ['-c', `cat ${fixturePath('pc-xbzrle-10.0.bin')} > ${path} &`], {
      stdio: 'ignore',
    });
    writer();
    const { stdout, code } = await runCli(['verify', path]);
    expect(stdout).toMatch(/OK/);
    expect(code).toBe(0);
  });

  it('recognizes another kind of file', async () => {
    const path = join(directory, 'other.txt');
    writeFileSync(path, 'Once upon a time there was a file that was not a migration stream.\n');
    const { stdout, code } = await runCli(['verify', path]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/error not-a-migration-stream: expected a migration stream, got text: .* \(at 0x0\)/);
    const empty = join(directory, 'empty.bin');
    writeFileSync(empty, '');
    expect((await runCli(['verify', empty])).stdout).toMatch(/error truncated/);
  });
});

describe('extract', () => {
  it.each(someOf(fixtures, 8, 4))('writes every block of $name, equal to the truth', async (fixture) => {
    const target = join(emptyDirectory(), 'all');
    const { stdout, stderr, code } = await runCli(['extract', ...inputOf(fixture), '--all', target, '--json']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const { blocks } = JSON.parse(stdout);
    expect(blocks).toHaveLength(fixture.truth.length);
    for (const { idstr, path } of blocks) {
      expect(sha256(readFileSync(path))).toBe(fixture.truth.find((block) => block.idstr === idstr)?.sha256);
    }
    expect(readdirSync(target)).toHaveLength(fixture.truth.length);
  });

  it('writes one block to a file, with holes for zero pages', async () => {
    const target = join(emptyDirectory(), 'pc.ram.raw');
    const args = ['extract', fixturePath('pc-xbzrle-10.0.bin'), '--block', 'pc.ram', '-o', target];
    const { stdout, code } = await runCli(args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/pc\.ram\.raw: pc\.ram, 2 MiB, .* of it data/);
    expect(sha256(readFileSync(target))).toBe(xbzrle.truth.find(({ idstr }) => idstr === 'pc.ram')?.sha256);
    const { size, blocks, mode } = statSync(target);
    expect(blocks * 512).toBeLessThan(size / 2);
    expect(mode & 0o777).toBe(0o600);
  });

  it.each(['pc-xbzrle-10.0', 'pc-mapped-ram-multifd-10.0'])(
    'writes a block of %s to a pipe, from a file and from a pipe',
    async (name) => {
      const fixture = named(name);
      const location = placeFixture(fixture);
      const expected = fixture.truth.find(({ idstr }) => idstr === 'pc.ram')?.sha256;
      expect(sha256((await runCli(['extract', location, '--block', 'pc.ram', '-o', '-'])).bytes)).toBe(expected);
      const piped = await runCli(['extract', '-', '--block', 'pc.ram', '-o', '-'], createReadStream(location));
      expect(sha256(piped.bytes)).toBe(expected);
      expect(piped.code).toBe(0);
    },
  );

  it('writes into a named pipe, and reports that it is written in place', async () => {
    const path = join(emptyDirectory(), 'fifo');
    execFileSync('mkfifo', [path]);
    const reading = runReader(path);
    const { stderr, code } = await runCli([
      'extract',
      fixturePath('pc-xbzrle-10.0.bin'),
      '--block',
      'pc.ram',
      '-o',
      path,
    ]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/writing in place/);
    expect(sha256(await reading)).toBe(xbzrle.truth.find(({ idstr }) => idstr === 'pc.ram')?.sha256);
  });

  it('maps names of blocks to different file names', async () => {
    const { blockFileName } = await import('../../src/cli/extract.ts');
    expect(blockFileName('pc.ram')).toBe('pc.ram.raw');
    expect(blockFileName('/rom@etc/acpi/tables')).toBe('%2From@etc%2Facpi%2Ftables.raw');
    expect(blockFileName('..')).toBe('%2E..raw');
    expect(blockFileName('a%2Fb')).not.toBe(blockFileName('a/b'));
  });

  it('replaces an old file only when the new one is complete, and follows a link to it', async () => {
    const folder = emptyDirectory();
    const target = join(folder, 'real.raw');
    writeFileSync(target, 'old');
    const link = join(folder, 'link.raw');
    symlinkSync('real.raw', link);
    const cut = join(directory, 'cut-2.bin');
    writeFileSync(cut, xbzrle.bytes.subarray(0, xbzrle.bytes.length / 2));
    expect((await runCli(['extract', cut, '--block', 'pc.ram', '-o', link])).code).toBe(1);
    expect(readFileSync(target, 'utf8')).toBe('old');
    const location = fixturePath('pc-xbzrle-10.0.bin');
    expect((await runCli(['extract', location, '--block', 'pc.ram', '-o', link])).code).toBe(0);
    expect(statSync(target).size).toBe(2 << 20);
    expect(readdirSync(folder).sort()).toEqual(['link.raw', 'real.raw']);
  });

  it.each([
    ['a truncated file', (bytes: Uint8Array) => bytes.subarray(0, bytes.length >> 1), 'truncated'],
    ['junk', () => new TextEncoder().encode('this is not a stream'), 'not-a-migration-stream'],
  ] as const)('leaves nothing behind for %s', async (_, damage, code) => {
    const folder = emptyDirectory();
    const input = join(directory, `${code}.bin`);
    writeFileSync(input, damage(xbzrle.bytes));
    const one = await runCli(['extract', input, '--block', 'pc.ram', '-o', join(folder, 'out.raw')]);
    expect(one.code).toBe(1);
    expect(one.stderr).toContain(`[${code}] in ${input} at 0x`);
    const all = await runCli(['extract', input, '--all', join(folder, 'all')]);
    expect(all.code).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
    const pipe = await runCli(['extract', input, '--block', 'pc.ram', '-o', '-']);
    expect(pipe.code).toBe(1);
    expect(pipe.bytes).toHaveLength(0);
  });

  it('lists the blocks if another one is requested', async () => {
    const folder = emptyDirectory();
    const args = ['extract', fixturePath('pc-xbzrle-10.0.bin'), '--block', 'ram', '-o', join(folder, 'x')];
    const { stderr, code } = await runCli(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(/expected a RAM block in the file \(pc\.ram, .*\), got "ram"/);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('refuses a compressed page that does not decompress, instead of writing something wrong', async () => {
    const damaged = named('pc-compress-7.2').bytes.slice();
    // Within the zlib stream of the first page, which begins with 78 01.
    const at = Buffer.from(damaged).indexOf('7801', 0, 'hex') + 9;
    damaged[at] = (damaged[at] as number) ^ 0x55;
    const path = join(directory, 'damaged-compress.bin');
    writeFileSync(path, damaged);
    const folder = emptyDirectory();
    const { stderr, code } = await runCli(['extract', path, '--all', join(folder, 'all')]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/\[bad-compressed-data\] in .* page \d+/);
    expect(readdirSync(folder)).toEqual([]);
    const verified = await runCli(['verify', path]);
    expect(verified.stdout).toMatch(/error bad-compressed-data: .* page \d+\)\n/);
    expect(verified.code).toBe(1);
  });

  it('does not replace a channel of its input', async () => {
    const [main, ...channels] = inputOf(named('pc-multifd-zlib-7.2')) as [string, ...string[]];
    const target = channels[1] as string;
    const { stderr, code } = await runCli(['extract', main, ...channels, '--block', 'pc.ram', '-o', target]);
    expect(stderr).toMatch(/expected an output other than the input/);
    expect(code).toBe(2);
  });
});

describe('a multifd set', () => {
  const set = named('pc-multifd-zstd-zero-multifd-10.0');

  it('is shown with its channels', async () => {
    const { stdout, code } = await runCli(['inspect', ...inputOf(set)]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/multifd +2 channels, \d+ syncs, zstd\n/);
    for (const [i, { length }] of set.channels.entries()) {
      expect(stdout).toMatch(new RegExp(` +\\d +${length.toLocaleString('en-US')} .*channel-${i}\n`));
    }
  });

  it('is read from pipes of a shell', async () => {
    const [main, , one, , two] = inputOf(set) as [string, string, string, string, string];
    const script = `exec "$0" "$1" verify "$2" --channel <(cat "$3") --channel <(cat "$4")`;
    const args = ['-c', script, process.execPath, cliPath, main, one, two];
    const { stdout, status } = spawnSync('bash', args, { encoding: 'utf8' });
    expect(stdout).toMatch(/: OK \(/);
    expect(status).toBe(0);
  });

  it('names the channel and the place of damage', async () => {
    const [main, , one, , two] = inputOf(set) as [string, string, string, string, string];
    const path = join(directory, 'damaged-channel');
    writeFileSync(path, (set.channels[0] as Uint8Array).subarray(0, 5000));
    const { stdout, code } = await runCli(['verify', main, '--channel', two, '--channel', path]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/error truncated: .* \(at 0x1388 of channel \d/);
    const twice = await runCli([
      'extract',
      main,
      '--channel',
      one,
      '--channel',
      one,
      '--all',
      join(emptyDirectory(), 'all'),
    ]);
    expect(twice.code).toBe(1);
    expect(twice.stderr).toMatch(/channels with different numbers.*\[bad-channel\]/);
  });
});

describe('extract, where it could do harm', () => {
  it('does not replace its input', async () => {
    const folder = emptyDirectory();
    const input = join(folder, 'pc.ram.raw');
    writeFileSync(input, xbzrle.bytes);
    symlinkSync('pc.ram.raw', join(folder, 'link'));
    for (const target of [
      ['--block', 'pc.ram', '-o', input],
      ['--block', 'pc.ram', '-o', join(folder, 'link')],
      ['--all', folder],
    ]) {
      const { stderr, code } = await runCli(['extract', input, ...target]);
      expect(code).toBe(2);
      expect(stderr).toMatch(/expected an output other than the input/);
      expect(sha256(readFileSync(input))).toBe(sha256(xbzrle.bytes));
      expect(readdirSync(folder).sort()).toEqual(['link', 'pc.ram.raw']);
    }
  });

  it('refuses the main channel of a multifd migration, and does not hash it', async () => {
    const path = join(directory, 'multifd.bin');
    // The pages went through the channels. The main channel has only the marks at which to wait for them.
    writeFileSync(path, Buffer.from(`${multifdHex.replace(/[^0-9a-f]/g, '')}`, 'hex'));
    const folder = emptyDirectory();
    const extracted = await runCli(['extract', path, '--all', join(folder, 'all')]);
    expect(extracted.code).toBe(1);
    expect(extracted.stderr).toMatch(/the pages of a multifd migration are in its channels.*\[missing-channels\]/);
    expect(readdirSync(folder)).toEqual([]);
    const verified = await runCli(['verify', '--json', path]);
    const codes = JSON.parse(verified.stdout).findings.map(({ code }: { code: string }) => code);
    expect(codes).toEqual(expect.arrayContaining(['missing-channels', 'pages-absent']));
    for (const input of [undefined, readFileSync(path)]) {
      const hashed = await runCli(['inspect', '--hash', '--json', input === undefined ? path : '-'], input);
      expect(hashed.code).toBe(1);
      expect(JSON.parse(hashed.stdout).ram.blocks[0].sha256).toBeUndefined();
    }
  });

  it('warns about pages that were never sent', async () => {
    const path = join(directory, 'absent.bin');
    writeFileSync(path, Buffer.from(multifdHex.replaceAll('0000000000000200', '').replace(/[^0-9a-f]/g, ''), 'hex'));
    const target = join(emptyDirectory(), 'ram.raw');
    const { stderr, code } = await runCli(['extract', path, '--block', 'ram', '-o', target]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/warning: 2 pages of ram were never sent, so they read as zeros/);
    expect(readFileSync(target)).toEqual(Buffer.alloc(8192));
  });

  it('reports what it wrote in place, in words and with --json', async () => {
    const location = fixturePath('pc-xbzrle-10.0.bin');
    const args = ['extract', location, '--block', 'pc.ram'];
    const target = join(emptyDirectory(), 'pc.ram.raw');
    const file = JSON.parse((await runCli([...args, '-o', target, '--json'])).stdout);
    for (const command of [args, ['convert', location, '--to', 'raw', '--block', 'pc.ram']]) {
      const output = command === args ? ['-o', '/dev/null'] : ['/dev/null'];
      const { code, stdout } = await runCli([...command, ...output, '--json']);
      expect(code).toBe(0);
      const [block] = file.blocks;
      expect(JSON.parse(stdout)).toEqual({
        ...{ jsonVersion: 1, plan: expect.objectContaining({ how: expect.any(String) }) },
        blocks: [{ ...block, path: '/dev/null' }],
      });
    }
    const { stdout } = await runCli([...args, '-o', '/dev/null']);
    expect(stdout).toMatch(/^\/dev\/null: pc\.ram, 2 MiB, .* of it data\n$/);
    // With a pipe as standard output, the bytes are all that is on it.
    const piped = ['-c', '"$0" "$@" -o /dev/stdout | cat', process.execPath, cliPath, ...args];
    const bytes = execFileSync('sh', piped, { maxBuffer: 16 << 20, stdio: ['ignore', 'pipe', 'ignore'] });
    expect(sha256(bytes)).toBe(sha256(readFileSync(target)));
  });

  it('reports a full device and exits with 2', async () => {
    const args = ['extract', fixturePath('pc-xbzrle-10.0.bin'), '--block', 'pc.ram', '-o', '/dev/full'];
    const { stderr, code } = await runCli(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(/no space left on device/);
  });
});

/** Header, configuration, START with one block of two pages, PART, END and EOF, with multifd's marks. */
const multifdHex = `5145564d00000003 07 00000004 6e6f6e65
  01 00000001 0372616d 00000000 00000004 0000000000002004 0372616d 0000000000002000
  0000000000000200 0000000000000010 7e00000001
  02 00000001 0000000000000200 0000000000000010 7e00000001
  03 00000001 0000000000000010 7e00000001 00`;

/** Reads a FIFO to its end. */
async function runReader(path: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of createReadStream(path)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe('wrong use', () => {
  const cases: [string, string[], RegExp][] = [
    ['no command', [], /Usage: vmferry/],
    ['an unknown command', ['inspekt', 'x'], /unknown command 'inspekt'.*Did you mean inspect/s],
    ['an unknown option', ['inspect', '--page', 'x'], /unknown option '--page'.*Did you mean --pages/s],
    ['no file', ['verify'], /missing required argument 'FILE'/],
    ['two files', ['inspect', 'a', 'b'], /too many arguments/],
    ['a missing file', ['verify', '/nonexistent/x'], /vmferry: error: cannot read \/nonexistent\/x: no such file/],
    ['a directory', ['verify', '/'], /cannot read \/: it is a directory/],
    ['no block', ['extract', 'x'], /expected one of --block, --all, --device, --physical or --elf$/m],
    ['no output', ['extract', 'x', '--block', 'pc.ram'], /expected -o OUT/],
    ['two targets', ['extract', 'x', '--block', 'pc.ram', '--all', 'd'], /got --block and --all/],
    ['an offset beyond all files', ['verify', 'x,offset=99999999999999999999'], /bytes below 2\^53, such as/],
  ];
  it.each(cases)('%s exits with 2 and says what is wrong', async (_, args, message) => {
    const { stdout, stderr, code } = await runCli(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n +at /);
    expect(stdout).toBe('');
  });

  it('reports an output that cannot be written, before reading', async () => {
    const args = ['extract', fixturePath('pc-xbzrle-10.0.bin'), '--block', 'pc.ram', '-o', '/nonexistent/out'];
    const { stderr, code } = await runCli(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(/no such file|does not exist/);
  });

  it.each(['inspect', 'verify', 'extract'])('%s --help has examples', async (command) => {
    const { stdout, code } = await runCli([command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}vmferry /);
  });

  it('--version prints the version of the package', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
    expect((await runCli(['--version'])).stdout).toBe(`${version}\n`);
  });

  it('a full disk leaves the old file and no scratch file', async () => {
    if (process.getuid?.() !== 0 || process.platform !== 'linux') {
      console.warn('skipped: a small file system can be mounted only by root on Linux');
      return;
    }
    const mount = emptyDirectory();
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', mount], { stdio: 'pipe' });
    } catch {
      console.warn('skipped: mounting a tmpfs is not allowed here');
      return;
    }
    try {
      writeFileSync(join(mount, 'out.raw'), 'old');
      const args = ['extract', fixturePath('pc-plain-10.0.bin'), '--block', 'pc.ram', '-o', join(mount, 'out.raw')];
      const { stderr, code } = await runCli(args);
      expect(code).toBe(2);
      expect(stderr).toMatch(/no space left on device/);
      expect(readFileSync(join(mount, 'out.raw'), 'utf8')).toBe('old');
      expect(readdirSync(mount)).toEqual(['out.raw']);
    } finally {
      execFileSync('umount', [mount]);
    }
  });
});

describe('interruption', () => {
  const stalled = () => new StalledInput(xbzrle.bytes.subarray(0, 200_000));

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGQUIT', 131],
    ['SIGALRM', 142],
    ['SIGXCPU', 152],
  ] as const)('%s while reading a pipe removes what was written and exits with %i', async (signal, expected) => {
    const folder = emptyDirectory();
    const args = ['extract', '-', '--block', 'pc.ram', '-o', join(folder, 'out.raw')];
    const { code } = await runCli(args, stalled(), {
      interrupt: { signal, once: () => readdirSync(folder).length > 0 },
    });
    expect(code).toBe(expected);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('SIGINT removes a directory that was made, and its files', async () => {
    const folder = emptyDirectory();
    const args = ['extract', '-', '--all', join(folder, 'all')];
    const once = () => existsSync(join(folder, 'all')) && readdirSync(join(folder, 'all')).length > 0;
    const { code } = await runCli(args, stalled(), { interrupt: { signal: 'SIGINT', once } });
    expect(code).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('a complete stream on a pipe is judged even if its writer stays', async () => {
    const { code, stdout } = await runCli(['verify', '-'], new StalledInput(xbzrle.bytes));
    expect(stdout).toMatch(/^standard input: OK/);
    expect(code).toBe(0);
  });

  it('SIGINT while waiting for the reader of a FIFO ends it', async () => {
    const path = join(emptyDirectory(), 'fifo');
    execFileSync('mkfifo', [path]);
    const args = ['extract', fixturePath('pc-xbzrle-10.0.bin'), '--block', 'pc.ram', '-o', path];
    const { code } = await runCli(args, undefined, { interrupt: { signal: 'SIGINT' } });
    expect(code).toBe(130);
  });

  it('bad input on a pipe is reported at once even if its writer stays', async () => {
    const silent = new StalledInput(Buffer.from('this is not a stream, and its writer says no more'));
    const { code, stdout } = await runCli(['verify', '-'], silent);
    expect(stdout).toMatch(/not-a-migration-stream/);
    expect(code).toBe(1);
  });

  it('SIGINT while waiting for the writer of a FIFO ends it', async () => {
    const path = join(emptyDirectory(), 'fifo');
    execFileSync('mkfifo', [path]);
    const { code } = await runCli(['verify', path], undefined, { interrupt: { signal: 'SIGINT' } });
    expect(code).toBe(130);
  });
});

describe('system errors', () => {
  const plain = fixturePath('pc-plain-10.0.bin');
  const out = () => join(emptyDirectory(), 'out.stream');

  it.each<[string, () => string[], RegExp]>([
    ['FILE', () => ['verify', '/no/x'], /cannot read \/no\/x: no such file$/],
    ['a directory as FILE', () => ['verify', '/tmp'], /cannot read \/tmp: it is a directory$/],
    [
      'a file as a directory',
      () => ['verify', `${plain}/x`],
      /cannot read .*\/x: a part of the path is not a directory$/,
    ],
    ['--channel', () => ['verify', plain, '--channel', '/no/x'], /cannot read \/no\/x: no such file$/],
    ['--against', () => ['check', plain, '--against', '/no/x'], /cannot read \/no\/x: no such file$/],
    ['--base', () => ['convert', plain, out(), '--base', '/no/x'], /cannot read \/no\/x: no such file$/],
    [
      '--xml',
      () => ['convert', plain, out(), '--to', 'libvirt', '--xml', '/no/x'],
      /cannot read \/no\/x: no such file$/,
    ],
    ['--file', () => ['search', plain, '-f', '/no/x'], /cannot read \/no\/x: no such file$/],
    ['a directory as --file', () => ['search', plain, '-f', '/tmp'], /cannot read \/tmp: it is a directory$/],
    [
      'OUT',
      () => ['convert', plain, '/no/x.stream'],
      /cannot write \/no\/x.stream: the directory \/no does not exist$/,
    ],
    ['--all', () => ['extract', plain, '--all', '/no/x'], /cannot create \/no\/x: no such file or directory$/],
    ['--output', () => ['read', plain, '-o', '/no/x'], /cannot write \/no\/x: the directory \/no does not exist$/],
    [
      'an unwritable OUT',
      () => ['convert', plain, '/proc/x.stream'],
      /cannot write \/proc\/x.stream: no such file or directory$/,
    ],
    [
      'an offset',
      () => ['verify', `${plain},offset=1G`],
      /expected an offset within .*, which has \d+ bytes, got 1073741824$/,
    ],
  ])('of %s name what the user named', async (_, args, message) => {
    const { code, stderr } = await runCli(args());
    expect(code).toBe(2);
    expect(stderr.split('\n')[0]).toMatch(message);
    expect(stderr).not.toMatch(/E[A-Z]{4,}|\.vmferry-|lstat|syscall/);
  });

  it.skipIf(process.getuid?.() !== 0)('of a directory without permission name OUT', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
    const out = join(folder, 'out.stream');
    chmodSync(folder, 0o555);
    const { status, stderr } = spawnSync(process.execPath, [cliPath, 'convert', plain, out], {
      uid: 65534,
      gid: 65534,
    });
    rmSync(folder, { recursive: true });
    expect([status, String(stderr)]).toEqual([2, `vmferry: error: cannot write ${out}: permission denied\n`]);
  });

  it('of too many open files have a hint', () => {
    const run = `ulimit -n 64; exec "${process.execPath}" "${cliPath}" convert "${plain}" OUT --to multifd --multifd-channels 60`;
    const { status, stderr } = spawnSync('sh', ['-c', run], { cwd: emptyDirectory(), encoding: 'utf8' });
    expect(status).toBe(2);
    expect(stderr).toMatch(
      /cannot write OUT\.\d+: too many open files\n.*hint: raise the limit of open files with ulimit -n\n/,
    );
  });
});

describe('a terminal', () => {
  it('gets progress and colours, others do not', async () => {
    // The program `script` runs a command on a pseudo-terminal.
    try {
      execFileSync('script', ['--version'], { stdio: 'pipe' });
    } catch {
      console.warn('skipped: `script` (util-linux) is not installed');
      return;
    }
    const progress = /verify standard input: [\d.]+ KiB, /;
    let out = '';
    const server = createServer(async (socket) => {
      socket.on('error', () => {});
      socket.write(xbzrle.bytes.subarray(0, 200_000));
      while (!progress.test(out)) await sleep(10);
      socket.end(xbzrle.bytes.subarray(200_000));
    });
    const path = join(emptyDirectory(), 'socket');
    server.listen(path);
    await once(server, 'listening');
    const cli = join(import.meta.dirname, '../../dist/cli.js');
    const feed = `require('net').connect(process.argv[1]).pipe(process.stdout)`;
    const command = `node -e "${feed}" ${path} | env -u NO_COLOR -u FORCE_COLOR TERM=xterm node ${cli} verify -`;
    const { spawn } = await import('node:child_process');
    const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    await once(child, 'close');
    server.close();
    expect(out).toContain('\x1b[32mOK');
  });
});

it('an unreadable file is a tool error', async () => {
  if (process.getuid?.() === 0) {
    console.warn('skipped: root can read every file');
    return;
  }
  const path = join(directory, 'secret.bin');
  writeFileSync(path, xbzrle.bytes);
  chmodSync(path, 0);
  expect((await runCli(['verify', path])).code).toBe(2);
});
