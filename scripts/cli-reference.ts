/**
 * docs/cli.md and the man page, made from the commands themselves and from the types of their JSON. `npm run docs:cli`
 * writes them; test/package/cli-reference.test.ts compares them with what is made here.
 */
import type { Command } from 'commander';
import type { CliCommand } from '../src/cli/command.ts';
import type { Note } from '../src/cli/command-facts.ts';
import { commonExitCodes, signalExitCodes } from '../src/cli/exit-codes.ts';
import { printJsonType } from './json-shapes.ts';

/** The text of docs/cli.md. */
export function cliMarkdown(program: CliCommand): string {
  const { notes } = program.facts;
  const commands = program.commands;
  return [
    '# The command line\n',
    '<!-- Made by `npm run docs:cli` from the commands. Do not edit. -->\n',
    `${program.description()}\n`,
    ...notes.map((note) => `${markdownNote(note)}\n`),
    '| Command | Purpose |\n| --- | --- |',
    ...commands.map((command) => `| [\`${command.name()}\`](#${command.name()}) | ${cell(command.summary())} |`),
    '\n## Exit codes\n',
    'These hold for all commands. A command that gives a code another meaning, or has more, lists all of its codes.\n',
    exitCodeTable({ ...commonExitCodes, ...signalExitCodes }),
    '\n## Errors and JSON\n',
    'Each line on standard error begins with `vmferry: error:`, `vmferry: warning:`, `vmferry: note:` or `vmferry: hint:`. With `--quiet`, only errors and their hints are printed.\n',
    "Every JSON object has a field `jsonVersion`. The number grows when a field goes or changes its meaning, not when a field is added. The package exports the types of the JSON: `import type { InspectJson } from 'vmferry'`. Sizes and offsets are in bytes, byte strings are hex, and integers beyond 2^53 are decimal text. A fact that is absent or unknown is null.\n",
    'With `--json`, an error is one line of JSON, the last on standard error:\n',
    shape('ErrorJson'),
    ...commands.map(markdownCommand),
    '',
  ]
    .join('\n')
    .replace(/\n{3,}/g, '\n\n');
}

function markdownCommand(command: CliCommand): string {
  const { notes, json, examples, exitCodes } = command.facts;
  const args = command.registeredArguments.map((argument) => [
    `\`${argument.name()}\``,
    withChoices(argument.description, argument.argChoices),
  ]);
  const options = command.options.map((option) => [
    option.flags
      .split(', ')
      .map((flag) => `\`${flag}\``)
      .join(', '),
    withChoices(option.description, option.argChoices) +
      (option.defaultValueDescription === undefined ? '' : ` (default: ${option.defaultValueDescription})`) +
      (option.mandatory ? ' (required)' : ''),
  ]);
  return [
    `\n## ${command.name()}\n`,
    `\`\`\`sh\n${usage(command)}\n\`\`\`\n`,
    `${command.description()}\n`,
    table(['Argument', 'Meaning'], args),
    '',
    table(['Option', 'Meaning'], options),
    '',
    ...notes.map((note) => `${markdownNote(note)}\n`),
    ...(Object.keys(exitCodes).length === 0 ? [] : [`Exit codes:\n\n${exitCodeTable(command.exitCodes)}\n`]),
    'Examples:\n',
    `\`\`\`sh\n${examples.join('\n')}\n\`\`\``,
    ...json.map(({ type, when }) => `\nJSON (${markdownText(when)}):\n\n${shape(type)}`),
  ].join('\n');
}

const usage = (command: Command) => `vmferry ${command.name()} ${command.usage()}`;

const withChoices = (text: string, choices: readonly string[] | undefined) =>
  choices === undefined ? text : `${text} (choices: ${choices.join(', ')})`;

function markdownNote(note: Note): string {
  if (typeof note === 'string') return markdownText(note);
  const [head = [], ...rows] = note.table;
  return table(head, rows);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

const exitCodeTable = (codes: Readonly<Record<string, string>>) => table(['Code', 'Meaning'], Object.entries(codes));

/** Text in a table: placeholders are code, so that Markdown takes none of them for HTML. */
const cell = (text: string) => markdownText(text).replaceAll('|', '\\|');

/** Flags, and what Markdown would take for markup, as code. */
const markdownText = (text: string) =>
  text
    .split(/(`[^`]*`)/)
    .map((part) =>
      part.startsWith('`') ? part : part.replace(/(?<![\w-])--[a-z][\w-]*/g, '`$&`').replace(/[*_<>]/g, '\\$&'),
    )
    .join('');

const shape = (type: string) => `\`\`\`ts\n${printJsonType(type)}\n\`\`\``;

/** The man page, in man(7) macros. */
export function manPage(program: CliCommand, version: string): string {
  const commands = program.commands;
  return [
    '.\\" Made by `npm run docs:cli` from the commands. Do not edit.',
    `.TH VMFERRY 1 "" "vmferry ${version}" "User Commands"`,
    '.SH NAME',
    `vmferry \\- ${roff('read, verify, extract and convert QEMU migration streams')}`,
    '.SH SYNOPSIS',
    ...commands.flatMap((command) => ['.PP', `.B vmferry ${command.name()}`, roff(command.usage())]),
    '.SH DESCRIPTION',
    roff(program.description()),
    ...program.facts.notes.flatMap(manNote),
    '.SH COMMANDS',
    ...commands.flatMap(manCommand),
    '.SH EXIT STATUS',
    ...Object.entries({ ...commonExitCodes, ...signalExitCodes }).flatMap(([code, text]) => tagged(code, text)),
    '.SH ENVIRONMENT',
    ...tagged('NO_COLOR', 'Present and not empty: no colours.'),
    ...tagged(
      'FORCE_COLOR',
      'Present and not empty: colours also where the output is not a terminal; 0 or false: none.',
    ),
    ...tagged('COLUMNS', 'The width of the help where there is no terminal.'),
    '.SH EXAMPLES',
    ...manExamples(program.facts.examples),
    '',
  ].join('\n');
}

function manCommand(command: CliCommand): string[] {
  const { notes, json, examples, exitCodes } = command.facts;
  return [
    `.SS ${command.name()}`,
    roff(command.description()),
    ...command.registeredArguments.flatMap((argument) =>
      tagged(argument.name(), withChoices(argument.description, argument.argChoices)),
    ),
    ...command.options.flatMap((option) => tagged(option.flags, withChoices(option.description, option.argChoices))),
    ...notes.flatMap(manNote),
    ...Object.entries(exitCodes).flatMap(([code, text]) => tagged(`Exit code ${code}`, text)),
    ...json.flatMap(({ type, when }) => tagged(`JSON (${when})`, `has the type ${type}; see docs/cli.md.`)),
    '.PP',
    'Examples:',
    ...manExamples(examples),
  ];
}

const manNote = (note: Note): string[] =>
  typeof note === 'string'
    ? ['.PP', roff(note)]
    : note.table
        .slice(1)
        .flatMap(([term = '', ...cells]) => tagged(term, cells.filter((text) => text !== '').join('; ')));

const manExamples = (examples: readonly string[]) => ['.PP', '.nf', ...examples.map((example) => roff(example)), '.fi'];

const tagged = (term: string, text: string) => ['.TP', `.B ${roff(term)}`, roff(text)];

/** Text that roff prints as it is: hyphens stay hyphens, and no line is a request. */
const roff = (text: string) => text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replace(/^[.']/, '\\&$&');
