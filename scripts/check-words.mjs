/**
 * Fails if a document, comment, message or test title uses wording that scripts/banned-words.mjs lists.
 *
 *     node scripts/check-words.mjs [FILE...]
 *
 * Without FILE it checks the whole project.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { bannedWords } from './banned-words.mjs';

const root = join(import.meta.dirname, '..');
const places = [
  'README.md',
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  '.ci',
  'assembly',
  'bench',
  'docs',
  'scripts',
  'src',
  'test',
];

/**
 * Joins lines into sentences, so that phrases may wrap: the comment, quotation or list prefix of each line becomes one
 * space.
 */
function unwrap(text) {
  const starts = [];
  let plain = '';
  for (const [index, line] of text.split('\n').entries()) {
    starts.push({ at: plain.length, line: index + 1 });
    plain += `${line.replace(/^\s*(?:\/\*\*|\*\/|\*(?!\*)|\/\/|#+|>|\|)?\s*/, '').trimEnd()} `;
  }
  const lineOf = (at) => starts.findLast((start) => start.at <= at).line;
  return { plain, lineOf };
}

/** The banned wording in a text, one line of report each. */
function findBannedWords(path, text) {
  const { plain, lineOf } = unwrap(text);
  return bannedWords.flatMap(({ pattern, instead }) =>
    [...plain.matchAll(pattern)].map(
      ({ index, 0: words }) =>
        `${path}:${lineOf(index)}: "${plain.slice(Math.max(0, index - 20), index + words.length + 20).trim()}": instead of "${words}" write ${instead}`,
    ),
  );
}

/** The text files in this folder, or the file itself. */
function listTexts(place) {
  const path = join(root, place);
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { recursive: true })
    .filter((name) => /\.(?:c|h|html|md|mjs|sh|s|ts|tsx)$|^run$/i.test(name))
    .map((name) => join(path, name))
    .filter((name) => statSync(name).isFile());
}

const given = process.argv.slice(2);
const paths =
  given.length > 0 ? given : places.flatMap(listTexts).map((path) => relative(root, path).replaceAll(sep, '/'));
const found = paths
  .filter((path) => path !== 'scripts/banned-words.mjs' && !path.startsWith('bench/build/'))
  .flatMap((path) => findBannedWords(path, readFileSync(resolve(root, path), 'utf8')));
for (const line of found) process.stderr.write(`${line}\n`);
if (found.length > 0) process.stderr.write(`${found.length} in all\n`);
process.exitCode = found.length === 0 ? 0 : 1;
