/**
 * Fails if a function in src/ is longer than 70 lines, from its first line to its last. Unlike the linter's rule, it
 * also counts the lines of comments, help texts and markup.
 *
 *     node scripts/check-function-lines.mjs [FILE...]
 *
 * Without FILE it checks src/.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import ts from 'typescript';

const maxLines = 70;

/** Files with a hot loop, where extra calls would cost time. */
const hotLoops = new Set(['src/wire/ram-record.ts']);

/** The functions of a source file that are too long, one line of text each. */
function findLongFunctions(path, text) {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const found = [];
  const lineOf = (offset) => source.getLineAndCharacterOfPosition(offset).line + 1;
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body !== undefined) {
      const first = lineOf(node.getStart());
      const lines = lineOf(node.getEnd()) - first + 1;
      const name = node.name?.getText() ?? 'function without a name';
      if (lines > maxLines) found.push(`${path}:${first}: ${name} has ${lines} lines; the limit is ${maxLines}`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

const root = join(import.meta.dirname, '..');
const given = process.argv.slice(2);
const paths =
  given.length > 0
    ? given
    : readdirSync(join(root, 'src'), { recursive: true })
        .filter((name) => /\.tsx?$/.test(name))
        .map((name) => join('src', name).replaceAll(sep, '/'))
        .filter((path) => !hotLoops.has(path));
const found = paths.flatMap((path) => findLongFunctions(path, readFileSync(resolve(root, path), 'utf8')));
for (const line of found) process.stderr.write(`${line}\n`);
process.exitCode = found.length === 0 ? 0 : 1;
