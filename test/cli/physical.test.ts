/** The command line on guest-physical memory: images, core files, reports, and refusals. */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const directory = mkdtempSync(join(tmpdir(), 'vmferry-physical-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const smp = fixturePath('q35-smp-10.0.bin');
const { core } = loadFixtures().find(({ name }) => name === 'q35-smp-10.0')!;
const small = fixturePath('pc-xbzrle-10.0.bin');
const out = (name: string) => join(directory, name);

/** The fixture has no ACPI tables. */
const assumption =
  "RAM above 4 GiB is assumed to begin at 0x100000000: the file does not say, and it may be at 0x10000000000 if the CPU is AMD's";

describe('a core file', () => {
  it("equals QEMU's own, in a file and in a pipe", async () => {
    const path = out('core');
    const stderr = `vmferry: warning: ${assumption}; --above-4g states it\n`;
    expect(await runCli(['extract', smp, '--elf', '-o', path])).toMatchObject({ code: 0, stderr });
    const { bytes, code } = await runCli(['extract', '-', '--elf', '-o', '-'], readFileSync(smp));
    expect(code).toBe(0);
    for (const content of [readFileSync(path), bytes]) {
      expect(createHash('sha256').update(content).digest('hex')).toBe(core?.sha256);
    }
  });

  it('is refused for a guest without descriptions of its CPUs, but an image is not', async () => {
    const bytes = readFileSync(small);
    const cut = out('cut');
    // The description is at the end of a stream.
    writeFileSync(cut, bytes.subarray(0, bytes.lastIndexOf('{"configuration":') - 5));
    const refused = await runCli(['extract', cut, '--elf', '-o', out('never')]);
    expect(refused.stderr).toMatch(
      /registers of CPU 0 cannot be read: there is no description .*\[unsupported\].*section cpu/,
    );
    expect(refused.code).toBe(1);
    expect(existsSync(out('never'))).toBe(false);
    expect((await runCli(['extract', cut, '--physical', '-o', out('image')])).code).toBe(0);
    expect(readdirSync(directory).filter((name) => name.startsWith('.'))).toEqual([]);
  });
});

describe('an image', () => {
  it('is sparse, and its ranges are printed', async () => {
    const path = out('sparse');
    const { stdout, code } = await runCli(['extract', smp, '--physical', '-o', path]);
    expect(code).toBe(0);
    expect(statSync(path).size).toBe(2 ** 32 + 2 ** 20);
    expect(statSync(path).blocks * 512).toBeLessThan(2 ** 22);
    expect(stdout).toMatch(/: physical memory, pc-q35-10\.0, 4 MiB of RAM, 3 MiB below 4 GiB by the CMOS\n/);
    expect(stdout).toMatch(/^ +0x100000000 +0x1000fffff +1 MiB +pc\.ram +0x300000$/m);
  });

  it('has its ranges in a report for scripts', async () => {
    const { stdout } = await runCli(['extract', small, '--physical', '--json', '-o', out('reported')]);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ length: 2 << 20, machine: 'pc-i440fx-10.0', chipset: 'i440fx', splitFrom: 'cmos', notes: [], unplaced: [] },
      ranges: [
        { start: 0, length: 0xc0000, block: 'pc.ram', offset: 0 },
        { start: 0xc0000, length: 0x20000, block: 'pc.rom', offset: 0 },
        { start: 0xe0000, length: 0x10000, block: 'pc.ram', offset: 0xe0000 },
        { start: 0xf0000, length: 0x10000, block: 'pc.bios', offset: 0 },
        { start: 0x100000, length: 0x100000, block: 'pc.ram', offset: 0x100000 },
      ],
    });
  });

  it('reports what is assumed, for scripts', async () => {
    const { stdout } = await runCli(['extract', smp, '--physical', '--json', '-o', out('assumed')]);
    const assumed = { what: 'above-4g', blocks: [], option: 'above4g', address: 2 ** 32, text: assumption };
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ above4g: 2 ** 32, above4gFrom: 'machine type', memoryDevices: [], leftOut: [] },
      ...{ assumed: [assumed], notes: [assumption] },
    });
  });

  it('may have its upper RAM elsewhere', async () => {
    const args = ['--physical', '--above-4g', '1T', '-o', out('upper')];
    const { stdout, stderr, code } = await runCli(['extract', smp, ...args]);
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    expect(stdout).toMatch(/3 MiB below 4 GiB by the CMOS, the rest from 0x10000000000 on as stated\n/);
    expect(statSync(out('upper')).size).toBe(2 ** 40 + 2 ** 20);
  });

  it('may have another split, with a warning', async () => {
    const split = ['--below-4g', '2M', '--above-4g', '4G'];
    const { stderr, code } = await runCli(['extract', smp, '--physical', ...split, '-o', out('other')]);
    expect(stderr).toMatch(
      /^vmferry: warning: the CMOS says that 0x300000 bytes of RAM are below 4 GiB, not 0x200000\n$/,
    );
    expect(code).toBe(0);
    expect(statSync(out('other')).size).toBe(2 ** 32 + (2 << 20));
  });
});

describe('refused with exit code 2, and nothing is written', () => {
  it.each([
    ['both', ['--physical', '--elf', '-o', 'X'], /expected one of .* got --physical and --elf/],
    ['a block, too', ['--physical', '--block', 'pc.ram', '-o', 'X'], /got --block and --physical/],
    ['all blocks, too', ['--elf', '--all', 'X'], /got --all and --elf/],
    ['no output', ['--elf'], /expected -o OUT/],
    [
      'a split of a block',
      ['--block', 'pc.ram', '--below-4g', '1M', '-o', 'X'],
      /--below-4g goes with --physical or --elf/,
    ],
    ['a DIMM of no block', ['--physical', '--dimm', '4G', '-o', 'X'], /BLOCK@ADDRESS/],
    ['a DIMM of no address', ['--physical', '--dimm', 'mem@high', '-o', 'X'], /number of bytes/],
    ['a missing DIMM', ['--physical', '--dimm', 'mem@4G', '-o', 'X'], /block that has no place yet .* got "mem"/],
    [
      'RAM above 4 GiB that is below',
      ['--physical', '--above-4g', '2G', '-o', 'X'],
      /from 0x100000000 on for the upper RAM/,
    ],
    [
      'upper RAM of a block',
      ['--block', 'pc.ram', '--above-4g', '1T', '-o', 'X'],
      /--above-4g goes with --physical or --elf/,
    ],
    ['missing RAM', ['--physical', '--ram', 'n0', '-o', 'X'], /blocks of RAM \(pc\.ram\), each once, got "n0"/],
    ['more RAM than there is', ['--physical', '--below-4g', '1G', '-o', 'X'], /at most all 4194304 bytes of RAM/],
    ['a directory', ['--physical', '-o', '.'], /got the directory/],
    ['the input', ['--physical', '-o', smp], /an output other than the input/],
  ])('%s', async (_, args, message) => {
    const path = out('refused');
    const { code, stderr } = await runCli(
      ['extract', smp, ...args.map((arg) => (arg === 'X' ? path : arg))],
      undefined,
      { cwd: directory },
    );
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(existsSync(path)).toBe(false);
  });

  it('another machine', async () => {
    const path = out('refused');
    const none = fixturePath('none-plain-10.0.bin');
    const { code, stderr } = await runCli(['extract', none, '--physical', '-o', path]);
    expect(stderr).toBe(
      'vmferry: error: expected a machine whose guest-physical layout is known (pc, q35, virt, sbsa-ref, spike, sifive_u, s390-ccw-virtio, pseries, powernv), got none\n',
    );
    expect(code).toBe(2);
    expect(existsSync(path)).toBe(false);
  });
});
