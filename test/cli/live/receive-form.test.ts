/** `receive --to`: the guest arrives in the form that was chosen, with the content of the capture. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { fixturePath } from '../../fixture-files.ts';
import { runCli } from '../../run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-form-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const capture = fixturePath('pc-xbzrle-10.0.bin');

it.each([
  ['stream', [], ['stream']],
  [
    'multifd',
    ['--multifd-channels', '3', '--multifd-compression', 'zstd'],
    ['multifd', 'multifd.0', 'multifd.1', 'multifd.2'],
  ],
  ['mapped-ram', [], ['mapped-ram']],
])('%s', async (form, options, files) => {
  const { code, stderr } = await runCli(
    ['receive', `exec:cat ${capture}`, join(folder, form), '--to', form, ...options],
    undefined,
    {
      alone: true,
    },
  );
  expect(code, stderr).toBe(0);
  expect(
    readdirSync(folder)
      .filter((name) => name.split('.')[0] === form.split('.')[0])
      .sort(),
  ).toEqual(files);
  const { stdout } = await runCli(['diff', capture, join(folder, form), '--json']);
  const { ram, devices } = JSON.parse(stdout);
  expect(ram.blocks.every(({ pages, same }: { pages: number; same: number }) => pages === same)).toBe(true);
  expect(devices).toMatchObject({ changed: [], added: [], removed: [] });
});

it('leaves nothing if the form cannot be written', async () => {
  const out = join(folder, 'image');
  const { code } = await runCli(['receive', `exec:cat ${capture}`, out, '--to', 'libvirt'], undefined, { alone: true });
  expect(code).not.toBe(0);
  expect(readdirSync(folder).filter((name) => name.startsWith('image') || name.startsWith('.vmferry'))).toEqual([]);
});
