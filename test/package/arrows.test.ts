/** The linter refuses what the rooms of ARCHITECTURE.md forbid: fails if the rules in biome.json do not work. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));

const forbidden = [
  ['src/kernel/a.ts', "import '../wire/stream.ts';"],
  ['src/schema/a.ts', "import '../vm/flow.ts';"],
  ['src/vm/a.ts', "import '../io/byte-source.ts';"],
  ['src/wire/a.ts', "import '../file/open.ts';"],
  ['src/wire/b.ts', "import '../index.ts';"],
  ['src/wire/c.ts', "import 'node:fs';"],
  ['src/wire/d.ts', 'export const now = Date.now();'],
  ['src/io/a.ts', "import '../file/open.ts';"],
  ['src/io/b.ts', "import './node/file.ts';"],
  ['src/io/c.ts', "import 'node:fs';"],
  ['src/file/a.ts', "import '../io/node/file.ts';"],
  ['src/file/b.ts', "import '../cli/run.ts';"],
  ['src/file/c.ts', "import 'commander';"],
  ['src/index.ts', "import './io/node/file.ts';"],
  ['src/words/a.ts', "import '../io/node/file.ts';"],
  ['src/demo/a.ts', "import 'node:fs';"],
  ['src/demo/b.ts', "import '../io/node/file.ts';"],
  ['src/file/d.ts', "import '../demo/engine.ts';"],
  ['src/cli/a.ts', "import '../demo/engine.ts';"],
] as const;

const allowed = [
  ['src/vm/z.ts', "import '../kernel/index.ts';"],
  ['src/wire/z.ts', "import '../vm/flow.ts';"],
  ['src/io/node/z.ts', "import 'node:fs';\nimport '../byte-source.ts';"],
  ['src/file/z.ts', "import '../io/byte-source.ts';"],
  ['src/demo/z.ts', "import '../index.ts';\nimport '../file/open.ts';\nimport '../words/format.ts';"],
  ['src/cli/z.ts', "import 'node:fs';\nimport '../node.ts';"],
] as const;

it('the linter refuses arrows that point up, and Node where it is not there', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vmferry-arrows-'));
  try {
    copyFileSync(join(root, 'biome.json'), join(directory, 'biome.json'));
    for (const [path, code] of [...forbidden, ...allowed]) {
      mkdirSync(join(directory, dirname(path)), { recursive: true });
      writeFileSync(join(directory, path), `${code}\n`);
    }
    const biome = join(root, 'node_modules/@biomejs/biome/bin/biome');
    const args = [biome, 'lint', '--vcs-enabled=false', '--colors=off', '--max-diagnostics=none', '.'];
    const { stdout, stderr, status } = spawnSync(process.execPath, args, { cwd: directory, encoding: 'utf8' });
    expect(status).toBe(1);
    const refused = (stdout + stderr).matchAll(/^(\S+\.ts):\d+:\d+ lint\/\w+\/(?:noRestricted\w+|noNodejsModules)/gm);
    expect([...new Set([...refused].map(([, path]) => path))].sort()).toEqual(forbidden.map(([path]) => path).sort());
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
