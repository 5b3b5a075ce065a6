/**
 * Checks the arguments of a command against the schema, with QEMU's errors and in QEMU's order: members in the order of
 * the schema, each with everything inside it, then members that do not belong there.
 *
 *     { capabilities: [{ capability: 'events', zz: 1 }] }      Parameter 'capabilities[0].state' is missing
 *       full name     capabilities[0].zz                       for what is missing, unexpected or of the wrong type
 *       last part     capability; null in an array             for enums and for numbers out of range
 */
import type {
  Schema,
  SchemaCommand,
  SchemaMember,
  SchemaStruct,
  SchemaType,
  SchemaUnion,
} from '../schema/qapi/schema.ts';
import { isObject, JsonDouble, type JsonObject, type JsonValue, setMember } from './json-value.ts';
import { QmpError } from './qmp-error.ts';

/** Where a value is: its full name, and the last part of it. */
interface Path {
  readonly full: string;
  readonly last: string;
}

/** The most that each unsigned type holds. */
const unsigned: Readonly<Record<string, bigint>> = {
  uint8: 2n ** 8n - 1n,
  uint16: 2n ** 16n - 1n,
  uint32: 2n ** 32n - 1n,
  uint64: 2n ** 64n - 1n,
  size: 2n ** 64n - 1n,
};

/**
 * Checks the arguments of a command. Returns them with integers as QEMU takes them: a negative one as a `size` counts from
 * the end of 64 bits.
 * @throws QmpError with QEMU's text
 */
export function checkArguments(schema: Schema, command: SchemaCommand, given: JsonObject): JsonObject {
  return new ArgumentCheck(schema).object(command.arguments, given, { full: '', last: '' });
}

class ArgumentCheck {
  constructor(readonly schema: Schema) {}

  object(type: SchemaStruct | SchemaUnion, given: JsonObject, path: Path): JsonObject {
    const checked: JsonObject = {};
    this.#members(type, given, path, checked);
    for (const name of Object.keys(given)) {
      if (!Object.hasOwn(checked, name)) throw new QmpError(`Parameter '${inside(path, name).full}' is unexpected`);
    }
    return checked;
  }

  #members(type: SchemaStruct | SchemaUnion, given: JsonObject, path: Path, checked: JsonObject): void {
    for (const member of type.members) this.#member(member, given, path, checked);
    if (type.kind !== 'union') return;
    const branch = type.branches.get(String(checked[type.tag]));
    if (branch === undefined) return;
    this.#members(this.schema.types.get(branch) as SchemaStruct | SchemaUnion, given, path, checked);
  }

  #member(member: SchemaMember, given: JsonObject, path: Path, checked: JsonObject): void {
    const at = inside(path, member.name);
    if (!Object.hasOwn(given, member.name)) {
      if (!member.isOptional) throw new QmpError(`Parameter '${at.full}' is missing`);
      return;
    }
    setMember(checked, member.name, this.value(member.type, given[member.name] as JsonValue, at));
  }

  value(type: string, value: JsonValue, path: Path): JsonValue {
    if (type.startsWith('[')) return this.#array(type.slice(1, -1), value, path);
    const most = unsigned[type];
    if (most !== undefined) return takeUnsigned(type, most, value, path);
    switch (type) {
      case 'any':
        return value;
      case 'str':
        return expectType(typeof value === 'string', 'string', value, path);
      case 'bool':
        return expectType(typeof value === 'boolean', 'boolean', value, path);
      case 'null':
        return expectType(value === null, 'null', value, path);
      case 'number':
        return expectType(isNumber(value), 'number', value, path);
      case 'int':
      case 'int64':
        return expectType(isInteger(value) && value < 2n ** 63n, 'integer', value, path);
      default:
        return this.#named(this.schema.types.get(type) as SchemaType, value, path);
    }
  }

  #array(type: string, value: JsonValue, path: Path): JsonValue {
    if (!Array.isArray(value)) throw wrongType(path.full, 'array');
    return value.map((item, i) => this.value(type, item, { full: `${path.full}[${i}]`, last: 'null' }));
  }

  #named(type: SchemaType, value: JsonValue, path: Path): JsonValue {
    if (type.kind === 'enum') {
      const text = expectType(typeof value === 'string', 'string', value, path);
      if (type.values.some(({ name }) => name === text)) return text;
      throw new QmpError(`Parameter '${path.last}' does not accept value '${String(text)}'`);
    }
    if (type.kind === 'alternate') {
      const taken = type.types.find((one) => this.#takes(one, value));
      if (taken === undefined) throw wrongType(path.last, type.name);
      return this.value(taken, value, path);
    }
    if (!isObject(value)) throw wrongType(path.full, 'object');
    return this.object(type, value, path);
  }

  /** Whether an alternate chooses this type, by the type in JSON. */
  #takes(type: string, value: JsonValue): boolean {
    if (type === 'str') return typeof value === 'string';
    return type === 'null' ? value === null : isObject(value);
  }
}

const inside = (path: Path, name: string): Path => ({
  full: path.full === '' ? name : `${path.full}.${name}`,
  last: name,
});

const isInteger = (value: JsonValue): value is number | bigint =>
  typeof value === 'number' || typeof value === 'bigint';
const isNumber = (value: JsonValue) => isInteger(value) || value instanceof JsonDouble;

const wrongType = (name: string, expected: string) =>
  new QmpError(`Invalid parameter type for '${name}', expected: ${expected}`);

function expectType(isRight: boolean, expected: string, value: JsonValue, path: Path): JsonValue {
  if (!isRight) throw wrongType(path.full, expected);
  return value;
}

/** A negative integer counts from the end of 64 bits. */
function takeUnsigned(type: string, most: bigint, value: JsonValue, path: Path): number | bigint {
  if (!isInteger(value)) throw new QmpError(`Parameter '${path.full}' expects uint64`);
  const wrapped = BigInt.asUintN(64, BigInt(value));
  if (wrapped > most) throw new QmpError(`Parameter '${path.last}' expects ${type}_t`);
  return wrapped <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(wrapped) : wrapped;
}
