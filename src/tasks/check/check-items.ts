/**
 * Fields in the form in which two sides are compared (docs/check.md, "Fields"): those of a file's description and those of
 * a dump. Decides by names, types and sizes which of them are the same.
 */

import { bufferTypes, byteTypes, listTypes, structTypes } from '../../devices/field-types.ts';
import { scalars, sizedByMemory } from '../../devices/state-scalars.ts';
import type { FieldDescription, StateDescription } from '../../vm/description.ts';
import type { LayoutItem } from './check-layout.ts';
import type { DumpedState } from './vmstate-dump.ts';

/** A field of a file's description, or all elements of an array. */
export interface DescribedItem extends LayoutItem {
  /** As it is described. */
  fullName: string;
  /** Its number among the fields of that name; undefined if it is the only one. */
  ordinal: number | undefined;
  type: string;
  /** Bytes of an element, if known. */
  unit: number | undefined;
  count: number;
  /** One for each described element. */
  nested: StateDescription[];
  /** Index of the first element among the state's fields. */
  index: number;
}

/** A field of a dump. */
export interface DumpedItem extends LayoutItem {
  ordinal: number;
  unit: number;
  nested: DumpedState | undefined;
}

/** Private types whose size depends on the configuration. */
export const fixedPrivateTypes: ReadonlySet<string> = new Set(['pci config', 'msix state', 'pci irq state']);

/** Fields of the same name in a state are numbered with a [n], which also counts omitted ones. */
function splitName(name: string): { name: string; ordinal: number | undefined } {
  const [, base, ordinal] = /^(.*)\[(\d+)\]$/.exec(name) ?? [];
  return base === undefined ? { name, ordinal: undefined } : { name: base, ordinal: Number(ordinal) };
}

/** Consecutive fields of one name are the elements of one array. */
export function describedItems({ fields }: StateDescription): DescribedItem[] {
  const items: DescribedItem[] = [];
  let latest: FieldDescription | undefined;
  for (const [index, field] of fields.entries()) {
    const { name, type, size, arrayLength = 1, nested } = field;
    const bytes = size === undefined ? undefined : size * arrayLength;
    const item = items.at(-1);
    if (item !== undefined && latest?.name === name) {
      item.bytes = item.bytes === undefined || bytes === undefined ? undefined : item.bytes + bytes;
      item.count += arrayLength;
      for (const state of nested) item.nested.push(state);
      if (item.type === 'nullptr') item.type = type;
    } else {
      const common = { isConditional: false, mayBeEmpty: false, index };
      items.push({
        fullName: name,
        ...splitName(name),
        type,
        bytes,
        unit: size,
        count: arrayLength,
        nested: [...nested],
        ...common,
      });
    }
    latest = field;
  }
  return items;
}

/** Arrays that have no elements on some boards. A dump does not say that they are arrays. */
const oftenEmpty: ReadonlySet<string> = new Set(['realview_sysctl.mb_clock', 'realview_sysctl.db_clock']);

/** Bytes of a timer in the memory of a QEMU on a 64-bit host. */
const timerSize = 48;

/** What a target reads of a state of this version. */
export function dumpedItems(state: DumpedState, version: number): DumpedItem[] {
  const seen = new Map<string, number>();
  return state.fields.flatMap(({ name, version: since, conditional, size, nested }) => {
    const ordinal = seen.get(name) ?? 0;
    seen.set(name, ordinal + 1);
    if (!conditional && since > version) return [];
    const isOpen = nested !== undefined || size <= 0;
    // A field of the size of a timer in memory has 8 bytes in the stream if it is one.
    const bytes = isOpen || size === timerSize ? undefined : size;
    const isOptional = conditional || oftenEmpty.has(`${state.name}.${name}`);
    return [{ name, ordinal, bytes, isConditional: isOptional, mayBeEmpty: isOpen, unit: size, nested }];
  });
}

/** Whether an item is one value of a fixed size, or an array of them. */
export const isScalar = ({ type, unit }: DescribedItem) => type !== 'nullptr' && scalars.get(type)?.size === unit;
/** Whether an item has a private type. */
export const isOpaque = (item: DescribedItem) =>
  !isScalar(item) &&
  !byteTypes.has(item.type) &&
  !listTypes.has(item.type) &&
  !structTypes.has(item.type) &&
  item.type !== 'nullptr';

/** Whether a field of the file is the target's field of the same name. */
export function isSameAsDumped(source: DescribedItem, target: DumpedItem): boolean {
  // Some names end in [n] without a number being added.
  const isNamed = source.name === target.name && (source.ordinal ?? target.ordinal) === target.ordinal;
  if (!isNamed && source.fullName !== target.name) return false;
  if (isScalar(source)) {
    return target.nested === undefined && (sizedByMemory.has(source.type) || target.unit === source.unit);
  }
  if (bufferTypes.has(source.type)) {
    return target.nested === undefined && (target.unit <= 0 || target.unit === source.unit);
  }
  return source.nested.length === 0 || target.nested !== undefined;
}

/** Whether the target's field can be read from a field of another name. Arrays match by multiples, since a dump omits their length. */
export function isTakenAsDumped(source: DescribedItem, target: DumpedItem): boolean {
  if (source.nested.length > 0 || target.nested !== undefined || source.bytes === undefined || target.unit <= 0)
    return false;
  if (source.type === 'timer' && target.unit === timerSize) return true;
  const isMany = source.count > 1 || byteTypes.has(source.type);
  return source.bytes === target.unit || (isMany && source.bytes % target.unit === 0);
}
