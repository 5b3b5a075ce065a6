/** `npm install <git URL>` gives a working package: npm clones the repository, installs its tools, and builds it. */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { root } from './installed-package.ts';

let folder = '';
let project = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-git-'));
  const repository = join(folder, 'repository');
  project = join(folder, 'project');
  const git = (...args: string[]) => execFileSync('git', args, { cwd: repository, encoding: 'utf8' });
  // A repository of its own has the files as they are now, and their history does not matter.
  const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' }).split('\0');
  for (const name of tracked) {
    if (name === '' || name.startsWith('test/')) continue;
    mkdirSync(dirname(join(repository, name)), { recursive: true });
    cpSync(join(root, name), join(repository, name));
  }
  git('init', '--quiet');
  git('add', '.');
  git('-c', 'user.name=test', '-c', 'user.email=test@example.invalid', 'commit', '--quiet', '--message', 'All');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "type": "module" }');
  const url = `git+file://${repository}`;
  execFileSync('npm', ['install', '--silent', '--no-audit', '--no-fund', url], { cwd: project, stdio: 'pipe' });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (...args: string[]) => spawnSync(process.execPath, args, { cwd: project, encoding: 'utf8' });

it('has the built modules, and what only builds them is not installed', () => {
  expect(readdirSync(join(project, 'node_modules/vmferry/dist'))).toEqual(
    expect.arrayContaining(['index.js', 'index.d.ts', 'node.js', 'cli.js', 'kernel.simd.wasm']),
  );
  expect(readdirSync(join(project, 'node_modules'))).not.toContain('tsup');
});

it('is imported', () => {
  writeFileSync(
    join(project, 'main.js'),
    `import { open, verify } from 'vmferry';
    const file = await open('node_modules/vmferry/samples/guest.migration');
    console.log((await verify(file)).ok);
    await file.close();`,
  );
  expect(run('main.js')).toMatchObject({ status: 0, stdout: 'true\n', stderr: '' });
});

it('has the command line and the tour', () => {
  const verify = run('node_modules/.bin/vmferry', 'verify', 'node_modules/vmferry/samples/guest.migration');
  expect(verify).toMatchObject({ status: 0, stdout: expect.stringContaining(': OK') });
  const tour = run('node_modules/vmferry/docs/tour.mjs');
  expect(tour).toMatchObject({ status: 0, stdout: expect.stringContaining('They are equal.') });
});
