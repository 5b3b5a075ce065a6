/** No command reports success for memory that its input lacks: commands by incomplete files, with and without --partial. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import {
  blockList,
  capabilities,
  configuration,
  EOF,
  EOS,
  end,
  filled,
  header,
  join as joinBytes,
  KIB4,
  normalPage,
  part,
  start,
  u64,
} from '../oracle/build.ts';
import { runCli } from '../run-cli.ts';

const plain = fixturePath('pc-plain-10.0.bin');
const bytesOf = (name: string) => loadFixtures().find((each) => each.name === name)?.bytes as Uint8Array;
let folder = '';
const at = (name: string) => join(folder, name);

const sharing = joinBytes(
  header,
  configuration('none', capabilities('x-ignore-shared')),
  start(7, 'ram', 4, blockList(['ram', KIB4, u64(0)], ['shared', KIB4, u64(0x1000_0000)]), EOS),
  part(7, normalPage(0, filled(1), 'ram'), EOS),
  end(7, EOS),
  EOF,
);

/** Files by their names, and a block that lacks memory. */
const files: Record<string, { bytes: () => Uint8Array; block: string }> = {
  'main-10.0': { bytes: () => bytesOf('pc-multifd-none-zero-multifd-10.0'), block: 'pc.ram' },
  'main-7.2': { bytes: () => bytesOf('pc-multifd-none-7.2'), block: 'pc.ram' },
  cut: { bytes: () => bytesOf('pc-plain-10.0').subarray(0, bytesOf('pc-plain-10.0').length / 4), block: 'pc.ram' },
  sharing: { bytes: () => sharing, block: 'shared' },
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
  for (const [name, { bytes }] of Object.entries(files)) writeFileSync(at(name), bytes());
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Commands that need the content of RAM, with their exit code for missing memory. OUT is the file that they would write. */
const commands: { name: string; args: (file: string, block: string) => string[]; code: number; partial: boolean }[] = [
  { name: 'extract --block', args: (f, b) => ['extract', f, '--block', b, '-o', at('OUT')], code: 1, partial: true },
  { name: 'extract -o -', args: (f, b) => ['extract', f, '--block', b, '-o', '-'], code: 1, partial: true },
  { name: 'extract --all', args: (f) => ['extract', f, '--all', at('OUT')], code: 1, partial: true },
  { name: 'read', args: (f, b) => ['read', f, '--block', b, '--length', '4096'], code: 1, partial: true },
  { name: 'search', args: (f) => ['search', f, 'no such text'], code: 2, partial: true },
  { name: 'search --count', args: (f) => ['search', f, 'no such text', '--count'], code: 2, partial: true },
  { name: 'diff', args: (f) => ['diff', f, plain], code: 2, partial: true },
  { name: 'diff, the other way', args: (f) => ['diff', plain, f], code: 2, partial: true },
  ...['stream', 'mapped-ram', 'multifd'].map((form) => ({
    name: `convert --to ${form}`,
    args: (f: string) => [
      'convert',
      f,
      at('OUT'),
      '--to',
      form,
      ...(form === 'mapped-ram' ? [] : ['--compat', '10.0']),
    ],
    code: 1,
    partial: true,
  })),
  {
    name: 'convert to raw',
    args: (f, b) => ['convert', f, at('OUT'), '--to', 'raw', '--block', b],
    code: 1,
    partial: true,
  },
  {
    name: 'convert changes',
    args: (f) => ['convert', f, at('OUT'), '--only-changed-from', plain],
    code: 1,
    partial: false,
  },
  {
    name: 'convert, as a base',
    args: (f) => ['convert', plain, at('OUT'), '--to', 'stream', '--base', f],
    code: 1,
    partial: false,
  },
  { name: 'estimate', args: (f) => ['estimate', f], code: 1, partial: false },
];

describe.each(Object.keys(files))('%s', (name) => {
  const { block } = files[name] as (typeof files)[string];

  it('is INCOMPLETE for verify, and accepted only if that is allowed', async () => {
    const { code, stdout } = await runCli(['verify', at(name)]);
    expect([code, stdout]).toEqual([1, expect.stringMatching(/: INCOMPLETE \(/)]);
    expect(stdout).toMatch(/\n {2}→ /);
    expect((await runCli(['verify', '--allow-incomplete', at(name)])).code).toBe(0);
    expect((await runCli(['inspect', at(name)])).code).toBe(1);
  });

  it.each(commands)('is refused by $name, which writes nothing', async ({ name: command, args, code, partial }) => {
    // Shared memory is not sent, so an estimate does not need it.
    if (command === 'estimate' && name === 'sharing') return;
    const result = await runCli(args(at(name), block));
    expect([result.code, result.stdout], result.stderr).toEqual([code, '']);
    expect(result.stderr).toMatch(/vmferry: error: /);
    expect(/ with --partial\n/.test(result.stderr), result.stderr).toBe(partial);
    expect(existsSync(at('OUT'))).toBe(false);
    expect(readdirSync(folder).sort()).toEqual(Object.keys(files).sort());
  });

  it.each(commands.filter(({ partial }) => partial))('is taken by $name --partial', async ({ args, code }) => {
    const result = await runCli([...args(at(name), block), '--partial']);
    expect(result.code, result.stderr).toBe(code);
    // The evidence, and the pages: those of the range of `read` may be there.
    expect(result.stderr).toMatch(/vmferry: warning: .* \[(missing-channels|truncated|block-ignored)\]/);
    if (args('', '')[0] !== 'read') expect(result.stderr).toMatch(/vmferry: warning: (A: |B: )?missing: /);
    for (const each of readdirSync(folder)) if (each.startsWith('OUT')) rmSync(at(each), { recursive: true });
  });

  it('is listed by block and range with --partial --json', async () => {
    const { stdout } = await runCli(['extract', at(name), '--block', block, '-o', at('OUT'), '--partial', '--json']);
    const { missing } = JSON.parse(stdout);
    expect(missing.blocks[0]).toMatchObject({ block, ranges: expect.arrayContaining([expect.anything()]) });
    expect(missing.evidence.length).toBeGreaterThan(0);
    rmSync(at('OUT'));
  });
});

it('several files are judged in a line each, with a summary', async () => {
  const { code, stdout } = await runCli(['verify', plain, at('cut'), at('main-10.0')]);
  expect(code).toBe(1);
  const lines = stdout.trimEnd().split('\n');
  expect(lines.map((line) => /: (OK|INCOMPLETE)/.exec(line)?.[1])).toEqual([
    'OK',
    'INCOMPLETE',
    'INCOMPLETE',
    undefined,
  ]);
  expect(lines[3]).toBe('3 files: 1 OK, 2 INCOMPLETE, 0 BAD');
  const json = JSON.parse((await runCli(['verify', '--json', plain, at('cut')])).stdout);
  expect(json).toMatchObject({ ok: 1, incomplete: 1, bad: 0, files: [{ verdict: 'ok' }, { verdict: 'incomplete' }] });
});
