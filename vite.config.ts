/** Builds the page (src/demo) into dist-demo/: a static folder that works at any path of any web server. */
import { readFileSync } from 'node:fs';
import { defineConfig } from 'vite';
import { wasmBytes } from './scripts/wasm-bytes.ts';

/** The licenses of the bundled packages are included. */
const licenses = () => ({
  name: 'licenses',
  generateBundle(this: { emitFile(file: { type: 'asset'; fileName: string; source: string }): void }) {
    this.emitFile({ type: 'asset', fileName: 'third-party.txt', source: readFileSync('THIRD-PARTY.md', 'utf8') });
  },
});

/** Also builds the page as remote.html, with a policy that lets it fetch from any server (src/demo/page/remote.ts). */
const remotePage = () => ({
  name: 'remote-page',
  enforce: 'post' as const,
  generateBundle(
    this: { emitFile(file: { type: 'asset'; fileName: string; source: string }): void },
    _options: unknown,
    bundle: Record<string, { type: string; source?: unknown }>,
  ) {
    const page = String(bundle['index.html']?.source);
    const source = page
      .replace("connect-src 'self'", "connect-src 'self' http: https:")
      .replace('<html lang="en"', '<html lang="en" data-page="remote"');
    if (source.length !== page.length + ' http: https:'.length + ' data-page="remote"'.length) {
      throw new Error('expected a policy and a root in index.html');
    }
    this.emitFile({ type: 'asset', fileName: 'remote.html', source });
  },
});

/** The page compresses nothing, so compressors are left out. */
const noEncoders = () => ({
  name: 'no-encoders',
  enforce: 'pre' as const,
  load(id: string) {
    return /src\/io\/(zstd-encoder|deflate|zip-deflate)\.ts$/.test(id)
      ? "throw new Error('the page compresses nothing');"
      : undefined;
  },
});

/** xz-decompress imports from Node what every browser has (tsup.config.ts). */
const alias = { 'stream/web': new URL('./scripts/stream-web.mjs', import.meta.url).pathname };

/** Enables SharedArrayBuffer, so that several kernels share one memory; the page also works without. */
const isolated = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

export default defineConfig({
  root: 'src/demo',
  base: './',
  resolve: { alias },
  plugins: [wasmBytes(), licenses(), remotePage()],
  worker: { format: 'es', plugins: () => [wasmBytes(), noEncoders()] },
  build: {
    outDir: '../../dist-demo',
    emptyOutDir: true,
    target: 'es2022',
    // The page's policy allows no data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The samples keep their names.
    rollupOptions: {
      output: {
        assetFileNames: ({ names }) => `assets/[name]${names[0]?.endsWith('.bin') ? '' : '-[hash]'}[extname]`,
      },
    },
  },
  preview: { headers: isolated },
  server: { headers: isolated },
});
