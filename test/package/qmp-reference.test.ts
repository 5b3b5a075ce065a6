/** docs/qmp.md and the types of the client equal what the schema generates. `npm run docs:qmp` writes them. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { qmpMarkdown } from '../../scripts/qmp-reference.ts';
import { qmpTypeFiles } from '../../scripts/qmp-types.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The committed file. With VMFERRY_WRITE_DOCS=1 the test writes it first. */
function committed(name: string, made: string): string {
  const path = `${root}${name}`;
  if (process.env.VMFERRY_WRITE_DOCS === '1') {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, made);
  }
  return readFileSync(path, 'utf8');
}

/** As `npm run format` leaves it. */
function formatted(path: string, text: string): string {
  const biome = `${root}node_modules/@biomejs/biome/bin/biome`;
  const args = [biome, 'format', `--stdin-file-path=${path}`];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { cwd: root, input: text, encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return stdout;
}

it.each(Object.entries(qmpTypeFiles()))('%s is up to date (npm run docs:qmp)', (path, text) => {
  const made = formatted(path, text);
  expect(committed(path, made)).toBe(made);
});

it('docs/qmp.md is up to date (npm run docs:qmp)', () => {
  const made = qmpMarkdown();
  expect(committed('docs/qmp.md', made)).toBe(made);
});
