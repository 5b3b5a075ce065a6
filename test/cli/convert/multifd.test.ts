/** `vmferry convert --to multifd` and `--compat` as users run them: sets on disk, wrong arguments, interruptions. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
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
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkMultifdOptions, type MultifdOptions } from '../../../src/cli/convert/multifd.ts';
import { UsageError } from '../../../src/cli/exit-codes.ts';
import { loadContainerFixture } from '../../container-fixtures.ts';
import { fixturePath, loadFixtures } from '../../fixture-files.ts';
import { someOf } from '../../limits.ts';
import { runCli } from '../../run-cli.ts';
import { StalledInput } from '../../stalled-input.ts';
import { killAt } from '../kill-at.ts';

const pc = fixturePath('pc-xbzrle-10.0.bin');
const old = fixturePath('pc-xbzrle-7.2.bin');
const none = fixturePath('none-plain-10.0.bin');

let directory = '';
let count = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-multifd-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
function emptyDirectory(): string {
  const path = join(directory, `empty-${count++}`);
  mkdirSync(path);
  return path;
}

const channelsOf = (path: string, number: number) =>
  Array.from({ length: number }, (_, i) => ['--channel', `${path}.${i}`]).flat();

/** Requires that the content of a set is that of the fixture's source. */
async function expectTruth(fixture: string, path: string, number: number): Promise<void> {
  const truth = loadFixtures().find(({ name }) => name === fixture)?.truth ?? [];
  const { stdout } = await runCli(['inspect', '--hash', '--json', path, ...channelsOf(path, number)]);
  const blocks: { idstr: string; sha256: string }[] = JSON.parse(stdout).ram.blocks;
  expect(blocks.map(({ idstr, sha256 }) => ({ idstr, sha256 }))).toEqual(
    truth.map(({ idstr, sha256 }) => ({ idstr, sha256 })),
  );
}

describe('convert --to multifd', () => {
  it('writes a main stream and its channels, reports them, and verifies them', async () => {
    const path = join(emptyDirectory(), 'guest');
    const { stdout, stderr, code } = await runCli(['convert', pc, path, '--to', 'multifd']);
    expect([code, stderr]).toEqual([0, '']);
    const [main, ...channels] = stdout.trimEnd().split('\n');
    expect(main).toMatch(/guest: multifd of pc-i440fx-10.0, .*42 pages with data, .*28 device states, verified$/);
    expect(channels).toHaveLength(2);
    for (const [i, line] of channels.entries())
      expect(line).toMatch(new RegExp(`guest.${i}: multifd channel, [0-9.]+ KiB$`));
    const verified = await runCli(['verify', path, ...channelsOf(path, 2)]);
    expect(verified.stdout).toMatch(/: OK \(/);
    await expectTruth('pc-xbzrle-10.0', path, 2);
  });

  it('--json lists the files', async () => {
    const folder = emptyDirectory();
    const path = join(folder, 'guest');
    const args = ['--channels', '3', '--multifd-compression', 'zstd', '--level', '4', '--json'];
    const { stdout, code } = await runCli(['convert', pc, path, '--to', 'multifd', ...args]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      ...{ jsonVersion: 1, plan: expect.any(Object) },
      ...{ source: pc, output: path, format: 'multifd', machine: 'pc-i440fx-10.0', length: statSync(path).size },
      compression: 'zstd',
      channels: [0, 1, 2].map((i) => ({ path: `${path}.${i}`, length: statSync(`${path}.${i}`).size })),
      ...{ blocks: expect.any(Array), devices: 28, hasDescription: true, isVerified: true },
      plan: expect.objectContaining({ how: 'index' }),
    });
    expect(readdirSync(folder).sort()).toEqual(['guest', 'guest.0', 'guest.1', 'guest.2']);
    await expectTruth('pc-xbzrle-10.0', path, 3);
  });

  it('converts a set to another set, for the same guest', async () => {
    const path = join(emptyDirectory(), 'guest');
    const uuidOf = (file: string) => readFileSync(file).subarray(8, 24).toString('hex');
    const set = fixturePath('none-multifd-uuid-10.0');
    const given = [0, 1].flatMap((i) => ['--channel', `${set}.channel-${i}.bin`]);
    const args = ['--to', 'multifd', '--channels', '4', '--multifd-compression', 'zlib', '--compat', '10.0'];
    const { code, stderr } = await runCli(['convert', `${set}.bin`, path, ...given, ...args]);
    expect([code, stderr]).toEqual([0, '']);
    expect([0, 3].map((i) => uuidOf(`${path}.${i}`))).toEqual(Array(2).fill('0123456789abcdef0123456789abcdef'));
    await expectTruth('none-multifd-uuid-10.0', path, 4);
  });

  it('accepts the UUID of a guest whose stream does not state it', async () => {
    const path = join(emptyDirectory(), 'guest');
    const uuid = 'FEDCBA98-0123-4567-89ab-cdef01234567';
    const { code, stderr } = await runCli(['convert', none, path, '--to', 'multifd', '--uuid', uuid]);
    // The output does not state a QEMU release either.
    const warning =
      /^vmferry: warning: machine type none does not say its version: .*10.0 and later \(see --compat\)\n$/;
    expect([code, stderr]).toEqual([0, expect.stringMatching(warning)]);
    const bytes = readFileSync(`${path}.1`).subarray(8, 24);
    expect(bytes.toString('hex')).toBe('fedcba980123456789abcdef01234567');
  });

  it('replaces an older set including its extra channels, and no other files', async () => {
    const folder = emptyDirectory();
    const path = join(folder, 'guest');
    const to = (number: number) => runCli(['convert', pc, path, '--to', 'multifd', '--channels', String(number)]);
    expect((await to(5)).code).toBe(0);
    writeFileSync(`${path}.5`, 'of another kind');
    expect((await to(3)).code).toBe(0);
    expect(readdirSync(folder).sort()).toEqual(['guest', 'guest.0', 'guest.1', 'guest.2', 'guest.5']);
    await expectTruth('pc-xbzrle-10.0', path, 3);
  });

  const multifd = ['--to', 'multifd'];
  it.each<[string, string[], RegExp]>([
    ['standard output', [pc, '-', ...multifd], /a multifd set is several files/],
    ['a FIFO', [pc, 'FIFO', ...multifd], /a multifd set is several files/],
    ['a directory for a channel', [pc, 'SET', ...multifd], /expected a file to write a channel to, got SET.1/],
    ['no channels', [pc, 'OUT', ...multifd, '--channels', '0'], /a count of at least 1, got "0"/],
    ['--channels for a stream', [pc, 'OUT.stream', '--channels', '2'], /--multifd-channels goes with --to multifd/],
    [
      'a level without digits',
      [pc, 'OUT', ...multifd, '--multifd-compression', 'zlib', '--level', ''],
      /expected a level of zlib from 0 to 9/,
    ],
    ['another method', [pc, 'OUT', ...multifd, '--multifd-compression', 'qpl'], /Allowed choices are none, zlib, zstd/],
    ['a base', [pc, 'OUT', ...multifd, '--base', pc], /--base goes with --to stream, not with multifd/],
    ['--compat for a mapped-ram file', [pc, 'OUT.mapped-ram', '--compat', '10.0'], /--compat goes with/],
    [
      'a newer machine',
      [pc, 'OUT', ...multifd, '--compat', '7.2'],
      /7.2 does not have the machine type pc-i440fx-10.0/,
    ],
  ])('refuses %s, and leaves nothing', async (_, args, message) => {
    const cwd = emptyDirectory();
    execFileSync('mkfifo', [join(cwd, 'FIFO')]);
    mkdirSync(join(cwd, 'SET.1'));
    const { code, stderr, stdout } = await runCli(['convert', ...args], undefined, { cwd });
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
    expect(readdirSync(cwd).sort()).toEqual(['FIFO', 'SET.1']);
  });

  it.each<[string, string, MultifdOptions, RegExp]>([
    ['too many channels', 'multifd', { multifdChannels: 256 }, /at most 255 channels, got 256/],
    ['a method for a stream', 'stream', { multifdCompression: 'zstd' }, /--multifd-compression goes with --to multifd/],
    ['a UUID for a raw image', 'raw', { uuid: 'x' }, /--uuid goes with --to multifd, not with raw/],
    ['a level of nothing', 'multifd', { level: 1 }, /--level goes with --multifd-compression zlib or zstd/],
    ['level 10 of zlib', 'multifd', { multifdCompression: 'zlib', level: 10 }, /a level of zlib from 0 to 9/],
    ['a level that is none', 'multifd', { multifdCompression: 'zstd', level: NaN }, /a level of zstd from 0 to 20/],
    ['a UUID that is none', 'multifd', { uuid: '0123' }, /expected a UUID such as/],
  ])('accepts no %s', (_, form, options, message) => {
    expect(() => checkMultifdOptions(form, options)).toThrow(UsageError);
    expect(() => checkMultifdOptions(form, options)).toThrow(message);
  });

  it('never overwrites its inputs', async () => {
    const folder = emptyDirectory();
    const path = join(folder, 'guest');
    expect((await runCli(['convert', pc, path, ...multifd, '--channels', '3'])).code).toBe(0);
    const before = readdirSync(folder).map((name) => readFileSync(join(folder, name)));
    copyFileSync(path, join(folder, 'main'));
    for (const [input, number] of [
      [path, 3],
      // The command would replace or remove its channels.
      [join(folder, 'main'), 3],
      [join(folder, 'main'), 1],
    ] as const) {
      const args = [...channelsOf(path, 3), ...multifd, '--channels', String(number)];
      const { code, stderr } = await runCli(['convert', input, path, ...args]);
      expect(code).toBe(2);
      expect(stderr).toMatch(/expected an output other than the input/);
    }
    rmSync(join(folder, 'main'));
    expect(readdirSync(folder).map((name) => readFileSync(join(folder, name)))).toEqual(before);
  });
});

describe('--compat', () => {
  const commandsOf = async (path: string, ...args: string[]) =>
    (JSON.parse((await runCli(['inspect', '--json', path, ...args])).stdout).commands as { name: string }[]).map(
      ({ name }) => name,
    );

  it('7.2 leaves out what 7.2 does not know, for a machine without a version', async () => {
    const folder = emptyDirectory();
    const [kept, dropped, set] = ['kept.stream', 'dropped.stream', 'set'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    expect((await runCli(['convert', none, kept])).code).toBe(0);
    expect((await runCli(['convert', none, dropped, '--compat', '7.2'])).code).toBe(0);
    expect(await commandsOf(kept)).toEqual(['SWITCHOVER_START']);
    expect(await commandsOf(dropped)).toEqual([]);
    expect((await runCli(['convert', none, set, '--to', 'multifd', '--compat', '7.2'])).code).toBe(0);
    expect(await commandsOf(set, ...channelsOf(set, 2))).toEqual([]);
    const { ram } = JSON.parse((await runCli(['inspect', '--json', set, ...channelsOf(set, 2)])).stdout);
    expect([ram.multifdSyncs, ram.records.zero.records > 0]).toEqual([3, true]);
  });

  it('10.0 adds what 10.0 knows, in a libvirt save image too, and nothing that the machine type lacks', async () => {
    const folder = emptyDirectory();
    const plain = join(folder, 'plain.stream');
    expect((await runCli(['convert', fixturePath('none-plain-7.2.bin'), plain, '--compat', '10.0'])).code).toBe(0);
    expect(await commandsOf(plain)).toEqual(['SWITCHOVER_START']);
    expect((await runCli(['convert', old, plain, '--compat', '10.0'])).code).toBe(0);
    expect(await commandsOf(plain)).toEqual([]);
    const saved = join(folder, 'saved');
    writeFileSync(saved, loadContainerFixture('libvirt-gzip').bytes);
    const image = join(folder, 'image');
    const { code, stderr } = await runCli(['convert', saved, image, '--to', 'libvirt', '--compat', '7.2']);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/QEMU 7.2 does not have the machine type/)]);
    expect((await runCli(['convert', saved, image, '--to', 'libvirt', '--compat', '10.0'])).code).toBe(0);
  });
});

describe('an unfinished set', () => {
  it('leaves nothing when it is interrupted', async () => {
    const folder = emptyDirectory();
    const stalled = new StalledInput(readFileSync(pc).subarray(0, 200_000));
    const { code } = await runCli(['convert', '-', join(folder, 'guest'), '--to', 'multifd'], stalled, {
      interrupt: { signal: 'SIGINT', once: () => readdirSync(folder).length > 0 },
    });
    expect(code).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('keeps the older set when the input is bad', async () => {
    const folder = emptyDirectory();
    const path = join(folder, 'guest');
    expect((await runCli(['convert', pc, path, '--to', 'multifd'])).code).toBe(0);
    const cut = join(emptyDirectory(), 'cut');
    writeFileSync(cut, readFileSync(pc).subarray(0, 300_000));
    expect((await runCli(['convert', cut, path, '--to', 'multifd', '--channels', '3'])).code).toBe(1);
    expect(readdirSync(folder).sort()).toEqual(['guest', 'guest.0', 'guest.1']);
    await expectTruth('pc-xbzrle-10.0', path, 2);
  });

  it('has no main file, or is the old or the new set, when killed', async () => {
    const folder = emptyDirectory();
    const large = join(emptyDirectory(), 'large.stream');
    writeFileSync(large, await largeStream());
    const path = join(folder, 'guest');
    expect((await runCli(['convert', pc, path, '--to', 'multifd', '--channels', '4'])).code).toBe(0);
    let killed = 0;
    for (const part of someOf([1 / 3, 0, 2 / 3, 9 / 10], 2, 1)) {
      const args = ['convert', large, path, '--to', 'multifd', '--channels', '3'];
      const { signalCode } = await killAt(Math.floor(part * (32 << 20)), folder, args);
      if (signalCode === 'SIGKILL') killed++;
      for (const left of readdirSync(folder).filter((name) => name.startsWith('.vmferry-'))) rmSync(join(folder, left));
      const files = readdirSync(folder);
      if (!files.includes('guest')) continue;
      const { stdout } = await runCli(['verify', '--json', path, ...channelsOf(path, files.length - 1)]);
      const { ok, ramBytes } = JSON.parse(stdout);
      expect(ok).toBe(true);
      expect(files.length).toBe(ramBytes === 32 << 20 ? 4 : 5);
    }
    expect(killed).toBeGreaterThan(0);
  });

  it('leaves nothing on a full disk', async () => {
    const mount = emptyDirectory();
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', mount]);
    if (status !== 0) {
      console.warn('skipped: a small tmpfs cannot be mounted here');
      return;
    }
    try {
      const large = join(emptyDirectory(), 'large.stream');
      writeFileSync(large, await largeStream());
      const { code, stderr } = await runCli(['convert', large, join(mount, 'guest'), '--to', 'multifd']);
      expect(code).toBe(2);
      expect(stderr).toMatch(/cannot write .*guest\.[01]: no space left on device/);
      expect(readdirSync(mount)).toEqual([]);
    } finally {
      spawnSync('umount', [mount]);
    }
  });
});

let made: Uint8Array | undefined;
/** A stream with 32 MiB of nonzero pages. */
async function largeStream(): Promise<Uint8Array> {
  if (made !== undefined) return made;
  const { appendTo, MemoryFile, RawRam, writeStream } = await import('../../../src/node.ts');
  const image = new Uint8Array(32 << 20);
  for (let at = 0; at < image.length; at += 4096) image[at] = 1 + ((at >> 12) % 255);
  const file = new MemoryFile();
  const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
  await writeStream({ configuration: { machine: 'none', capabilities: [] }, ram }, appendTo(file));
  made = new Uint8Array(file.size);
  file.read(made, 0);
  return made;
}
