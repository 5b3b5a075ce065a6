/** `vmferry check`: predicts whether a QEMU would load a file. */
import { existsSync } from 'node:fs';
import { type ByteSource, originOf } from '../io/byte-source.ts';
import { peek } from '../io/peeked-source.ts';
import { open, openSource } from '../node.ts';
import { type Check, type CheckTarget, check, checkOf, readTarget } from '../tasks/check/check.ts';
import type { CheckEffect, CheckReason } from '../tasks/check/check-reason.ts';
import { canBeDump, maxDump, parseVmstateDump } from '../tasks/check/vmstate-dump.ts';
import type { CheckJson } from '../tasks/json.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { CliCommand } from './command.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJson } from './json.ts';
import { formatCount, formatHex, painter, plural, printable } from './print/format.ts';

interface CheckOptions extends InputOptions {
  against: string;
  json?: boolean;
  all?: boolean;
  strict?: boolean;
}

export function addCheck(program: CliCommand): CliCommand {
  return addInput(program.command('check'))
    .summary('predict whether a QEMU would load a file')
    .description(
      'Predicts whether a QEMU would load FILE. Compares FILE with what that QEMU can load, or with a file that it saved.',
    )
    .requiredOption(
      '--against <TARGET>',
      "output of the target's -dump-vmstate, or a migration file that the target saved; - for standard input",
    )
    .option('--all', 'also print harmless differences, and everything that was not judged')
    .option('--strict', 'treat doubts as refusals: exit code 1')
    .option('--json', 'print everything as JSON')
    .describe({ notes, exitCodes, json: [{ type: 'CheckJson', when: '--json' }], examples, rules })
    .action(async (location: string, options: CheckOptions) => {
      const target = await openTarget(options.against).catch((error) => {
        if (!(error instanceof MigrationError)) throw error;
        throw new UsageError(`${options.against} cannot be a target: ${error.message}`);
      });
      const result = await withFile('check', location, options, (file) => check(file, target)).catch((error) => {
        // An error in the container of the stream appears when the file is opened.
        if (error instanceof MigrationError) return checkOf(error, target);
        throw error;
      });
      const isAll = options.all === true;
      process.stdout.write(options.json === true ? toJson<CheckJson>(result) : `${describe(result, isAll)}\n`);
      const isFine = result.verdict === 'loads' || (result.verdict === 'doubtful' && options.strict !== true);
      process.exitCode = isFine ? ExitCode.ok : ExitCode.badInput;
    });
}

const notes = [
  'The content of TARGET shows what it is. A dump (qemu-system-x86_64 -M MACHINE -dump-vmstate FILE) lists the states that this QEMU can load, for every device that it could have. A file that the target saved while idle, started with the same arguments, lists the devices, sizes and ids that it has. Each has facts that the other lacks: check against both.',
  'Prints the verdict, the reasons (refused, doubt, needed) with what to do, and what was not judged.',
];

const exitCodes = {
  0: 'FILE should load, perhaps with doubts',
  1: 'FILE would not load, or loads only with doubts and --strict was given',
  2: 'TARGET cannot be read, wrong usage, or the work failed',
};

const examples = [
  'qemu-system-x86_64 -M pc-q35-9.2 -dump-vmstate target.json',
  'vmferry check guest.migration --against target.json',
  'vmferry check guest.migration --against saved-by-target.migration',
  'vmferry check --strict --json guest.migration --against target.json | jq .verdict',
  'qemu-system-x86_64 -M q35 -dump-vmstate /dev/stdout | vmferry check guest.migration --against -',
];

const rules = {
  check([location]: readonly string[], { against }: CheckOptions) {
    if (location === '-' && against === '-') {
      throw new UsageError('expected only one of FILE and --against on standard input');
    }
  },
};

/** Bytes that are enough to distinguish a dump from a stream. A dump may have white space before its first brace. */
const headLength = 64;

async function openTarget(location: string): Promise<CheckTarget> {
  if (location === '-' && process.stdin.isTTY === true) {
    throw new UsageError('expected a dump or a migration file on standard input, got a terminal');
  }
  // A location that is not simply a file (a URL, PATH,offset=N) is not a dump.
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

/** Reads a whole source, at most one byte more than a dump may have. */
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
  const what = against.kind === 'file' ? 'the QEMU that saved' : 'the QEMU of';
  const onMachine = against.machine === undefined ? '' : ` with -M ${against.machine}`;
  const target = `${what} ${against.name}${onMachine}`;
  const blocks = checked.blocks === 0 ? '' : ` and ${plural(checked.blocks, 'RAM block')}`;
  const detail = [...counts, `${plural(checked.sections, 'section')}${blocks} checked`];
  const conditions = verdict === 'loads' ? describeConditions(result.conditions) : '';
  const verdictLine = `${paint(colour, words)} on ${printable(target)}${printable(conditions)} (${detail.join(', ')})`;
  const lines = [`${printable(result.source)}: ${verdictLine}`];
  for (const reason of reasons) if (all || reason.effect !== 'note') lines.push(...describeReason(reason, paint));
  if (result.reasonsOmitted > 0) lines.push(`and ${plural(result.reasonsOmitted, 'more reason')}`);
  const general = notJudged.filter((text) => !isParticular(text));
  const shown = all ? notJudged : general;
  if (shown.length > 0) lines.push(paint('dim', 'not judged:'), ...shown.map((text) => `  - ${printable(text)}`));
  if (shown.length < notJudged.length) {
    lines.push(`  - ${formatCount(notJudged.length - shown.length)} more (--all shows them)`);
  }
  return lines.join('\n');
}

/** The most conditions in the first line. */
const maxConditions = 4;

function describeConditions(conditions: readonly string[]): string {
  if (conditions.length === 0) return '';
  const shown = conditions.slice(0, maxConditions);
  const left = conditions.length - shown.length;
  return `, if ${[...shown, ...(left > 0 ? [`${plural(left, 'more condition')}`] : [])].join('; ')}`;
}

/** Whether a text is about a single section. There may be many of these. */
const isParticular = (text: string) => /^(section|subsection|fields of) /.test(text);

function describeReason(reason: CheckReason, paint: ReturnType<typeof painter>): string[] {
  const { effect, rule, message, advice, place } = reason;
  let where = '';
  if (place !== undefined) {
    where = ` (at ${formatHex(place.offset)}`;
    if (place.section !== undefined) where += `, section ${place.section}`;
    if (place.block !== undefined) where += `, block ${place.block}`;
    where += ')';
  }
  const line = `${paint(colours[effect], effect)} ${rule}: ${printable(message)}${printable(where)}`;
  return advice === undefined ? [line] : [line, `  → ${printable(advice)}`];
}
