/** Hand-made devices: a body, and the description that QEMU would give it. */

import { parseVmDescription } from '../../src/devices/device-description.ts';
import { type DeviceState, decodeDevice } from '../../src/devices/device-state.ts';
import type { DeviceSection } from '../../src/vm/flow.ts';

export const sectionOf = (data: Uint8Array, more: Partial<DeviceSection> = {}): DeviceSection => ({
  ...{ kind: 'full', id: 1, name: 'dev', instanceId: 0, versionId: 1, offset: 100 },
  ...{ length: data.length + 22, packaged: false, boundary: 'description', data },
  ...more,
});

/** Decodes a body by JSON from a description: the text of a device's `fields` and `subsections`. */
export function decodeBy(json: string, data: Uint8Array): DeviceState {
  const text = `{"devices": [{"name": "dev", "instance_id": 0, "vmsd_name": "dev", "version": 1, ${json}}]}`;
  const device = parseVmDescription(text)?.description.devices[0];
  if (device === undefined) throw new Error(`bad JSON: ${text}`);
  return decodeDevice(sectionOf(data), device);
}

export const field = (name: string, type: string, size: number, more: object = {}): string =>
  JSON.stringify({ name, type, size, ...more });

/** Decodes a body with a single field. */
export const decodeField = (json: string, data: Uint8Array): DeviceState => decodeBy(`"fields": [${json}]`, data);
