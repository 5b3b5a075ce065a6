/** `vmferry convert --only-changed-from` and `vmferry merge` as users run them. */
import { spawnSync } from 'node:child_process';
import {
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
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendTo, MemoryFile, OutputFile, RawRam, writeStream } from '../../../src/node.ts';
import { fixturePath } from '../../fixture-files.ts';
import { someOf } from '../../limits.ts';
import { runCli } from '../../run-cli.ts';
import { StalledInput } from '../../stalled-input.ts';
import { killAt } from '../kill-at.ts';

const now = fixturePath('pc-xbzrle-10.0.bin');
const base = fixturePath('pc-plain-10.0.bin');

let directory = '';
let count = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-merge-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function emptyDirectory(): string {
  const path = join(directory, `empty-${count++}`);
  mkdirSync(path);
  return path;
}

const expectSame = async (one: string, other: string) => {
  const { code, stdout } = await runCli(['diff', one, other]);
  expect([code, stdout]).toEqual([0, expect.stringMatching(/: the same\n/)]);
};

describe('changes and merge', () => {
  it('restore the VM, from files and from a pipe, in both forms', async () => {
    const folder = emptyDirectory();
    const changes = join(folder, 'changes');
    const made = await runCli(['convert', now, changes, '--only-changed-from', base]);
    expect([made.code, made.stderr]).toEqual([0, '']);
    expect(made.stdout).toMatch(
      /changes: changes since .*, 24 of 560 pages, none of them became zero, 96 KiB of pages, 28 device states, verified\n/,
    );
    expect((await runCli(['inspect', changes])).stdout).toMatch(
      /changes +only the pages that changed from [0-9a-f]{16} to [0-9a-f]{16}/,
    );
    expect((await runCli(['verify', changes])).stdout).toMatch(/warning changes-only: (.|\n)*: INCOMPLETE \(/);
    for (const name of ['again.mapped-ram', 'again.stream']) {
      const { code, stdout, stderr } = await runCli(['merge', base, changes, join(folder, name)]);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(/of pc-i440fx-10\.0, .* 42 pages with data, 518 zero pages, 28 device states, verified\n/);
      await expectSame(join(folder, name), now);
    }
    const piped = await runCli(['merge', '-', changes, '-'], createReadStream(base));
    expect([piped.code, piped.stderr]).toEqual([0, '']);
    expect(piped.bytes.equals(readFileSync(join(folder, 'again.stream')))).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['again.mapped-ram', 'again.stream', 'changes']);
  });

  it('--json has the documented facts', async () => {
    const folder = emptyDirectory();
    const [changes, out] = [join(folder, 'c'), join(folder, 'o.stream')];
    const { stdout } = await runCli(['convert', now, changes, '--only-changed-from', base, '--json', '--no-verify']);
    const ids = { base: expect.stringMatching(/^[0-9a-f]{16}$/), content: expect.stringMatching(/^[0-9a-f]{16}$/) };
    expect(JSON.parse(stdout)).toEqual({
      jsonVersion: 1,
      ...{ source: now, base, output: changes, format: 'changes', machine: 'pc-i440fx-10.0' },
      ...{ length: statSync(changes).size, changes: ids, devices: 28, hasDescription: true, isVerified: false },
      doubts: [],
      blocks: [
        { idstr: 'pc.ram', length: 2 << 20, pages: 512, changedPages: 24, zeroPages: 0 },
        { idstr: 'pc.rom', length: 128 << 10, pages: 32, changedPages: 0, zeroPages: 0 },
        { idstr: 'pc.bios', length: 64 << 10, pages: 16, changedPages: 0, zeroPages: 0 },
      ],
    });
    const merged = JSON.parse((await runCli(['merge', base, changes, out, '--json'])).stdout);
    expect(merged).toMatchObject({
      source: changes,
      output: out,
      format: 'stream',
      isVerified: true,
      length: statSync(out).size,
    });
  });

  it('warns of a base that seems to be of another VM', async () => {
    const output = join(emptyDirectory(), 'changes');
    const other = fixturePath('none-plain-10.0.bin');
    const { code, stderr, stdout } = await runCli(['convert', now, output, '--only-changed-from', other, '--json']);
    expect(code).toBe(0);
    const { doubts } = JSON.parse(stdout);
    expect(doubts).toContain('the base is of the machine type none, not pc-i440fx-10.0');
    expect(doubts).toContain('the base lacks RAM blocks: pc.ram, pc.rom, pc.bios');
    for (const doubt of doubts) expect(stderr).toContain(`warning: ${doubt}; is ${other} an earlier state of this VM?`);
  });

  it('refuses another base, no changes, and truncated changes: exit code 1, and nothing is left', async () => {
    const folder = emptyDirectory();
    const changes = join(directory, 'changes');
    expect((await runCli(['convert', now, changes, '--only-changed-from', base])).code).toBe(0);
    const cut = join(directory, 'cut');
    writeFileSync(cut, readFileSync(changes).subarray(0, 2_200_000));
    for (const [one, two, message] of [
      [now, changes, /\[wrong-base\]/],
      [base, now, /got a whole stream \[bad-changes\]/],
      [base, cut, /\[truncated\]/],
      [changes, changes, /\[changes-only\]/],
    ] as const) {
      for (const name of ['out.stream', 'out.mapped-ram']) {
        const { code, stderr } = await runCli(['merge', one, two, join(folder, name)]);
        expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
      }
      const piped = await runCli(['merge', one, two, '-']);
      expect([piped.code, piped.bytes.length]).toEqual([1, 0]);
    }
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each<[string, string[], RegExp]>([
    ['changes as a stream', ['convert', now, 'OUT', '--only-changed-from', base, '--to', 'stream'], /not with stream/],
    [
      'changes with a base to send',
      ['convert', now, 'OUT', '--only-changed-from', base, '--base', base],
      /does not go with --base/,
    ],
    ['changes for a pipe', ['convert', now, '-', '--only-changed-from', base], /needs random access/],
    ['a missing base', ['convert', now, 'OUT', '--only-changed-from', 'nowhere'], /cannot read nowhere: no such file/],
    ['standard input twice', ['convert', '-', 'OUT', '--only-changed-from', '-'], /got standard input twice/],
    ['standard input twice to merge', ['merge', '-', '-', 'OUT.stream'], /got standard input twice/],
    ['changes at an offset', ['convert', now, 'OUT,offset=1M', '--only-changed-from', base], /expected no offset/],
    ['a merge to an offset', ['merge', base, now, 'OUT,offset=1M', '--to', 'stream'], /expected no offset/],
    ['a merge in no form', ['merge', base, now, 'OUT'], /expected --to stream\|mapped-ram/],
    ['a mapped-ram file for a pipe', ['merge', base, now, '-', '--to', 'mapped-ram'], /needs random access/],
    ['JSON among bytes', ['merge', base, now, '-', '--json'], /either --json or the bytes/],
    ['a merge into a directory', ['merge', base, now, '.', '--to', 'stream'], /expected a regular file/],
  ])('refuses %s, and leaves nothing', async (_, args, message) => {
    const cwd = emptyDirectory();
    const { code, stderr, stdout } = await runCli(args, undefined, { cwd });
    expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)]);
    expect(readdirSync(cwd)).toEqual([]);
  });

  it('never overwrite their inputs', async () => {
    const folder = emptyDirectory();
    const [copy, changes] = [join(folder, 'copy'), join(folder, 'changes')];
    writeFileSync(copy, readFileSync(now));
    await runCli(['convert', now, changes, '--only-changed-from', base]);
    for (const args of [
      ['convert', copy, copy, '--only-changed-from', base],
      ['convert', now, copy, '--only-changed-from', copy],
      ['merge', copy, changes, copy, '--to', 'stream'],
      ['merge', base, changes, changes, '--to', 'stream'],
    ]) {
      const { code, stderr } = await runCli(args);
      expect([code, stderr]).toEqual([2, expect.stringMatching(/expected an output other than the input/)]);
    }
    expect(readFileSync(copy).equals(readFileSync(now))).toBe(true);
  });
});

describe('a guest of 64 MiB with one page in a hundred changed', () => {
  let files: { base: string; now: string; changes: string };
  beforeAll(async () => {
    const folder = emptyDirectory();
    const path = (name: string) => join(folder, name);
    files = { base: path('base.stream'), now: path('now.stream'), changes: path('changes') };
    const image = Buffer.alloc(64 << 20);
    for (let at = 0; at < image.length; at += 4096) image[at] = 1 + ((at >> 12) % 255);
    const write = async (to: string) => {
      const output = new OutputFile(to);
      const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
      await writeStream({ configuration: { machine: 'none', capabilities: [] }, ram }, appendTo(output.file));
      await output.commit();
    };
    await write(files.base);
    for (let page = 0; page < 16384; page += 100) {
      if (page % 800 === 0) image.fill(0, page * 4096, page * 4096 + 1);
      else image[page * 4096 + 99] = 1;
    }
    await write(files.now);
    expect((await runCli(['convert', files.now, files.changes, '--only-changed-from', files.base])).code).toBe(0);
  });

  it('has changes that take about a hundredth of its RAM on disk', () => {
    const { blocks, size } = statSync(files.changes);
    expect(size).toBeGreaterThan(64 << 20);
    expect(blocks * 512).toBeLessThan((64 << 20) * 0.011);
    expect(blocks * 512).toBeGreaterThan(143 * 4096);
  });

  it('leaves the old file or the complete new one when killed, and a leftover is recognizable', async () => {
    const folder = emptyDirectory();
    const commands: [name: string, args: (out: string) => string[]][] = [
      ['changes', (out) => ['convert', files.now, out, '--only-changed-from', files.base]],
      ['out.mapped-ram', (out) => ['merge', files.base, files.changes, out]],
    ];
    let killed = 0;
    for (const [name, args] of commands) {
      const path = join(folder, name);
      expect((await runCli(args(path))).code).toBe(0);
      const whole = statSync(path).size;
      rmSync(path);
      writeFileSync(path, 'old');
      for (const part of someOf([1 / 2, 0, 9 / 10], 3, 1)) {
        const { signalCode } = await killAt(Math.floor(part * whole), folder, args(path));
        if (signalCode === 'SIGKILL') killed++;
        const isOld = statSync(path).size === 3;
        expect((await runCli(['verify', path])).stdout).toMatch(isOld ? /got text/ : /: OK/);
        for (const left of readdirSync(folder).filter((each) => each.startsWith('.vmferry-'))) {
          // If it was killed between its last byte and the rename, the leftover is complete, and `verify` says so.
          const { ok, ramBytes } = JSON.parse((await runCli(['verify', '--json', join(folder, left)])).stdout);
          if (ok === true) expect(ramBytes).toBe(64 << 20);
          rmSync(join(folder, left));
        }
      }
    }
    expect(killed).toBeGreaterThan(0);
  });

  it('leaves nothing when it is interrupted', async () => {
    const folder = emptyDirectory();
    for (const args of [
      ['merge', '-', files.changes, join(folder, 'out.mapped-ram')],
      ['convert', files.now, join(folder, 'changes'), '--only-changed-from', '-'],
    ]) {
      const stalled = new StalledInput(readFileSync(files.base).subarray(0, 2_000_000));
      const interrupt = { signal: 'SIGINT' as const, once: () => stalled.isTaken };
      expect((await runCli(args, stalled, { interrupt })).code).toBe(130);
    }
    expect(readdirSync(folder)).toEqual([]);
  });

  it('leaves nothing on a full disk', async () => {
    const mount = emptyDirectory();
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', mount]);
    if (status !== 0) {
      console.warn('skipped: a small tmpfs cannot be mounted here');
      return;
    }
    try {
      for (const args of [
        ['convert', files.now, join(mount, 'changes'), '--only-changed-from', files.base],
        ['merge', files.base, files.changes, join(mount, 'out.stream')],
        ['merge', files.base, files.changes, join(mount, 'out.mapped-ram')],
      ]) {
        const { code, stderr } = await runCli(args);
        expect([code, stderr]).toEqual([2, expect.stringMatching(/no space left on device/)]);
        expect(readdirSync(mount)).toEqual([]);
      }
    } finally {
      spawnSync('umount', [mount]);
    }
  });
});
