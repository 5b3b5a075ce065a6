/**
 * The JSON of the VM description, as types (docs/formats/devices.md, "The description"): which fields each device
 * section has, and their sizes. `vm-description.ts` finds it in a stream, `devices/device-state.ts` reads bodies by it.
 *
 * The elements of a list repeat their keys within one object, so JSON.parse would lose all but the last: this takes
 * every property as it comes (`visit` of jsonc-parser) and builds only what a description can have. That also keeps
 * memory small whatever else the JSON holds. What that scanner itself would gather without bound is refused before.
 */

import { visit } from 'jsonc-parser';
import type { DeviceDescription, FieldDescription, StateDescription, VmDescription } from '../vm/description.ts';

/** The deepest nesting of the JSON. QEMU's is below 20. */
const maxDepth = 64;
/** Characters of one string, or of white space between two tokens. */
const maxRun = 1 << 20;
/** Fields and descriptions in all. A guest of 1,024 CPUs has some 135,000. */
const maxNodes = 150_000;
/** As many as there are sections with ids of their own. */
const maxDevices = 16_384;
/** Problems that are told one by one. */
const maxProblems = 20;

type Literal = string | number | boolean | null;

/** Takes what is in an object or a list of the JSON. */
interface Receiver {
  /** An object or a list begins; `key` is that of the latest property. */
  enter(key: string, isList: boolean): Receiver;
  /** A value that is neither. */
  take(key: string, value: Literal): void;
}

/** What is not part of a description leaves nothing. */
const ignored: Receiver = { enter: () => ignored, take: () => {} };

/** A list of objects; `spoil` is told of elements that are none. */
function listOf(element: () => Receiver, spoil: () => void = () => {}): Receiver {
  return {
    enter: (_, isList) => {
      if (!isList) return element();
      spoil();
      return ignored;
    },
    take: spoil,
  };
}

class NotJson extends Error {}
class TooMany extends Error {}

/**
 * Parses a description. Undefined: it is no JSON, nests deeper than 64, or has a string or white space of more than 1,048,576
 * characters.
 * `problems`: what in it cannot be, in words; the parts that are sound are there nevertheless.
 */
export function parseVmDescription(text: string): { description: VmDescription; problems: string[] } | undefined {
  if (!isTame(text)) return undefined;
  const builder = new Builder();
  const stack: Receiver[] = [];
  let receiver = builder.top();
  let key = '';
  const enter = (isList: boolean) => {
    stack.push(receiver);
    receiver = receiver.enter(key, isList);
    key = '';
  };
  const leave = () => {
    receiver = stack.pop() as Receiver;
  };
  try {
    visit(
      text,
      {
        onObjectBegin: () => enter(false),
        onArrayBegin: () => enter(true),
        onObjectEnd: leave,
        onArrayEnd: leave,
        onObjectProperty: (name) => {
          key = name;
        },
        onLiteralValue: (value: Literal) => receiver.take(key, value),
        onError: () => {
          throw new NotJson();
        },
      },
      { disallowComments: true },
    );
  } catch (error) {
    if (error instanceof NotJson) return undefined;
    if (!(error instanceof TooMany)) throw error;
    // The device that it happened in is not whole.
    builder.description.devices.pop();
    builder.note(
      `expected at most ${maxDevices} devices and ${maxNodes} fields: the devices from there on are left out`,
    );
  }
  return { description: builder.description, problems: builder.problems };
}

/** Whether nesting, strings and white space are short enough for a parser that recurses, and adds up characters. */
function isTame(text: string): boolean {
  let depth = 0;
  let run = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (inString ? char !== 0x22 : char <= 0x20) {
      if (++run > maxRun) return false;
      if (inString && char === 0x5c) i++;
      continue;
    }
    run = 0;
    if (char === 0x22) inString = !inString;
    else if (char === 0x7b || char === 0x5b) {
      if (++depth > maxDepth) return false;
    } else if (char === 0x7d || char === 0x5d) depth--;
  }
  return true;
}

/** What all share that have none. */
const none = Object.freeze([]) as readonly StateDescription[] as StateDescription[];
const noFields = Object.freeze([]) as readonly FieldDescription[] as FieldDescription[];

const isStateKey = (key: string) =>
  key === 'vmsd_name' || key === 'version' || key === 'fields' || key === 'subsections';

const isCount = (value: Literal): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Builds the description out of what the receivers are told. */
class Builder {
  readonly description: VmDescription = { pageSize: undefined, configuration: undefined, devices: [] };
  readonly problems: string[] = [];
  #nodes = 0;

  note(problem: string): void {
    if (this.problems.length < maxProblems) this.problems.push(problem);
    else if (this.problems.length === maxProblems) this.problems.push('and more');
  }

  /** Outside the JSON's one value. */
  top(): Receiver {
    const { description } = this;
    const root: Receiver = {
      enter: (key, isList) => {
        if (key === 'devices' && isList) return listOf(() => this.#device());
        if (key !== 'configuration' || isList) return ignored;
        description.configuration = this.#makeState();
        return this.#state(description.configuration, 'the configuration');
      },
      take: (key, value) => {
        if (key !== 'page_size') return;
        const isSize = isCount(value) && value >= 1024 && value <= 65536 && Number.isInteger(Math.log2(value));
        if (isSize) description.pageSize = value;
        else this.note(`page_size: expected a power of two from 1024 to 65536, got ${JSON.stringify(value)}`);
      },
    };
    return { enter: (_, isList) => (isList ? ignored : root), take: () => {} };
  }

  #device(): Receiver {
    const device: DeviceDescription = { name: '', instanceId: 0, ...this.#makeState() };
    if (this.description.devices.push(device) > maxDevices) throw new TooMany();
    const state = this.#state(device, `device ${this.description.devices.length - 1}`);
    return {
      enter: state.enter,
      take: (key, value) => {
        if (key === 'name' && typeof value === 'string') device.name = value;
        else if (key === 'instance_id' && isCount(value)) device.instanceId = value;
        else if (key === 'name' || key === 'instance_id') this.#refuse(`device "${device.name}": ${key}`, value);
        else state.take(key, value);
      },
    };
  }

  #state(state: StateDescription, what: string): Receiver {
    return {
      enter: (key, isList) => this.#enterState(state, key, isList),
      take: (key, value) => this.#takeState(state, key, value, what),
    };
  }

  #enterState(state: StateDescription, key: string, isList: boolean): Receiver {
    if (key !== 'fields' && key !== 'subsections') return ignored;
    const spoil = () => this.#spoil(state, key);
    if (!isList) spoil();
    if (!isList) return ignored;
    if (key === 'fields') return listOf(() => this.#field(state), spoil);
    return listOf(() => {
      const subsection = this.#makeState();
      if (state.subsections === none) state.subsections = [subsection];
      else state.subsections.push(subsection);
      return this.#state(subsection, `a subsection of ${state.vmsdName}`);
    }, spoil);
  }

  #takeState(state: StateDescription, key: string, value: Literal, what: string): void {
    if (key === 'vmsd_name' && typeof value === 'string') state.vmsdName = value;
    else if (key === 'version' && isCount(value)) state.version = value;
    else if (key === 'vmsd_name' || key === 'version') this.#refuse(`${what}: ${key}`, value);
    else if (key === 'fields' || key === 'subsections') this.#spoil(state, key);
  }

  /** Where a field or subsection cannot be read, one of unknown size stands for it. */
  #spoil(state: StateDescription, key: string): void {
    this.note(`${state.vmsdName}: expected ${key} as a list of objects`);
    this.#addField(state);
  }

  #addField(state: StateDescription): FieldDescription {
    this.#count();
    const field = { name: '', type: '', size: undefined, arrayLength: undefined, index: undefined, nested: none };
    if (state.fields === noFields) state.fields = [field];
    else state.fields.push(field);
    return field;
  }

  #field(parent: StateDescription): Receiver {
    const field = this.#addField(parent);
    let isRefused = false;
    /** The keys of a nested description stand in the field itself; one that was there begins the next element. */
    let inline: StateDescription | undefined;
    let seen: string[] = [];
    const inlineOf = (key: string): StateDescription => {
      if (inline === undefined || seen.includes(key)) {
        inline = this.#addNested(field);
        seen = [];
      }
      seen.push(key);
      return inline;
    };
    return {
      enter: (key, isList) => {
        if (key === 'struct' && !isList) return this.#state(this.#addNested(field), `field ${field.name}`);
        return isStateKey(key) ? this.#enterState(inlineOf(key), key, isList) : ignored;
      },
      take: (key, value) => {
        if (isStateKey(key)) this.#takeState(inlineOf(key), key, value, `field ${field.name}`);
        else if (!this.#takeField(field, key, value)) isRefused = true;
        // How many bytes it takes is not known, then.
        if (isRefused) field.size = undefined;
      },
    };
  }

  /** False: it has a value that cannot be. */
  #takeField(field: FieldDescription, key: string, value: Literal): boolean {
    if (key === 'name' || key === 'type') {
      if (typeof value === 'string') field[key] = value;
      else return this.#refuse(`field ${field.name}: ${key}`, value);
    } else if (key === 'size' || key === 'index' || key === 'array_len') {
      if (!isCount(value)) return this.#refuse(`field ${field.name}: ${key}`, value);
      if (key === 'array_len') field.arrayLength = value;
      else field[key] = value;
    }
    return true;
  }

  #addNested(field: FieldDescription): StateDescription {
    const nested = this.#makeState();
    if (field.nested === none) field.nested = [nested];
    else field.nested.push(nested);
    return nested;
  }

  #makeState(): StateDescription {
    this.#count();
    return { vmsdName: '', version: undefined, fields: noFields, subsections: none };
  }

  #count(): void {
    if (++this.#nodes > maxNodes) throw new TooMany();
  }

  #refuse(what: string, value: Literal): false {
    this.note(`${what} cannot be ${JSON.stringify(value).slice(0, 40)}`);
    return false;
  }
}
