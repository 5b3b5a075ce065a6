/** Describes a device's state in a few words, for a list of devices. */

import { findTimers, readRunState } from '../devices/device-facts.ts';
import { type DeviceState, isStruct, type StateStruct, type StateValue } from '../devices/device-state.ts';
import { structTypes } from '../devices/field-types.ts';
import { findValue } from '../devices/find-value.ts';
import { readVirtioDevice, virtioStatusNames } from '../devices/virtio-device.ts';
import { readX86Registers } from '../devices/x86-registers.ts';
import { plural } from './format.ts';

/** Paths of the program counter in CPUs other than x86. */
const programCounters = ['env.pc', 'env.psw.addr', 'env.nip'];

/** Facts about a device; `all` are the devices of its file. Empty if there are none. */
export function describeDevice(device: DeviceState, all: readonly DeviceState[]): string[] {
  const { name, state } = device;
  if (state === undefined) return [];
  if (name === 'globalstate') {
    const runState = readRunState([device]);
    return runState === undefined ? [] : [`runstate ${runState}`];
  }
  if (name === 'timer') return describeClock(state);
  if (name === 'cpu') return describeCpu(device, state, all);
  const timers = [...findTimers(state)];
  const armed = timers.filter(({ expiry }) => expiry !== undefined).length;
  return [
    ...describeVirtio(state),
    ...describePci(state),
    ...(timers.length > 0 ? [`${armed} of ${plural(timers.length, 'timer')} armed`] : []),
  ];
}

function describeClock(state: StateStruct): string[] {
  const nanoseconds = findValue(state, 'cpu_clock_offset');
  if (typeof nanoseconds !== 'number' && typeof nanoseconds !== 'bigint') return [];
  return [`virtual clock ${(Number(nanoseconds) / 1e9).toFixed(3)} s`];
}

function describeCpu({ instanceId }: DeviceState, cpu: StateStruct, all: readonly DeviceState[]): string[] {
  const common = all.find((each) => each.name === 'cpu_common' && each.instanceId === instanceId)?.state;
  const halted = common === undefined ? undefined : findValue(common, 'halted');
  return [...describeRegisters(cpu), ...(halted === undefined ? [] : [halted === 0 ? 'not halted' : 'halted'])];
}

function describeRegisters(cpu: StateStruct): string[] {
  const registers = readX86Registers(cpu);
  if (registers !== undefined) {
    const { general, ip, mode, cpl } = registers;
    return [`${general[0]?.name === 'rax' ? 'rip' : 'eip'} ${hex(ip)}`, mode, `CPL ${cpl}`];
  }
  for (const path of programCounters) {
    const value = findValue(cpu, path);
    if (typeof value === 'number' || typeof value === 'bigint') return [`pc ${hex(BigInt(value))}`];
  }
  return [];
}

function describeVirtio(state: StateStruct): string[] {
  const device = readVirtioDevice(state);
  if (device === undefined) return [];
  const { kind, status, queues } = device;
  const inUse = queues.filter(({ desc }) => desc !== 0n).length;
  return [
    kind === undefined ? 'virtio' : `virtio ${kind}`,
    `${plural(queues.length, 'queue')}, ${inUse} set up`,
    status === 0 ? 'reset' : (virtioStatusNames(status).at(-1) ?? ''),
  ];
}

/** Vendor and device, as `lspci -n` prints them. */
function describePci(state: StateStruct): string[] {
  const config = findConfig(state);
  if (config === undefined || config.length < 4) return [];
  const id = (at: number) => hexDigits((config[at] as number) | ((config[at + 1] as number) << 8));
  return [`PCI ${id(0)}:${id(2)}`];
}

const hexDigits = (value: number) => value.toString(16).padStart(4, '0');
const hex = (value: bigint) => `0x${value.toString(16)}`;

/** The first PCI configuration space of a device: its own, or that of a nested struct. */
function findConfig(state: StateStruct): Uint8Array | undefined {
  for (const { type, value } of state.fields.filter(
    ({ type }) => type === 'pci config' || type === 'virtio' || structTypes.has(type),
  )) {
    if (type === 'pci config' && value instanceof Uint8Array) return value;
    const found: StateValue | undefined = isStruct(value) ? findConfig(value) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
