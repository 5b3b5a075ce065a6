/**
 * What query-qmp-schema returns: the schema as a flat list of entities. Names of types are numbers that mean nothing, all
 * integers are `int`, and only types are there that a command or event uses (docs/qmp.md).
 */
import type { Feature, Schema, SchemaMember, SchemaType } from './schema.ts';

/** An entity of the list. */
export interface SchemaEntity {
  readonly name: string;
  readonly 'meta-type': 'builtin' | 'enum' | 'array' | 'object' | 'alternate' | 'command' | 'event';
  readonly features?: readonly Feature[];
  readonly [member: string]: unknown;
}

const jsonTypes = { str: 'string', int: 'int', number: 'number', bool: 'boolean', null: 'null', any: 'value' } as const;
const integers = new Set(['int', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'size']);

/** Lists those commands and events of the schema, and all types that they use. */
export function introspect(schema: Schema, commands: Iterable<string>, events: Iterable<string>): SchemaEntity[] {
  return new Introspection(schema).list(commands, events);
}

class Introspection {
  readonly #infos: SchemaEntity[] = [];
  /** The number of each type, by name. 0 is the object without members. */
  readonly #numbers = new Map<string, string>();
  readonly #builtins = new Set<string>();
  readonly #arrays = new Set<string>();

  constructor(readonly schema: Schema) {}

  list(commands: Iterable<string>, events: Iterable<string>): SchemaEntity[] {
    this.#infos.push({ name: '0', 'meta-type': 'object', members: [] });
    for (const name of commands) {
      const command = this.schema.commands.get(name);
      if (command === undefined) continue;
      const returns = command.returns === undefined ? '0' : this.#reference(command.returns);
      const types = { 'arg-type': this.#objectOf(command.arguments, name), 'ret-type': returns };
      const oob = command.isOob ? { 'allow-oob': true } : {};
      this.#infos.push({ name, 'meta-type': 'command', ...types, ...oob, ...featuresOf(command) });
    }
    for (const name of events) {
      const event = this.schema.events.get(name);
      if (event === undefined) continue;
      const type = this.#objectOf(event.data, name);
      this.#infos.push({ name, 'meta-type': 'event', 'arg-type': type, ...featuresOf(event) });
    }
    return this.#infos;
  }

  /** Members of a command or event, which have no name unless they are those of a type. */
  #objectOf(type: SchemaType, owner: string): string {
    if (type.kind === 'struct' && type.members.length === 0) return '0';
    return this.#type(type, type.name === '' ? `arguments of ${owner}` : type.name);
  }

  #reference(type: string): string {
    if (type.startsWith('[')) return this.#array(type);
    const builtin = integers.has(type) ? 'int' : type;
    if (Object.hasOwn(jsonTypes, builtin)) return this.#builtin(builtin as keyof typeof jsonTypes);
    return this.#type(this.schema.types.get(type) as SchemaType, type);
  }

  #array(type: string): string {
    const element = this.#reference(type.slice(1, -1));
    const name = `[${element}]`;
    if (!this.#arrays.has(name)) {
      this.#arrays.add(name);
      this.#infos.push({ name, 'meta-type': 'array', 'element-type': element });
    }
    return name;
  }

  #builtin(name: keyof typeof jsonTypes): string {
    if (!this.#builtins.has(name)) {
      this.#builtins.add(name);
      this.#infos.push({ name, 'meta-type': 'builtin', 'json-type': jsonTypes[name] });
    }
    return name;
  }

  #type(type: SchemaType, key: string): string {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const name = String(this.#numbers.size + 1);
    this.#numbers.set(key, name);
    this.#infos.push({ name, ...this.#describe(type), ...featuresOf(type) } as SchemaEntity);
    return name;
  }

  #describe(type: SchemaType): Omit<SchemaEntity, 'name'> {
    if (type.kind === 'alternate') {
      return { 'meta-type': 'alternate', members: type.types.map((one) => ({ type: this.#reference(one) })) };
    }
    if (type.kind === 'enum') {
      const members = type.values.map((value) => ({ name: value.name, ...featuresOf(value) }));
      return { 'meta-type': 'enum', members, values: members.map((member) => member.name) };
    }
    const members = type.members.map((member) => this.#member(member));
    if (type.kind === 'struct') return { 'meta-type': 'object', members };
    const variants = this.#casesOf(type.members, type.tag).map((value) => {
      const branch = type.branches.get(value);
      return { case: value, type: branch === undefined ? '0' : this.#reference(branch) };
    });
    return { 'meta-type': 'object', members, tag: type.tag, variants };
  }

  #casesOf(members: readonly SchemaMember[], tag: string): readonly string[] {
    return this.schema.valuesOf(members.find((member) => member.name === tag)?.type ?? '');
  }

  #member(member: SchemaMember): Record<string, unknown> {
    const optional = member.isOptional ? { default: null } : {};
    return { name: member.name, type: this.#reference(member.type), ...optional, ...featuresOf(member) };
  }
}

const featuresOf = ({ features }: { features: readonly Feature[] }) => (features.length > 0 ? { features } : {});
