/**
 * The state of devices as QEMU's analyze-migration.py prints it. The program runs beside ours (bench/fetch-analyze.sh
 * fetches it); only its output is used.
 *
 * Differences from ours: floats, timers, lists, `tmp` and all types unknown to it are bytes; negative numbers also come
 * with their bytes. It stops at a migration command, so it cannot read machine types from 10.0 on.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type DeviceState, isStruct, type StateField, type StateStruct, type StateValue } from '../../src/node.ts';

const script = join(process.env.VMFERRY_QEMU_DIR || join(homedir(), '.cache/vmferry-qemu'), 'analyze-migration.py');

export function hasAnalyze(): boolean {
  return existsSync(script);
}

/** Its state of all sections, in order, without their ids. */
export async function analyze(file: string): Promise<{ name: string; state: unknown }[]> {
  const { stdout } = await promisify(execFile)('python3', [script, '-d', 'state', '-f', file], { maxBuffer: 1 << 28 });
  const sections = Object.entries(JSON.parse(stdout) as Record<string, unknown>);
  return sections.map(([key, state]) => ({ name: key.replace(/ \(\d+\)$/, ''), state }));
}

/** Our state of a device, in its form. */
export function asAnalyzed({ state, data }: DeviceState): unknown {
  return state === undefined ? undefined : structOf(state, data);
}

function structOf({ fields, subsections }: StateStruct, data: Uint8Array): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const field of fields) {
    const value = fieldValue(field, data);
    const before = result[field.name];
    if (field.index === undefined) result[field.name] = value;
    else if (Array.isArray(before)) before.push(value);
    else result[field.name] = [value];
  }
  for (const subsection of subsections) result[subsection.vmsdName] = structOf(subsection, data);
  return result;
}

const integers = /^u?int(8|16|32|64)( equal| le)?$/;

function fieldValue(field: StateField, data: Uint8Array): unknown {
  const { type, value, offset, length } = field;
  const isKnown = integers.test(type) || type === 'bool' || type === 'struct' || type === 'buffer';
  if (!isKnown && type !== 'unused_buffer') {
    const count = Array.isArray(value) && !['qtailq', 'qlist', 'gtree'].includes(type) ? value.length : 1;
    const parts = Array.from({ length: count }, (_, i) =>
      bytesOf(data.subarray(offset + (i * length) / count, offset + ((i + 1) * length) / count)),
    );
    return Array.isArray(value) && count === value.length && count !== 1 ? parts : parts[0];
  }
  return Array.isArray(value)
    ? value.map((each, i) => elementOf(type, each, data, data.subarray(offset + (i * length) / value.length)))
    : elementOf(type, value, data, data.subarray(offset, offset + length));
}

function elementOf(type: string, value: StateValue, data: Uint8Array, bytes: Uint8Array): unknown {
  if (isStruct(value)) return structOf(value, data);
  if (value instanceof Uint8Array) return bytesOf(value);
  if (typeof value === 'boolean') return value;
  const size = Number(integers.exec(type)?.[1]) / 8;
  const hex = `0x${Buffer.from(bytes.subarray(0, size)).toString('hex')}`;
  return (value as number) < 0 ? `${hex} (${value})` : hex;
}

function bytesOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
