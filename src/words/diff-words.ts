/** Describes differences between two VMs, in one line each. */

import type { FieldChange } from '../devices/device-diff.ts';
import type { FactDiff } from '../tasks/diff/diff.ts';
import type { BlockDiff } from '../tasks/diff/diff-ram.ts';
import { formatBytes, formatCount, formatHex, plural, printable } from './format.ts';
import { hexBytes } from './hex-dump.ts';
import { describeValue } from './value-words.ts';

const factNames: Record<FactDiff['what'], string> = {
  machine: 'machine',
  uuid: 'uuid',
  'page-size': 'page size',
  capabilities: 'capabilities',
};

/** A fact that differs. */
export function describeFact({ what, old, new: now, counts }: FactDiff): string {
  const said = (value: string | undefined) =>
    value === undefined ? 'not stated' : value === '' ? 'none' : printable(value);
  const note = counts ? '' : what === 'capabilities' ? ' (a matter of sending: ignored)' : ' (ignored)';
  return `${factNames[what]}: ${said(old)} → ${said(now)}${note}`;
}

/** Names of the two VMs, the older one first. */
export type ComparedNames = readonly [old: string, now: string];

const letters: ComparedNames = ['A', 'B'];

/** A note about a block that both have, if it needs one. */
export function describeBlock(block: BlockDiff, [old, now] = letters): string | undefined {
  const { oldLength, newLength, notCompared } = block;
  const idstr = printable(block.idstr);
  if (notCompared !== undefined) {
    const reasons: Record<typeof notCompared, string> = {
      'page-size': `has another page size in ${old}`,
      'old-ignored': `is shared memory that ${old} leaves out`,
      'new-ignored': `is shared memory that ${now} leaves out`,
      'both-ignored': 'is shared memory that both leave out',
    };
    return `${idstr} ${reasons[notCompared]}: not compared`;
  }
  if (oldLength === newLength) return undefined;
  return `${idstr}: ${formatBytes(oldLength)} → ${formatBytes(newLength)}; only the common part is compared`;
}

/** A difference in a device's state. */
export function describeChange(change: FieldChange, [older, newer] = letters): string {
  const path = printable(change.path);
  const register = change.register === undefined ? '' : ` (register 0x${change.register.toString(16)})`;
  const at = path === '' ? 'the state' : `${path}${register}`;
  switch (change.kind) {
    case 'value':
      return `${at}  ${describeValue(change.type, change.old)} → ${describeValue(change.type, change.new)}${describeFeatures(change)}`;
    case 'version':
      return `${at}  version ${change.old ?? 'none'} → ${change.new ?? 'none'}`;
    case 'type':
      return `${at}  ${printable(change.old)} → ${printable(change.new)}: type changed`;
    case 'removed':
      return `${at}  only in ${older}`;
    case 'added':
      return `${at}  only in ${newer}`;
    case 'bytes': {
      const { first, count, oldLength, newLength, old, new: now } = change;
      const length = oldLength === newLength ? plural(newLength, 'byte') : `${oldLength} → ${newLength} bytes`;
      const differ = `${formatCount(count)} of ${length} differ, from ${formatHex(first)} on`;
      return `${at}  ${differ}: ${hexBytes(old) || 'none'} → ${hexBytes(now) || 'none'}`;
    }
  }
}

/** The features of a virtio device that differ, if the value is feature bits. */
function describeFeatures({ features }: FieldChange & { kind: 'value' }): string {
  if (features === undefined) return '';
  const { removed, added } = features;
  return `: ${[...removed.map((name) => `-${name}`), ...added.map((name) => `+${name}`)].join(' ')}`;
}
