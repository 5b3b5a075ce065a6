/**
 * `human-monitor-command`: the two lines of QEMU's monitor for people that `estimate` asks, of those that have no command of
 * their own.
 *
 *     info mtree -f      where RAM is
 *     xp /NFU ADDRESS    what is there: N items, in format x, of unit b, h, w or g
 */
import type { JsonObject } from '../json-value.ts';
import type { Handler } from '../server.ts';

/** Guest-physical memory. Addresses and lengths in bytes. */
export interface PhysicalMemory {
  /** RAM, by the name of its block. */
  ranges: readonly { name: string; start: number; length: number }[];
  /** What is not RAM reads as zeros. */
  read(address: number, target: Uint8Array): Promise<void>;
}

/** Bytes of a unit, and how many are on a line. */
const units = { b: [1, 8], h: [2, 8], w: [4, 4], g: [8, 2] } as const;
/** Items that one line of the monitor asks for, at most. QEMU has no limit. */
const maxItems = 1 << 20;

export function humanMonitor(memory: () => Promise<PhysicalMemory>): Handler {
  return async ({ 'command-line': given }: JsonObject) => {
    const line = String(given).trim();
    if (/^info\s+mtree\s+-f$/.test(line)) return flatView(await memory());
    const [, count = '1', unit, address] = /^xp\s+\/(\d*)x([bhwg])\s+(0x[0-9a-f]+|\d+)$/i.exec(line) ?? [];
    if (address === undefined || Number(count) > maxItems) return `unknown command: '${line}'\r\n`;
    return await dump(await memory(), Number(address), Number(count), unit as keyof typeof units);
  };
}

const hex = (value: number | bigint, digits: number) => value.toString(16).padStart(digits, '0');

function flatView({ ranges }: PhysicalMemory): string {
  const lines = ranges.map(
    ({ name, start, length }) => `  ${hex(start, 16)}-${hex(start + length - 1, 16)} (prio 0, ram): ${name}`,
  );
  return ['FlatView #0', ' AS "memory", root: system', ' Root memory region: system', ...lines, '', ''].join('\r\n');
}

async function dump(memory: PhysicalMemory, address: number, count: number, unit: keyof typeof units): Promise<string> {
  const [size, perLine] = units[unit];
  const bytes = new Uint8Array(count * size);
  await memory.read(address, bytes);
  const view = new DataView(bytes.buffer);
  const item = (at: number) => {
    if (size === 8) return hex(view.getBigUint64(at, true), 16);
    if (size === 4) return hex(view.getUint32(at, true), 8);
    return size === 2 ? hex(view.getUint16(at, true), 4) : hex(view.getUint8(at), 2);
  };
  const isRam = (at: number, length: number) =>
    memory.ranges.some(({ start, length: all }) => at >= start && at + length <= start + all);
  let text = '';
  for (let first = 0; first < count; first += perLine) {
    const at = address + first * size;
    const items = Array.from({ length: Math.min(perLine, count - first) }, (_, i) => (first + i) * size);
    text += `${hex(at, 16)}:`;
    if (!isRam(at, items.length * size)) return `${text} Cannot access memory\r\n`;
    text += `${items.map((offset) => ` 0x${item(offset)}`).join('')}\r\n`;
  }
  return text;
}
