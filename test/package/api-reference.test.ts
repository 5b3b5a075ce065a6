/** Every export of the package has a doc comment, and the comments build an API reference. */
import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { root } from './installed-package.ts';

it('the API reference has no gap and no dead link', () => {
  const { status, stdout, stderr } = spawnSync('npm', ['run', '--silent', 'check:api'], {
    cwd: root,
    encoding: 'utf8',
  });
  expect(status, stdout + stderr).toBe(0);
});
