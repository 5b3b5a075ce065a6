/** The linter refuses what the rooms of ARCHITECTURE.md forbid: fails if the rules in biome.json do not work. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The rooms from the bottom up, and the lower rooms that each may use. */
const ground = ['kernel', 'schema'];
const below: Record<string, string[]> = { kernel: [], schema: [], vm: ground };
below.io = [...ground, 'vm'];
below.devices = [...ground, 'vm'];
below.wire = [...below.devices, 'devices'];
below.guest = [...below.io, 'io'];
below.read = [...below.wire, 'wire', 'io'];
below.store = [...below.read, 'read'];
below.write = [...below.store, 'store'];
below.tasks = [...below.write, 'write'];
below.migrate = [...below.write, 'write'];
below.qmp = [...below.migrate, 'migrate'];
below.words = [...below.tasks, 'tasks', 'migrate'];
below.demo = [...below.words, 'words', 'qmp', 'guest'];
below.cli = below.demo;
const rooms = Object.keys(below);

/** One file for each arrow from a room to another. */
const arrows = rooms.flatMap((from) => rooms.filter((to) => to !== from).map((to) => ({ from, to })));
const arrowFile = ({ from, to }: { from: string; to: string }) =>
  [`src/${from}/to-${to}.ts`, `import '../${to}/a.ts';`] as const;
const isDown = ({ from, to }: { from: string; to: string }) => below[from]!.includes(to);

const portable = rooms.filter((room) => room !== 'cli' && room !== 'demo');
const forbidden = [
  ...arrows.filter((arrow) => !isDown(arrow)).map(arrowFile),
  ...portable.map((room) => [`src/${room}/to-index.ts`, "import '../index.ts';"] as const),
  ...portable.map((room) => [`src/${room}/to-node-modules.ts`, "import 'node:fs';"] as const),
  ...portable.map((room) => [`src/${room}/to-commander.ts`, "import 'commander';"] as const),
  ...portable
    .filter((room) => room !== 'io')
    .map((room) => [`src/${room}/to-io-node.ts`, "import '../io/node/file.ts';"] as const),
  ...portable
    .filter((room) => room !== 'io')
    .map((room) => [`src/${room}/now.ts`, 'export const now = Date.now();'] as const),
  ['src/tasks/extract/up.ts', "import '../../index.ts';"],
  ['src/tasks/extract/words.ts', "import '../../words/format.ts';"],
  ['src/read/container/up.ts', "import '../../store/settle.ts';"],
  ['src/io/to-node.ts', "import './node/file.ts';"],
  ['src/io/node/up.ts', "import '../../read/open.ts';"],
  ['src/index.ts', "import './io/node/file.ts';"],
  ['src/demo/page/up.ts', "import '../../node.ts';"],
  ['src/demo/to-node-modules.ts', "import 'node:fs';"],
  ['src/demo/to-io-node.ts', "import '../io/node/file.ts';"],
] as const;

const allowed = [
  ...arrows.filter(isDown).map(arrowFile),
  ['src/io/node/z.ts', "import 'node:fs';\nimport '../byte-source.ts';"],
  ['src/tasks/convert/z.ts', "import '../inspect/verify.ts';\nimport '../../write/write-stream.ts';"],
  ['src/demo/page/components/z.ts', "import '../../../index.ts';\nimport '../../protocol.ts';"],
  ['src/cli/z.ts', "import 'node:fs';\nimport '../node.ts';"],
] as const;

/** Two files that import each other. */
const circle = [
  ['src/vm/circle-a.ts', "import { b } from './circle-b.ts';\nexport const a = () => b;"],
  ['src/vm/circle-b.ts', "import { a } from './circle-a.ts';\nexport const b = () => a;"],
] as const;

it('the linter refuses arrows that point up, import circles, and Node where it is not available', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vmferry-arrows-'));
  try {
    copyFileSync(join(root, 'biome.json'), join(directory, 'biome.json'));
    for (const [path, code] of [...forbidden, ...allowed, ...circle]) {
      mkdirSync(join(directory, dirname(path)), { recursive: true });
      writeFileSync(join(directory, path), `${code}\n`);
    }
    const biome = join(root, 'node_modules/@biomejs/biome/bin/biome');
    const args = [biome, 'lint', '--vcs-enabled=false', '--colors=off', '--max-diagnostics=none', '.'];
    const { stdout, stderr, status } = spawnSync(process.execPath, args, { cwd: directory, encoding: 'utf8' });
    expect(status).toBe(1);
    const refused = (stdout + stderr).matchAll(
      /^(\S+\.ts):\d+:\d+ lint\/\w+\/(?:noRestricted\w+|noNodejsModules|noImportCycles)/gm,
    );
    expect([...new Set([...refused].map(([, path]) => path))].sort()).toEqual(
      [...forbidden, ...circle].map(([path]) => path).sort(),
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
