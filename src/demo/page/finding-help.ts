/**
 * Explains the codes of findings: what a code means, its usual cause, and what to do. The texts are the table of
 * docs/findings.md, which is bundled as it is. Where the table speaks of commands and their options, the page has its own text.
 */
import text from '../../../docs/findings.md?raw';
import type { FindingCode } from '../../vm/migration-error.ts';

interface FindingHelp {
  meaning: string;
  cause: string;
  remedy: string;
}

const lastSection = { remedy: 'Look at the last section in the list of sections.' };
const thatSection = { remedy: 'Look at that section in the list of sections.' };

/** The texts of the page, which replace those of the table. */
const ofThePage: Partial<Record<FindingCode, Partial<FindingHelp>>> = {
  'not-a-migration-stream': {
    remedy:
      'If the stream does not begin at the start of the file, enter its offset. Open a channel or recovery together with its main stream.',
  },
  truncated: { remedy: 'Compare the size of the file with the original. The page shows what was read up to there.' },
  'unknown-section-type': lastSection,
  'bad-section': lastSection,
  'bad-footer': thatSection,
  'bad-command': lastSection,
  'bad-package': lastSection,
  'bad-device-section': lastSection,
  'bad-iterable': lastSection,
  'bad-block-list': { remedy: 'Compare the file with the original.' },
  'bad-channel': { remedy: 'Choose every channel of the migration once, together with the main stream.' },
  'pages-lost': { remedy: 'Open the capture of the preempt channel together with the stream.' },
  'mismatched-source': {
    cause: 'files mixed up or in the wrong order; a recovery of a stream that does not break off',
    remedy: 'Open each file alone to see what it is. Then open the files that belong together.',
  },
  'changes-only': {
    meaning:
      'a file that holds only the pages that changed since its base. No QEMU loads it. The page cannot show the content of its RAM',
    remedy: 'Merge the file with its base on the vmferry command line, and open the result.',
  },
  'bad-changes': {
    meaning: 'a file of changes that is damaged, or that does not belong to the base',
    remedy: 'Make the file of changes again.',
  },
  'wrong-base': {
    meaning: 'the content of the base differs from the content that the changes were made from',
    remedy: 'Find the base whose id the summary of the file of changes states.',
  },
  'bad-libvirt-header': {
    remedy: 'If you know the offset of the stream, read the stream alone with the vmferry command line.',
  },
  'incomplete-save': {
    remedy:
      'If the stream in the image is complete, read it alone with the vmferry command line, at the offset in the message.',
  },
  'bad-compression': { remedy: 'The page shows what could be decompressed before the damage.' },
  unsupported: {
    meaning:
      'valid, but this version cannot decode it: pages in multifd channels that are missing; pages compressed with qatzip; device states in multifd packets (VFIO). When saving: content that the other format cannot hold',
    remedy: 'Open the multifd channels together with the main stream.',
  },
};

const help = new Map<string, FindingHelp>();
for (const line of text.split('\n')) {
  const [, code, , meaning, cause, remedy] = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
  if (code?.startsWith('`') !== true || meaning === undefined || cause === undefined || remedy === undefined) continue;
  const name = code.replaceAll('`', '');
  help.set(name, { meaning, cause, remedy, ...ofThePage[name as FindingCode] });
}

/** Undefined for an unknown code. */
export function helpFor(code: string): FindingHelp | undefined {
  return help.get(code);
}

/** The text of the table without its Markdown: code marks and links. */
export function plainText(markdown: string): string {
  return markdown.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replaceAll('`', '');
}
