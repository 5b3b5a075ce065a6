/** docs/qmp.md: the reference of QMP, made of the schema (src/schema/qapi). `npm run docs:qmp` writes it. */
import { capabilityRules } from '../src/schema/capability-rules.ts';
import { type Parameter, parameters } from '../src/schema/qapi/parameters.ts';
import {
  migrationModule,
  type SchemaCommand,
  type SchemaEnum,
  type SchemaMember,
  type SchemaStruct,
  schemaOf,
} from '../src/schema/qapi/schema.ts';
import { behaviour } from './qmp-behaviour.ts';
import { differences } from './qmp-differences.ts';

const schema = schemaOf('9.0');
const inModule = (name: string) => Object.hasOwn(migrationModule, name);

const cell = (text: string) => text.replaceAll('|', '\\|');
const code = (text: string) => `\`${text}\``;
const row = (...cells: string[]) => `| ${cells.map(cell).join(' | ')} |`;
const table = (head: string[], rows: string[][]) =>
  [row(...head), row(...head.map(() => '---')), ...rows.map((cells) => row(...cells))].join('\n');
const marks = ({ features }: { features: readonly string[] }) => features.join(', ');
const typeText = (type: string) => (type.startsWith('[') ? `array of ${type.slice(1, -1)}` : type);

const memberRows = (members: readonly SchemaMember[]) =>
  members.map((member) => [
    code(member.name),
    `${typeText(member.type)}${member.isOptional ? ', optional' : ''}`,
    marks(member),
    member.doc,
  ]);

const memberTable = (members: readonly SchemaMember[]) => table(['Member', 'Type', '', ''], memberRows(members));

function commandSection(command: SchemaCommand): string {
  const parts = [`### ${command.name}`, command.doc, `**Here:** ${behaviour.commands[command.name] ?? 'not yet'}.`];
  const facts = [...command.features, ...(command.isOob ? ['may run out of band'] : [])];
  if (facts.length > 0) parts.push(`${facts.join(', ')}.`.replace(/^./, (letter) => letter.toUpperCase()));
  const { name, members } = command.arguments;
  if (name !== '') parts.push(`Takes the members of [${name}](#${name.toLowerCase()}).`);
  else if (members.length > 0) parts.push(table(['Argument', 'Type', '', ''], memberRows(members)));
  if (command.returns !== undefined) parts.push(`Returns: ${typeText(command.returns)}.`);
  if (command.errors.length > 0) {
    parts.push(
      table(
        ['Error', 'When'],
        command.errors.map(([text, when]) => [code(text), when]),
      ),
    );
  }
  return parts.join('\n\n');
}

function eventsTable(ofModule: boolean): string {
  const events = [...schema.events.values()].filter(({ name }) => inModule(name) === ofModule);
  return table(
    ['Event', 'Data', '', 'Here'],
    events.map((event) => {
      const data = event.data.members.map(({ name, type }) => `${code(name)}: ${typeText(type)}`).join(', ');
      return [code(event.name), data, event.doc, behaviour.events[event.name] ?? 'not yet'];
    }),
  );
}

function capabilitiesSection(): string {
  const { values } = schema.types.get('MigrationCapability') as SchemaEnum;
  const rows = values.map((value) => [
    code(value.name),
    marks(value),
    value.doc,
    behaviour.capabilities[value.name] ?? 'not yet',
  ]);
  const rules = capabilityRules.map(({ when, since, until, isUnchecked }) => {
    const from = since === undefined ? '' : `from ${since} on`;
    return [when, [from, until === undefined ? '' : `up to ${until}`].join(' ').trim(), isUnchecked ? 'unchecked' : ''];
  });
  return [
    table(['Capability', '', 'What it does', 'Here'], rows),
    '### What is refused',
    'The rules are applied in this order to the capabilities as they would be. The first that is broken gives the error.',
    table(['Refused', 'Releases', ''], rules),
  ].join('\n\n');
}

function parametersSection(): string {
  const names = (schema.types.get('MigrateSetParameters') as SchemaStruct).members;
  const rows = names.map((member) => {
    const { type, unit, range, default: value, doc }: Parameter = parameters[member.name as keyof typeof parameters];
    const of = range === undefined ? '' : `${range[0]} to ${range[1]}`;
    const text = value === undefined ? 'not set' : value === '' ? 'empty' : String(value);
    return [
      code(member.name),
      [typeText(type), unit ?? ''].filter(Boolean).join(', '),
      of,
      text,
      [doc, marks(member)].filter(Boolean).join('; '),
      behaviour.parameters[member.name] ?? 'not yet',
    ];
  });
  return table(['Parameter', 'Type', 'Range', 'Default', 'What it does', 'Here'], rows);
}

function typesSection(ofModule: boolean): string {
  const types = [...schema.types.values()].filter(
    ({ name }) => inModule(name) === ofModule && name !== 'MigrationCapability' && name !== 'MigrationParameter',
  );
  const sections = types.map((type) => {
    const title = `### ${type.name}\n\n${type.doc}`;
    if (type.kind === 'enum') {
      return `${title}\n\n${table(
        ['Value', '', ''],
        type.values.map((value) => [code(value.name), marks(value), value.doc]),
      )}`;
    }
    if (type.kind === 'alternate') return `${title}\n\nOne of ${type.types.join(', ')}.`;
    const members = `${title}\n\n${memberTable(type.members)}`;
    if (type.kind === 'struct') return members;
    const branches = [...type.branches].map(([value, branch]) => [code(value), branch]);
    return `${members}\n\n${table([`With \`${type.tag}\``, 'The members of'], branches)}`;
  });
  return sections.join('\n\n');
}

/** The whole reference. */
export function qmpMarkdown(): string {
  const commands = [...schema.commands.values()];
  const sections = [
    '# QMP reference',
    '<!-- Made of src/schema/qapi by `npm run docs:qmp`. Do not edit. -->',
    "QEMU's schema module `migration` as of the 9.0 cycle, and the commands of other modules that go with it. **Here** says what vmferry's QMP server does with each; `not yet` means that the schema knows it, its arguments are checked, and nothing carries it out.",
    '## Commands of migration',
    ...commands.filter(({ name }) => inModule(name)).map(commandSection),
    '## Events of migration',
    eventsTable(true),
    '## Capabilities',
    capabilitiesSection(),
    '## Parameters',
    "A value out of range is refused with `Parameter 'name' expects …`. All values are checked before any is set.",
    parametersSection(),
    '## Types of migration',
    typesSection(true),
    '## Other commands',
    ...commands.filter(({ name }) => !inModule(name)).map(commandSection),
    '## Other events',
    eventsTable(false),
    '## Other types',
    'Of large ones only the part that something here uses.',
    typesSection(false),
    '## Releases',
    'What QEMU 7.2 and 10.0 do otherwise than 9.0. What neither of them confirms about 9.0 is marked `unchecked`: it follows the documentation of 9.0 alone.',
    table(
      ['What', '7.2', '9.0', '10.0', ''],
      differences().map(({ name, states, isUnchecked }) => [code(name), ...states, isUnchecked ? 'unchecked' : '']),
    ),
  ];
  return `${sections.join('\n\n')}\n`;
}
