/** docs/cli.md and the man page equal what the commands generate. `npm run docs:cli` writes them. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { cliMarkdown, manPage } from '../../scripts/cli-reference.ts';
import { buildProgram } from '../../src/cli/program.ts';

const pathOf = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

/** The committed file. With VMFERRY_WRITE_DOCS=1 the test writes it first. */
function committed(name: string, made: string): string {
  if (process.env.VMFERRY_WRITE_DOCS === '1') writeFileSync(pathOf(name), made);
  return readFileSync(pathOf(name), 'utf8');
}

describe('the reference of the command line is up to date (npm run docs:cli)', async () => {
  const program = await buildProgram();

  it('docs/cli.md', () => {
    const made = cliMarkdown(program);
    expect(committed('docs/cli.md', made)).toBe(made);
  });

  it('man/vmferry.1', () => {
    const made = manPage(program, packageJson.version);
    expect(committed('man/vmferry.1', made)).toBe(made);
  });

  it.each(program.commands.map((command) => command.name()))('%s has a summary, examples, and JSON types', (name) => {
    const command = program.commands.find((each) => each.name() === name);
    expect(command?.summary()).not.toBe('');
    expect(command?.facts.examples).not.toEqual([]);
    const hasJson = command?.options.some(({ long }) => long === '--json');
    expect((command?.facts.json.length ?? 0) > 0).toBe(hasJson);
  });
});

it('the man page has no error that groff knows', (context) => {
  const { error, stderr } = spawnSync('groff', ['-man', '-Tutf8', '-ww', pathOf('man/vmferry.1')], {
    encoding: 'utf8',
  });
  if (error !== undefined) {
    console.warn('skipped: groff is not installed');
    context.skip();
  }
  expect(stderr).toBe('');
});
