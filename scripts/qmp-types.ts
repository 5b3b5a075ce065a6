/**
 * The TypeScript types of QMP's commands, events and types, made of the schema (src/schema/qapi). They hold for all
 * releases: what one of them lacks, or takes as optional, is optional. `npm run docs:qmp` writes them.
 */
import {
  migrationModule,
  type Schema,
  type SchemaEnum,
  type SchemaMember,
  type SchemaStruct,
  type SchemaType,
  type SchemaUnion,
  schemaOf,
} from '../src/schema/qapi/schema.ts';
import { releaseNames } from '../src/schema/release-rules.ts';

const schemas = releaseNames.map(schemaOf);
const small = new Set(['int', 'int64', 'uint8', 'uint16', 'uint32', 'number']);

/** The file of a type, as it is imported. */
const fileOf = (type: SchemaType) => {
  if (type.kind === 'enum') return 'enums';
  return Object.hasOwn(migrationModule, type.name) || type.name.includes('Socket') ? 'migration' : 'control';
};

/** Each type by name, with what any release has. */
const types = new Map<string, SchemaType>();
for (const { types: some } of schemas) for (const [name, type] of some) types.set(name, types.get(name) ?? type);

const quoted = (name: string) => (/^[A-Za-z_]\w*$/.test(name) ? name : `'${name}'`);

/** A name as TypeScript writes it: FOO is a type as any other. */
function typeName(type: string, uses: Set<string>): string {
  if (type.startsWith('[')) {
    const element = typeName(type.slice(1, -1), uses);
    return /^[\w]+$/.test(element) ? `${element}[]` : `(${element})[]`;
  }
  if (small.has(type)) return 'number';
  const builtin = { str: 'string', bool: 'boolean', null: 'null', any: 'unknown', size: 'number | bigint' };
  if (type === 'uint64') return builtin.size;
  if (Object.hasOwn(builtin, type)) return builtin[type as keyof typeof builtin];
  const known = types.get(type);
  if (known?.kind === 'alternate') return known.types.map((one) => typeName(one, uses)).join(' | ');
  uses.add(type);
  return type;
}

const comment = (doc: string, features: readonly string[] = []) => {
  const text = doc.charAt(0).toUpperCase() + doc.slice(1).replace(/\.$/, '');
  const deprecated = features.includes('deprecated') ? '\n@deprecated' : '';
  return `/** ${text}.${features.includes('unstable') ? ' Unstable.' : ''}${deprecated} */\n`;
};

/** Members of a struct in any release. */
function membersOf(find: (schema: Schema) => SchemaStruct | SchemaUnion | undefined, uses: Set<string>): string[] {
  const found = schemas.map(find).filter((struct) => struct !== undefined);
  const all = new Map<string, SchemaMember[]>();
  for (const { members } of found) {
    for (const member of members) all.set(member.name, [...(all.get(member.name) ?? []), member]);
  }
  return [...all].map(([name, versions]) => {
    const newest = versions.at(-1) as SchemaMember;
    const isOptional = versions.length < found.length || versions.some((version) => version.isOptional);
    return `${comment(newest.doc, newest.features)}${quoted(name)}${isOptional ? '?' : ''}: ${typeName(newest.type, uses)};`;
  });
}

const structIn = (name: string) => (schema: Schema) => schema.types.get(name) as SchemaStruct | undefined;

function enumType({ name, doc, isPartial }: SchemaEnum): string {
  const values = new Set(
    schemas.flatMap((schema) => (schema.types.has(name) ? schema.valuesOf(name) : [])).map((value) => `'${value}'`),
  );
  return `${comment(doc)}export type ${name} = ${[...values, ...(isPartial ? ['(string & {})'] : [])].join(' | ')};`;
}

function unionType({ name, doc, members, tag, branches }: SchemaUnion, uses: Set<string>): string {
  const others = members.filter((member) => member.name !== tag);
  const base = others.map((member) => `${quoted(member.name)}: ${typeName(member.type, uses)};`).join(' ');
  const tagType = types.get(members.find((member) => member.name === tag)?.type ?? '') as SchemaEnum;
  const cases = tagType.values.map((value) => {
    const branch = branches.get(value.name);
    const more = branch === undefined ? '' : ` & ${typeName(branch, uses)}`;
    return `({ ${quoted(tag)}: '${value.name}'; ${base} }${more})`;
  });
  if (tagType.isPartial) cases.push(`{ ${quoted(tag)}: string & {}; ${base} [member: string]: unknown }`);
  return `${comment(doc)}export type ${name} = ${cases.join(' | ')};`;
}

const imports = (uses: ReadonlySet<string>, own: string) => {
  const files = new Map<string, string[]>();
  for (const name of [...uses].sort()) {
    const file = fileOf(types.get(name) as SchemaType);
    if (file !== own) files.set(file, [...(files.get(file) ?? []), name]);
  }
  return [...files].sort().map(([file, names]) => `import type { ${names.join(', ')} } from './${file}.ts';`);
};

const head = (text: string) => `/** ${text} Made of src/schema/qapi by \`npm run docs:qmp\`: do not edit. */`;

function typesFile(file: string, title: string): string {
  const uses = new Set<string>();
  const made = [...types.values()]
    .filter((type) => fileOf(type) === file && type.kind !== 'alternate')
    .map((type) => {
      if (type.kind === 'enum') return enumType(type);
      if (type.kind === 'union') return unionType(type, uses);
      const members = membersOf(structIn(type.name), uses);
      return `${comment(type.doc)}export interface ${type.name} {\n${members.join('\n')}\n}`;
    });
  return [head(title), ...imports(uses, file), '', made.join('\n\n'), ''].join('\n');
}

function commandsFile(): string {
  const uses = new Set<string>();
  const names = new Set(schemas.flatMap(({ commands }) => [...commands.keys()]));
  const commands = [...names].map((name) => {
    const versions = schemas.map(({ commands: some }) => some.get(name)).filter((command) => command !== undefined);
    const { doc, features, returns, arguments: given } = versions.at(-1) as (typeof versions)[number];
    const returned = returns === undefined ? 'Nothing' : typeName(returns, uses);
    let taken = given.name === '' ? 'Nothing' : typeName(given.name, uses);
    if (given.name === '' && versions.some((version) => version.arguments.members.length > 0)) {
      taken = `{\n${membersOf((schema) => schema.commands.get(name)?.arguments, uses).join('\n')}\n}`;
    }
    return `${comment(doc, features)}${quoted(name)}: { arguments: ${taken}; returns: ${returned} };`;
  });
  const events = [...new Set(schemas.flatMap(({ events: some }) => [...some.keys()]))].map((name) => {
    const event = schemas.map(({ events: some }) => some.get(name)).findLast((each) => each !== undefined);
    const members = membersOf((schema) => schema.events.get(name)?.data, uses);
    const data = members.length === 0 ? 'undefined' : `{\n${members.join('\n')}\n}`;
    return `${comment(event?.doc ?? '')}${name}: ${data};`;
  });
  return [
    head('What each QMP command takes and returns, and what each event says, for the typed client.'),
    ...imports(uses, 'commands'),
    '',
    '/** An empty object. */\nexport type Nothing = Record<string, never>;\n',
    `/** Commands: the module \`migration\` as a whole, and what goes with it. */\nexport interface QmpCommands {\n${commands.join('\n')}\n}\n`,
    `/** The data of events. */\nexport interface QmpEvents {\n${events.join('\n')}\n}`,
    '',
  ].join('\n');
}

/** The generated files, by path, not yet formatted. */
export const qmpTypeFiles = (): Record<string, string> => ({
  'src/qmp/types/enums.ts': typesFile('enums', "The enums of QMP. A newer QEMU's further values pass through."),
  'src/qmp/types/migration.ts': typesFile('migration', 'The types of migration.'),
  'src/qmp/types/control.ts': typesFile('control', 'The types of commands besides migration.'),
  'src/qmp/types/commands.ts': commandsFile(),
});
