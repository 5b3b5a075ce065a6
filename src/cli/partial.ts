/** The option --partial, and what the commands that have it say about missing memory. */
import type { MissingPages, MissingRam } from '../store/missing-ram.ts';
import type { MissingJson } from '../tasks/json.ts';
import { formatPlace } from '../vm/migration-error.ts';
import type { CliCommand } from './command.ts';
import { ExitCode } from './exit-codes.ts';
import { warn } from './messages.ts';
import { formatBytes, formatCount, formatHex, plural } from './print/format.ts';

/** The option as a command has it. */
export interface PartialOption {
  partial?: boolean;
}

/** Gives a command the option. `what` it does with missing memory. */
export function addPartial(command: CliCommand, what: string): CliCommand {
  return command.option(
    '--partial',
    `take what an incomplete or damaged file has, and list what is missing; ${what}, and the exit code is not 0`,
  );
}

/** The most ranges of a block in a warning. */
const shownRanges = 4;

function describePages({ block, pages, bytes, ranges, rangesOmitted }: MissingPages): string {
  const shown = ranges.slice(0, shownRanges).map(({ offset, length }) => {
    return `${formatHex(offset)} to ${formatHex(offset + length - 1)}`;
  });
  const more = ranges.length - shown.length + rangesOmitted;
  const rest = more > 0 ? ` and ${formatCount(more)} more ranges` : '';
  return `missing: ${plural(pages, 'page')} of ${block}, ${formatBytes(bytes)}: ${shown.join(', ')}${rest}`;
}

/**
 * Warns of what is missing, and makes `exitCode` the exit code. Does nothing if nothing is missing. `of` names the file
 * if there are several.
 */
export function reportMissing(missing: MissingRam | undefined, exitCode: number = ExitCode.badInput, of = ''): void {
  if (missing === undefined) return;
  for (const { message, code, place } of missing.evidence) warn(`${of}${message} [${code}] in ${formatPlace(place)}`);
  for (const pages of missing.blocks) warn(`${of}${describePages(pages)}`);
  process.exitCode = exitCode;
}

/** What is missing, for JSON. */
export function missingFacts(missing: MissingRam | undefined): { missing?: MissingJson } {
  return missing === undefined ? {} : { missing: { evidence: [...missing.evidence], blocks: [...missing.blocks] } };
}
