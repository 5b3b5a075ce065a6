/**
 * The device `globalstate`: what the guest did before it was stopped for its migration, which it does again afterwards.
 *
 *     be32 length, with the NUL   | name of the runstate, NUL, zeros: 100 bytes |
 */
import type { SavedDevices, WritableDevice } from '../vm/saved-vm.ts';

/** What the guest does, under QEMU's names (RunState). */
export type RunState =
  | 'running'
  | 'paused'
  | 'prelaunch'
  | 'inmigrate'
  | 'finish-migrate'
  | 'postmigrate'
  | 'save-vm'
  | 'restore-vm'
  | 'colo';

const deviceName = 'globalstate';
const nameBytes = 100;

/** The devices of a guest without a machine: only this one. RAM has section id 1. */
export const onlyGlobalState = (): SavedDevices => ({
  devices: [{ kind: 'full', id: 2, name: deviceName, instanceId: 0, versionId: 1, data: bodyOf('running') }],
  description: { text: JSON.stringify({ page_size: 4096, devices: [described] }) },
});

/** The device in the description of a stream. */
const described = {
  ...{ name: deviceName, instance_id: 0, vmsd_name: deviceName, version: 1 },
  fields: [
    { name: 'size', type: 'uint32', size: 4 },
    { name: 'runstate', type: 'buffer', size: nameBytes },
  ],
};

function bodyOf(state: RunState): Uint8Array {
  const body = new Uint8Array(4 + nameBytes);
  const { written } = new TextEncoder().encodeInto(state, body.subarray(4));
  new DataView(body.buffer).setUint32(0, written + 1);
  return body;
}

/** The same devices, with another state in `globalstate`, if there is one. */
export function withRunState({ devices, ...rest }: SavedDevices, state: RunState): SavedDevices {
  const changed = devices.map((device) => {
    if (device.name !== deviceName || device.data.length < 4 + nameBytes) return device;
    const data = device.data.slice();
    data.set(bodyOf(state));
    return { ...device, data };
  });
  return { ...rest, devices: changed };
}

/** What the guest did, if its devices say so. */
export function runStateOf(devices: readonly Pick<WritableDevice, 'name' | 'data'>[]): string | undefined {
  const data = devices.find(({ name }) => name === deviceName)?.data;
  if (data === undefined) return undefined;
  const end = data.indexOf(0, 4);
  return new TextDecoder().decode(data.subarray(4, end < 0 ? data.length : end));
}
