/**
 * What defines a user's object: `TYPE,id=ID,key=value,…` as for QEMU's `-object`, or the JSON of `object-add`. A comma in
 * a value is written twice. Dots in keys name members and elements: `rules.0.match=…`.
 */

/** The value of a property. */
export type PropertyValue = string | number | boolean | null | PropertyValue[] | { [name: string]: PropertyValue };

/** An object to be made. */
export interface ObjectSpec {
  type: string;
  id: string;
  properties: ObjectProperties;
}

/** @throws RangeError with QEMU's text if it is malformed */
export function parseObjectSpec(spec: string | Record<string, unknown>): ObjectSpec {
  const all = typeof spec === 'string' ? parseText(spec) : { ...spec };
  const { 'qom-type': type, id, ...rest } = all as Record<string, PropertyValue | undefined>;
  if (typeof type !== 'string') throw new RangeError(`Parameter 'qom-type' is missing`);
  if (typeof id !== 'string' || id === '') throw new RangeError(`Parameter 'id' is missing`);
  if (!/^[a-z][\w.-]*$/i.test(id)) throw new RangeError(`Parameter 'id' expects an identifier`);
  return { type, id, properties: new ObjectProperties(rest as Record<string, PropertyValue>) };
}

function parseText(text: string): Record<string, unknown> {
  if (!text.trimStart().startsWith('{')) return parseKeyval(text);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new RangeError('JSON parse error, expecting value', { cause: error });
  }
}

function parseKeyval(text: string): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  // Splits at single commas; double ones stand for one.
  const parts = text.match(/(?:[^,]|,,)+/g) ?? [];
  for (const [index, part] of parts.entries()) {
    const plain = part.replaceAll(',,', ',');
    const at = plain.indexOf('=');
    if (at < 0 && index > 0) throw new RangeError(`Expected '=' after parameter '${plain}'`);
    const [key, value] = at < 0 ? ['qom-type', plain] : [plain.slice(0, at), plain.slice(at + 1)];
    setMember(root, key, value);
  }
  return listsIn(root) as Record<string, unknown>;
}

function setMember(root: Record<string, unknown>, key: string, value: string): void {
  const names = key.split('.');
  const last = names.pop() as string;
  let at = root;
  for (const name of names) {
    if (!Object.hasOwn(at, name)) Object.defineProperty(at, name, { ...plainProperty, value: {} });
    const next = at[name];
    if (typeof next !== 'object') throw new RangeError(`Parameters '${name}.*' used inconsistently`);
    at = next as Record<string, unknown>;
  }
  Object.defineProperty(at, last, { ...plainProperty, value });
}

const plainProperty = { configurable: true, enumerable: true, writable: true };

/** Objects whose members are 0, 1, 2 and so on become arrays. */
function listsIn(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, each]) => [name, listsIn(each)] as const);
  const isList = entries.length > 0 && entries.every(([name], index) => name === String(index));
  return isList ? entries.map(([, each]) => each) : Object.fromEntries(entries);
}

/** The properties of an object. They are taken one by one, so that what is left over was not expected. */
export class ObjectProperties {
  readonly #left: Map<string, PropertyValue>;

  constructor(properties: Record<string, PropertyValue>) {
    this.#left = new Map(Object.entries(properties));
  }

  #take(name: string): PropertyValue | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }

  string(name: string): string | undefined {
    const value = this.#take(name);
    if (value === undefined || typeof value === 'string') return value;
    throw new RangeError(`Invalid parameter type for '${name}', expected: string`);
  }

  boolean(name: string): boolean | undefined {
    const value = this.#take(name);
    if (value === undefined || typeof value === 'boolean') return value;
    const index = typeof value === 'string' ? switches.indexOf(value) : -1;
    if (index < 0) throw new RangeError(`Parameter '${name}' expects 'on' or 'off'`);
    return index % 2 === 0;
  }

  /** One of several values. */
  choice<Value extends string>(name: string, values: readonly Value[]): Value | undefined {
    const value = this.string(name);
    if (value === undefined) return undefined;
    const found = values.find((each) => each === value);
    if (found === undefined) throw new RangeError(`Parameter '${name}' does not accept value '${value}'`);
    return found;
  }

  /** A list of objects. */
  list(name: string): ObjectProperties[] | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value)) throw new RangeError(`Invalid parameter type for '${name}', expected: array`);
    return value.map((each) => {
      if (typeof each === 'object' && each !== null && !Array.isArray(each)) return new ObjectProperties(each);
      throw new RangeError(`Invalid parameter type for '${name}', expected: object`);
    });
  }

  /** @throws RangeError if there is a property that nothing has taken */
  end(): void {
    for (const name of this.#left.keys()) throw new RangeError(`Parameter '${name}' is unexpected`);
  }
}

const switches = ['on', 'off', 'yes', 'no', 'true', 'false'];
