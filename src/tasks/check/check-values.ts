/**
 * What the values of two states say about fields that only one of them has (docs/check.md, "Fields"): numbers of elements, and
 * switches of conditional fields. The target reads them from the file, too.
 */
import { isStruct, type StateField, type StateStruct, type StateValue } from '../../devices/device-state.ts';
import { byteTypes, listTypes, structTypes } from '../../devices/field-types.ts';
import { scalars } from '../../devices/state-scalars.ts';
import type { StateDescription } from '../../vm/description.ts';
import type { Place } from '../../vm/migration-error.ts';
import type { DescribedItem } from './check-items.ts';
import type { Gap, LayoutItem } from './check-layout.ts';

/** A state of the file, and its values. */
export interface At {
  description: StateDescription;
  /** Its values; undefined if the description does not fit the bytes. */
  struct: StateStruct | undefined;
}

/** The structs in a field's value, in order. */
export function nestedStructs(struct: StateStruct | undefined, index: number): StateStruct[] {
  const field = struct?.fields[index];
  if (struct === undefined || field === undefined) return [];
  const structs: StateStruct[] = [];
  for (let i = index; struct.fields[i]?.name === field.name; i++) {
    const { type } = struct.fields[i] as typeof field;
    if (!structTypes.has(type) && !listTypes.has(type)) break;
    const value = (struct.fields[i] as typeof field).value;
    for (const each of Array.isArray(value) ? (value as StateValue[]) : [value]) if (isStruct(each)) structs.push(each);
  }
  return structs;
}

/** Whether a number before the item is 0: it may be the count of its elements. */
export function hasZeroBefore(at: At, source: DescribedItem[], place: Place): boolean {
  const fields = at.struct?.fields ?? [];
  const end = source[0]?.index ?? fields.length;
  return place !== undefined && fields.slice(0, end).some((field) => isNumber(field.type) && field.value === 0);
}

const isNumber = (type: string) => scalars.has(type) && type !== 'nullptr' && type !== 'bool' && type !== 'timer';

/** Whether on both sides a number before the item states its elements or bytes, so that the target can read as many. */
export function isCounted(
  at: At,
  source: DescribedItem | undefined,
  target: At,
  other: DescribedItem | undefined,
): boolean {
  const mine = at.struct?.fields ?? [];
  const theirs = target.struct?.fields ?? [];
  const isCount = (value: StateValue, item: DescribedItem | undefined) =>
    value === (item?.count ?? 0) || value === (item?.bytes ?? 0);
  return mine.slice(0, source?.index ?? mine.length).some((field, i) => {
    // The field may have been renamed.
    const same = theirs.find(({ name }) => name === field.name) ?? theirs[i];
    if (same === undefined || !isSingle(field) || !isSingle(same)) return false;
    return isCount(field.value, source) && isCount(same.value, other);
  });
}

const isSingle = ({ type, length }: StateField) => isNumber(type) && length <= 8;

/** The same for an array that is empty on one side. */
export function isCountedGap(at: At, target: At, gap: Gap<DescribedItem, LayoutItem>): boolean {
  if (gap.source.length + gap.target.length !== 1) return false;
  return isCounted(at, gap.source[0], target, gap.target[0] as DescribedItem | undefined);
}

/**
 * Whether a field that only one side has depends on a value in the file: a switch that is on where the field is, and off
 * where it is not. An IDE disk saves `identify_data` if `identify_set`, the field before it, is 1.
 */
export function isSwitched(
  at: At,
  target: At,
  { source, target: items }: Gap<DescribedItem, LayoutItem>,
): 'by the field before it' | 'perhaps' | undefined {
  if (source.length + items.length !== 1) return undefined;
  const isMine = source.length === 1;
  const item = (source[0] ?? items[0]) as DescribedItem;
  const [having, lacking] = isMine ? [at.struct, target.struct] : [target.struct, at.struct];
  const before = having?.fields.slice(0, item.index) ?? [];
  const isSwitch = (field: StateField | undefined) => {
    const other = lacking?.fields.find(({ name }) => name === field?.name);
    if (field === undefined || other === undefined || !isFlag(field) || !isFlag(other)) return false;
    return Number(field.value) !== 0 && Number(other.value) === 0;
  };
  // A number of elements could also be required by the target.
  const isOne = item.count === 1 && item.nested.length === 0 && byteTypes.has(item.type);
  if (isOne && isSwitch(before.at(-1)) && Number(before.at(-1)?.value) === 1) return 'by the field before it';
  return isOne && before.some(isSwitch) ? 'perhaps' : undefined;
}

const isFlag = (field: StateField) => isSingle(field) || (field.type === 'bool' && typeof field.value === 'boolean');
