/** `vmferry search`: finds bytes, text or a regular expression in RAM. */
import { readFileSync, realpathSync } from 'node:fs';
import { accessing } from '../io/node/file-error.ts';
import { openScratch } from '../io/node/output-file.ts';
import type { MigrationFile } from '../read/open.ts';
import type { ContentPlan } from '../store/content-plan.ts';
import type { MissingRam } from '../store/missing-ram.ts';
import type { AddressSpace } from '../tasks/addresses/address-space.ts';
import { type AddressMatch, searchSpace } from '../tasks/addresses/search-space.ts';
import type { SearchCountJson, SearchJson, SearchMissingJson } from '../tasks/json.ts';
import { hexPattern, type SearchPattern, textPattern } from '../tasks/search/pattern.ts';
import { countMatches, type Match, search } from '../tasks/search/search.ts';
import { MigrationError } from '../vm/migration-error.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import { asciiBytes, hexBytes } from '../words/hex-dump.ts';
import {
  type AddressFlags,
  addAddressOptions,
  addressKind,
  addressNotes,
  addressRules,
  formatAddress,
  openAddresses,
} from './address-space.ts';
import type { CliCommand } from './command.ts';
import { ExitCode, UsageError } from './exit-codes.ts';
import { requireBlock } from './extract.ts';
import { addInput, type InputOptions, withFile } from './input.ts';
import { toJsonLine } from './json.ts';
import { note, reportError } from './messages.ts';
import { addPartial, missingFacts, type PartialOption, reportMissing } from './partial.ts';
import { painter, printable } from './print/format.ts';
import { hideProgress } from './progress.ts';
import { writeOut } from './run.ts';
import { scratchOption } from './scratch.ts';
import { parseCount, parseSize } from './size.ts';

interface SearchOptions extends InputOptions, PartialOption, AddressFlags {
  hex?: boolean;
  regex?: boolean;
  utf16?: boolean;
  ignoreCase?: boolean;
  file?: string;
  block?: string;
  context: number;
  count?: boolean;
  max?: number;
  json?: boolean;
  scratch: string;
}

export function addSearch(program: CliCommand): CliCommand {
  const command = addInput(program.command('search'))
    .summary('find bytes, text or a regular expression in RAM')
    .description("Finds bytes, text or a regular expression in RAM's final content.")
    .argument('[PATTERN]', 'text, unless an option says otherwise')
    .option('--hex', 'PATTERN is bytes such as "de ad ?? ef"; ? stands for any digit')
    .option('--regex', 'PATTERN is a JavaScript regular expression over bytes; \\xNN is a byte')
    .option('--utf16', 'PATTERN is text as UTF-16LE, as in Windows guests; by default text is UTF-8')
    .option('-i, --ignore-case', 'letters match in either case: ASCII letters in text, Latin-1 letters in a regex')
    .option('-f, --file <PATTERNS>', 'read the patterns from a file, one per line, at most 1,000')
    .option('--block <IDSTR>', 'search only this RAM block')
    .option('-C, --context <N>', 'show N more bytes before and after', parseSize, 0)
    .option('--count', 'print the number of matches, not the matches')
    .option('--max <N>', 'stop after N matches', parseCount)
    .addOption(scratchOption('where to keep RAM that cannot be searched in place'))
    .option('--json', 'print each match as JSON, one per line');
  addAddressOptions(command, 'search by addresses that are');
  return addPartial(command, 'it is not searched')
    .describe({ notes, exitCodes, json, examples, rules })
    .action(async (location: string, pattern: string | undefined, options: SearchOptions) => {
      const patterns = readPatterns(pattern, options).map((text) => toPattern(text, options));
      try {
        await withFile('search', location, options, (file) => {
          const kind = addressKind(options);
          return kind === undefined ? run(file, patterns, options) : runAddresses(file, kind, patterns, options);
        });
      } catch (error) {
        if (!(error instanceof MigrationError)) throw error;
        process.exitCode = reportError(error, ExitCode.trouble);
      }
    });
}

const notes = [
  'Prints a line per match: its block, its offset in the block, and the 16 bytes from that offset on, as hex and ASCII. A longer match shows up to 64 bytes as ASCII.',
  'Blocks are searched in the order of the file, from first byte to last. A match lies within one block and can cross pages. Matches of one pattern do not overlap. Zero pages and pages that were never sent count as zeros.',
  'With --physical and --virtual, matches are shown with their addresses, in that order, and lie in contiguous addresses.',
  ...addressNotes,
  'A regular expression matches at most 4,096 bytes, and can look back 4,096 bytes before a match. ^ and $ match at the start and end of each line.',
  'The whole file is read and checked before its content is searched in place. If it is compressed, or from a pipe, RAM goes to a scratch file first.',
];

/** As with grep(1): 0 something was found, 1 nothing was found, 2 any trouble. */
const notFoundCode = 1;

const exitCodes = {
  0: 'something was found',
  1: 'nothing was found',
  2: 'trouble: a bad file, wrong usage, or the work failed (as with grep(1))',
};

const json = [
  { type: 'SearchJson', when: '--json: one line for each match' },
  { type: 'SearchCountJson', when: '--count --json' },
];

const examples = [
  "vmferry search guest.migration 'BUG: unable to handle'",
  "vmferry search guest.migration --hex '7f 45 4c 46 02 01'",
  "vmferry search guest.migration --regex 'root:[^:\\n]*:\\d+' --block pc.ram",
  'vmferry search guest.migration --utf16 -i password --context 32',
  "vmferry search guest.migration --json 'Linux version' | jq .offset",
  "vmferry search guest.migration --virtual 'Linux version'",
];

const rules = {
  ...addressRules,
  excludes: { '--count': ['--context'] },
  check([, pattern]: readonly string[], { file, hex, regex, utf16, ignoreCase, count, max }: SearchOptions) {
    if (Number(hex ?? 0) + Number(regex ?? 0) + Number(utf16 ?? 0) > 1) {
      throw new UsageError('expected one of --hex, --regex and --utf16, got several');
    }
    if (count === true && max !== undefined) throw new UsageError('expected either --count or --max, got both');
    if (hex === true && ignoreCase === true) {
      throw new UsageError('expected --ignore-case with text or --regex, got --hex');
    }
    if (pattern !== undefined && file !== undefined) throw new UsageError('expected PATTERN or --file, got both');
    if (pattern === undefined && file === undefined) throw new UsageError('expected a PATTERN, or --file PATTERNS');
  },
};

function readPatterns(pattern: string | undefined, { file }: SearchOptions): string[] {
  if (pattern !== undefined) return [pattern];
  const path = file === '-' ? 'standard input' : file;
  const access = { verb: 'read' as const, ...(path === undefined ? {} : { path }) };
  const lines = accessing(access, () => readFileSync(file === '-' ? 0 : (file as string), 'utf8')).split(/\r?\n/);
  const patterns = lines.filter((line) => line !== '');
  if (patterns.length === 0) throw new UsageError(`expected patterns in ${file}, got none`);
  return patterns;
}

function toPattern(text: string, { hex, regex, utf16, ignoreCase = false }: SearchOptions): SearchPattern {
  try {
    if (hex === true) return hexPattern(text);
    if (regex === true) return new RegExp(text, ignoreCase ? 'im' : 'm');
    return textPattern(text, { encoding: utf16 === true ? 'utf-16le' : 'utf-8', ignoreCase });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function run(file: MigrationFile, patterns: SearchPattern[], options: SearchOptions): Promise<void> {
  const { block: wanted, context, max = Number.POSITIVE_INFINITY } = options;
  let blocks: readonly RamBlock[] = [];
  let plan: ContentPlan | undefined;
  let missing: MissingRam | undefined;
  // A stream without a RAM section does not even have a list of blocks.
  const requireWanted = () => (wanted === undefined ? undefined : requireBlock(wanted, blocks));
  const searching = {
    makeScratch: () => openScratch(realpathSync(options.scratch)),
    only: ({ idstr }: RamBlock) => wanted === undefined || idstr === wanted,
    endBlocks(all: readonly RamBlock[]) {
      blocks = all;
      requireWanted();
    },
    notePlan: (planned: ContentPlan) => {
      plan = planned;
    },
    partial: options.partial === true,
    noteMissing: (lacks: MissingRam) => {
      missing = lacks;
    },
    toText,
  };
  if (options.count === true) {
    const count = await countMatches(file, patterns, searching);
    requireWanted();
    await printCount(count, plan, missing, options);
    return;
  }
  const describe = options.json === true ? jsonLines(options) : textLines(context, () => blocks);
  const matches = search(file, patterns, { ...searching, before: context, after: context + shown.hex });
  const count = await printMatches(matches, describe, max);
  requireWanted();
  await finish(count, missing, options);
}

/** Searches by address. */
async function runAddresses(
  file: MigrationFile,
  kind: AddressSpace['kind'],
  patterns: SearchPattern[],
  options: SearchOptions,
): Promise<void> {
  const { context, max = Number.POSITIVE_INFINITY, count: onlyCount = false, json: isJson = false } = options;
  const space = await openAddresses(file, kind, options);
  try {
    const around = onlyCount ? {} : { before: context, after: context + shown.hex };
    const matches = searchSpace(space, patterns, { ...around, toText });
    if (onlyCount) {
      let count = 0;
      for await (const _ of matches) count++;
      await printCount(count, space.plan, space.missing, options);
      return;
    }
    const describe = isJson ? jsonLines(options) : textLines(context, () => []);
    await finish(await printMatches(byPlace(matches), describe, max), space.missing, options);
  } finally {
    await space.close();
  }
}

async function* byPlace(matches: AsyncIterable<AddressMatch>): AsyncGenerator<ShownMatch, void> {
  for await (const { place, ...match } of matches) yield { ...match, ...place };
}

const toText = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');

/** A match, with its address if it was searched by address. */
type ShownMatch = Match & { address?: bigint };

async function printMatches(
  matches: AsyncIterable<ShownMatch>,
  describe: (match: ShownMatch) => string,
  max: number,
): Promise<number> {
  const out = new LineWriter();
  let count = 0;
  for await (const match of matches) {
    count++;
    await out.write(describe(match));
    if (count === max) break;
  }
  await out.flush();
  return count;
}

async function printCount(
  count: number,
  plan: ContentPlan | undefined,
  missing: MissingRam | undefined,
  { json: isJson }: SearchOptions,
): Promise<void> {
  const facts = { count, ...(plan === undefined ? {} : { plan }), ...missingFacts(missing) };
  await writeOut(isJson === true ? toJsonLine<SearchCountJson>(facts) : `${count}\n`);
  process.exitCode = count === 0 ? notFoundCode : ExitCode.ok;
  reportMissing(missing, ExitCode.trouble);
}

async function finish(count: number, missing: MissingRam | undefined, options: SearchOptions): Promise<void> {
  const { max, json: isJson } = options;
  if (count === 0) note('no match');
  if (count === max) note(`stopped at --max ${max}`);
  if (missing !== undefined && isJson === true) {
    const { evidence, blocks } = missing;
    await writeOut(toJsonLine<SearchMissingJson>({ missing: { evidence: [...evidence], blocks: [...blocks] } }));
  }
  process.exitCode = count === 0 ? notFoundCode : ExitCode.ok;
  reportMissing(missing, ExitCode.trouble);
}

/** Bytes shown from the beginning of a match: always this many as hex, and of a longer match this many as ASCII. */
const shown = { hex: 16, ascii: 64 };

function textLines(context: number, allBlocks: () => readonly RamBlock[]): (match: ShownMatch) => string {
  const paint = painter(process.stdout);
  let widths: { name: number; offset: number } | undefined;
  return ({ block, offset, bytes, before, after, address }) => {
    widths ??= {
      name: Math.max(...allBlocks().map(({ idstr }) => printable(idstr).length)),
      offset: Math.max(8, ...allBlocks().map(({ usedLength }) => usedLength.toString(16).length)),
    };
    const isLong = bytes.length > shown.hex;
    const rest = after.subarray(0, isLong ? 0 : shown.hex - bytes.length + context);
    const hex = [hexBytes(before), paint('red', hexBytes(bytes.subarray(0, shown.hex))), hexBytes(rest)];
    const ascii = [asciiBytes(before), paint('red', asciiBytes(bytes.subarray(0, shown.ascii))), asciiBytes(rest)];
    const at =
      address === undefined
        ? `${printable(block.idstr).padEnd(widths.name)}  0x${offset.toString(16).padStart(widths.offset, '0')}`
        : formatAddress(address);
    return `${at}  ${hex.join(' ').trim()}  |${ascii.join('')}|\n`;
  };
}

function jsonLines({ context, file }: SearchOptions): (match: ShownMatch) => string {
  const hex = (part: Uint8Array) => Buffer.from(part).toString('hex');
  return ({ block, offset, bytes, before, after, pattern, address }) => {
    const at = address === undefined ? {} : { address: formatAddress(address) };
    const facts = { ...at, block: block.idstr, offset, length: bytes.length, hex: hex(bytes) };
    const around = context > 0 ? { before: hex(before), after: hex(after.subarray(0, context)) } : {};
    return toJsonLine<SearchJson>({ ...facts, ...around, ...(file === undefined ? {} : { pattern }) });
  };
}

/** How long a line may wait, so that several are written at once. */
const lingerMs = 50;

/** Writes many lines at a time. */
class LineWriter {
  #text = '';
  #timer: NodeJS.Timeout | undefined;

  async write(line: string): Promise<void> {
    this.#text += line;
    if (this.#text.length > 64 * 1024) await this.flush();
    else this.#timer ??= setTimeout(() => void this.flush(), lingerMs);
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const text = this.#text;
    this.#text = '';
    if (text === '') return;
    hideProgress();
    await writeOut(text);
  }
}
