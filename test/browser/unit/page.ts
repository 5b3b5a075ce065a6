/** Runs unit tests in the page with vitest's runner. */
import { startTests, type VitestRunner, type VitestRunnerImportSource } from '@vitest/runner';
import { testGuardMs } from '../../limits.ts';

/** A test that ran, and its result. */
export interface Told {
  name: string;
  state: string;
  errors: string[];
}

type Task = { name: string; type: string; result?: { state: string; errors?: { message?: string }[] }; tasks?: Task[] };

const runner: VitestRunner = {
  importFile: async (path: string, source: VitestRunnerImportSource) => {
    if (source === 'collect') await import(/* a script of the server */ path);
  },
  config: {
    root: '/',
    setupFiles: [],
    name: undefined,
    passWithNoTests: false,
    testNamePattern: undefined,
    allowOnly: false,
    sequence: { seed: 1, hooks: 'stack', setupFiles: 'list' },
    chaiConfig: undefined,
    maxConcurrency: 1,
    testTimeout: testGuardMs,
    hookTimeout: testGuardMs,
    retry: 0,
    includeTaskLocation: undefined,
    tags: [],
    tagsFilter: undefined,
    strictTags: false,
  },
};

/** Runs the tests of one script. Returns all of them by their full names. */
async function run(path: string): Promise<Told[]> {
  const files = (await startTests([path], runner)) as unknown as Task[];
  return files.flatMap((file) => list(file, ''));
}

function list({ name, type, result, tasks = [] }: Task, before: string): Told[] {
  const errors = (result?.errors ?? []).map(({ message = '' }) => message);
  const full = before === '' ? name : `${before} > ${name}`;
  // A suite is reported only if it failed itself: it could not be collected, or a hook failed.
  const own = type === 'test' || errors.length > 0 ? [{ name: full, state: result?.state ?? 'none', errors }] : [];
  return [...own, ...tasks.flatMap((task) => list(task, full))];
}

Object.assign(globalThis, { runUnitTests: run });
