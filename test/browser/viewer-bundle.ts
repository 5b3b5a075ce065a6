/** The viewer's worker, its helper and the test page as scripts for a server. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Options } from 'tsup';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The URLs of workers, which Vite resolves in the page's own build: a script beside the one that imports it. */
const workerUrls: NonNullable<Options['esbuildPlugins']>[number] = {
  name: 'worker-urls',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\?worker&url$/ }, ({ path }) => ({ path, namespace: 'worker-url' }));
    onLoad({ filter: /./, namespace: 'worker-url' }, ({ path }) => {
      const [, name] = /([\w-]+)\.ts\?/.exec(path) ?? [];
      return { contents: `export default '/${name}.js';`, loader: 'js' };
    });
  },
};

/** Scripts by their paths. */
export async function bundleViewer(): Promise<Map<string, string>> {
  const directory = mkdtempSync(join(tmpdir(), 'vmferry-viewer-'));
  try {
    const names = ['viewer-page', 'viewer-worker', 'page-helper'] as const;
    await build({
      config: false,
      entry: {
        'viewer-page': at('./viewer-page.ts'),
        'viewer-worker': at('../../src/demo/worker/worker.ts'),
        'page-helper': at('../../src/demo/worker/page-helper.ts'),
      },
      outDir: directory,
      format: 'esm',
      platform: 'browser',
      target: 'es2022',
      splitting: false,
      loader: { '.wasm': 'binary' },
      esbuildOptions(options) {
        options.alias = { 'stream/web': at('../../scripts/stream-web.mjs') };
      },
      esbuildPlugins: [workerUrls],
      noExternal: [/./],
      silent: true,
    });
    const scripts = names.map((name) => [`/${name}.js`, readFileSync(join(directory, `${name}.js`), 'utf8')] as const);
    return new Map(scripts);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
