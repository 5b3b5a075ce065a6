/** The state of devices as nodes of a tree. Only nodes that the page asks for are decoded. */

import {
  type DeviceState,
  isStruct,
  type StateField,
  type StateStruct,
  type StateValue,
} from '../../devices/device-state.ts';
import { takeTurn } from '../../io/event-loop-yield.ts';
import { describeDevice } from '../../words/device-words.ts';
import { plural, printable } from '../../words/format.ts';
import { hexBytes } from '../../words/hex-dump.ts';
import { describeBytes, describeValue } from '../../words/value-words.ts';
import type { DeviceChildren, DeviceMatch, DeviceNode, DevicePath } from '../protocol.ts';

/** Children per call. */
const maxChildren = 1000;
/** Numbers of an array, and bytes of a buffer, that fit on one line. */
const shownNumbers = 16;
const shownBytes = 32;
/** Nodes that a search visits between two turns of the event loop. */
const nodesPerTurn = 2000;

/** A field, a subsection or an element of a list, before it becomes a node. */
interface Item {
  label: string;
  type: string;
  value: StateValue;
  /** Offset and length in the device's body. */
  offset: number | undefined;
  length: number | undefined;
}

type SourceOf = (device: DeviceState) => string | undefined;

/** The tree of all devices of a file. */
export class DeviceTree {
  readonly #devices: readonly DeviceState[];
  readonly #sources: readonly (string | undefined)[];
  /** The last list of children. The page loads a long list in several calls. */
  #latest: { key: string; items: readonly Item[] } | undefined;

  /** `sourceOf` returns the source of a device that is not in the main file. */
  constructor(devices: readonly DeviceState[], sourceOf: SourceOf = () => undefined) {
    this.#devices = devices;
    this.#sources = devices.map(sourceOf);
  }

  /** @throws RangeError if there is no such device */
  device(index: number): DeviceState {
    const device = this.#devices[index];
    if (device !== undefined) return device;
    throw new RangeError(`expected one of ${this.#devices.length} devices, got number ${index}`);
  }

  /** @throws RangeError if the path does not exist */
  children(path: DevicePath, from = 0): DeviceChildren {
    const [index, ...rest] = path;
    const cut = <Each>(list: readonly Each[]) => list.slice(from, from + maxChildren);
    if (index === undefined) {
      const nodes = cut(this.#devices).map((_, i) => this.#deviceNode(from + i));
      return { nodes, total: this.#devices.length };
    }
    const device = this.device(index);
    const key = path.join('.');
    const items = this.#latest?.key === key ? this.#latest.items : listItems(device, rest);
    this.#latest = { key, items };
    const nodes = cut(items).map((item, i) => this.#placed(nodeOf(item, device, [...path, from + i])));
    return { nodes, total: items.length };
  }

  /** Finds text in labels, values and types, ignoring case. */
  async find(text: string, limit: number, signal: AbortSignal): Promise<DeviceMatch[]> {
    const wanted = text.toLowerCase();
    const found: DeviceMatch[] = [];
    let seen = 0;
    for (const { node, labels } of this.#walk()) {
      if (++seen % nodesPerTurn === 0) await takeTurn();
      signal.throwIfAborted();
      if (!`${node.label}\n${node.text}\n${node.type}`.toLowerCase().includes(wanted)) continue;
      found.push({ node: this.#placed(node), labels });
      if (found.length >= limit) break;
    }
    return found;
  }

  *#walk(): Generator<DeviceMatch, void> {
    for (const [i, device] of this.#devices.entries()) {
      const node = this.#deviceNode(i);
      yield { node, labels: [node.label] };
      if (device.state !== undefined) yield* walk(itemsOf(device.state), device, [i], [node.label]);
    }
  }

  #deviceNode(index: number): DeviceNode {
    const device = this.device(index);
    const { name, instanceId, offset, length, state, problem } = device;
    return this.#placed({
      path: [index],
      label: `${printable(name)}#${instanceId}`,
      type: '',
      text: describeDevice(device, this.#devices).map(printable).join(', '),
      offset,
      length,
      children: state === undefined ? 0 : countParts(state),
      ...(problem === undefined ? {} : { problem }),
    });
  }

  #placed(node: DeviceNode): DeviceNode {
    const source = this.#sources[node.path[0] ?? -1];
    return source === undefined ? node : { ...node, source };
  }
}

/** The children at a path within a device. @throws RangeError if the path does not exist */
function listItems(device: DeviceState, path: DevicePath): readonly Item[] {
  let items = device.state === undefined ? [] : itemsOf(device.state);
  for (const at of path) {
    const item = items[at];
    if (item === undefined) throw new RangeError(`expected one of ${items.length} children, got number ${at}`);
    items = childrenOf(item);
  }
  return items;
}

function* walk(
  items: readonly Item[],
  device: DeviceState,
  path: DevicePath,
  labels: string[],
): Generator<DeviceMatch, void> {
  for (const [i, item] of items.entries()) {
    const node = nodeOf(item, device, [...path, i]);
    const down = [...labels, node.label];
    yield { node, labels: down };
    if (node.children > 0) yield* walk(childrenOf(item), device, node.path, down);
  }
}

function nodeOf(item: Item, device: DeviceState, path: DevicePath): DeviceNode {
  const { label, type, value, offset, length } = item;
  const at = offset === undefined ? undefined : device.offset + offset;
  return { path, label, type, text: describe(type, value), offset: at, length, children: countChildren(item) };
}

function itemsOf({ fields, subsections }: StateStruct): Item[] {
  return [
    ...fields.map((field) => itemOf(field)),
    ...subsections.map((subsection) => {
      const { offset, length } = subsection;
      return { label: `/${printable(subsection.vmsdName)}`, type: '', value: subsection, offset, length };
    }),
  ];
}

function itemOf({ name, index, type, value, offset, length }: StateField): Item {
  return { label: printable(name) + (index === undefined ? '' : `[${index}]`), type, value, offset, length };
}

/** The parts of a value. A short array of numbers has none, because it fits on one line. */
function childrenOf({ label, type, value }: Item): Item[] {
  if (isStruct(value)) return itemsOf(value);
  if (!isList(value) || isShort(value)) return [];
  return value.map((element, i) => {
    const place = isStruct(element) ? { offset: element.offset, length: element.length } : undefined;
    return { label: `${label}[${i}]`, type, value: element, offset: place?.offset, length: place?.length };
  });
}

const countParts = ({ fields, subsections }: StateStruct) => fields.length + subsections.length;

function countChildren({ value }: Item): number {
  if (isStruct(value)) return countParts(value);
  return isList(value) && !isShort(value) ? value.length : 0;
}

function describe(type: string, value: StateValue): string {
  if (isStruct(value)) return '';
  if (value instanceof Uint8Array) {
    const short = type === 'unknown' ? undefined : describeBytes(value);
    if (short !== undefined) return short;
    const more = value.length > shownBytes ? ' …' : '';
    const about = `${plural(value.length, 'byte')}${type === 'unknown' ? ', not decoded' : ''}`;
    return `${about}: ${hexBytes(value.subarray(0, shownBytes))}${more}`;
  }
  if (!isList(value)) return describeValue(type, value);
  if (value.length === 0) return 'empty';
  if (isShort(value)) return value.map((each) => describeValue(type, each)).join(', ');
  return plural(value.length, 'element');
}

const isList = (value: StateValue): value is readonly StateValue[] => Array.isArray(value);

/** Whether an array has only numbers, and few of them. */
function isShort(values: readonly StateValue[]): boolean {
  return values.length <= shownNumbers && !values.some((each) => typeof each === 'object' && each !== null);
}
