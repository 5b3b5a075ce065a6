/**
 * Compares a device's state with a target (docs/check.md, "Fields"): with a dump, or with the same device in a file that the
 * target saved. Covers nested states, subsections and fields at any depth.
 */

import type { StateValue } from '../../devices/device-state.ts';
import { byteTypes, listTypes } from '../../devices/field-types.ts';
import { registerListName } from '../../devices/register-list.ts';
import type { StateDescription } from '../../vm/description.ts';
import type { Place } from '../../vm/migration-error.ts';
import type { SectionFacts } from './check-facts.ts';
import {
  type DescribedItem,
  describedItems,
  dumpedItems,
  fixedPrivateTypes,
  isOpaque,
  isSameAsDumped,
  isScalar,
  isTakenAsDumped,
} from './check-items.ts';
import { align, type Gap, type LayoutItem } from './check-layout.ts';
import { type CheckEffect, CheckLog, type CheckReason } from './check-reason.ts';
import { findUnknownRegisters } from './check-registers.ts';
import { type At, hasZeroBefore, isCounted, isCountedGap, isSwitched, nestedStructs } from './check-values.ts';
import type { DumpedState } from './vmstate-dump.ts';

/** The most comparisons in all. Two QEMU files with 100 devices need some 100,000. */
const maxWork = 20_000_000;

/** The work that all comparisons of one check may still do. */
export class Budget {
  #left = maxWork;

  take(work: number): boolean {
    this.#left -= work;
    return this.#left >= 0;
  }
}

/** Judges the states of one section. */
export class StateCheck {
  readonly #log: CheckLog;
  readonly #section: SectionFacts;
  readonly #budget: Budget;
  /** The section is of an older version, which the target may know how to read. */
  #isOlder = false;

  constructor(log: CheckLog, section: SectionFacts, budget: Budget) {
    this.#log = log;
    this.#section = section;
    this.#budget = budget;
  }

  /** Compares with the device's state in a dump. */
  againstDump(description: StateDescription, target: DumpedState): void {
    const at = { description, struct: this.#section.state?.state };
    this.#dumpedState(at, target, this.#section.versionId, '');
  }

  /** Compares with the same section of a file that the target saved. */
  againstFile(description: StateDescription, target: SectionFacts): void {
    if (target.description === undefined) return;
    this.#isOlder = this.#section.versionId < target.versionId;
    const at = { description, struct: this.#section.state?.state };
    this.#describedState(at, { description: target.description, struct: target.state?.state }, '');
  }

  #dumpedState(at: At, target: DumpedState, version: number, path: string): void {
    const source = describedItems(at.description);
    if (!this.#spend(source.length + target.fields.length, path)) return;
    const alignment = this.#align(at, source, dumpedItems(target, version), isSameAsDumped, isTakenAsDumped, path);
    for (const { source, target } of alignment?.pairs ?? []) {
      const { nested } = target;
      const list = registerListName(source.name);
      if (list !== undefined && source.name.endsWith('_indexes')) this.#log.demand('registers', source.name);
      if (nested === undefined || source.type === 'gtree') continue;
      // The stream does not state the version of a nested state, so the target uses its own.
      this.#eachNested(at, source, (inner) => {
        const version = source.type === 'vstruct' ? inner.description.version : undefined;
        this.#dumpedState(inner, nested, version ?? nested.version, join(path, source.name));
      });
    }
    for (const [i, subsection] of at.description.subsections.entries()) {
      const inner = { description: subsection, struct: at.struct?.subsections[i] };
      const known = target.subsections.find(({ name }) => name === subsection.vmsdName);
      if (known === undefined) {
        const message = `the target does not know the subsection ${subsection.vmsdName}`;
        const advice = 'find the device property that sends it (-device NAME,help), and turn it off at the source';
        this.#addSubsection('refused', inner, message, advice);
        continue;
      }
      const { version = known.version } = subsection;
      const { vmsdName } = subsection;
      if (version > known.version) {
        const message = `the subsection ${vmsdName} has version ${version}, the target knows up to ${known.version}`;
        this.#addSubsection('refused', inner, message);
      } else if (version < known.minimumVersion) {
        const message = `the subsection ${vmsdName} has version ${version}, the target reads ${known.minimumVersion} and later`;
        this.#addSubsection('refused', inner, message);
      } else this.#dumpedState(inner, known, version, vmsdName);
    }
  }

  #describedState(at: At, target: At, path: string): void {
    const source = describedItems(at.description);
    const items = describedItems(target.description);
    if (!this.#spend(source.length + items.length, path)) return;
    const isSame = (a: DescribedItem, b: DescribedItem) => this.#isSameAsDescribed(at, a, target, b);
    const alignment = this.#align(at, source, items, isSame, () => false, path, target);
    for (const pair of alignment?.pairs ?? []) this.#pair(at, pair.source, target, pair.target, path);
    for (const [i, subsection] of at.description.subsections.entries()) {
      const inner = { description: subsection, struct: at.struct?.subsections[i] };
      const j = target.description.subsections.findIndex(({ vmsdName }) => vmsdName === subsection.vmsdName);
      const known = target.description.subsections[j];
      if (known === undefined) {
        this.#log.leaveOut(
          `subsection ${subsection.vmsdName} of ${this.#section.name}: the target's file has none, perhaps because its guest does not need it`,
        );
        this.#log.demand('subsections', subsection.vmsdName);
        continue;
      }
      const [version = 0, knownVersion = 0] = [subsection.version, known.version];
      if (version > knownVersion) {
        const message = `the subsection ${subsection.vmsdName} has version ${version}, the target knows up to ${knownVersion}`;
        this.#addSubsection('refused', inner, message);
        continue;
      }
      const wasOlder = this.#isOlder;
      this.#isOlder = version < knownVersion;
      this.#describedState(inner, { description: known, struct: target.struct?.subsections[j] }, subsection.vmsdName);
      this.#isOlder = wasOlder;
    }
  }

  #isSameAsDescribed(at: At, source: DescribedItem, target: At, other: DescribedItem): boolean {
    if (source.name !== other.name) return false;
    if (source.ordinal !== undefined && other.ordinal !== undefined && source.ordinal !== other.ordinal) return false;
    if (isScalar(source) || isScalar(other)) return isScalar(source) && isScalar(other) && source.unit === other.unit;
    if (byteTypes.has(source.type) || byteTypes.has(other.type)) {
      return source.bytes === other.bytes || isCounted(at, source, target, other);
    }
    if (listTypes.has(source.type) || listTypes.has(other.type)) return source.type === other.type;
    return isOpaque(source) === isOpaque(other);
  }

  #pair(at: At, source: DescribedItem, target: At, other: DescribedItem, path: string): void {
    const name = join(path, source.name);
    const where = this.#place(at, source.index);
    if (isOpaque(source)) {
      if (source.bytes === other.bytes || source.type === 'virtio') return;
      const message = `${name} has ${source.bytes} bytes, the target's has ${other.bytes}`;
      this.#add(fixedPrivateTypes.has(source.type) ? 'refused' : 'doubt', {
        rule: 'field',
        message,
        ...where,
        field: name,
      });
      return;
    }
    if (this.#registers(at, target, source, path)) return;
    if (!listTypes.has(source.type) && (source.count !== other.count || isLonger(source, other))) {
      const count = ({ count, bytes, type }: DescribedItem) =>
        byteTypes.has(type) ? `${bytes} bytes` : `${count} elements`;
      const message = `the array ${name} has ${count(source)}, the target's has ${count(other)}`;
      // A number in the file states the count. The target can follow it, but may require its own.
      const isFollowed = isCounted(at, source, target, other);
      this.#add(isFollowed ? 'doubt' : 'refused', {
        rule: 'field',
        message,
        advice: sameProperties,
        ...where,
        field: name,
      });
      if (!isFollowed) return;
    }
    if (isScalar(source)) this.#value(at, source, target, other, name);
    if (source.type === 'gtree') return;
    if (other.nested.length === 0) return;
    const structs = nestedStructs(target.struct, other.index);
    const elements = other.nested.map((description, i): At => ({ description, struct: structs[i] }));
    let shapes: At[] | undefined;
    this.#eachNested(at, source, (each, i) => {
      const own = elements[i] ?? (elements.at(-1) as At);
      const log = this.#try(each, own, name);
      // Elements of one array may have different fields, by their values: any of these is loaded.
      shapes ??= log.isClean ? undefined : differentShapes(elements);
      const others = log.isClean ? [] : (shapes ?? []).filter((shape) => shape !== own);
      const logs = [log, ...others.map((shape) => this.#try(each, shape, name))];
      this.#log.merge(logs.reduce((a, b) => (b.weight < a.weight ? b : a)));
    });
  }

  /** The reasons against loading a state as another. */
  #try(at: At, target: At, path: string): CheckLog {
    const log = new CheckLog();
    const check = new StateCheck(log, this.#section, this.#budget);
    check.#isOlder = this.#isOlder;
    check.#describedState(at, target, path);
    return log;
  }

  /** Judges the list of registers that the items belong to. True if it is judged here. */
  #registers(at: At, target: At, item: DescribedItem, path: string): boolean {
    const list = registerListName(item.name);
    if (list === undefined || at.struct === undefined || target.struct === undefined) return false;
    const unknown = findUnknownRegisters(at.struct, target.struct, list);
    if (unknown === undefined) return false;
    if (unknown.length === 0 || !item.name.endsWith('_indexes')) return true;
    const shown = unknown.slice(0, 4).map((index) => `0x${index.toString(16)}`);
    const more = unknown.length > shown.length ? ` and ${unknown.length - shown.length} more` : '';
    const message = `the target's CPU does not have the registers ${shown.join(', ')}${more}, which are in ${item.name}`;
    const advice = 'load it with the -cpu of the source and a QEMU that has these registers';
    this.#add('refused', {
      rule: 'value',
      message,
      advice,
      ...this.#place(at, item.index),
      field: join(path, item.name),
    });
    return true;
  }

  /** Judges a field that the target compares with its own. */
  #value(at: At, source: DescribedItem, target: At, other: DescribedItem, name: string): void {
    const isLe = source.type === 'int32 le';
    if ((!isLe && !source.type.endsWith(' equal')) || source.count !== 1) return;
    const mine = at.struct?.fields[source.index]?.value;
    const theirs = target.struct?.fields[other.index]?.value;
    if (mine === undefined || theirs === undefined || mine === theirs) return;
    if (isLe && Number(mine) <= Number(theirs)) return;
    const message = `${name} is ${shown(mine)}, the target requires ${isLe ? 'at most ' : ''}its own value, ${shown(theirs)}`;
    this.#add('refused', {
      rule: 'value',
      message,
      advice: sameProperties,
      ...this.#place(at, source.index),
      field: name,
    });
  }

  #align<Target extends LayoutItem>(
    at: At,
    source: DescribedItem[],
    target: Target[],
    isSame: (source: DescribedItem, target: Target) => boolean,
    isTaken: (source: DescribedItem, target: Target) => boolean,
    path: string,
    targetAt?: At,
  ) {
    const alignment = align(source, target, isSame, isTaken, (times) => this.#budget.take(times));
    if (alignment === undefined) {
      this.#tooMany(path || at.description.vmsdName);
      return undefined;
    }
    for (const gap of alignment.gaps) {
      const described = gap as Gap<DescribedItem, LayoutItem>;
      const isSwitch = targetAt !== undefined && isSwitched(at, targetAt, described);
      if (isSwitch === 'by the field before it') continue;
      const isFollowed = isSwitch === 'perhaps' || (targetAt !== undefined && isCountedGap(at, targetAt, described));
      this.#gap(at, gap, alignment.mayShift || isFollowed, path);
    }
    return alignment;
  }

  #gap(at: At, { source, target, kind }: Gap<DescribedItem, LayoutItem>, mayShift: boolean, path: string): void {
    if (kind === 'skipped') return;
    const names = (items: LayoutItem[]) => items.map(({ name }) => join(path, name)).join(', ') || 'nothing';
    const [first] = source;
    const where = this.#place(at, first?.index ?? at.description.fields.length);
    const field = (first ?? (target[0] as LayoutItem)).name;
    const reason = { rule: 'field' as const, ...where, field: join(path, field), ...stateOf(at) };
    const always = target.filter(({ isConditional }) => !isConditional);
    if (kind === 'same-bytes') {
      const message = `${names(source)} is read as ${names(target)}, which has the same number of bytes`;
      this.#add('note', { ...reason, message });
    } else if (kind === 'conditional') {
      const message = `${names(source)} is read as ${names(target)}, under conditions that a dump does not state`;
      this.#add('doubt', { ...reason, message });
    } else if (kind === 'unknown') {
      const message = `${names(source)} is read as ${names(target)}, whose size is unknown`;
      this.#add('doubt', { ...reason, message });
    } else if (kind === 'empty') {
      const message = `the target also reads ${names(always)}, which must be an empty array`;
      this.#add(hasZeroBefore(at, source, where.place) ? 'note' : 'doubt', { ...reason, message });
    } else {
      const bytes = (items: LayoutItem[]) => countBytes(items.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0));
      let message = `the target reads ${names(always)} (${bytes(always)}) where the file has ${names(source)} (${bytes(source)})`;
      if (always.length === 0) message = `the target does not know ${names(source)} (${bytes(source)})`;
      if (source.length === 0)
        message = `the target also reads ${names(always)} (${bytes(always)}), which the file does not have`;
      if (mayShift) message += '; the total bytes may still match';
      this.#add(mayShift || this.#isOlder ? 'doubt' : 'refused', { ...reason, message, advice: otherVersion });
    }
  }

  #eachNested(at: At, item: DescribedItem, take: (inner: At, i: number) => void): void {
    const structs = nestedStructs(at.struct, item.index);
    // Elements that share a description are all alike.
    for (const [i, description] of item.nested.entries()) take({ description, struct: structs[i] }, i);
  }

  #spend(work: number, path: string): boolean {
    if (this.#budget.take(work)) return true;
    this.#tooMany(path || 'the state');
    return false;
  }

  #tooMany(what: string): void {
    const message = `${what} has too many fields to compare`;
    this.#add('doubt', { rule: 'field', message, place: this.#section.place });
  }

  #add(effect: CheckEffect, reason: Omit<CheckReason, 'effect'>): void {
    this.#log.add({ effect, ...reason });
  }

  #addSubsection(effect: CheckEffect, at: At, message: string, advice?: string): void {
    const place = this.#offset(at.struct?.offset);
    this.#add(effect, {
      rule: 'subsection',
      message,
      ...(advice === undefined ? {} : { advice }),
      place,
      state: at.description.vmsdName,
    });
  }

  /** The place of a field, or the end of the last field if it is missing. */
  #place({ struct }: At, index: number): { place: Place } {
    const field = struct?.fields[index];
    const last = struct?.fields.at(-1);
    return { place: this.#offset(field?.offset ?? (last === undefined ? struct?.offset : last.offset + last.length)) };
  }

  #offset(inBody: number | undefined): Place {
    const { place, state } = this.#section;
    return inBody === undefined || state === undefined ? place : { ...place, offset: state.offset + inBody };
  }
}

const otherVersion = 'load it with the QEMU that saved it, or one whose device has the same fields';
const sameProperties = 'give the target the same -m, -smp, -machine and -device properties as the source';

const countBytes = (count: number) => (count === 1 ? '1 byte' : `${count} bytes`);
const join = (path: string, name: string) => (path === '' ? name : `${path}.${name}`);
const stateOf = ({ description: { vmsdName } }: At) => (vmsdName === '' ? {} : { state: vmsdName });
const shown = (value: StateValue) => (typeof value === 'object' ? '…' : String(value));

const isLonger = (source: DescribedItem, other: DescribedItem) =>
  byteTypes.has(source.type) && source.bytes !== other.bytes;

/** The most different descriptions of an array's elements that are tried. QEMU's have two. */
const maxShapes = 4;

/** The first element of each description. */
function differentShapes(elements: readonly At[]): At[] {
  const shapes = new Map<string, At>();
  for (const element of elements) {
    const key = JSON.stringify(element.description);
    if (!shapes.has(key)) shapes.set(key, element);
    if (shapes.size === maxShapes) break;
  }
  return [...shapes.values()];
}
