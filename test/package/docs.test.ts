/** What the documentation shows is true: its examples run, its commands print what it says they print. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { cliPath } from '../run-cli.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The fenced blocks of a language in a document, with the line that each begins at. */
function fencedBlocks(path: string, language: string): { line: number; code: string }[] {
  const text = readFileSync(join(root, path), 'utf8');
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map((match) => ({
    line: text.slice(0, match.index).split('\n').length,
    code: match[1] as string,
  }));
}

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-docs-'));
  mkdirSync(join(directory, 'node_modules'));
  symlinkSync(root, join(directory, 'node_modules/vmferry'));
  writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
  copyFileSync(fixturePath('pc-xbzrle-10.0.bin'), join(directory, 'guest.migration'));
  const set = 'pc-multifd-zstd-zero-multifd-10.0';
  copyFileSync(fixturePath(`${set}.bin`), join(directory, 'main'));
  for (const i of [0, 1]) copyFileSync(fixturePath(`${set}.channel-${i}.bin`), join(directory, `channel-${i}`));
  mkdirSync(join(directory, 'test'));
  symlinkSync(join(root, 'test/fixtures'), join(directory, 'test/fixtures'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.each(['README.md'])('the examples of %s', (path) => {
  const examples = fencedBlocks(path, 'js');

  it('are there', () => {
    expect(examples).not.toEqual([]);
  });

  it.each(examples)('at line $line runs', ({ line, code }) => {
    const file = join(directory, `example-${line}.js`);
    writeFileSync(file, code);
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], { cwd: directory, encoding: 'utf8' });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    if (code.includes('console.log')) expect(stdout).not.toBe('');
  });
});

it("the commands of README.md's tour print what it says", () => {
  const shown = fencedBlocks('README.md', '(?:console|text)?')
    .flatMap(({ code }) => code.split(/^\$ /m).slice(1))
    .filter((entry) => entry.includes('vmferry '));
  expect(shown.length).toBeGreaterThanOrEqual(3);
  const bin = join(directory, 'vmferry');
  writeFileSync(bin, `#!/bin/sh\nexec ${process.execPath} ${cliPath} "$@"\n`, { mode: 0o755 });
  for (const entry of shown) {
    const [command = '', ...lines] = entry.trimEnd().split('\n');
    const { stdout, stderr } = spawnSync('bash', ['-c', command], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, PATH: `${directory}:${process.env.PATH}` },
    });
    expect(`${stdout}${stderr}`.trimEnd().split('\n'), command).toEqual(lines);
  }
});
