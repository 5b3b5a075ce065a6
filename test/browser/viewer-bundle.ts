/** The viewer's worker, its helper and the test page as scripts for a server. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'tsup';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

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
      noExternal: [/./],
      silent: true,
    });
    const scripts = names.map((name) => [`/${name}.js`, readFileSync(join(directory, `${name}.js`), 'utf8')] as const);
    // The worker starts its helper by its name in the source, from its own folder.
    return new Map([...scripts, ['/page-helper.ts', scripts[2]?.[1] as string]]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
