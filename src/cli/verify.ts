/** `vmferry verify`: checks that files are sound and complete. */
import type { CountedFinding } from '../read/finding-log.ts';
import { type Verification, verificationOf, verify } from '../tasks/inspect/verify.ts';
import type { VerifyFilesJson, VerifyJson } from '../tasks/json.ts';
import { incompleteCodes, MigrationError, type Severity, type Verdict } from '../vm/migration-error.ts';
import type { CliCommand } from './command.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { hintOf } from './hints.ts';
import { addInput, groupInputs, type InputOptions, type InputSet, requireInputsOnce, withFile } from './input.ts';
import { toJson } from './json.ts';
import { reportError } from './messages.ts';
import { formatBytes, formatCount, formatHex, painter, plural, printable } from './print/format.ts';
import { writeOut } from './run.ts';

interface VerifyOptions extends InputOptions {
  allowIncomplete?: boolean;
  json?: boolean;
}

export function addVerify(program: CliCommand): CliCommand {
  return addInput(program.command('verify'), '<FILE...>')
    .summary('check that files are sound and complete')
    .description('Reads whole files and checks them: structure, footers, ids, bounds, every delta, completeness.')
    .option('--allow-incomplete', 'exit with 0 if a file is sound, even if memory is missing')
    .option('--json', 'print the findings as JSON')
    .describe({ notes, exitCodes, json, examples, rules })
    .action(async (locations: string[], options: VerifyOptions) => {
      const [only] = locations;
      if (locations.length === 1 && only !== undefined) await verifyOne(only, options);
      else await verifyAll(locations, options);
    });
}

const notes = [
  'Prints the findings, the worst first, and then a verdict in one line: OK, INCOMPLETE (what is there is sound, but memory is missing) or BAD. Findings of the same kind are counted together. Of several files it prints a line each, and a summary.',
  'A multifd set is judged once: channels among the files that belong to another of them are not listed by themselves.',
  'INCOMPLETE needs evidence: a file that breaks off, multifd channels that were not given, a SYNC that is missing, memory that x-ignore-shared left out, a file of changes without its base. Pages that were never sent are a warning: a balloon with free-page hints leaves them out, and so does virtio-mem.',
];

const exitCodes = {
  0: 'all files are OK; with --allow-incomplete, none is BAD',
  1: 'a file is BAD or INCOMPLETE',
};

const json = [
  { type: 'VerifyJson', when: '--json, for one file' },
  { type: 'VerifyFilesJson', when: '--json, for several files' },
];

const examples = [
  'vmferry verify guest.migration',
  'vmferry verify /var/lib/libvirt/qemu/save/*.save',
  "vmferry verify --json guest.migration | jq '.findings[].code'",
  'vmferry verify guest.migration.gz',
  'ssh host cat guest.migration | vmferry verify -',
  'vmferry verify main --channel channel0 --channel channel1',
];

const rules = {
  check(locations: readonly string[], options: VerifyOptions) {
    requireInputsOnce(locations, options);
    const { channel, resumeOf, preempt, returnPath } = options;
    const given = Object.entries({
      '--channel': channel,
      '--resume-of': resumeOf,
      '--preempt': preempt,
      '--return-path': returnPath,
    });
    const [first] = given.find(([, files]) => files !== undefined) ?? [];
    if (locations.length > 1 && first !== undefined) {
      throw new UsageError(`${first} belongs to one FILE, got ${locations.length}`);
    }
  },
};

async function verifyLocation(location: string, options: VerifyOptions): Promise<Verification> {
  return withFile('verify', location, options, verify).catch((error) => {
    // An error in the container of the stream appears when the file is opened.
    if (error instanceof MigrationError) return verificationOf(error);
    throw error;
  });
}

function exitCodeOf(verdict: Verdict, { allowIncomplete }: VerifyOptions): number {
  const isAccepted = verdict === 'ok' || (verdict === 'incomplete' && allowIncomplete === true);
  return isAccepted ? ExitCode.ok : ExitCode.badInput;
}

async function verifyOne(location: string, options: VerifyOptions): Promise<void> {
  const verification = await verifyLocation(location, options);
  const text = options.json === true ? toJson<VerifyJson>(verification) : `${describe(verification)}\n`;
  process.stdout.write(text);
  process.exitCode = exitCodeOf(verification.verdict, options);
}

/** A file without channels. */
const alone = (location: string): InputSet => ({ location, channels: [] });

/** Verifies files one after the other, a multifd set once. A file that cannot be read does not keep the others from being verified. */
async function verifyAll(locations: readonly string[], options: VerifyOptions): Promise<void> {
  const counts: Record<Verdict, number> = { ok: 0, incomplete: 0, bad: 0 };
  const files: Verification[] = [];
  let exitCode: number = ExitCode.ok;
  let unread = 0;
  const sets = options.discover === false ? locations.map(alone) : await groupInputs(locations);
  for (const { location, channels } of sets) {
    try {
      const verification = await verifyLocation(location, { ...options, channel: channels, discover: false });
      counts[verification.verdict]++;
      exitCode = Math.max(exitCode, exitCodeOf(verification.verdict, options));
      if (options.json === true) files.push(verification);
      else await writeOut(`${describeVerdict(verification, painter(process.stdout), true)}\n`);
    } catch (error) {
      unread++;
      exitCode = Math.max(exitCode, reportError(error, ExitCode.trouble));
    }
  }
  if (options.json === true) await writeOut(toJson<VerifyFilesJson>({ files, ...counts }));
  else {
    const parts = [`${counts.ok} OK`, `${counts.incomplete} INCOMPLETE`, `${counts.bad} BAD`];
    if (unread > 0) parts.push(`${unread} not read`);
    await writeOut(`${plural(sets.length, 'file')}: ${parts.join(', ')}\n`);
  }
  process.exitCode = exitCode;
}

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
  return [...lines, describeVerdict(verification, paint, false)].join('\n');
}

/** The verdict in one line, with the first reason if `hasReason`. */
function describeVerdict(verification: Verification, paint: ReturnType<typeof painter>, hasReason: boolean): string {
  const { format, machine, ramBytes, pageRecords, sections, length, verdict, findings } = verification;
  const kinds = (severity: Severity) => findings.filter((finding) => finding.severity === severity).length;
  const what = [
    `${format === 'stream' ? 'stream' : 'mapped-ram file'}${machine === undefined ? '' : ` of ${printable(machine)}`}`,
    length === undefined ? undefined : formatBytes(length),
    `${formatBytes(ramBytes)} RAM`,
    plural(pageRecords, 'page record'),
    plural(sections, 'section'),
    kinds('warning') > 0 ? plural(kinds('warning'), 'warning') : undefined,
  ].filter((part) => part !== undefined);
  const reason = findings.find(({ severity, code }) => {
    return verdict === 'incomplete' ? incompleteCodes.has(code) : severity === 'error' && !incompleteCodes.has(code);
  });
  const words = {
    ok: () => paint('green', 'OK'),
    incomplete: () => paint('yellow', 'INCOMPLETE'),
    bad: () => paint('red', `BAD: ${plural(kinds('error'), 'error')}`),
  };
  const why = hasReason && reason !== undefined ? `: ${printable(reason.message)} [${reason.code}]` : '';
  return `${printable(verification.source)}: ${words[verdict]()}${why} (${what.join(', ')})`;
}
