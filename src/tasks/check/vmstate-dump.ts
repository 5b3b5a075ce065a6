/**
 * The output of `qemu-system-… -M MACHINE -dump-vmstate FILE` (docs/check.md): the state that each device type
 * of the binary saves and loads. Unlike a stream, it states for each field the version of the state that added it, and
 * whether it depends on a condition. It does not show which devices a guest has.
 */
import { MigrationError, type PlaceOrigin } from '../../vm/migration-error.ts';

/** What a binary can load. */
export interface VmstateDump {
  /** The machine type that the dump was made with, such as `pc-i440fx-10.0`. */
  machine: string | undefined;
  /** Device types with a state of their own. */
  types: DumpedType[];
}

/** A device type, such as `virtio-net-device`. */
export interface DumpedType {
  type: string;
  state: DumpedState;
}

/** Fields in order, then subsections, as the binary knows them. */
export interface DumpedState {
  /** What the VM description of a stream calls `vmsd_name`, such as `virtio-net`. */
  name: string;
  version: number;
  /** The oldest version that is loaded. */
  minimumVersion: number;
  fields: DumpedField[];
  subsections: DumpedState[];
}

/** A field in the output of `-dump-vmstate`. */
export interface DumpedField {
  name: string;
  /** The first version of the state that has it. */
  version: number;
  /** Whether it exists depends on the device, its configuration, or earlier fields. */
  conditional: boolean;
  /** Bytes of one element in memory, which for numbers equals that in the stream; 0 if unknown before loading. */
  size: number;
  /** The state of an element, if it has one. A dump does not state the number of elements. */
  nested: DumpedState | undefined;
}

/** The longest dump accepted, in bytes. QEMU's are from 35 kB to 2 MB. */
export const maxDump = 16 << 20;
/** The deepest nesting of the JSON. QEMU's is below 20. */
const maxDepth = 64;
/** The most objects, lists and commas. QEMU's are below 100,000. */
const maxNodes = 1_000_000;

/** Whether the first bytes of a file can begin a dump: white space, then an object. No migration file begins like that. */
export function canBeDump(head: Uint8Array): boolean {
  const first = head.find((byte) => byte !== 0x20 && (byte < 0x09 || byte > 0x0d));
  return first === 0x7b;
}

/**
 * Parses a dump.
 * @throws MigrationError `bad-vmstate-dump` for any other text, `limit-exceeded` for a dump that is too large.
 */
export function parseVmstateDump(text: string, origin: PlaceOrigin): VmstateDump {
  const place = { ...origin, offset: 0 };
  const bad = (message: string) => new MigrationError('bad-vmstate-dump', message, place);
  if (text.length > maxDump || !isTame(text)) {
    const message = `expected a dump of at most ${maxDump} bytes and ${maxNodes} values, nested at most ${maxDepth} deep`;
    throw new MigrationError('limit-exceeded', message, place);
  }
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw bad(`expected JSON: ${(error as Error).message.slice(0, 200)}`);
  }
  const reader = new Reader(bad);
  return reader.dump(root);
}

/** Whether nesting and the number of values are small enough for JSON.parse, which recurses and allocates. */
function isTame(text: string): boolean {
  let depth = 0;
  let nodes = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (inString) {
      if (char === 0x5c) i++;
      else if (char === 0x22) inString = false;
    } else if (char === 0x22) inString = true;
    else if (char === 0x7b || char === 0x5b) {
      if (++depth > maxDepth || ++nodes > maxNodes) return false;
    } else if (char === 0x7d || char === 0x5d) depth--;
    else if (char === 0x2c && ++nodes > maxNodes) return false;
  }
  return true;
}

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads the dump's shape, and refuses any other: a program wrote it. */
class Reader {
  readonly #bad: (message: string) => MigrationError;

  constructor(bad: (message: string) => MigrationError) {
    this.#bad = bad;
  }

  dump(root: unknown): VmstateDump {
    const { vmschkmachine, ...types } = this.#object(root, 'the dump');
    const isDescribed = (value: unknown) => isObject(value) && value.Description !== undefined;
    if (vmschkmachine === undefined && !Object.values(types).some(isDescribed)) {
      throw this.#bad('expected the output of -dump-vmstate, got other JSON');
    }
    const entries = Object.entries(types).map(([type, value]) => ({ type, value: this.#object(value, type) }));
    const described = entries.filter(({ value }) => isDescribed(value));
    const machine = vmschkmachine === undefined ? undefined : this.#object(vmschkmachine, 'vmschkmachine').Name;
    return {
      machine: machine === undefined ? undefined : this.#string(machine, 'vmschkmachine.Name'),
      types: described.map(({ type, value }) => ({ type, state: this.#state(value.Description, type) })),
    };
  }

  #state(value: unknown, what: string): DumpedState {
    const state = this.#object(value, what);
    const name = this.#string(state.name, `the name of ${what}`);
    const { Fields = [], Subsections = [] } = state;
    return {
      name,
      version: this.#number(state.version_id, `version_id of ${name}`),
      minimumVersion: this.#number(state.minimum_version_id, `minimum_version_id of ${name}`),
      fields: this.#list(Fields, `Fields of ${name}`).map((field) => this.#field(field, name)),
      subsections: this.#list(Subsections, `Subsections of ${name}`).map((each) => this.#state(each, name)),
    };
  }

  #field(value: unknown, parent: string): DumpedField {
    const field = this.#object(value, `a field of ${parent}`);
    const name = this.#string(field.field, `the name of a field of ${parent}`);
    const what = `${parent}.${name}`;
    if (typeof field.field_exists !== 'boolean') throw this.#bad(`expected field_exists of ${what} as a boolean`);
    return {
      name,
      version: this.#number(field.version_id, `version_id of ${what}`),
      conditional: field.field_exists,
      size: this.#number(field.size, `the size of ${what}`),
      nested: field.Description === undefined ? undefined : this.#state(field.Description, what),
    };
  }

  #object(value: unknown, what: string): Json {
    if (isObject(value)) return value;
    throw this.#bad(`expected ${what} as an object`);
  }

  #list(value: unknown, what: string): unknown[] {
    if (Array.isArray(value)) return value;
    throw this.#bad(`expected ${what} as a list`);
  }

  #string(value: unknown, what: string): string {
    if (typeof value === 'string') return value;
    throw this.#bad(`expected ${what} as a string`);
  }

  #number(value: unknown, what: string): number {
    if (Number.isSafeInteger(value)) return value as number;
    throw this.#bad(`expected ${what} as a number`);
  }
}
