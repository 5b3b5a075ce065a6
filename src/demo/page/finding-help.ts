/**
 * Explains the codes of findings: what a code means, and its usual cause. The texts are the table of docs/findings.md, which is
 * bundled as it is. Where the table speaks of commands and their options, the page has its own text. What to do about a finding is
 * in remedies.ts.
 */
import text from '../../../docs/findings.md?raw';
import type { FindingCode } from '../../vm/migration-error.ts';

interface FindingHelp {
  meaning: string;
  cause: string;
}

/** The texts of the page, which replace those of the table. */
const ofThePage: Partial<Record<FindingCode, Partial<FindingHelp>>> = {
  'mismatched-source': {
    cause: 'files mixed up or in the wrong order; a recovery of a stream that does not break off',
  },
  'changes-only': {
    meaning: 'a file that holds only the pages that changed since its base. No QEMU loads it',
  },
  'bad-changes': {
    meaning: 'a file of changes that is damaged, or that does not belong to the base',
  },
  'wrong-base': {
    meaning: 'the content of the base differs from the content that the changes were made from',
  },
  'marked-incomplete': {
    meaning:
      'vmferry made the file from an incomplete one, and its VM description says what it lacks. QEMU loads it nevertheless',
  },
  unsupported: {
    meaning:
      'valid, but this version cannot decode it: pages in multifd channels that are missing; pages compressed with qatzip; device states in multifd packets (VFIO). When saving: content that the other format cannot hold',
  },
};

const help = new Map<string, FindingHelp>();
for (const line of text.split('\n')) {
  const [, code, , meaning, cause] = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
  if (code?.startsWith('`') !== true || meaning === undefined || cause === undefined) continue;
  const name = code.replaceAll('`', '');
  help.set(name, { meaning, cause, ...ofThePage[name as FindingCode] });
}

/** Undefined for an unknown code. */
export function helpFor(code: string): FindingHelp | undefined {
  return help.get(code);
}

/** The text of the table without its Markdown: code marks and links. */
export function plainText(markdown: string): string {
  return markdown.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replaceAll('`', '');
}
