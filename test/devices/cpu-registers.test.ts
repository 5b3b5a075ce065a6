import { describe, expect, it } from 'vitest';
import { isInLongMode, readCpuRegisters } from '../../src/devices/cpu-registers.ts';
import { BadCpuState } from '../../src/devices/cpu-values.ts';
import { describedDevice, type PlainStruct } from './described-device.ts';

const segment = (n: number): PlainStruct => ({
  selector: n,
  base: BigInt(n) << 40n,
  limit: 0xffff_fff0 + n,
  flags: n << 8,
});

/** A CPU's state in QEMU's description. */
const cpu = (change: Partial<PlainStruct> = {}): PlainStruct => {
  const all = {
    'env.regs': Array.from({ length: 16 }, (_, i) => 2n ** 64n - 1n - BigInt(i)),
    'env.eip': 0xffff_ffff_8000_0000n,
    'env.eflags': 0x246n,
    'env.segs': Array.from({ length: 6 }, (_, i) => segment(i)),
    'env.ldt': segment(6),
    'env.tr': segment(7),
    'env.gdt': segment(8),
    'env.idt': segment(9),
    ...{ 'env.cr[0]': 0x8000_0011n, 'env.cr[2]': 2n, 'env.cr[3]': 3n, 'env.cr[4]': 4n },
    ...{ 'env.efer': 0x500n, 'env.kernelgsbase': 5n },
    ...change,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as PlainStruct;
};

const read = (values: PlainStruct, index = 3) => readCpuRegisters(describedDevice('cpu', values, index));

describe('the registers of a CPU', () => {
  it('are those of its state, 64 bits wide', () => {
    const registers = read(cpu());
    expect(registers.index).toBe(3);
    expect(registers.general[0]).toBe(2n ** 64n - 1n);
    expect(registers.general[15]).toBe(2n ** 64n - 16n);
    expect(registers).toMatchObject({ rip: 0xffff_ffff_8000_0000n, rflags: 0x246n, cr0: 0x8000_0011n, cr4: 4n });
    expect(registers.segments.cs).toEqual({ selector: 1, base: 2n ** 40n, limit: 0xffff_fff1, flags: 0x100 });
    expect(registers.segments.idt.selector).toBe(9);
    expect([registers.efer, registers.kernelGsBase]).toEqual([0x500n, 5n]);
    expect(isInLongMode(registers)).toBe(true);
  });

  it('are eight on a target without long mode', () => {
    const small = cpu({
      'env.regs': [1, 2, 3, 4, 5, 6, 7, 0xffff_ffff],
      'env.efer': undefined as never,
      'env.kernelgsbase': undefined as never,
    });
    const registers = read(small);
    expect(registers.general).toEqual([1n, 2n, 3n, 4n, 5n, 6n, 7n, 0xffff_ffffn, ...new Array(8).fill(0n)]);
    expect(isInLongMode(registers)).toBe(false);
  });

  it.each([
    ['no general registers', { 'env.regs': undefined }],
    ['fifteen of them', { 'env.regs': new Array(15).fill(0n) }],
    ['one of them', { 'env.regs': 7n }],
    ['them as bytes', { 'env.regs': new Uint8Array(128) }],
    ['five segments', { 'env.segs': [0, 1, 2, 3, 4].map(segment) }],
    ['segments that are numbers', { 'env.segs': [1, 2, 3, 4, 5, 6] }],
    ['a segment without a base', { 'env.gdt': { selector: 0, limit: 0, flags: 0 } }],
    ['a segment of bytes', { 'env.tr': new Uint8Array(20) }],
    ['no rip', { 'env.eip': undefined }],
    ['an rip of bytes', { 'env.eip': new Uint8Array(8) }],
    ['no cr3', { 'env.cr[3]': undefined }],
    ['no EFER', { 'env.efer': undefined }],
  ] as [string, Partial<PlainStruct>][])('are refused with %s', (_, change) => {
    expect(() => read(cpu(change))).toThrow(BadCpuState);
  });

  it('are refused without a description, with the reason', () => {
    const device = { ...describedDevice('cpu', cpu()), state: undefined, problem: 'there is no description' };
    expect(() => readCpuRegisters(device)).toThrow(/there is no description/);
  });
});
