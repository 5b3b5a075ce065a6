import { describe, expect, it } from 'vitest';
import type { StateStruct } from '../../src/devices/device-state.ts';
import { readX86Registers, x86FlagNames } from '../../src/devices/x86-registers.ts';
import { join, u32, u64 } from '../oracle/build.ts';
import { decodeBy, field } from './devices.ts';

const segment = JSON.parse(
  `{"vmsd_name": "segment", "version": 1, "fields": [${[
    field('selector', 'uint32', 4),
    field('base', 'uint64', 8),
    field('limit', 'uint32', 4),
    field('flags', 'uint32', 4),
  ].join()}]}`,
);
const segmentField = (name: string, more: object = {}) => field(name, 'struct', 20, { ...more, struct: segment });
const fields = [
  field('env.regs', 'uint64', 8, { array_len: 16 }),
  field('env.eip', 'uint64', 8),
  field('env.eflags', 'uint64', 8),
  segmentField('env.segs', { array_len: 6 }),
  ...['env.ldt', 'env.tr', 'env.gdt', 'env.idt'].map((name) => segmentField(name)),
  ...[0, 2, 3, 4].map((i) => field(`env.cr[${i}]`, 'uint64', 8)),
  field('env.efer', 'uint64', 8),
  field('env.kernelgsbase', 'uint64', 8),
];

interface Shape {
  cr0?: number;
  efer?: number;
  flags?: number;
  code?: number;
  stack?: number;
}

function cpu({ cr0 = 0, efer = 0, flags = 2, code = 0, stack = 0 }: Shape): StateStruct {
  const part = (selector: number, bits: number) => join(u32(selector), u64(0x1000), u32(0xffff), u32(bits));
  const data = join(
    ...Array.from({ length: 16 }, (_, i) => u64(BigInt(i) << 40n)),
    ...[u64(0xffffffff81000000n), u64(flags)],
    ...[part(1, 0), part(8, code), part(16, stack), part(3, 0), part(4, 0), part(5, 0)],
    ...[part(6, 0), part(7, 0), part(0, 0), part(0, 0)],
    ...[u64(cr0), u64(2), u64(3), u64(4), u64(efer), u64(0)],
  );
  return decodeBy(`"fields": [${fields.join()}]`, data).state as StateStruct;
}

describe('the registers of an x86 CPU', () => {
  it('equal those of its state, by name', () => {
    const registers = readX86Registers(cpu({ cr0: 0x80000011, efer: 0x500, code: 0x209b00 }));
    expect(registers).toMatchObject({ ip: 0xffffffff81000000n, flags: 2n, cr0: 0x80000011n, cr3: 3n, efer: 0x500n });
    expect(registers?.general.map(({ name }) => name).join(' ')).toBe(
      'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15',
    );
    expect(registers?.general[4]).toEqual({ name: 'rsp', value: 4n << 40n });
    expect(registers?.segments.map(({ name, selector }) => [name, selector])).toEqual(
      Object.entries({ es: 1, cs: 8, ss: 16, ds: 3, fs: 4, gs: 5, ldt: 6, tr: 7 }),
    );
    expect(registers?.tables).toEqual(['gdt', 'idt'].map((name) => ({ name, base: 0x1000n, limit: 0xffff })));
  });

  it.each<[string, number, Shape]>([
    ['16-bit real', 0, { cr0: 0, code: 0x409b00, stack: 3 << 13 }],
    ['16-bit', 0, { cr0: 1 }],
    ['32-bit', 3, { cr0: 1, code: 0x409b00, stack: 3 << 13 }],
    ['32-bit', 0, { cr0: 1, efer: 0x500, code: 0x409b00 }],
    ['64-bit', 3, { cr0: 1, efer: 0x500, code: 0x209b00, stack: 3 << 13 }],
    ['virtual 8086', 3, { cr0: 1, flags: 0x20002 }],
  ])('show that it runs in mode %s at level %i', (mode, cpl, shape) => {
    expect(readX86Registers(cpu(shape))).toMatchObject({ mode, cpl });
  });

  it('do not exist in another device', () => {
    const other = decodeBy(`"fields": [${field('env.regs', 'uint64', 8, { array_len: 1 })}]`, new Uint8Array(8));
    expect(readX86Registers(other.state as StateStruct)).toBeUndefined();
  });
});

describe('flags', () => {
  it('are shown by name', () => {
    expect(x86FlagNames(0x246n)).toEqual(['PF', 'ZF', 'IF']);
    expect(x86FlagNames(0x3002n)).toEqual(['IOPL=3']);
    expect(x86FlagNames(2n)).toEqual([]);
  });
});
