/** `vmferry relay` to standard output: the stream is all that it prints there. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { fixturePath } from '../../fixture-files.ts';
import { runCli } from '../../run-cli.ts';

const capture = fixturePath('none-plain-10.0.bin');

test('passes a stream on, and reports on standard error', async () => {
  const { code, bytes, stderr } = await runCli(['relay', `file:${capture}`, '-'], undefined, { alone: true });
  expect(code, stderr).toBe(0);
  expect(bytes.equals(readFileSync(capture))).toBe(true);
  expect(stderr).toMatch(/^vmferry: note: -: passed on .*; the target took everything \(no return path\)$/m);
});

test('has no room for JSON', async () => {
  const { code, stderr } = await runCli(['relay', `file:${capture}`, '-', '--json']);
  expect(code).toBe(2);
  expect(stderr).toContain('expected either --json or the stream on standard output, got both');
});
