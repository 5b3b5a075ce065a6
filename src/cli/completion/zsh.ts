/** The completion script for zsh. */
import type { CommandSpec, OptionSpec, Value } from './spec.ts';

export function zshCompletion(commands: readonly CommandSpec[]): string {
  const names = commands.map(({ name, summary }) => `    ${quote(`${escapeColons(name)}:${summary}`)}`);
  const cases = commands.map(({ name, options, arguments: args }) => {
    const specs = [
      ...options.map(optionArgument),
      ...args.map(({ name: word, value }, i) => quote(`${i + 1}:${escapeColons(word)}:${action(value)}`)),
    ];
    return `        ${name})\n          _arguments -s ${specs.map((spec) => `\\\n            ${spec}`).join(' ')}\n          ;;`;
  });
  return `#compdef vmferry
# zsh completion for vmferry: source <(vmferry completion zsh), or a file _vmferry in a directory of $fpath
_vmferry() {
  local curcontext="$curcontext" state line
  local -a commands
  commands=(
${names.join('\n')}
  )
  _arguments -C '(- *)'{-h,--help}'[display help]' '(- *)'{-V,--version}'[output the version number]' \\
    '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands ;;
    argument)
      case $line[1] in
${cases.join('\n')}
      esac
      ;;
  esac
}
if [ "$funcstack[1]" = _vmferry ]; then
  _vmferry "$@"
else
  compdef _vmferry vmferry
fi
`;
}

/** One specification for all flags of an option: these exclude each other unless the option is repeatable. */
function optionArgument({ flags, value, valueName, isRepeatable, description }: OptionSpec): string {
  const text = `[${description.replace(/[[\]\\]/g, '\\$&')}]`;
  const taken = value === undefined ? '' : `:${escapeColons(valueName)}:${action(value)}`;
  const [first = '', ...rest] = flags;
  const prefix = isRepeatable ? quote('*') : quote(`(${flags.join(' ')})`);
  return rest.length === 0
    ? `${prefix}${quote(first + text + taken)}`
    : `${prefix}{${flags.join(',')}}${quote(text + taken)}`;
}

function action(value: Value): string {
  if (value.kind === 'choice') return `(${value.choices.join(' ')})`;
  if (value.kind === 'file') return '_files';
  return value.kind === 'directory' ? '_files -/' : ' ';
}

const escapeColons = (text: string) => text.replaceAll(':', '\\:');
const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
