/**
 * The schema of one release: what the tables of this folder say once `since`, `until` and the like are applied.
 *
 *     tables ── release ──→ Schema ──→ arguments are checked (check-arguments.ts)
 *                              ├─────→ query-qmp-schema, query-commands (introspection.ts)
 *                              └─────→ docs/qmp.md, the types of the client (scripts/)
 */
import { type Release, releaseNumber } from '../release.ts';
import type { ReleaseName } from '../release-rules.ts';
import { MigrationCapability } from './capabilities.ts';
import { controlCommands, controlEvents } from './control-commands.ts';
import { controlTypes } from './control-types.ts';
import type { Command, Entities, Entity, Enum, Marks, MemberMarks, Members, TypeEntity } from './entity.ts';
import { migrationCommands, migrationEvents } from './migration-commands.ts';
import { migrationEnums } from './migration-enums.ts';
import { migrationStructs, migrationUnions, socketTypes } from './migration-structs.ts';
import { objectTypes } from './object-types.ts';
import { MigrateSetParameters, MigrationParameter, MigrationParameters } from './parameters.ts';

/** @internal for the reference and tests: the entities of QEMU's schema module `migration`. */
export const migrationModule: Entities = {
  ...migrationCommands,
  ...migrationEvents,
  ...migrationEnums,
  ...{ MigrationCapability, MigrationParameter, MigrateSetParameters, MigrationParameters },
  ...migrationStructs,
  ...migrationUnions,
};

const entities: Entities = {
  ...migrationModule,
  ...socketTypes,
  ...controlCommands,
  ...controlEvents,
  ...controlTypes,
  ...objectTypes,
};

export type Feature = 'deprecated' | 'unstable';

interface Resolved {
  readonly name: string;
  readonly doc: string;
  readonly features: readonly Feature[];
}
export interface SchemaMember extends Resolved {
  readonly type: string;
  readonly isOptional: boolean;
}
export interface SchemaEnum extends Resolved {
  readonly kind: 'enum';
  readonly values: readonly Resolved[];
  readonly isPartial: boolean;
}
export interface SchemaStruct extends Resolved {
  readonly kind: 'struct';
  readonly members: readonly SchemaMember[];
}
export interface SchemaUnion extends Resolved {
  readonly kind: 'union';
  readonly members: readonly SchemaMember[];
  readonly tag: string;
  readonly branches: ReadonlyMap<string, string>;
}
interface SchemaAlternate extends Resolved {
  readonly kind: 'alternate';
  readonly types: readonly string[];
}
export type SchemaType = SchemaEnum | SchemaStruct | SchemaUnion | SchemaAlternate;
export interface SchemaCommand extends Resolved {
  /** A struct or union without a name of its own, unless its members are those of a named one. */
  readonly arguments: SchemaStruct | SchemaUnion;
  readonly returns: string | undefined;
  readonly isOob: boolean;
  readonly errors: readonly (readonly [text: string, when: string])[];
}
export interface SchemaEvent extends Resolved {
  readonly data: SchemaStruct;
}

/** What QEMU is usually built with. Without special hardware there is no other way to compress. */
const builtWith: ReadonlySet<string> = new Set([
  ...['CONFIG_LINUX', 'CONFIG_REPLICATION', 'CONFIG_ZSTD', 'HAVE_IPPROTO_MPTCP'],
]);

/** The schema of a release. */
export class Schema {
  readonly release: Release;
  readonly types = new Map<string, SchemaType>();
  readonly commands = new Map<string, SchemaCommand>();
  readonly events = new Map<string, SchemaEvent>();

  constructor(readonly releaseName: ReleaseName) {
    this.release = releaseNumber(...(releaseName.split('.') as [string, string]));
    const all = Object.entries(entities).filter(([, entity]) => this.#has(entity));
    for (const [name, entity] of all) if (isType(entity)) this.types.set(name, this.#type(name, entity));
    for (const [name, entity] of all) {
      if (entity.kind === 'command') this.commands.set(name, this.#command(name, entity));
      if (entity.kind === 'event') {
        const data = this.#struct('', entity.doc, entity.data ?? {});
        this.events.set(name, { ...this.#resolved(name, entity.doc, entity), data });
      }
    }
  }

  /** The values of an enum. @throws RangeError if there is no such enum */
  valuesOf(name: string): readonly string[] {
    const type = this.types.get(name);
    if (type?.kind !== 'enum') throw new RangeError(`expected an enum of QEMU ${this.releaseName}, got ${name}`);
    return type.values.map((value) => value.name);
  }

  /** Whether this release is `text` or a later one. */
  isFrom(text: string): boolean {
    return this.release >= numberOf(text);
  }

  /** Whether this release is `text` or an earlier one. */
  isUntil(text: string): boolean {
    return this.release <= numberOf(text);
  }

  #has({ since, until, if: condition }: Marks): boolean {
    if (condition !== undefined && !builtWith.has(condition)) return false;
    if (since !== undefined && !this.isFrom(since)) return false;
    return until === undefined || this.isUntil(until);
  }

  #resolved(name: string, doc: string, { deprecated, unstable }: Marks): Resolved {
    const features: Feature[] = [];
    if (deprecated !== undefined && this.isFrom(deprecated)) features.push('deprecated');
    if (unstable) features.push('unstable');
    return { name, doc, features };
  }

  #type(name: string, entity: TypeEntity): SchemaType {
    const { doc } = entity;
    const resolved = this.#resolved(name, doc, entity);
    if (entity.kind === 'struct') return { ...this.#struct(name, doc, entity.members), ...resolved };
    if (entity.kind === 'alternate') return { ...resolved, kind: 'alternate', types: entity.types };
    if (entity.kind === 'enum') return { ...resolved, kind: 'enum', ...this.#values(entity) };
    const branches = new Map(Object.entries(entity.branches));
    return { ...resolved, kind: 'union', members: this.#members(entity.base), tag: entity.tag, branches };
  }

  #values({ values, isPartial }: Enum): Pick<SchemaEnum, 'values' | 'isPartial'> {
    const present = Object.entries(values).filter(([, [, marks = {}]]) => this.#has(marks));
    const resolved = present.map(([name, [doc, marks = {}]]) => this.#resolved(name, doc, marks));
    return { values: resolved, isPartial: isPartial === true };
  }

  #struct(name: string, doc: string, members: Members): SchemaStruct {
    return { name, doc, features: [], kind: 'struct', members: this.#members(members) };
  }

  #members(members: Members): SchemaMember[] {
    const present = Object.entries(members).filter(([, [, , marks = {}]]) => this.#has(marks));
    return present.map(([text, [type, doc, marks = {}]]) => {
      const name = text.endsWith('?') ? text.slice(0, -1) : text;
      const isOptional = name !== text || (marks.optionalSince !== undefined && this.isFrom(marks.optionalSince));
      return { ...this.#resolved(name, doc, marks), type: this.#typeOf(type, marks), isOptional };
    });
  }

  #typeOf(type: string, { was }: MemberMarks): string {
    return was !== undefined && this.isUntil(was.until) ? was.type : type;
  }

  #command(name: string, command: Command): SchemaCommand {
    const given = command.arguments ?? {};
    const taken = typeof given === 'string' ? this.types.get(given) : this.#struct('', command.doc, given);
    return {
      ...this.#resolved(name, command.doc, command),
      arguments: taken as SchemaStruct | SchemaUnion,
      returns: command.returns,
      isOob: command.isOob === true,
      errors: command.errors ?? [],
    };
  }
}

function isType(entity: Entity): entity is TypeEntity {
  return entity.kind !== 'command' && entity.kind !== 'event';
}

const numberOf = (release: string) => releaseNumber(...(release.split('.') as [string, string]));

/** The schemas that were asked for. */
const made = new Map<ReleaseName, Schema>();

/** The schema of a release, made once. */
export function schemaOf(release: ReleaseName): Schema {
  const schema = made.get(release) ?? new Schema(release);
  made.set(release, schema);
  return schema;
}
