/** The types of the JSON as they stand, written out: all members, with the types that they refer to. */
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const paths = ['../src/tasks/json.ts', '../src/migrate/json.ts', '../src/qmp/json.ts'].map((file) =>
  fileURLToPath(new URL(file, import.meta.url)),
);

interface Types {
  checker: ts.TypeChecker;
  exported: ReadonlyMap<string, ts.Symbol>;
}

let types: Types | undefined;

function load(): Types {
  if (types !== undefined) return types;
  const program = ts.createProgram(paths, {
    ...{ target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, strict: true, noEmit: true },
    ...{ moduleResolution: ts.ModuleResolutionKind.Bundler, exactOptionalPropertyTypes: true },
    ...{ allowImportingTsExtensions: true, skipLibCheck: true, types: [] },
  });
  const checker = program.getTypeChecker();
  const modules = paths.map((path) => checker.getSymbolAtLocation(program.getSourceFile(path) as ts.SourceFile));
  const all = modules.flatMap((module) => checker.getExportsOfModule(module as ts.Symbol));
  types = { checker, exported: new Map(all.map((each) => [each.name, each])) };
  return types;
}

/** The exported type of that name, each member on a line of its own. */
export function printJsonType(name: string): string {
  const { checker, exported } = load();
  const symbol = exported.get(name);
  if (symbol === undefined) throw new Error(`no module of JSON types exports ${name}`);
  return `type ${name} = ${print(checker.getDeclaredTypeOfSymbol(symbol), '', [])};`;
}

/** Types that are named where they come again, or inside another: they contain themselves. */
const recursive = new Set(['StateJson', 'StateValueJson', 'RegistersJson']);

function print(type: ts.Type, indent: string, parents: readonly ts.Type[]): string {
  const { checker } = load();
  const name = type.aliasSymbol?.name ?? type.symbol?.name ?? '';
  if (parents.length > 0 && recursive.has(name)) return name;
  if (parents.includes(type)) return name;
  if (type.isUnion()) return printUnion(type, indent, parents);
  const element = elementOf(type);
  if (element !== undefined) {
    const text = print(element, indent, parents);
    return /[|&]/.test(text) && !text.startsWith('{') ? `(${text})[]` : `${text}[]`;
  }
  if (!(type.flags & (ts.TypeFlags.Object | ts.TypeFlags.Intersection))) return plain(type);
  const inner = `${indent}  `;
  const members = checker.getPropertiesOfType(type).map((property) => printMember(property, inner, [...parents, type]));
  const index = checker.getIndexTypeOfType(type, ts.IndexKind.String);
  if (index !== undefined) members.push(`${inner}[name: string]: ${print(index, inner, [...parents, type])};`);
  return members.length === 0 ? plain(type) : `{\n${members.join('\n')}\n${indent}}`;
}

function printMember(property: ts.Symbol, indent: string, parents: readonly ts.Type[]): string {
  const { checker } = load();
  const isOptional = (property.flags & ts.SymbolFlags.Optional) !== 0;
  const text = print(checker.getTypeOfSymbol(property), indent, parents);
  const doc = ts.displayPartsToString(property.getDocumentationComment(checker)).replace(/\s+/g, ' ');
  const key = /^[\w$]+$/.test(property.name) ? property.name : `'${property.name}'`;
  return `${doc === '' ? '' : `${indent}/** ${doc} */\n`}${indent}${key}${isOptional ? '?' : ''}: ${text};`;
}

function printUnion(type: ts.UnionType, indent: string, parents: readonly ts.Type[]): string {
  // `boolean` is a union of its two values.
  const words = type.types.map((each) =>
    each.flags & ts.TypeFlags.BooleanLiteral ? 'boolean' : print(each, indent, parents),
  );
  const isWhole = words.filter((word) => word === 'boolean').length === 2;
  const texts = type.types.map((each, i) => (words[i] === 'boolean' && !isWhole ? plain(each) : (words[i] ?? '')));
  return [...new Set(texts)].filter((text) => text !== 'undefined').join(' | ');
}

function elementOf(type: ts.Type): ts.Type | undefined {
  const { checker } = load();
  return checker.isArrayType(type) ? checker.getTypeArguments(type as ts.TypeReference)[0] : undefined;
}

const plain = (type: ts.Type) =>
  load().checker.typeToString(type, undefined, ts.TypeFormatFlags.NoTruncation).replaceAll('"', "'");
