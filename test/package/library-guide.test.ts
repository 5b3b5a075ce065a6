/** The examples of docs/library.md compile in strict mode, and run in a project that installed the package. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { moreCases } from '../limits.ts';
import { installPackage, type Project, root } from './installed-package.ts';

const guide = readFileSync(join(root, 'docs/library.md'), 'utf8');
const examples = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => ({
  line: guide.slice(0, match.index).split('\n').length + 1,
  code: match[1] as string,
}));

let project: Project;
beforeAll(() => {
  project = installPackage();
  mkdirSync(join(project.path, 'test'));
  symlinkSync(join(root, 'test/fixtures'), join(project.path, 'test/fixtures'));
});
afterAll(() => project?.remove());

const run = (args: string[]) =>
  spawnSync(process.execPath, args, {
    cwd: project.path,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined },
  });

/** A script that imports modules one after another, and prints what each wrote. */
const runAll = `
const write = process.stdout.write.bind(process.stdout);
const outcomes = {};
for (const name of process.argv.slice(2)) {
  const outcome = (outcomes[name] = { status: 0, stdout: '', stderr: '' });
  process.stdout.write = (bytes, ...rest) => {
    outcome.stdout += bytes;
    rest.at(-1)?.();
    return true;
  };
  process.stderr.write = (bytes, ...rest) => {
    outcome.stderr += bytes;
    rest.at(-1)?.();
    return true;
  };
  try {
    await import('./' + name);
  } catch (error) {
    Object.assign(outcome, { status: 1, stderr: String(error.stack) });
  }
}
process.stdout.write = write;
write(JSON.stringify(outcomes));
`;

describe('the guide', () => {
  it('has an example for each task, all of them in TypeScript', () => {
    expect(examples.length).toBeGreaterThanOrEqual(35);
    expect(guide).not.toMatch(/^```(js|javascript)$/m);
  });

  it('has examples that compile in strict mode', () => {
    // Each line keeps its number, so that an error names the line of the guide.
    for (const { line, code } of examples) {
      writeFileSync(join(project.path, `line-${line}.ts`), '\n'.repeat(line - 1) + code);
    }
    const compilerOptions = {
      target: 'es2022',
      lib: ['es2022', 'esnext.disposable'],
      module: 'nodenext',
      moduleDetection: 'force',
      types: ['node'],
      strict: true,
      noEmit: true,
    };
    const files = examples.map(({ line }) => `line-${line}.ts`);
    writeFileSync(join(project.path, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }));
    const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
    const { status, stdout } = run([tsc, '-p', '.']);
    expect(status, stdout).toBe(0);
  });

  /** Each in a process of its own, or all in one. */
  const runs = new Map<string, { status: number | null; stdout: string; stderr: string }>();
  beforeAll(() => {
    const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext };
    for (const { line, code } of examples) {
      writeFileSync(join(project.path, `line-${line}.js`), ts.transpileModule(code, { compilerOptions }).outputText);
    }
    const names = examples.map(({ line }) => `line-${line}.js`);
    if (moreCases) {
      for (const name of names) runs.set(name, run([name]));
      return;
    }
    writeFileSync(join(project.path, 'all.js'), runAll);
    const { stdout, stderr } = run(['all.js', ...names]);
    for (const [name, outcome] of Object.entries(JSON.parse(stdout || '{}'))) runs.set(name, outcome as never);
    expect(stderr).toBe('');
  });

  it.each(examples)('has an example at line $line that runs', ({ line, code }) => {
    const { status, stdout, stderr } = runs.get(`line-${line}.js`) ?? { status: null, stdout: '', stderr: 'not run' };
    expect(stderr).toBe('');
    expect(status).toBe(0);
    if (code.includes('console.log')) expect(stdout).not.toBe('');
  });

  it('has an example that writes a sound mapped-ram file', () => {
    const { stdout, status } = run([join(project.installed, 'dist/cli.js'), 'verify', 'guest.mapped-ram']);
    expect(stdout).toMatch(/guest\.mapped-ram: OK \(mapped-ram file/);
    expect(status).toBe(0);
  });
});

it('the tour runs from the installed package', () => {
  const { status, stdout, stderr } = run(['node_modules/vmferry/docs/tour.mjs']);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toContain('They are equal.');
});
