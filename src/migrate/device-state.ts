/**
 * The state of a machine's devices without its RAM, as `xen-save-devices-state` writes it:
 *
 *     | header | full sections of all devices | EOF |        no configuration, no description
 */
import type { ByteSink } from '../io/byte-source.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { requireDevices } from '../wire/require-vm.ts';
import { StreamWriter, writerArenaBytes } from '../write/stream-writer.ts';
import type { Machine } from './machine.ts';

/** The file. `commit` resolves when it is whole. */
export type StateOutput = ByteSink & { commit(): Promise<void> };

/** Stops the guest, writes, and lets it do again what it did. @throws Error of the output */
export async function saveDeviceState(machine: Machine, open: () => StateOutput): Promise<void> {
  const { guest } = machine;
  const kernel = await loadKernelFor([writerArenaBytes]);
  const isHeld = await machine.holdRunning('save-vm');
  try {
    const output = open();
    const writer = new StreamWriter(kernel, output, guest.framing);
    const { devices } = await machine.saveDevices();
    requireDevices(devices, writer.ramId);
    await writer.begin(undefined);
    for (const device of devices) await writer.device(device);
    await writer.finish(undefined);
    await output.commit();
  } finally {
    if (isHeld) machine.release();
  }
}
