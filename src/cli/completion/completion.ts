/** `vmferry completion`: prints a script that completes commands, options and files in a shell. */
import { Argument } from 'commander';
import type { CliCommand } from '../command.ts';
import { writeOut } from '../run.ts';
import { bashCompletion } from './bash.ts';
import { fishCompletion } from './fish.ts';
import { commandSpecs } from './spec.ts';
import { zshCompletion } from './zsh.ts';

const scripts = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };

/** `load` makes the program with all its commands: the script describes each. */
export function addCompletion(program: CliCommand, load: () => Promise<CliCommand>): CliCommand {
  return program
    .command('completion')
    .summary('print a completion script for a shell')
    .description('Prints a script that completes commands, options and files in a shell.')
    .addArgument(new Argument('<SHELL>', 'the shell').choices(Object.keys(scripts)))
    .describe({ examples })
    .action(async (shell: keyof typeof scripts) => writeOut(scripts[shell](commandSpecs(await load()))));
}

const examples = [
  'source <(vmferry completion bash)',
  'vmferry completion zsh > ~/.zfunc/_vmferry',
  'vmferry completion fish > ~/.config/fish/completions/vmferry.fish',
];
