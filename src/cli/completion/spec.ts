/** The program's commands, options and arguments as data, for everything that is generated from them. */
import type { Option } from 'commander';
import type { CliCommand } from '../command.ts';

/** What an option or argument takes: a path, one of some words, or anything else. */
export type Value = { kind: 'file' | 'directory' | 'text' } | { kind: 'choice'; choices: readonly string[] };

export interface OptionSpec {
  /** All flags, such as `-o` and `--output`. */
  flags: readonly string[];
  /** Undefined for an option that takes no value. */
  value: Value | undefined;
  /** The value's name in the help, such as `FILE`. */
  valueName: string;
  isRepeatable: boolean;
  description: string;
}

export interface CommandSpec {
  name: string;
  summary: string;
  options: readonly OptionSpec[];
  arguments: readonly { name: string; value: Value }[];
}

/** Names of values that are files. */
const files = new Set('FILE OUT A B BASE OLD FIRST CHANGES LATER_FILE TARGET PATTERNS TRANSCRIPT'.split(' '));
/** Names of values that are neither files nor directories. A new name belongs to one of these sets. */
const texts = new Set(
  'NAME IDSTR FORM FORMAT METHOD VERSION SIZE BLOCK BLOCK@ADDRESS ADDRESS OFFSET N L UUID RATE TIME SECONDS BYTES PATTERN SHELL ID URI LISTEN_URI TARGET_URI OBJECT SOCKET WORD SPEC FAULTS PAGES QEMU_COMMAND'.split(
    ' ',
  ),
);

export function commandSpecs(program: CliCommand): CommandSpec[] {
  return program.commands.map((command) => ({
    name: command.name(),
    summary: command.summary(),
    options: [...command.options.map(optionSpec), helpOption],
    arguments: command.registeredArguments.map((argument) => {
      const name = argument.name();
      return { name, value: valueFor(name, argument.argChoices) };
    }),
  }));
}

const helpOption: OptionSpec = {
  flags: ['-h', '--help'],
  ...{ value: undefined, valueName: '', isRepeatable: false },
  description: 'display help for command',
};

function optionSpec(option: Option): OptionSpec {
  const valueName = /<(.*)>/.exec(option.flags)?.[1] ?? '';
  return {
    flags: [option.short, option.long].filter((flag) => typeof flag === 'string'),
    value: option.required ? valueFor(valueName, option.argChoices) : undefined,
    valueName,
    isRepeatable: option.description.includes('repeatable'),
    description: option.description,
  };
}

function valueFor(name: string, choices: readonly string[] | undefined): Value {
  if (choices !== undefined) return { kind: 'choice', choices };
  if (files.has(name)) return { kind: 'file' };
  if (name === 'DIR') return { kind: 'directory' };
  if (texts.has(name)) return { kind: 'text' };
  throw new Error(`expected to know whether ${name} is a file`);
}
