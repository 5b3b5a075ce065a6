/** `vmferry completion`: the scripts, run by real shells. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli } from '../run-cli.ts';

let directory = '';
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-completion-'));
  for (const shell of ['bash', 'zsh', 'fish']) {
    writeFileSync(join(directory, shell), (await runCli(['completion', shell])).stdout);
  }
  writeFileSync(join(directory, 'guest one.migration'), '');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What bash offers at the end of these words. */
function complete(...words: string[]): string[] {
  const script = `source ${directory}/bash
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmferry; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync('bash', ['-c', script, 'bash', ...words], { cwd: directory, encoding: 'utf8' });
  expect(stderr).toBe('');
  return stdout.split('\n').filter((line) => line !== '');
}

describe('in bash', () => {
  it('is registered for vmferry', () => {
    const { stdout } = spawnSync('bash', ['-c', `source ${directory}/bash; complete -p vmferry`], { encoding: 'utf8' });
    expect(stdout).toMatch(/^complete .*-F _vmferry vmferry\n$/);
  });

  it('completes commands, options, choices and files', () => {
    expect(complete('vmferry', '')).toEqual(expect.arrayContaining(['inspect', 'convert', 'completion']));
    expect(complete('vmferry', 'e')).toEqual(['extract', 'estimate']);
    expect(complete('vmferry', 'inspect', '--dev')).toEqual(['--devices', '--device']);
    expect(complete('vmferry', 'convert', 'x', '--to', 'm')).toEqual(['multifd', 'mapped-ram']);
    expect(complete('vmferry', 'convert', 'x', '--to', '=', 'm')).toEqual(['multifd', 'mapped-ram']);
    expect(complete('vmferry', 'verify', 'guest')).toEqual(['guest one.migration']);
    expect(complete('vmferry', 'verify', '--channel', 'guest')).toEqual(['guest one.migration']);
    expect(complete('vmferry', 'extract', '--all', 'guest')).toEqual([]);
    expect(complete('vmferry', 'completion', '')).toEqual(['bash', 'zsh', 'fish']);
    expect(complete('vmferry', 'read', '--at', 'guest')).toEqual([]);
  });
});

it.each(['zsh', 'fish'])('the script for %s is valid', (shell) => {
  const { error, stderr, status } = spawnSync(shell, ['-n', join(directory, shell)], { encoding: 'utf8' });
  if (error !== undefined) {
    console.warn(`skipped: ${shell} is not installed`);
    return;
  }
  expect([status, stderr]).toEqual([0, '']);
});

it('an unknown shell is refused', async () => {
  const { code, stderr } = await runCli(['completion', 'tcsh']);
  expect([code, stderr]).toEqual([2, expect.stringMatching(/^vmferry: error: .*Allowed choices are bash, zsh, fish/)]);
});
