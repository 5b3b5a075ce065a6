/**
 * The JSON of the VM description, as types (docs/formats/devices.md, "The description"): which fields each device
 * section has, and their sizes. `wire/vm-description.ts` finds it in a stream, and `devices/device-state.ts` reads
 * bodies with it.
 *
 * The elements of a list repeat their keys within one object, and JSON.parse would keep only the last of them. So this
 * parser handles properties one by one (`visit` of jsonc-parser), and builds only what a description can contain. This
 * also limits memory, whatever else the JSON contains. Text that would make the scanner itself use much memory is
 * refused first.
 */

import { visit } from 'jsonc-parser';
import {
  type DeviceDescription,
  type FieldDescription,
  incompleteKey,
  type StateDescription,
  type VmDescription,
} from '../vm/description.ts';
import { isPageSize, pageSizeRule } from '../vm/page-size.ts';

/** The deepest nesting of the JSON. QEMU's is below 20. */
const maxDepth = 64;
/** The most characters of a string, or of white space between two tokens. */
const maxRun = 1 << 20;
/** The most fields and descriptions. A guest of 1,024 CPUs has some 135,000. */
const maxNodes = 150_000;
/** As many devices as a stream can have section ids. */
const maxDevices = 16_384;
/** The most problems that are listed. */
const maxProblems = 20;

type Literal = string | number | boolean | null;

/** Receives the content of an object or a list in the JSON. */
interface Receiver {
  /** An object or a list begins. `key` is the key of the latest property. */
  enter(key: string, isList: boolean): Receiver;
  /** A value that is neither an object nor a list. */
  take(key: string, value: Literal): void;
}

/** Ignores everything that is not part of a description. */
const ignored: Receiver = { enter: () => ignored, take: () => {} };

/** A list of objects; `spoil` is called for elements that are not objects. */
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
 * Parses a description. Undefined if the text is not JSON, nests deeper than 64, or has a string or white space of more than
 * 1,048,576 characters. `problems` lists impossible values; the description has all other parts.
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
    // The last device is incomplete.
    builder.description.devices.pop();
    builder.note(`expected at most ${maxDevices} devices and ${maxNodes} fields: the devices after them are left out`);
  }
  return { description: builder.description, problems: builder.problems };
}

/** Whether nesting, strings and white space are small enough for a parser that recurses and collects characters. */
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

/** Shared by all descriptions without subsections, and without fields. */
const none = Object.freeze([]) as readonly StateDescription[] as StateDescription[];
const noFields = Object.freeze([]) as readonly FieldDescription[] as FieldDescription[];

const isStateKey = (key: string) =>
  key === 'vmsd_name' || key === 'version' || key === 'fields' || key === 'subsections';

const isCount = (value: Literal): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Builds the description from what the receivers get. */
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
        if (key === incompleteKey) description.incomplete = String(value);
        if (key !== 'page_size') return;
        if (isPageSize(value)) description.pageSize = value;
        else this.note(`page_size: expected ${pageSizeRule}, got ${JSON.stringify(value)}`);
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

  /** Adds a field of unknown size in place of one that cannot be read. */
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
    /** The keys of a nested description are in the field itself. A repeated key begins the next element. */
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
        // Its size cannot be trusted either.
        if (isRefused) field.size = undefined;
      },
    };
  }

  /** False if the value is impossible. */
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
    this.note(`${what} has the impossible value ${JSON.stringify(value).slice(0, 40)}`);
    return false;
  }
}
