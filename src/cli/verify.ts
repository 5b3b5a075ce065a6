/** `vmferry verify`: is this file sound? */
import type { Command } from 'commander';
import type { CountedFinding } from '../read/finding-log.ts';
import { type Verification, verificationOf, verify } from '../tasks/inspect/verify.ts';
import { MigrationError, type Severity } from '../vm/migration-error.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { formatBytes, formatCount, formatHex, painter, plural, printable } from './print/format.ts';
import { ExitCode } from './run.ts';

export function addVerify(program: Command): void {
  addInput(program.command('verify'))
    .description('Read all of a file and check it: structure, footers, ids, bounds, every delta, completeness.')
    .option('--json', 'print the findings as JSON')
    .addHelpText(
      'after',
      `
Prints findings (worst first, like ones counted together) and a verdict in one line.
Exit code 0: no errors; 1: the file is bad.

Examples:
  vmferry verify guest.migration
  vmferry verify --json guest.migration | jq '.findings[].code'
  vmferry verify guest.migration.gz
  ssh host cat guest.migration | vmferry verify -
  vmferry verify main --channel channel0 --channel channel1`,
    )
    .action(async (location: string, options: InputOptions & { json?: boolean }) => {
      const verification = await withFile('verify', location, options, verify).catch((error) => {
        // What is around the stream is found bad when the file is opened.
        if (error instanceof MigrationError) return verificationOf(error);
        throw error;
      });
      const text = options.json === true ? JSON.stringify(verification, null, 2) : describe(verification);
      process.stdout.write(`${text}\n`);
      process.exitCode = verification.ok ? ExitCode.ok : ExitCode.badInput;
    });
}

const colours = { error: 'red', warning: 'yellow', info: 'cyan' } as const;

/** A finding in a line or two, for a terminal. */
export function describeFinding(finding: CountedFinding, file: string, paint = painter(process.stdout)): string {
  const { severity, code, message, place, last, count } = finding;
  let where = `${place.source === file || place.channel !== undefined ? '' : `in ${place.source} `}at ${formatHex(place.offset)}`;
  if (place.channel !== undefined) where += ` of channel ${place.channel}`;
  if (place.section !== undefined) where += `, section ${place.section}`;
  if (place.block !== undefined) where += `, block ${place.block}`;
  if (place.page !== undefined) where += `, page ${formatCount(place.page)}`;
  const times = count > 1 ? ` (${formatCount(count)} times` : '';
  const until = times === '' ? '' : last === undefined ? ')' : `, last at ${formatHex(last.offset)})`;
  return `${paint(colours[severity], severity)} ${code}: ${printable(message)} ${printable(where)}${times}${until}`;
}

function describe(verification: Verification): string {
  const paint = painter(process.stdout);
  const lines = verification.findings.map((finding) => describeFinding(finding, verification.source, paint));
  const kinds = (severity: Severity) => verification.findings.filter((finding) => finding.severity === severity).length;
  const { format, machine, ramBytes, pageRecords, sections, length } = verification;
  const what = [
    `${format === 'stream' ? 'stream' : 'mapped-ram file'}${machine === null ? '' : ` of ${printable(machine)}`}`,
    length === null ? undefined : formatBytes(length),
    `${formatBytes(ramBytes)} RAM`,
    plural(pageRecords, 'page record'),
    plural(sections, 'section'),
    kinds('warning') > 0 ? plural(kinds('warning'), 'warning') : undefined,
  ].filter((part) => part !== undefined);
  const verdict = verification.ok ? paint('green', 'OK') : paint('red', `BAD: ${plural(kinds('error'), 'error')}`);
  lines.push(`${printable(verification.source)}: ${verdict} (${what.join(', ')})`);
  return lines.join('\n');
}
