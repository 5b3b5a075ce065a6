/** Loads a multifd set into a real QEMU. */
import { join } from 'node:path';
import { type Machine, startDestination } from './machine.ts';
import type { Qemu } from './qemu.ts';
import { type SetFiles, sendSet } from './send-set.ts';
import { findAddresses, readTruth, type Truth } from './truth.ts';

export interface LoadSetOptions {
  machine: Machine;
  set: SetFiles;
  compression?: 'none' | 'zlib' | 'zstd';
  /** Beside `multifd`. */
  capabilities?: readonly string[];
}

/** A machine that has loaded the set and is stopped. @throws when QEMU refuses it, with QEMU's error */
export async function startFromSet({
  machine,
  set,
  compression = 'none',
  capabilities = [],
}: LoadSetOptions): Promise<Qemu> {
  const qemu = await startDestination(machine);
  try {
    const listen = join(qemu.dir, 'incoming');
    await qemu.setCapabilities(['multifd', ...capabilities]);
    await qemu.setParameters({ 'multifd-channels': set.channels.length, 'multifd-compression': compression });
    await qemu.execute('migrate-incoming', { uri: `unix:${listen}` });
    // QEMU may hang up on a bad set, or wait for more: its status shows that after a while.
    void sendSet(listen, set);
    await qemu.waitForMigration();
    return qemu;
  } catch (error) {
    await qemu[Symbol.asyncDispose]();
    throw error;
  }
}

/** The truth of a machine that has loaded a set. It is removed with `qemu`. */
export async function truthOf(qemu: Qemu): Promise<Truth> {
  return readTruth(qemu, qemu.dir, await findAddresses(qemu));
}
