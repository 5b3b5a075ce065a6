/** What a server says about its commands (query-qmp-schema), for completion and for checks before anything is sent. */

interface Entity {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly 'element-type'?: string;
  readonly members?: readonly { readonly name: string; readonly type: string; readonly default?: null }[];
  readonly values?: readonly string[];
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
  readonly tag?: string;
}

/** An argument of a command, or a member of an object. */
export interface ServerArgument {
  readonly name: string;
  readonly isOptional: boolean;
  /** Whether its value is text: a string or an enum. */
  readonly isText: boolean;
  /** The words that it takes, if it is an enum or a boolean. */
  readonly values: readonly string[];
}

export class ServerSchema {
  readonly #entities: ReadonlyMap<string, Entity>;

  /** @param entities what query-qmp-schema returned */
  constructor(entities: readonly unknown[]) {
    this.#entities = new Map((entities as Entity[]).map((entity) => [entity.name, entity]));
  }

  /** The names of all commands, sorted. */
  get commands(): string[] {
    return [...this.#entities.values()]
      .filter((entity) => entity['meta-type'] === 'command')
      .map(({ name }) => name)
      .sort();
  }

  /** The arguments of a command, with those of each variant. Undefined if there is no such command. */
  argumentsOf(command: string): ServerArgument[] | undefined {
    const entity = this.#entities.get(command);
    return entity?.['meta-type'] === 'command' ? this.#membersOf(entity['arg-type'] ?? '') : undefined;
  }

  #membersOf(type: string): ServerArgument[] {
    const entity = this.#entities.get(type);
    const own = (entity?.members ?? []).map((member) => this.#argument(member));
    const inVariants = (entity?.variants ?? []).flatMap((variant) => this.#membersOf(variant.type));
    return [...own, ...inVariants.map((argument) => ({ ...argument, isOptional: true }))];
  }

  #argument(member: NonNullable<Entity['members']>[number]): ServerArgument {
    const { name, type } = member;
    const entity = this.#entities.get(type);
    const isEnum = entity?.['meta-type'] === 'enum';
    const values = isEnum ? (entity.values ?? []) : type === 'bool' ? ['true', 'false'] : [];
    return { name, isOptional: Object.hasOwn(member, 'default'), isText: type === 'str' || isEnum, values };
  }
}
