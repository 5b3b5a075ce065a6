/** The registers of an x86 CPU as a table, and as JSON. */
import { type X86Registers, x86FlagNames } from '../../devices/x86-registers.ts';
import type { RegistersJson } from '../../tasks/json.ts';
import { formatTable } from './format.ts';

export function drawRegisters(registers: X86Registers): string {
  const { general, ip, flags, segments, tables, cr0, cr2, cr3, cr4, efer, mode, cpl } = registers;
  const is64 = general.length === 16;
  const width = is64 ? 16 : 8;
  const hex = (value: bigint, digits = width) => value.toString(16).padStart(digits, '0');
  const cells = [
    ...general,
    { name: is64 ? 'rip' : 'eip', value: ip },
    { name: is64 ? 'rflags' : 'eflags', value: flags },
  ].map(({ name, value }) => `${name.padEnd(6)} ${hex(value)}`);
  const lines: string[] = [];
  for (let i = 0; i < cells.length; i += 4) lines.push(`  ${cells.slice(i, i + 4).join('  ')}`);
  const control = { cr0, cr2, cr3, cr4, efer };
  return [
    ...lines,
    `  ${Object.entries(control)
      .map(([name, value]) => `${name} ${hex(value, 8)}`)
      .join('  ')}`,
    `  flags  ${x86FlagNames(flags).join(' ') || 'none'}`,
    `  mode   ${mode}, CPL ${cpl}`,
    formatTable(
      [
        ['segment', 'selector', 'base', 'limit', 'flags'],
        ...segments.map(({ name, selector, base, limit, flags: bits }) => [
          name,
          hex(BigInt(selector), 4),
          hex(base),
          hex(BigInt(limit), 8),
          hex(BigInt(bits), 8),
        ]),
        ...tables.map(({ name, base, limit }) => [name, '', hex(base), hex(BigInt(limit), 8)]),
      ],
      ['left', 'right', 'right', 'right', 'right'],
    ),
    '',
  ].join('\n');
}

/** All registers by their names, as hex. */
export function registersToJson(registers: X86Registers): RegistersJson {
  const { general, ip, flags, segments, tables, cr0, cr2, cr3, cr4, efer, mode, cpl } = registers;
  const is64 = general.length === 16;
  const hex = (value: bigint | number) => `0x${value.toString(16)}`;
  const part = ({ selector, base, limit, flags: bits }: X86Registers['segments'][number]) => ({
    selector: hex(selector),
    base: hex(base),
    limit: hex(limit),
    flags: hex(bits),
  });
  return {
    mode,
    cpl,
    ...Object.fromEntries(general.map(({ name, value }) => [name, hex(value)])),
    [is64 ? 'rip' : 'eip']: hex(ip),
    [is64 ? 'rflags' : 'eflags']: hex(flags),
    flags: x86FlagNames(flags),
    ...Object.fromEntries(Object.entries({ cr0, cr2, cr3, cr4, efer }).map(([name, value]) => [name, hex(value)])),
    segments: Object.fromEntries(segments.map((segment) => [segment.name, part(segment)])),
    tables: Object.fromEntries(tables.map(({ name, base, limit }) => [name, { base: hex(base), limit: hex(limit) }])),
  };
}
