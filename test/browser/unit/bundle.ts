/** Bundles the unit tests that do not need Node, as scripts for the page. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Folders of tests whose code must run without Node. */
export const portable = ['kernel', 'wire', 'vm'];
/** Folders of tests whose code runs without Node, although many of their tests read fixtures from disk. */
const withFixtures = ['devices', 'read', 'schema', 'store', 'tasks', 'write'];

/** Replaces what tests import: a zlib that works in browsers, and a fast-check that tries fewer cases. */
const standIns: Plugin = {
  name: 'stand-ins',
  setup({ onResolve }) {
    const isTest = (importer: string) => importer.startsWith(join(root, 'test/'));
    onResolve({ filter: /^node:zlib$/ }, ({ importer }) => (isTest(importer) ? { path: here('zlib.ts') } : undefined));
    onResolve({ filter: /^fast-check$/ }, ({ importer }) =>
      importer === here('fast-check.ts') ? undefined : { path: here('fast-check.ts') },
    );
  },
};

export interface UnitScripts {
  /** Scripts by their paths on the server. */
  scripts: Map<string, string>;
  /** Test files that run, by their paths in the repository, and where their scripts are. */
  runs: { file: string; path: string }[];
  /** Test files that do not run, each with the modules of Node that it needs. */
  needNode: Map<string, string[]>;
}

export async function bundleUnitTests(): Promise<UnitScripts> {
  const files = [...portable, ...withFixtures].flatMap((folder) =>
    readdirSync(join(root, 'test', folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.ts'))
      .map((name) => `test/${folder}/${name}`)
      .sort(),
  );
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: [...files, here('page.ts')],
    outbase: root,
    outdir: '/unit',
    write: false,
    metafile: true,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    external: ['node:*'],
    plugins: [standIns],
    alias: {
      vitest: here('vitest.ts'),
      'stream/web': join(root, 'scripts/stream-web.mjs'),
    },
    inject: [here('globals.ts')],
    loader: { '.wasm': 'binary' },
    // Runs fewer of the seeded cases, because kernels.test.ts has its own.
    define: {
      'process.env.VMFERRY_KERNEL_CASES': '"1000"',
      'process.env.VMFERRY_TESTS': JSON.stringify(process.env.VMFERRY_TESTS ?? ''),
    },
    logLevel: 'error',
  });
  const scripts = new Map(outputFiles.map(({ path, text }) => [path, text]));
  const needNode = new Map<string, string[]>();
  for (const file of files) {
    const modules = nodeModules(metafile, file);
    if (modules.length > 0) needNode.set(file, modules);
  }
  const runs = files
    .filter((file) => !needNode.has(file))
    .map((file) => ({ file, path: `/unit/${file.replace(/\.ts$/, '.js')}` }));
  return { scripts, runs, needNode };
}

/** Modules of Node that a file needs, directly or through its imports. */
function nodeModules({ inputs }: Metafile, entry: string): string[] {
  const seen = new Set<string>();
  const modules = new Set<string>();
  const visit = (path: string) => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const { path: imported, external } of inputs[path]?.imports ?? []) {
      // Injected modules count as external, too.
      if (external !== true) visit(imported);
      else if (imported.startsWith('node:')) modules.add(imported);
    }
  };
  visit(entry);
  return [...modules].sort();
}
