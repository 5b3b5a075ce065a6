/** The completion script for bash (3.2 and later). */
import type { CommandSpec, OptionSpec, Value } from './spec.ts';

export function bashCompletion(commands: readonly CommandSpec[]): string {
  const names = commands.map(({ name }) => name);
  const lines = commands.flatMap(({ name, options, arguments: args }) => [
    `    ${name})`,
    `      options='${options.flatMap(({ flags }) => flags).join(' ')}'`,
    `      case $prev in`,
    ...options.flatMap(valueCase),
    `        *) ${complete(args[0]?.value)} ;;`,
    `      esac`,
    `      ;;`,
  ]);
  return `# bash completion for vmferry: source <(vmferry completion bash)
_vmferry() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  local command= options= kind= words= i IFS=$' \\t\\n'
  # Bash splits --option=value at the equals sign.
  if [ "$cur" = = ]; then cur=
  elif [ "$prev" = = ]; then prev=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      -*) ;;
      *) command=\${COMP_WORDS[i]}; break ;;
    esac
  done
  case $command in
    '' | help) options='--help --version' kind=words words='${names.join(' ')} help' ;;
${lines.join('\n')}
  esac
  COMPREPLY=()
  if [ "\${cur#-}" != "$cur" ]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
    return
  fi
  case $kind in
    words) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
    file) IFS=$'\\n'; COMPREPLY=($(compgen -f -- "$cur")) ;;
    directory) IFS=$'\\n'; COMPREPLY=($(compgen -d -- "$cur")) ;;
  esac
}
complete -o filenames -F _vmferry vmferry
`;
}

function valueCase({ flags, value }: OptionSpec): string[] {
  return value === undefined ? [] : [`        ${flags.join(' | ')}) ${complete(value)} ;;`];
}

function complete(value: Value | undefined): string {
  if (value?.kind === 'choice') return `kind=words words='${value.choices.join(' ')}'`;
  return value === undefined || value.kind === 'text' ? 'kind=' : `kind=${value.kind}`;
}
