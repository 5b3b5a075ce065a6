import { defineConfig } from 'tsup';

export default defineConfig({
  entry: {
    main: 'bench/main.ts',
    worker: 'bench/worker.ts',
    files: 'bench/files.ts',
    writing: 'bench/writing.ts',
    browser: 'bench/browser.ts',
    opening: 'bench/opening.ts',
    live: 'bench/live.ts',
    resume: 'bench/resume.ts',
    engine: 'bench/engine.ts',
    qmp: 'bench/qmp.ts',
  },
  external: ['esbuild', 'playwright-core'],
  outDir: 'bench/build',
  format: 'esm',
  target: 'node20',
  loader: { '.wasm': 'binary' },
  removeNodeProtocol: false,
});
