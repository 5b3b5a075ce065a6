/** What was recorded from real QEMUs has each command, capability and parameter of the migration module several times. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { migrationCommands } from '../../src/schema/qapi/migration-commands.ts';
import { schemaOf } from '../../src/schema/qapi/schema.ts';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** What was sent, or switched and set by a scenario. */
const sent = readdirSync(fixtures, { recursive: true, encoding: 'utf8' })
  .filter((name) => /^qmp(-migration)?\/.*\.txt$/.test(name))
  .flatMap((name) => readFileSync(join(fixtures, name), 'utf8').split('\n'))
  .filter((line) => /^(?:(?:7\.2|10\.0) )?(?:\w+ )?(?:[-+]>|on|off|set) /.test(line));

const countOf = (name: string) => sent.filter((line) => new RegExp(`(?<![\\w-])${name}(?![\\w-])`).test(line)).length;

it('in more than a thousand exchanges', () => {
  expect(sent.length).toBeGreaterThan(1000);
});

const schema = schemaOf('9.0');

it.each([
  ['command', Object.keys(migrationCommands)],
  ['capability', schema.valuesOf('MigrationCapability')],
  ['parameter', schema.valuesOf('MigrationParameter')],
] as const)('each %s', (_, names) => {
  expect(names.length).toBeGreaterThan(20);
  expect(names.filter((name) => countOf(name) < 3)).toEqual([]);
});
