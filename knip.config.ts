/**
 * `npm run check:unused` reports files, exports and packages that nothing imports, or, with --production, that only
 * tests, benchmarks and scripts import. Entries marked with ! belong to the product; knip finds the library's, the
 * command line's and the page's own entries in package.json, tsup.config.ts and vite.config.ts.
 */
import type { KnipConfig } from 'knip';

export default {
  entry: [
    // Started by URL.
    'src/demo/worker/worker.ts!',
    'src/demo/worker/page-helper.ts!',
    'bench/{main,worker,files,writing,live,resume,qmp,opening,browser,browser-page,slice-worker}.ts',
    'docs/*.mjs',
    'scripts/*.{mjs,ts}',
    'test/**/*.test.ts',
    // Bundled for Chromium (test/browser/unit/bundle.ts substitutes its modules for packages).
    'test/browser/{page.mjs,viewer-page.ts,kernel-cases.ts}',
    'test/browser/unit/*.ts',
    'test/report-usage.mjs',
    // Started with inherited descriptors.
    'test/io/inherited-child.ts',
  ],
  project: ['src/**/*.{ts,tsx}!', '{bench,docs,scripts,test}/**/*.{ts,tsx,mjs}'],
  // Installed by npm and by the system (test/qemu/install.sh, .ci/run); tests print what they skip without a program.
  exclude: ['binaries'],
  // Tagged exports are for tests, and say why.
  tags: ['-internal'],
  // Tests in Chromium are bundled with it.
  ignoreDependencies: ['buffer'],
} satisfies KnipConfig;
