/** `vmferry verify`: checks that a file is sound. */
import type { CountedFinding } from '../read/finding-log.ts';
import { type Verification, verificationOf, verify } from '../tasks/inspect/verify.ts';
import type { VerifyJson } from '../tasks/json.ts';
import { MigrationError, type Severity } from '../vm/migration-error.ts';
import type { CliCommand } from './command.ts';
import { ExitCode } from './exit-codes.ts';
import { hintOf } from './hints.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJson } from './json.ts';
import { formatBytes, formatCount, formatHex, painter, plural, printable } from './print/format.ts';

export function addVerify(program: CliCommand): CliCommand {
  return addInput(program.command('verify'))
    .summary('check that a file is sound')
    .description('Reads a whole file and checks it: structure, footers, ids, bounds, every delta, completeness.')
    .option('--json', 'print the findings as JSON')
    .describe({ notes, exitCodes, json: [{ type: 'VerifyJson', when: '--json' }], examples })
    .action(async (location: string, options: InputOptions & { json?: boolean }) => {
      const verification = await withFile('verify', location, options, verify).catch((error) => {
        // An error in the container of the stream appears when the file is opened.
        if (error instanceof MigrationError) return verificationOf(error);
        throw error;
      });
      const text = options.json === true ? toJson<VerifyJson>(verification) : `${describe(verification)}\n`;
      process.stdout.write(text);
      process.exitCode = verification.ok ? ExitCode.ok : ExitCode.badInput;
    });
}

const notes = [
  'Prints the findings, the worst first, and then a verdict in one line. Findings of the same kind are counted together.',
];

const exitCodes = { 0: 'no errors', 1: 'the file is bad' };

const examples = [
  'vmferry verify guest.migration',
  "vmferry verify --json guest.migration | jq '.findings[].code'",
  'vmferry verify guest.migration.gz',
  'ssh host cat guest.migration | vmferry verify -',
  'vmferry verify main --channel channel0 --channel channel1',
];

const colours = { error: 'red', warning: 'yellow', info: 'cyan' } as const;

/** A finding as a line, and its hint as a second one. */
export function describeFinding(finding: CountedFinding, file: string, paint = painter(process.stdout)): string {
  const { severity, code, message, place, last, count } = finding;
  let where = `${place.source === file || place.channel !== undefined ? '' : `in ${place.source} `}at ${formatHex(place.offset)}`;
  if (place.channel !== undefined) where += ` of channel ${place.channel}`;
  if (place.section !== undefined) where += `, section ${place.section}`;
  if (place.block !== undefined) where += `, block ${place.block}`;
  if (place.page !== undefined) where += `, page ${formatCount(place.page)}`;
  const times = count > 1 ? `; ${formatCount(count)} times` : '';
  const until = times === '' || last === undefined ? '' : `, last at ${formatHex(last.offset)}`;
  const hint = severity === 'info' ? undefined : hintOf(finding);
  const line = `${paint(colours[severity], severity)} ${code}: ${printable(message)} (${printable(where)}${times}${until})`;
  return hint === undefined ? line : `${line}\n  → ${hint}`;
}

function describe(verification: Verification): string {
  const paint = painter(process.stdout);
  const lines = verification.findings.map((finding) => describeFinding(finding, verification.source, paint));
  const kinds = (severity: Severity) => verification.findings.filter((finding) => finding.severity === severity).length;
  const { format, machine, ramBytes, pageRecords, sections, length } = verification;
  const what = [
    `${format === 'stream' ? 'stream' : 'mapped-ram file'}${machine === undefined ? '' : ` of ${printable(machine)}`}`,
    length === undefined ? undefined : formatBytes(length),
    `${formatBytes(ramBytes)} RAM`,
    plural(pageRecords, 'page record'),
    plural(sections, 'section'),
    kinds('warning') > 0 ? plural(kinds('warning'), 'warning') : undefined,
  ].filter((part) => part !== undefined);
  const verdict = verification.ok ? paint('green', 'OK') : paint('red', `BAD: ${plural(kinds('error'), 'error')}`);
  lines.push(`${printable(verification.source)}: ${verdict} (${what.join(', ')})`);
  return lines.join('\n');
}
