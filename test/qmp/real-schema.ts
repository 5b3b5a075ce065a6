/** What query-qmp-schema says, in a form that can be compared: without the numbers that stand for names of types. */
import { controlCommands, controlEvents } from '../../src/schema/qapi/control-commands.ts';
import { migrationCommands, migrationEvents } from '../../src/schema/qapi/migration-commands.ts';

export interface Info {
  name: string;
  'meta-type': string;
  [member: string]: unknown;
}
type Member = { name: string; type: string; features?: string[]; default?: null };

export const migrationNames = [...Object.keys(migrationCommands), ...Object.keys(migrationEvents)];
export const controlNames = [...Object.keys(controlCommands), ...Object.keys(controlEvents)];

const referencesOf = (info: Info): string[] => {
  const members = (info['meta-type'] === 'object' || info['meta-type'] === 'alternate' ? info.members : []) as Member[];
  const variants = (info.variants ?? []) as Member[];
  const types = [info['arg-type'], info['ret-type'], info['element-type']].filter((type) => type !== undefined);
  return [...types, ...members.map(({ type }) => type), ...variants.map(({ type }) => type)] as string[];
};

/** The entities that the commands and events of this package's schema use; of other modules only the arguments. */
export function usedBy(all: readonly Info[]): Info[] {
  const byName = new Map(all.map((info) => [info.name, info]));
  const used = new Set<Info>();
  const add = (info: Info | undefined, references: (info: Info) => string[]) => {
    if (info === undefined || used.has(info)) return;
    used.add(info);
    for (const name of references(info)) add(byName.get(name), referencesOf);
  };
  for (const name of migrationNames) add(byName.get(name), referencesOf);
  for (const name of controlNames) add(byName.get(name), (info) => [info['arg-type'] as string]);
  return [...used];
}

/** An entity with all that it uses in place of names. */
export function resolve(all: readonly Info[], name: string, alsoReturns = true): unknown {
  const byName = new Map(all.map((info) => [info.name, info]));
  const expand = (reference: string, around: readonly string[]): unknown => {
    const info = byName.get(reference);
    if (info === undefined) return undefined;
    if (around.includes(reference)) return 'recursive';
    const inside = (next: string) => expand(next, [...around, reference]);
    const features = [...((info.features ?? []) as string[])].sort();
    switch (info['meta-type']) {
      case 'builtin':
        return info['json-type'];
      case 'array':
        return [inside(info['element-type'] as string)];
      case 'enum':
        return { features, values: info.values, members: info.members };
      case 'alternate':
        return { features, types: (info.members as Member[]).map(({ type }) => inside(type)) };
      case 'object': {
        const members = (info.members as Member[]).map((member) => ({ ...member, type: inside(member.type) }));
        const variants = ((info.variants ?? []) as (Member & { case: string })[])
          .map((variant) => [variant.case, inside(variant.type)] as const)
          .sort(([a], [b]) => (a < b ? -1 : 1));
        return { features, members, tag: info.tag, variants };
      }
      default: {
        const returns = alsoReturns && info['ret-type'] ? inside(info['ret-type'] as string) : undefined;
        return { features, takes: inside(info['arg-type'] as string), returns, oob: info['allow-oob'] };
      }
    }
  };
  return expand(name, []);
}
