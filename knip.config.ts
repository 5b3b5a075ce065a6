/**
 * What `npm run check:unused` calls unused: files, exports and packages that nothing imports, or, with --production, that only
 * tests, benchmarks and scripts import. Entries marked with ! belong to the product; knip finds the library's, the command
 * line's and the page's own entries in package.json, tsup.config.ts and vite.config.ts.
 */
import type { KnipConfig } from 'knip';

export default {
  entry: [
    // Started by a URL.
    'src/demo/worker/worker.ts!',
    'src/demo/worker/page-helper.ts!',
    'bench/{main,worker,files,writing,browser,browser-page,slice-worker}.ts',
    'docs/*.mjs',
    'scripts/*.{mjs,ts}',
    'test/**/*.test.ts',
    // Bundled for Chromium (test/browser/unit/bundle.ts puts its modules in place of packages).
    'test/browser/{page.mjs,viewer-page.ts,kernel-cases.ts}',
    'test/browser/unit/*.ts',
    'test/report-usage.mjs',
  ],
  project: ['src/**/*.{ts,tsx}!', '{bench,docs,scripts,test}/**/*.{ts,tsx,mjs}'],
  // Installed by npm and by the system (test/qemu/install.sh, .ci/run); tests without a program say what they leave out.
  exclude: ['binaries'],
  // WebAssembly that scripts/zstd-wasm.mjs takes out of packages, and packages that the tests in Chromium are bundled with.
  ignoreDependencies: ['@oneidentity/zstd-js', 'zstddec', 'buffer'],
} satisfies KnipConfig;
