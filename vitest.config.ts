import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { wasmBytes } from './scripts/wasm-bytes.ts';
import { hangGuardMs, testGuardMs } from './test/limits.ts';

const workers = Math.min(8, availableParallelism());

/** `npm test` runs the library's tests in Chromium; `npm run test:page` and `npm run test:all` run all of them. */
const pageTests = process.env.VMFERRY_TESTS === undefined ? 'browser' : '**/*';

/** These take long. `npm run test:longer` runs them, so that `npm test` takes less than five minutes. */
const longer = [
  ...['test/kernel/xbzrle-decode', 'test/io/http-cost', 'test/io/zip', 'test/io/input', 'test/qmp/fuzz'],
  ...['test/migrate/statistics', 'test/migrate/precopy', 'test/migrate/relay-encode'],
  ...['test/proof/hostile', 'test/proof/damage', 'test/proof/cuts', 'test/proof/large'],
  ...['test/package/declarations', 'test/package/docs', 'test/package/json-types', 'test/package/library-guide'],
  ...['test/cli/vm/misbehave', 'test/cli/vm/robust', 'test/cli/vm/descriptors', 'test/cli/live/descriptors'],
  'test/cli/estimate',
].map((name) => `${name}.test.ts`);
const isLonger = process.env.VMFERRY_TESTS === 'longer';
/** Git-install needs a registry of packages, and takes a minute: only the full run has it. */
const beyondNpmTest = [
  ...(process.env.VMFERRY_TESTS === undefined ? longer : []),
  ...(process.env.VMFERRY_TESTS === 'all' ? [] : ['test/package/git-install.test.ts']),
];

/** Their guests must keep up with the passes of their migration, or their time or memory is measured: nothing runs beside them. */
const alone = [
  ...['read', 'harness', 'convert', 'convert-multifd', 'incremental', 'rare', 'precopy', 'xbzrle-cache', 'receive'],
  ...['receive-limits', 'estimate', 'estimate-running', 'live-capabilities', 'scenarios', 'relay-encode', 'make-*'],
].map((name) => `test/qemu/${name}.test.ts`);

/** Files that a run leaves out, separated by white space. Vitest's own --exclude does not reach into projects. */
const leftOut = (process.env.VMFERRY_LEAVE_OUT ?? '').split(/\s+/).filter((pattern) => pattern !== '');

/**
 * Groups run one after another, each with this many workers. The files that a worker runs share its modules, since
 * loading them takes as long as many tests.
 */
const project = (name: string, include: string[], groupOrder: number, maxWorkers: number, exclude: string[] = []) => ({
  plugins: [wasmBytes()],
  test: {
    name,
    include,
    exclude: [...exclude, ...leftOut],
    testTimeout: testGuardMs,
    hookTimeout: testGuardMs,
    expect: { poll: { timeout: hangGuardMs } },
    sequence: { groupOrder },
    maxWorkers,
    isolate: false,
  },
});

export default defineConfig({
  test: {
    projects: [
      // test/ mirrors src/; all of these run without QEMU.
      project(
        'unit',
        isLonger
          ? longer.filter((name) => !/^test.(cli|package|proof)/.test(name))
          : [
              'test/{kernel,oracle,schema,vm,io,devices,wire,read,store,write,migrate,qmp,guest,tasks,words,demo}/**/*.test.ts',
            ],
        1,
        workers,
        beyondNpmTest,
      ),
      // The built package and command line, on the fixtures that ship with the repo.
      project(
        'smoke',
        isLonger
          ? longer.filter((name) => /^test.(cli|package|proof)/.test(name))
          : ['test/{cli,package,proof}/**/*.test.ts'],
        1,
        workers,
        beyondNpmTest,
      ),
      // The built package and the page in real Chromium.
      project('browser', [`test/browser/${pageTests}.test.ts`], 1, workers),
      project('qemu', ['test/qemu/**/*.test.ts'], 2, workers, alone),
      project('qemu-alone', alone, 3, 1),
    ],
  },
});
