/** What a code means, what usually causes it and what to do: the table of docs/findings.md, which is bundled as it is. */
import text from '../../../docs/findings.md?raw';

export interface FindingHelp {
  meaning: string;
  cause: string;
  remedy: string;
}

const help = new Map<string, FindingHelp>();
for (const line of text.split('\n')) {
  const [, code, , meaning, cause, remedy] = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
  if (code?.startsWith('`') !== true || meaning === undefined || cause === undefined || remedy === undefined) continue;
  help.set(code.replaceAll('`', ''), { meaning, cause, remedy });
}

/** Rows that say "as above" mean the row before them that does not. */
let above = '';
for (const row of help.values()) {
  if (row.remedy === 'as above') row.remedy = above;
  else above = row.remedy;
}

export function helpFor(code: string): FindingHelp | undefined {
  return help.get(code);
}

/** Text of the table without its Markdown: code marks and links. */
export function plainText(markdown: string): string {
  return markdown.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replaceAll('`', '');
}
