/**
 * Devices whose layout QEMU has never changed (docs/formats/devices.md, "Without a description"). They can be read even if
 * the stream has no description, as in postcopy.
 */

import type { DeviceDescription } from '../vm/description.ts';
import type { DeviceSection } from '../vm/flow.ts';
import { buildLayout, type LayoutBuilder } from './layout-builder.ts';

const known: { name: string; version: number; draw: (body: LayoutBuilder) => void }[] = [
  {
    name: 'timer',
    version: 2,
    draw: (body) => body.add('cpu_ticks_offset', 'int64', 8).buffer('unused', 8).add('cpu_clock_offset', 'int64', 8),
  },
  // The bytes after the text differ between versions.
  { name: 'globalstate', version: 1, draw: (body) => body.u32('size').buffer('runstate', 32).unknown('rest', 104) },
];

/** The description of a section whose layout never changes; undefined for all others. */
export function describeKnown({ name, instanceId, versionId, data }: DeviceSection): DeviceDescription | undefined {
  const device = known.find((each) => each.name === name && each.version === versionId);
  if (device === undefined) return undefined;
  const state = buildLayout(new DataView(data.buffer, data.byteOffset, data.byteLength), name, device.draw);
  return state === undefined ? undefined : { ...state, version: versionId, name, instanceId };
}
