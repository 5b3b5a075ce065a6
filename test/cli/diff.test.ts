/** `vmferry diff` as users run it: output, exit codes, wrong arguments, pipes. */
import { copyFileSync, createReadStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const plain = fixturePath('pc-plain-10.0.bin');
const xbzrle = fixturePath('pc-xbzrle-10.0.bin');

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-diff-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('diff', () => {
  it('reports one VM in two forms as the same: exit code 0', async () => {
    const mapped = join(directory, 'a.mapped-ram');
    expect((await runCli(['convert', xbzrle, mapped])).code).toBe(0);
    const { code, stdout, stderr } = await runCli(['diff', xbzrle, mapped]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/: the same\n/);
    expect(stdout).toMatch(/capabilities: none → mapped-ram \(a matter of sending: ignored\)/);
    expect(stdout).toMatch(/28 devices with the same state\n/);
    const piped = await runCli(['diff', '-', mapped], createReadStream(xbzrle));
    expect([piped.code, piped.stderr]).toEqual([0, '']);
  });

  it('shows which pages and which fields of which devices differ: exit code 1', async () => {
    const { code, stdout, stderr } = await runCli(['diff', plain, xbzrle]);
    expect([code, stderr]).toEqual([1, '']);
    expect(stdout).toMatch(/: not the same\n/);
    expect(stdout).toMatch(/pc\.ram +2 MiB +512 +488 +24 +0 +0 /);
    expect(stdout).toMatch(/^pc\.ram: 5 pages from 0x103000 on, /m);
    expect(stdout).toMatch(/^ {2}\|···█████·/m);
    expect(stdout).toMatch(/24 devices with the same state, 4 with different state/);
    expect(stdout).toMatch(/^cpu#0: 3 differences\n {2}env\.regs\[0\] {2}96 \(0x60\) → 0$/m);
    expect(stdout).toMatch(/cmos_data {2}1 of 128 bytes differ, from 0x0 on: 55 00 .* → 59 00 /);
  });

  it('--json has the documented facts', async () => {
    const { code, stdout } = await runCli(['diff', '--json', plain, xbzrle]);
    expect(code).toBe(1);
    const { ram, devices, ...rest } = JSON.parse(stdout);
    expect(rest).toEqual({
      jsonVersion: 1,
      plan: expect.any(Object),
      old: plain,
      new: xbzrle,
      same: false,
      facts: [],
      notCompared: [],
      missing: { old: null, new: null },
    });
    expect(ram).toMatchObject({ onlyOld: [], onlyNew: [] });
    expect(ram.blocks[0]).toEqual({
      ...{ idstr: 'pc.ram', pageSize: 4096, oldLength: 2 << 20, newLength: 2 << 20, pages: 512, same: 488, missing: 0 },
      ...{ changes: { changed: 24, becameZero: 0, becameData: 0 }, oldAbsent: 0, newAbsent: 0, notCompared: null },
      ranges: [259, 267, 275, 283, 508].map((first) => {
        const count = first === 508 ? 4 : 5;
        return { first, count, changed: count };
      }),
      areRangesExact: true,
    });
    const timer = devices.changed.find(({ name }: { name: string }) => name === 'timer');
    expect(timer.changes[0]).toEqual({
      ...{ path: 'cpu_ticks_offset', kind: 'value', type: 'int64', old: 1002507954, new: 2136964600 },
    });
    const clock = devices.changed.find(({ name }: { name: string }) => name === 'mc146818rtc');
    expect(clock.changes[0]).toMatchObject({ kind: 'bytes', old: expect.stringMatching(/^5500/), first: 0, count: 1 });
  });

  it('compares only RAM, or only the devices', async () => {
    const ram = JSON.parse((await runCli(['diff', '--json', '--ram', plain, xbzrle])).stdout);
    expect([ram.devices, ram.ram.blocks.length]).toEqual([null, 3]);
    const devices = JSON.parse((await runCli(['diff', '--json', '--devices', plain, xbzrle])).stdout);
    expect([devices.ram, devices.devices.changed.length]).toEqual([null, 4]);
  });

  it('accepts the channels of each', async () => {
    const name = 'none-multifd-uuid-10.0';
    const channels = (side: string) =>
      [0, 1].flatMap((i) => [`--channel-${side}`, fixturePath(`${name}.channel-${i}.bin`)]);
    const main = fixturePath(`${name}.bin`);
    const { code, stdout } = await runCli(['diff', main, main, ...channels('a'), ...channels('b')]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/: the same\n/)]);
    const { code: without, stderr } = await runCli(['diff', main, main, ...channels('a')]);
    expect([without, stderr]).toEqual([
      2,
      expect.stringMatching(/channels, which were not given \[missing-channels\]/),
    ]);
  });

  it('lists a limited number of differences, and all with --all', async () => {
    const [few, many] = [join(directory, 'few'), join(directory, 'many')];
    copyFileSync(plain, few);
    const bytes = readFileSync(plain);
    // In the body of the CPU, whose description has hundreds of fields.
    const { sections } = JSON.parse((await runCli(['inspect', '--json', plain])).stdout);
    const cpu = sections.find(({ name }: { name: string }) => name === 'cpu');
    for (let i = 40; i < cpu.length - 400; i += 7) bytes[cpu.offset + i] = (bytes[cpu.offset + i] as number) ^ 0x40;
    writeFileSync(many, bytes);
    const short = (await runCli(['diff', few, many, '--devices'])).stdout;
    expect(short).toMatch(/^ {2}… and \d+ more$/m);
    const long = (await runCli(['diff', few, many, '--devices', '--all'])).stdout;
    expect(long).not.toMatch(/ more$/m);
    expect(long.length).toBeGreaterThan(short.length);
  });

  it.each<[string, () => string[], RegExp]>([
    ['a missing file', () => [plain, 'nowhere'], /cannot read nowhere: no such file/],
    ['a file that is bad', () => [plain, join(directory, 'cut')], /\[truncated\]/],
    ['one file', () => [plain], /missing required argument 'B'/],
    ['standard input twice', () => ['-', '-'], /got standard input twice/],
  ])('reports trouble with exit code 2: %s', async (_, args, message) => {
    writeFileSync(join(directory, 'cut'), readFileSync(plain).subarray(0, 100_000));
    const { code, stdout, stderr } = await runCli(['diff', ...args()]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
  });
});
