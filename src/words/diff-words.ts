/** What differs in two machines, in a line each. */
import type { FactDiff } from '../file/diff.ts';
import type { FieldChange } from '../vm/device-diff.ts';
import { formatCount, formatHex, plural, printable } from './format.ts';
import { hexBytes } from './hex-dump.ts';
import { describeValue } from './value-words.ts';

const factNames: Record<FactDiff['what'], string> = {
  machine: 'machine',
  uuid: 'uuid',
  'page-size': 'page size',
  capabilities: 'capabilities',
};

export function describeFact({ what, old, new: now, counts }: FactDiff): string {
  const said = (value: string | null) => (value === null ? 'not stated' : value === '' ? 'none' : printable(value));
  const note = counts ? '' : what === 'capabilities' ? ' (how it was sent: does not count)' : ' (does not count)';
  return `${factNames[what]}: ${said(old)} → ${said(now)}${note}`;
}

export function describeChange(change: FieldChange): string {
  const path = printable(change.path);
  const at = path === '' ? 'the state' : path;
  switch (change.kind) {
    case 'value':
      return `${at}  ${describeValue(change.type, change.old)} → ${describeValue(change.type, change.new)}`;
    case 'version':
      return `${at}  version ${change.old ?? 'none'} → ${change.new ?? 'none'}`;
    case 'type':
      return `${at}  ${printable(change.old)} → ${printable(change.new)}: another type`;
    case 'removed':
      return `${at}  only in A`;
    case 'added':
      return `${at}  only in B`;
    case 'bytes': {
      const { first, count, oldLength, newLength, old, new: now } = change;
      const length = oldLength === newLength ? plural(newLength, 'byte') : `${oldLength} → ${newLength} bytes`;
      const differ = `${formatCount(count)} of ${length} differ, from ${formatHex(first)} on`;
      return `${at}  ${differ}: ${hexBytes(old) || 'none'} → ${hexBytes(now) || 'none'}`;
    }
  }
}
