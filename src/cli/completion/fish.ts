/** The completion script for fish. */
import type { CommandSpec, OptionSpec, Value } from './spec.ts';

export function fishCompletion(commands: readonly CommandSpec[]): string {
  const lines = commands.flatMap(({ name, summary, options, arguments: args }) => {
    const when = `-n ${quote(`__fish_seen_subcommand_from ${name}`)}`;
    const first = args[0]?.value;
    return [
      `complete -c vmferry -n __fish_use_subcommand -f -a ${name} -d ${quote(summary)}`,
      first?.kind === 'choice' ? `complete -c vmferry ${when} -f -a ${quote(first.choices.join(' '))}` : undefined,
      ...options.map((option) => `complete -c vmferry ${when}${optionFlags(option)}`),
    ].filter((line) => line !== undefined);
  });
  return `# fish completion for vmferry: vmferry completion fish | source
complete -c vmferry -n __fish_use_subcommand -s h -l help -d 'display help'
complete -c vmferry -n __fish_use_subcommand -s V -l version -d 'output the version number'
${lines.join('\n')}
`;
}

function optionFlags({ flags, value, description }: OptionSpec): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? ` -l ${flag.slice(2)}` : ` -s ${flag.slice(1)}`));
  return `${names.join('')}${takes(value)} -d ${quote(description)}`;
}

function takes(value: Value | undefined): string {
  if (value === undefined) return '';
  if (value.kind === 'choice') return ` -x -a ${quote(value.choices.join(' '))}`;
  if (value.kind === 'directory') return " -x -a '(__fish_complete_directories)'";
  return value.kind === 'file' ? ' -r -F' : ' -x';
}

const quote = (text: string) => `'${text.replace(/['\\]/g, '\\$&')}'`;
