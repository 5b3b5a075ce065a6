/** The schema is that of real QEMU 7.2 and 10.0 where they have it, and has what QEMU 9.0 has. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { introspect } from '../../src/schema/qapi/introspection.ts';
import { migrationModule, schemaOf } from '../../src/schema/qapi/schema.ts';
import { controlNames, type Info, migrationNames, resolve } from '../qmp/real-schema.ts';
import { qmpFixtures, recordedReleases } from '../qmp/transcript.ts';

const countOf = (kind: string) => Object.values(migrationModule).filter((entity) => entity.kind === kind).length;

it('has all of the module migration of QEMU 9.0', () => {
  const schema = schemaOf('9.0');
  const inModule = (names: Iterable<string>) => [...names].filter((name) => Object.hasOwn(migrationModule, name));
  expect(inModule(schema.commands.keys())).toHaveLength(29);
  expect(inModule(schema.events.keys())).toHaveLength(4);
  const types = [...schema.types.values()].filter(({ name }) => Object.hasOwn(migrationModule, name));
  expect(types.filter(({ kind }) => kind === 'enum')).toHaveLength(14);
  expect(types.filter(({ kind }) => kind === 'struct')).toHaveLength(20);
  expect(types.filter(({ kind }) => kind === 'union')).toHaveLength(1);
  expect(schema.valuesOf('MigrationStatus')).toHaveLength(14);
  expect(schema.valuesOf('MigrationCapability')).toHaveLength(24);
  for (const name of ['MigrateSetParameters', 'MigrationParameters']) {
    expect(schema.types.get(name)).toMatchObject({ members: { length: 31 } });
  }
  expect(schema.valuesOf('MigrationParameter')).toHaveLength(31);
  expect(countOf('command')).toBe(29);
});

it('has types for all that it names', () => {
  for (const release of ['7.2', '9.0', '10.0'] as const) {
    const schema = schemaOf(release);
    const infos = introspect(schema, schema.commands.keys(), schema.events.keys()) as unknown as Info[];
    expect(new Set(infos.map(({ name }) => name)).size).toBe(infos.length);
    for (const name of [...migrationNames, ...controlNames]) {
      if (schema.commands.has(name)) expect(resolve(infos, name), name).toMatchObject({ takes: {} });
    }
  }
});

describe.each(recordedReleases)('QEMU %s', (release) => {
  const real: Info[] = JSON.parse(readFileSync(join(qmpFixtures, `schema-${release}.json`), 'utf8'));
  const schema = schemaOf(release);
  const ours = introspect(schema, schema.commands.keys(), schema.events.keys()) as unknown as Info[];

  it.each(migrationNames)('%s', (name) => {
    expect(resolve(ours, name)).toEqual(resolve(real, name));
  });

  // There in part: some of their types, and two of the monitor's lines for people.
  const inPart = new Set(['object-add', 'query-block', 'query-named-block-nodes', 'human-monitor-command']);
  it.each(controlNames.filter((name) => !inPart.has(name)))('the arguments of %s', (name) => {
    expect(resolve(ours, name, false)).toEqual(resolve(real, name, false));
  });

  it('human-monitor-command, but for its feature about snapshots', () => {
    const [mine, theirs] = [ours, real].map((infos) => resolve(infos, 'human-monitor-command', false) as object);
    expect({ ...mine, features: ['savevm-monitor-nodes'] }).toEqual(theirs);
  });

  it('object-add, for the objects that it has', () => {
    type Takes = { takes: { members: unknown[]; variants: [string, unknown][] } };
    const [{ takes: mine }, { takes: theirs }] = [ours, real].map((infos) => resolve(infos, 'object-add', false)) as [
      Takes,
      Takes,
    ];
    expect(mine.variants).toHaveLength(6);
    for (const [name, variant] of mine.variants) {
      expect(variant, name).toEqual(theirs.variants.find(([other]) => other === name)?.[1]);
    }
  });
});
