/** The command line on migrations in several files, and on shared memory that the migration left out. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadPartedFixtures, type PartedFixture } from '../fixture-files.ts';
import * as build from '../oracle/build.ts';
import { runCli } from '../run-cli.ts';

const directory = mkdtempSync(join(tmpdir(), 'vmferry-postcopy-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const options = ({ paths: { resumeOf, preempt, returnPath } }: PartedFixture) => [
  ...resumeOf.flatMap((path) => ['--resume-of', path]),
  ...preempt.flatMap((path) => ['--preempt', path]),
  ...returnPath.flatMap((path) => ['--return-path', path]),
];

describe.each(loadPartedFixtures())('$name', (fixture) => {
  const args = [fixture.path, ...options(fixture)];

  it('is extracted', async () => {
    const { code, stderr, bytes } = await runCli(['extract', ...args, '--block', 'pc.ram', '-o', '-']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const expected = fixture.truth.find(({ idstr }) => idstr === 'pc.ram')?.sha256;
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(expected);
  });

  it('is compared, on either side of diff', async () => {
    const whole = join(directory, `${fixture.name}.mapped-ram`);
    expect((await runCli(['convert', ...args, whole])).code).toBe(0);
    const { resumeOf, preempt } = fixture.paths;
    for (const side of ['a', 'b'] as const) {
      const parts = [
        ...resumeOf.flatMap((path) => [`--resume-of-${side}`, path]),
        ...preempt.flatMap((path) => [`--preempt-${side}`, path]),
      ];
      const files = side === 'a' ? [fixture.path, whole] : [whole, fixture.path];
      const { code, stdout, stderr } = await runCli(['diff', ...files, ...parts, '--no-discover']);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(/: the same\n/);
      expect((await runCli(['diff', ...files, '--no-discover'])).code).toBe(2);
    }
    rmSync(whole);
  });

  it('is shown with its return paths and the places of its sections', async () => {
    const { code, stdout } = await runCli(['inspect', '--sections', ...args]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/return path .*return-1\.bin, \d+ B\n {2}messages {2}4 PONG/);
    expect(stdout).toMatch(/SHUT {6}ok/);
    if (fixture.resumeOf.length > 0) {
      expect(stdout).toMatch(/received {2}\d+ pages of pc\.ram/);
      expect(stdout).toMatch(/start +\d+ {2}ram .*broken-1\.bin/);
      expect(stdout).toMatch(/broken-off: .*\bin .*broken-1\.bin at 0x/);
    }
  });

  it('is bad without its other files', async () => {
    const { code, stdout } = await runCli(['verify', fixture.path]);
    expect(code).toBe(1);
    expect(stdout).toMatch(fixture.resumeOf.length > 0 ? /not-a-migration-stream/ : /pages-lost/);
  });
});

describe('shared memory that the migration left out', () => {
  const { blockList, capabilities, configuration, EOF, EOS, filled, KIB4, normalPage, part, ramEnd, start, u64 } =
    build;
  const stream = build.join(
    ...[build.header, configuration('none', capabilities('x-ignore-shared'))],
    start(7, 'ram', 4, blockList(['ram', KIB4, u64(0)], ['shm', KIB4, u64(0x1000)]), EOS),
    ...[part(7, normalPage(0, filled(5), 'ram'), EOS), ramEnd, build.join(EOF)],
  );
  const path = join(directory, 'shared');
  writeFileSync(path, stream);

  it('is shown as ignored, and has no hash', async () => {
    const { code, stdout } = await runCli(['inspect', '--hash', path]);
    // Memory is missing.
    expect(code).toBe(1);
    expect(stdout).toMatch(/shm +4 KiB .*ignored/);
    expect(stdout).toMatch(/ram {4}[0-9a-f]{64}\n {2}shm\n/);
  });

  it('is not extracted as zeros', async () => {
    for (const output of [join(directory, 'out.raw'), '-']) {
      const { code, stderr, bytes } = await runCli(['extract', path, '--block', 'shm', '-o', output]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/shm is shared memory that the migration left out/);
      expect(bytes.length).toBe(0);
    }
    const all = join(directory, 'all');
    expect((await runCli(['extract', path, '--all', all])).code).toBe(1);
    const { code, stderr } = await runCli(['extract', path, '--all', all, '--partial']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/warning: missing: 1 page of shm, 4 KiB/);
    expect(readdirSync(all).sort()).toEqual(['ram.raw', 'shm.raw']);
    expect(readFileSync(join(all, 'ram.raw'))).toEqual(Buffer.from(filled(5)));
    expect(readdirSync(directory).sort()).toEqual(['all', 'shared']);
  });
});
