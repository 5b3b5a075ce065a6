/** What differs between the releases of the schema, for its reference. */
import { migrationModule, type Schema, schemaOf } from '../src/schema/qapi/schema.ts';
import { releaseNames } from '../src/schema/release-rules.ts';

interface Difference {
  /** Such as `migrate.uri`. */
  name: string;
  /** What it is in each release: `–` where there is none. */
  states: string[];
  /** 9.0 is like neither neighbour. */
  isUnchecked: boolean;
}

interface Described {
  features: readonly string[];
  type?: string;
  isOptional?: boolean;
}

/** Commands, events, types, their members and values, each with what can differ. */
function describe(schema: Schema): Map<string, string> {
  const found = new Map<string, string>();
  const say = (name: string, { features, type, isOptional }: Described) => {
    const facts = [...(type === undefined ? [] : [type]), ...(isOptional ? ['optional'] : []), ...features];
    found.set(name, facts.join(', ') || 'yes');
  };
  for (const [name, type] of schema.types) {
    if (name === 'MigrationParameter') continue;
    say(name, type);
    if (type.kind === 'enum') for (const value of type.values) say(`${name}.${value.name}`, value);
    if (type.kind === 'struct') for (const member of type.members) say(`${name}.${member.name}`, member);
  }
  for (const [name, command] of schema.commands) {
    say(name, command);
    for (const member of command.arguments.name === '' ? command.arguments.members : []) {
      say(`${name}.${member.name}`, member);
    }
  }
  return found;
}

export function differences(): Difference[] {
  const releases = releaseNames.map((name) => describe(schemaOf(name)));
  const names = new Set(releases.flatMap((release) => [...release.keys()]));
  return [...names]
    .map((name) => {
      const states = releases.map((release) => release.get(name) ?? '–');
      const [old, here, recent] = states;
      return { name, states, isUnchecked: here !== old && here !== recent };
    })
    .filter(
      ({ name, states }) => Object.hasOwn(migrationModule, name.split('.')[0] as string) && new Set(states).size > 1,
    );
}
