/** Standard error, colours, and the width of the help. */
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const plain = fixturePath('pc-plain-10.0.bin');

describe('an error', () => {
  const cases: [string, string[], number, object][] = [
    ['a command line that is refused', ['inspect', '--json', '--nope', 'x'], 2, { code: 'usage' }],
    ['an unknown command', ['inspekt', 'x', '--json'], 2, { code: 'usage' }],
    ['options that do not go together', ['inspect', '--json', '--pages', 'x'], 2, { code: 'usage' }],
    ['a missing file', ['verify', '--json', '/nonexistent'], 2, { code: 'ENOENT' }],
    ['a bad file', ['read', '--json', '/dev/null'], 1, { code: 'truncated' }],
    ['a bad file to search', ['search', '--json', '/dev/null', 'x'], 2, { code: 'truncated' }],
    ['a bad file to compare', ['diff', '--json', plain, '/dev/null'], 2, { code: 'truncated' }],
  ];
  it.each(cases)('is one line of JSON with --json: %s', async (_, args, exitCode, facts) => {
    const { code, stderr, stdout } = await runCli(args);
    expect([code, stdout]).toEqual([exitCode, '']);
    const lines = stderr.trimEnd().split('\n');
    expect(lines).toHaveLength(1);
    const { error, jsonVersion } = JSON.parse(lines[0] as string);
    expect(error).toMatchObject({ exitCode, message: expect.any(String), ...facts });
    expect(jsonVersion).toBe(1);
  });

  it('has one prefix, wherever it is found', async () => {
    for (const args of [['inspect', '--nope', 'x'], ['verify', '/nonexistent'], ['extract', 'x'], ['verify']]) {
      const { stderr } = await runCli(args);
      expect(stderr).toMatch(/^vmferry: error: .+\n$/);
    }
  });
});

it('--quiet leaves only errors on standard error', async () => {
  const search = ['search', plain, '--max', '1', '--hex', '00'];
  expect((await runCli(search)).stderr).toBe('vmferry: note: stopped at --max 1\n');
  expect((await runCli([...search, '--quiet'])).stderr).toBe('');
  expect((await runCli(['verify', '-q', '/nonexistent'])).stderr).toMatch(
    /^vmferry: error: cannot read \/nonexistent: no such file\n/,
  );
});

it('NO_COLOR and FORCE_COLOR apply to both outputs', async () => {
  const run = async (env: Record<string, string>) => {
    const [{ stdout }, { stderr }] = [
      await runCli(['verify', plain], undefined, { env }),
      await runCli(['verify', '/nonexistent'], undefined, { env }),
    ];
    return [stdout.includes('\x1b['), stderr.includes('\x1b[')];
  };
  expect(await run({ NO_COLOR: '', FORCE_COLOR: '' })).toEqual([false, false]);
  expect(await run({ NO_COLOR: '', FORCE_COLOR: '1' })).toEqual([true, true]);
  expect(await run({ NO_COLOR: '1', FORCE_COLOR: '1' })).toEqual([false, false]);
  expect(await run({ NO_COLOR: '', FORCE_COLOR: '0' })).toEqual([false, false]);
});

describe('--help', () => {
  const commands = 'inspect verify check extract convert diff merge read search estimate completion'.split(' ');
  it.each(['', ...commands])('of %s fits the width, and ends with examples', async (command) => {
    for (const [width, env] of [
      [80, { COLUMNS: '' }],
      [120, { COLUMNS: '120' }],
      [60, { COLUMNS: '60' }],
    ] as const) {
      const { stdout, code } = await runCli(
        [command, '--help'].filter((word) => word !== ''),
        undefined,
        { env },
      );
      expect(code).toBe(0);
      const tooLong = stdout.split('\n').filter((line) => line.length > width && !/'[^']{40,}'|\S{50,}/.test(line));
      expect(tooLong).toEqual([]);
      const [, examples = ''] = stdout.split('\nExamples:\n');
      expect(examples).toMatch(/vmferry/);
    }
  });
});
