/** `vmferry estimate` as users run it, on real captures. */
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendTo, MemoryFile, RawRam, writeStream } from '../../src/index.ts';
import { fixturePath } from '../fixture-files.ts';
import { seeded } from '../kernel/arena.ts';
import { runCli } from '../run-cli.ts';

const PAGE = 4096;
const pages = 1024;

let directory = '';
let before = '';
let after = '';
let larger = '';

/** A stream of one block, saved to a file. */
async function save(name: string, ram: Uint8Array, machine = 'none'): Promise<string> {
  const stream = new MemoryFile();
  const content = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', ram) }]);
  await writeStream({ configuration: { machine, capabilities: [] }, ram: content }, appendTo(stream));
  const path = join(directory, name);
  const bytes = new Uint8Array(stream.size);
  stream.read(bytes, 0);
  writeFileSync(path, bytes);
  return path;
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
  const ram = new Uint8Array(pages * PAGE);
  ram.set(seeded(1).bytes(256 * PAGE));
  // 64 pages of one byte, and 32 copies of the first.
  ram.fill(9, 256 * PAGE, 320 * PAGE);
  for (let i = 0; i < 32; i++) ram.copyWithin((320 + i) * PAGE, 0, PAGE);
  before = await save('before', ram);
  const changed = ram.slice();
  for (let page = 0; page < 100; page++) changed[page * PAGE + 7]! ^= 1;
  changed.fill(0, 100 * PAGE, 110 * PAGE);
  after = await save('after', changed);
  larger = await save('larger', new Uint8Array(2 * pages * PAGE));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Two saves of one guest, which ran 0.49 s in between by its clock. */
const clocked = () => [fixturePath('pc-plain-10.0.bin'), fixturePath('pc-xbzrle-10.0.bin')];

const quick = ['--sample', '512K'];

describe('estimate', () => {
  it('describes what memory consists of, how well it compresses, and how long a first pass takes', async () => {
    const { stdout, stderr, code } = await runCli(['estimate', before, '--bandwidth', '1gbps', ...quick]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^\S+: convergence unknown, because no dirty rate is known; a first pass takes \d+ ms at 119 MiB\/s\n {2}none, 4 MiB of RAM in 1 block\n/,
    );
    expect(stdout).toMatch(/ {2}ram +4 MiB +65\.6 % +6\.3 % +3\.1 % +25\.0 % +0\.0 %\n/);
    expect(stdout).toMatch(/ {2}zlib level 1 +[\d.]+ ± [?] .* x[\d.]+\n/);
    expect(stdout).toMatch(/ {2}zstd level 9 /);
    expect(stdout).toMatch(/Migration at 119 MiB\/s, downtime-limit 300 ms\n[^\n]+first pass/);
    expect(stdout).toContain('no dirty rate is known');
    expect(
      Math.max(
        ...stdout
          .split('\n')
          .slice(1)
          .map((line) => line.length),
      ),
    ).toBeLessThanOrEqual(80);
  });

  it('describes what changed between two saves, and whether a migration would converge', async () => {
    const args = ['estimate', before, after, '--interval', '10', '--seed', '3', ...quick];
    const { stdout, code } = await runCli(args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/Changes in 10 s\n {2}changed +110 pages, 440 KiB, 10\.7 % of all\n/);
    expect(stdout).toMatch(/100 rewritten, 0 from zero, 10 to zero/);
    // 7 bytes stay the same, 1 changes.
    expect(stdout).toMatch(/XBZRLE +mean 3 bytes, median 3; 0\.0 % do not fit/);
    expect(stdout).toMatch(/^\S+: converges at 128 MiB\/s: \S+ ms, downtime \S+ ms\n/);
    expect(stdout).toMatch(/plain +yes /);
    expect(stdout).toMatch(/Advice\n {2}- leave zero-page-detection on/);
    expect(
      Math.max(
        ...stdout
          .split('\n')
          .slice(1)
          .map((line) => line.length),
      ),
    ).toBeLessThanOrEqual(80);
  });

  it("warns if the guest's clock contradicts the interval, or the order of the files", async () => {
    const files = clocked();
    const clockOf = async (seconds: string, given: string[]) => {
      const { stdout } = await runCli(['estimate', ...given, '--interval', seconds, ...quick]);
      return /^ {2}clock +(.*)$/m.exec(stdout)?.[1];
    };
    expect(await clockOf('0.5', files)).toBeUndefined();
    expect(await clockOf('5', files)).toBe("the guest's moved 493 ms in that time: is the interval right?");
    expect(await clockOf('0.5', files.toReversed())).toBe(
      "the guest's went back by 493 ms: are the files in the wrong order?",
    );
    const { stdout } = await runCli(['estimate', '--json', ...files, '--interval', '5', ...quick]);
    expect(JSON.parse(stdout).changes.guestMs).toBeCloseTo(493.24, 1);
  });

  it("takes the interval from the guest's clock, unless it is stated", async () => {
    const { stdout } = await runCli(['estimate', ...clocked(), ...quick]);
    expect(stdout).toMatch(/^\S+: (likely )?converges /);
    expect(stdout).toContain("Changes in 0.493 s by the guest's clock\n");
    const changesOf = async (given: string[]) =>
      JSON.parse((await runCli(['estimate', '--json', ...clocked(), ...quick, ...given])).stdout);
    expect(await changesOf([])).toMatchObject({
      verdict: 'converges',
      changes: { intervalMs: 493, intervalFrom: 'guest clock' },
    });
    expect(await changesOf(['--interval', '2s'])).toMatchObject({
      changes: { intervalMs: 2000, intervalFrom: 'stated' },
    });
  });

  it('reports that a migration would not converge, and what would help', async () => {
    const args = ['estimate', before, '--dirty-rate', '500', '--working-set', '1M', '--bandwidth', '1M', ...quick];
    const { stdout, code } = await runCli(args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\S+: does not converge at 1 MiB\/s(; .* would)?\n/);
    expect(stdout).toMatch(/plain +no /);
    expect(stdout).toMatch(/plain: .* dirtied, .* sent\n {4}would from .*, or with a downtime-limit of /);
    expect(stdout).toMatch(/- downtime-limit \d+\n[^-]*- or max-bandwidth /);
    expect(stdout).toContain('- or postcopy-ram, no multifd');
  });

  it('gives the same figures as JSON, which are equal for the same seed', async () => {
    const args = ['estimate', '--json', before, after, '--interval', '0.5', '--sample-pages', '16384', ...quick];
    const found = JSON.parse((await runCli(args)).stdout);
    const { memory, changes, sample, target, convergence } = found;
    expect(memory.all).toEqual({ pages, absent: 0, zero: 672, sameByte: 64, duplicate: 32, distinct: 256 });
    expect(memory.duplicates).toMatchObject({ hashBits: 64, oneIn: 1 });
    expect(sample).toEqual({ groups: 1, of: 3, bytes: 96 * PAGE, seed: 1 });
    expect(target).toEqual({ bandwidth: 128 << 20, downtimeLimit: 300, channels: 2 });
    expect(changes.all).toEqual({ pages, changed: 110, fromZero: 0, toZero: 10, rewritten: 100 });
    // 64 samples of 4 MiB.
    expect(changes.sampled).toMatchObject({ samples: 64, totalMiB: 4, perGiB: 16384 });
    expect(changes.sampled.rate).toBe(Math.floor((changes.sampled.dirty * 4 * 1000) / (64 * 500)));
    expect(convergence.map(({ mode }: { mode: string }) => mode)).toEqual([
      ...['plain', 'xbzrle', 'multifd zlib level 1', 'multifd zstd level 1', 'auto-converge'],
    ]);
    const again = JSON.parse((await runCli(args)).stdout);
    expect(again.changes).toEqual(changes);
    expect(again.entropy).toEqual(found.entropy);
  });

  it('reads any form: channels, mapped-ram, standard input', async () => {
    const set = fixturePath('pc-multifd-zstd-zero-multifd-10.0.bin');
    const channels = [0, 1].flatMap((i) => ['--channel', set.replace('.bin', `.channel-${i}.bin`)]);
    const of = async (args: string[], input?: ReturnType<typeof createReadStream>) => {
      const { stdout, stderr, code } = await runCli(['estimate', '--json', ...args, ...quick], input);
      expect(stderr).toBe('');
      expect(code).toBe(0);
      return JSON.parse(stdout).memory.all;
    };
    expect((await of([set, ...channels])).pages).toBe(560);
    const mapped = join(directory, 'mapped');
    await runCli(['convert', before, mapped, '--to', 'mapped-ram']);
    const { absent: _, ...counts } = await of([before]);
    expect(await of([mapped])).toEqual({ absent: null, ...counts });
    expect(await of(['-'], createReadStream(before))).toEqual({ absent: 0, ...counts });
  });

  it.each([
    ['files without a clock', () => [before, after], /lacks the guest clock\n.*hint: .*--interval 10s/, 2],
    [
      'files in the wrong order',
      () => clocked().toReversed(),
      /pc-plain-10.0.bin is not later .*wrong order.*--interval/s,
      2,
    ],
    ['an interval without a later file', () => [before, '--interval', '3'], /--interval goes with a second file/, 2],
    [
      'an interval of 0',
      () => [before, after, '--interval', '0'],
      /option '--interval <TIME>'.*expected a time above 0, such as 500ms/,
      2,
    ],
    ['files of other sizes', () => [before, larger, '--interval', '1'], /RAM block ram: expected 4194304 bytes/, 2],
    ['files of other machines', () => [before, fixturePath('pc-plain-10.0.bin'), '--interval', '1'], /one VM/, 2],
    [
      'a rate that is none',
      () => [before, '--bandwidth', 'fast'],
      /option '--bandwidth <RATE>'.*expected a rate such as 128M/,
      2,
    ],
    ['no bandwidth', () => [before, '--bandwidth', '0'], /bandwidth: expected an integer from 65536/, 2],
    [
      'too few sample pages',
      () => [before, after, '--interval', '1', '--sample-pages', '7'],
      /samplePages: expected an integer from 128/,
      2,
    ],
    ['an empty working set', () => [before, '--dirty-rate', '9', '--working-set', '0'], /bytes above 0, got "0"/, 2],
    ['standard input twice', () => ['-', '--channel', '-'], /standard input twice/, 2],
    ['a working set alone', () => [before, '--working-set', '1M'], /--working-set goes with --dirty-rate/, 2],
    ['a file that is not a migration', () => [import.meta.filename], /expected/, 1],
  ])('refuses %s', async (_, args, message, expected) => {
    const { code, stdout, stderr } = await runCli(['estimate', ...args()]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/at .*\.js:/);
    expect(stdout).toBe('');
    expect(code).toBe(expected);
  });

  it('has help with examples', async () => {
    const { stdout, code } = await runCli(['estimate', '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain('vmferry estimate before.migration after.migration --bandwidth 1Gbit/s');
  });
});
