/**
 * The documentation is correct: its examples run, its commands print the output that it shows, and its links lead
 * somewhere.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { cliPath } from '../run-cli.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

/** The pages that show how to use vmferry, and all documents. */
const pages = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)].filter((path) =>
  path.endsWith('.md'),
);
const documents = [
  ...pages,
  ...readdirSync(join(root, 'docs/formats')).map((name) => `docs/formats/${name}`),
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  'THIRD-PARTY.md',
  'samples/README.md',
  'bench/README.md',
];

interface FencedBlock {
  /** The number of its first line. */
  line: number;
  language: string;
  code: string;
}

/** A document's fenced blocks. */
function fencedBlocks(text: string): FencedBlock[] {
  const blocks: FencedBlock[] = [];
  let open: FencedBlock | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    if (!line.startsWith('```')) {
      if (open !== undefined) open.code += `${line}\n`;
    } else if (open === undefined) {
      open = { line: index + 2, language: line.slice(3).trim(), code: '' };
    } else {
      blocks.push(open);
      open = undefined;
    }
  }
  return blocks;
}

const blocksOf = (path: string, language: string) =>
  fencedBlocks(read(path)).filter((block) => block.language === language);

/** Commands, each with the output that a page shows. */
const transcriptsOf = (path: string) =>
  blocksOf(path, 'console')
    .flatMap(({ code }) => code.split(/^\$ /m).slice(1))
    .map((entry) => {
      const [command = '', ...lines] = entry.trimEnd().split('\n');
      return { command, lines };
    });

const readmeExamples = blocksOf('README.md', 'js');
const withCommands = pages.filter((path) => transcriptsOf(path).length > 0);

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-docs-'));
  mkdirSync(join(directory, 'node_modules'));
  symlinkSync(root, join(directory, 'node_modules/vmferry'));
  writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
  writeFileSync(join(directory, 'vmferry'), `#!/bin/sh\nexec ${process.execPath} ${cliPath} "$@"\n`, { mode: 0o755 });
  copyFileSync(fixturePath('pc-xbzrle-10.0.bin'), join(directory, 'guest.migration'));
  mkdirSync(join(directory, 'test'));
  symlinkSync(join(root, 'test/fixtures'), join(directory, 'test/fixtures'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

it('examples and commands exist where they are expected', () => {
  expect(readmeExamples).toHaveLength(1);
  expect(withCommands).toEqual(
    expect.arrayContaining([
      'README.md',
      'docs/check.md',
      'docs/compare.md',
      'docs/convert.md',
      'docs/devices.md',
      'docs/estimate.md',
      'docs/extract.md',
      'docs/inspect-and-verify.md',
      'docs/search-and-read.md',
      'docs/several-files.md',
    ]),
  );
});

// library-guide.test.ts runs the examples of docs/library.md.
it.each(readmeExamples)('the example of README.md at line $line runs', ({ line, code }) => {
  const file = join(directory, `example-${line}.js`);
  writeFileSync(file, code);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], { cwd: directory, encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).not.toBe('');
});

describe.each(withCommands)('the commands of %s', (path) => {
  it.each(transcriptsOf(path))('$command', ({ command, lines }) => {
    const { stdout, stderr } = spawnSync('bash', ['-c', command], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, PATH: `${directory}:${process.env.PATH}` },
    });
    expect(`${stdout}${stderr}`.trimEnd().split('\n')).toEqual(lines);
  });
});

it('every console block begins with a command', () => {
  for (const path of pages) {
    for (const { line, code } of blocksOf(path, 'console')) expect(code, `${path}:${line}`).toMatch(/^\$ /);
  }
});

it('README.md has at most 200 lines', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(200);
});

/** The anchor that GitHub gives to a heading. */
const anchorOf = (heading: string) =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');

/** The anchors of all headings; lines of code that begin with # are not headings. */
const anchorsOf = (text: string) =>
  new Set([...text.replace(/^```.*?^```$/gms, '').matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading!)));

it.each(documents)('the links of %s lead to files and headings that exist', (path) => {
  for (const [link, target = '', anchor] of read(path).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g)) {
    const file = target === '' ? path : join(dirname(path), target);
    expect(existsSync(join(root, file)), `${link} in ${path}`).toBe(true);
    if (anchor !== undefined) expect(anchorsOf(read(file)), `${link} in ${path}`).toContain(anchor);
  }
});
