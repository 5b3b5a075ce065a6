/** `read` and `search` by the addresses of the guest. */
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const x86 = fixturePath('paging/x86-64-10.0.bin.gz');
const arm = fixturePath('paging/aarch64-4k.bin.gz');

describe('read', () => {
  it('shows a virtual address of 64 bits', async () => {
    const { stdout, code } = await runCli(['read', x86, '--virtual', '--at', '0xffff888000000064', '--length', '32']);
    expect(stdout).toBe(
      'ffff888000000064  70 61 67 65 20 35 20 6f  66 20 6f 75 72 20 6f 77  |page 5 of our ow|\n' +
        `ffff888000000074  6e ${'00 '.repeat(7)} ${'00 '.repeat(8)} |n...............|\n` +
        'ffff888000000084\n',
    );
    expect(code).toBe(0);
  });

  it('as JSON says where the first byte is', async () => {
    const { stdout } = await runCli(['read', arm, '--physical', '--at', '0x40203064', '--length', '6', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ block: 'mach-virt.ram', at: 0x20_3064, address: '0x40203064', length: 6 },
      hex: Buffer.from('page 3').toString('hex'),
    });
  });

  it('of bytes takes pages that are apart in RAM', async () => {
    const { stdout } = await runCli(['read', x86, '--virtual', '--at', '0xffff888000002ffc', '--length', '8', '--raw']);
    expect(Buffer.from(stdout, 'latin1').toString('hex')).toBe('0170000000100000');
  });

  it.each([
    [['--virtual', '--at', '0x1000'], 'expected a virtual address that the CPU maps to memory, got 0x1000'],
    [['--physical', '--at', '8M'], 'expected a guest-physical address that is memory, got 0x800000'],
    [['--virtual', '--cpu', '7'], 'expected a CPU from 0 to 0, got 7'],
    [
      ['--at', '0xffff888000000064'],
      'expected an offset below 2^53, got 0xffff888000000064; a virtual address needs --virtual',
    ],
    [['--cpu', '0'], '--cpu goes with --virtual'],
  ])('refuses %s', async (options, message) => {
    const { stdout, stderr, code } = await runCli(['read', x86, ...options]);
    expect([stdout, code]).toEqual(['', 2]);
    expect(stderr.split('\n')[0]).toBe(`vmferry: error: ${message}`);
  });
});

describe('search', () => {
  it('shows each address of a page', async () => {
    const { stdout, code } = await runCli(['search', x86, '--virtual', 'page 30 of', '--json']);
    const addresses = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).address);
    expect(addresses).toEqual(['0x41e064', '0xffff888000009064', '0xffff88800000b064', '0xffffc9000021e064']);
    expect(code).toBe(0);
  });

  it('counts, and exits as grep does', async () => {
    const count = (...args: string[]) => runCli(['search', arm, '--physical', '--count', ...args]);
    expect(await count('page 3 of')).toMatchObject({ stdout: '1\n', code: 0 });
    expect(await count('nowhere')).toMatchObject({ stdout: '0\n', code: 1 });
    expect(await count('page 3 of', '--below-4g', 'x')).toMatchObject({ code: 2 });
  });
});

it('a machine without a known layout is refused', async () => {
  const { stderr, code } = await runCli(['read', fixturePath('none-plain-10.0.bin'), '--physical']);
  expect(stderr).toMatch(/^vmferry: error: expected a machine whose guest-physical layout is known \(.*\), got none/);
  expect(code).toBe(2);
});
