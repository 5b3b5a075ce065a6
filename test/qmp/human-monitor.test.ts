/** The lines of the monitor for people, with the answers of a QEMU 10.0 (machine none, 64 MiB). */
import { expect, it } from 'vitest';
import { humanMonitor, type PhysicalMemory } from '../../src/qmp/machine/human-monitor.ts';

const length = 64 << 20;

/** RAM whose byte at address i is i modulo 251. */
const memory: PhysicalMemory = {
  ranges: [{ name: 'ram', start: 0, length }],
  async read(address, target) {
    for (let i = 0; i < target.length; i++) target[i] = address + i < length ? (address + i) % 251 : 0;
  },
};
const ask = (line: string) => humanMonitor(async () => memory)({ 'command-line': line }, {} as never);

it.each([
  ['xp /4xw 0x0', '0000000000000000: 0x03020100 0x07060504 0x0b0a0908 0x0f0e0d0c\r\n'],
  ['xp /5xw 16', `0000000000000010: 0x13121110 0x17161514 0x1b1a1918 0x1f1e1d1c\r\n0000000000000020: 0x23222120\r\n`],
  ['xp /3xb 0x1', '0000000000000001: 0x01 0x02 0x03\r\n'],
  ['xp /1xg 0', '0000000000000000: 0x0706050403020100\r\n'],
  ['xp /1xh 0x2', '0000000000000002: 0x0302\r\n'],
  ['xp /2xw 0x10000000', '0000000010000000: Cannot access memory\r\n'],
  ['xp /4xw 0x3fffff8', '0000000003fffff8: Cannot access memory\r\n'],
  ['foo', "unknown command: 'foo'\r\n"],
  ['info foo', "unknown command: 'info foo'\r\n"],
])('%s', async (line, expected) => {
  expect(await ask(line)).toBe(expected);
});

it('info mtree -f says where RAM is', async () => {
  expect(await ask('info mtree -f')).toContain('  0000000000000000-0000000003ffffff (prio 0, ram): ram\r\n');
});
