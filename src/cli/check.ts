/** `vmferry check`: would that QEMU load this file? */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { type ByteSource, originOf } from '../io/byte-source.ts';
import { peek } from '../io/peeked-source.ts';
import { open, openSource } from '../node.ts';
import { type Check, type CheckTarget, check, checkOf, readTarget } from '../tasks/check/check.ts';
import type { CheckEffect, CheckReason } from '../tasks/check/check-reason.ts';
import { canBeDump, maxDump, parseVmstateDump } from '../tasks/check/vmstate-dump.ts';
import { MigrationError } from '../vm/migration-error.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { formatHex, painter, plural, printable } from './print/format.ts';
import { ExitCode, UsageError } from './run.ts';

interface CheckOptions extends InputOptions {
  against: string;
  json?: boolean;
  all?: boolean;
  strict?: boolean;
}

export function addCheck(program: Command): void {
  addInput(program.command('check'))
    .description('Would a QEMU load FILE? Holds it against what that QEMU can load, or against a file that it saved.')
    .requiredOption(
      '--against <TARGET>',
      "output of the target's -dump-vmstate, or a migration file that it saved; - for standard input",
    )
    .option('--all', 'also print differences that do no harm, and all that was not judged')
    .option('--strict', 'take doubts as refusals: exit code 1')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      `
TARGET is found out by its content. A dump (qemu-system-x86_64 -M MACHINE -dump-vmstate FILE) says which states that
QEMU can load, of all devices it could have. A file that the target saved, idle and with the same arguments, says which
devices, sizes and ids it has. Each knows what the other does not: ask both.

Prints the verdict, the reasons (refused, doubt, needed) with what to do, and what was not judged.
Exit code 0: FILE should load, perhaps with doubts; 1: it would not; 2: TARGET cannot be read, or usage.

Examples:
  qemu-system-x86_64 -M pc-q35-9.2 -dump-vmstate target.json
  vmferry check guest.migration --against target.json
  vmferry check guest.migration --against saved-by-target.migration
  vmferry check --strict --json guest.migration --against target.json | jq .verdict
  qemu-system-x86_64 -M q35 -dump-vmstate /dev/stdout | vmferry check guest.migration --against -`,
    )
    .action(async (location: string, options: CheckOptions) => {
      if (location === '-' && options.against === '-') {
        throw new UsageError('expected only one of FILE and --against on standard input');
      }
      const target = await openTarget(options.against).catch((error) => {
        if (!(error instanceof MigrationError)) throw error;
        throw new UsageError(`${options.against} cannot be a target: ${error.message}`);
      });
      const result = await withFile('check', location, options, (file) => check(file, target)).catch((error) => {
        // What is around the stream is found bad when the file is opened.
        if (error instanceof MigrationError) return checkOf(error, target);
        throw error;
      });
      const text = options.json === true ? JSON.stringify(result, null, 2) : describe(result, options.all === true);
      process.stdout.write(`${text}\n`);
      const isFine = result.verdict === 'loads' || (result.verdict === 'doubtful' && options.strict !== true);
      process.exitCode = isFine ? ExitCode.ok : ExitCode.badInput;
    });
}

/** How many bytes show what a target is: white space may come before the first brace. */
const headLength = 64;

async function openTarget(location: string): Promise<CheckTarget> {
  if (location === '-' && process.stdin.isTTY === true) {
    throw new UsageError('expected a dump or a migration file on standard input, got a terminal');
  }
  // What names a part of a file, or is not a file, is no dump.
  if (location !== '-' && !existsSync(location)) return readMigration(location, location);
  const source = await openSource(location);
  const { head, source: whole } = await peek(source, 0, headLength, (bytes) => bytes.some((byte) => byte > 0x20));
  if (!canBeDump(head)) return readMigration(whole, location);
  try {
    const dump = parseVmstateDump(await readText(whole), originOf(whole));
    return { kind: 'vmstate-dump', name: source.name, dump };
  } finally {
    await whole.close();
  }
}

async function readMigration(input: string | ByteSource, location: string): Promise<CheckTarget> {
  const file = await open(input);
  try {
    return await readTarget(file, location === '-' ? file.input.name : location);
  } finally {
    await file.close();
  }
}

/** All of a source, up to one byte more than a dump may have. */
async function readText(source: ByteSource): Promise<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(1 << 16);
  let text = '';
  for (let at = 0; at <= maxDump; ) {
    const count = await source.read(buffer.subarray(0, Math.min(buffer.length, maxDump + 1 - at)), at);
    if (count === 0) return text + decoder.decode();
    text += decoder.decode(buffer.subarray(0, count), { stream: true });
    at += count;
  }
  return text;
}

const verdicts = {
  loads: ['green', 'should load'],
  doubtful: ['yellow', 'MAY NOT LOAD'],
  refused: ['red', 'WOULD NOT LOAD'],
} as const;
const colours = { refused: 'red', doubt: 'yellow', needed: 'cyan', note: 'dim' } as const;
const nouns: Record<CheckEffect, string> = { refused: 'refusal', doubt: 'doubt', needed: 'condition', note: 'note' };

function describe(result: Check, all: boolean): string {
  const paint = painter(process.stdout);
  const { against, verdict, reasons, notJudged, checked } = result;
  const [colour, words] = verdicts[verdict];
  const counts = (['refused', 'doubt', 'needed'] as const).flatMap((effect) => {
    const count = reasons.filter((reason) => reason.effect === effect).length;
    return count === 0 ? [] : [plural(count, nouns[effect])];
  });
  const what = against.kind === 'file' ? 'what saved' : 'the QEMU of';
  const onMachine = against.machine === null ? '' : ` with -M ${against.machine}`;
  const target = `${what} ${against.name}${onMachine}`;
  const blocks = checked.blocks === 0 ? '' : ` and ${plural(checked.blocks, 'RAM block')}`;
  const detail = [...counts, `${plural(checked.sections, 'section')}${blocks} checked`];
  const lines = [`${printable(result.source)}: ${paint(colour, words)} on ${printable(target)} (${detail.join(', ')})`];
  for (const reason of reasons) if (all || reason.effect !== 'note') lines.push(...describeReason(reason, paint));
  if (result.reasonsOmitted > 0) lines.push(`and ${plural(result.reasonsOmitted, 'more reason')}`);
  const general = notJudged.filter((text) => !isParticular(text));
  const shown = all ? notJudged : general;
  if (shown.length > 0) lines.push(paint('dim', 'not judged:'), ...shown.map((text) => `  - ${printable(text)}`));
  if (shown.length < notJudged.length) {
    lines.push(`  - ${plural(notJudged.length - shown.length, 'particular')} more (--all shows them)`);
  }
  return lines.join('\n');
}

/** About one section, of which there may be many. */
const isParticular = (text: string) => /^(section|subsection|fields of) /.test(text);

function describeReason(reason: CheckReason, paint: ReturnType<typeof painter>): string[] {
  const { effect, rule, message, advice, place } = reason;
  let where = '';
  if (place !== undefined) {
    where = ` at ${formatHex(place.offset)}`;
    if (place.section !== undefined) where += `, section ${place.section}`;
    if (place.block !== undefined) where += `, block ${place.block}`;
  }
  const line = `${paint(colours[effect], effect)} ${rule}: ${printable(message)}${printable(where)}`;
  return advice === undefined ? [line] : [line, `  → ${printable(advice)}`];
}
