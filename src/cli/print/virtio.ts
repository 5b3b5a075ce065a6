/** What the driver of a virtio device set up, as a table. */
import { type VirtioDevice, virtioStatusNames } from '../../devices/virtio-device.ts';
import { virtioFeatureNames } from '../../devices/virtio-features.ts';
import { formatTable, printable } from './format.ts';

/** `name`: the `vmsd_name` of the device. */
export function drawVirtio({ kind, status, features, queues }: VirtioDevice, name: string): string {
  const hex = (value: bigint | undefined) => (value === undefined ? '' : `0x${value.toString(16)}`);
  const rows = [['queue', 'size', 'descriptors', 'driver area', 'device area', 'next', 'vector']];
  for (const [i, { size, desc, avail, used, lastAvailIndex, vector }] of queues.entries()) {
    if (desc === 0n) continue;
    rows.push([
      String(i),
      String(size),
      hex(desc),
      hex(avail),
      hex(used),
      String(lastAvailIndex),
      String(vector ?? ''),
    ]);
  }
  const inUse = rows.length - 1;
  return [
    `  virtio ${kind ?? 'device'}, ${virtioStatusNames(status).join(', ') || 'reset'}, features ${hex(features)}`,
    ...(features === 0n ? [] : [`  ${printable(virtioFeatureNames(name, features).join(', '))}`]),
    `  ${inUse} of ${queues.length} queues set up`,
    ...(inUse > 0 ? [formatTable(rows, rows[0]?.map(() => 'right' as const) ?? [])] : []),
    '',
  ].join('\n');
}
