import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { expectPeakMemory, runCli } from '../run-cli.ts';
import { savedFile, word } from '../support/saved-files.ts';

const of72 = fixturePath('pc-xbzrle-7.2.bin');
const of100 = fixturePath('pc-xbzrle-10.0.bin');
const dump72 = fixturePath('dumps/pc-i440fx-7.2-on-7.2.json');
const dump100 = fixturePath('dumps/pc-i440fx-7.2-on-10.0.json');

const folder = mkdtempSync(join(tmpdir(), 'vmferry-check-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const written = (name: string, content: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

describe('vmferry check', () => {
  it.each([
    ['7.2', dump72],
    ['10.0', dump100],
  ])(
    'reports that QEMU %s would load what 7.2 saved of the same machine type, and what was not judged',
    async (_, dump) => {
      const { code, stdout, stderr } = await runCli(['check', of72, '--against', dump]);
      expect(stderr).toBe('');
      expect(code).toBe(0);
      expect(stdout.split('\n')[0]).toMatch(
        /pc-xbzrle-7\.2\.bin: should load on the QEMU of .* with -M pc-i440fx-7\.2, if it has the same RAM and devices \(/,
      );
      expect(stdout).toMatch(/not judged:\n {2}- RAM blocks.*\n {2}- which devices/);
      expect(stdout).not.toContain('section timer');
    },
  );

  it('reports that it would not load, why, where, and what to do, verdict first', async () => {
    const { code, stdout } = await runCli(['check', of100, '--against', dump72]);
    expect(code).toBe(1);
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/: WOULD NOT LOAD on the QEMU of .*\(1 refusal/);
    expect(lines[1]).toBe(
      "refused machine: the file is of machine type pc-i440fx-10.0, the target's is pc-i440fx-7.2 (at 0x8)",
    );
    expect(lines[2]).toMatch(/^ {2}→ load it with -M pc-i440fx-10\.0/);
  });

  it('compares a file with one that the target saved', async () => {
    expect((await runCli(['check', of72, '--against', of72])).code).toBe(0);
    const { code, stdout } = await runCli(['check', of100, '--against', of72]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/on the QEMU that saved .*pc-xbzrle-7\.2\.bin with -M pc-i440fx-7\.2/);
  });

  it('accepts either of the two from standard input, and recognizes the kind of the target', async () => {
    const byStdin = [
      runCli(['check', '-', '--against', dump100], readFileSync(of72)),
      runCli(['check', of72, '--against', '-'], readFileSync(dump100)),
      runCli(
        ['check', of72, '--against', '-'],
        Readable.from([' ', '\n{', readFileSync(dump100, 'utf8').trim().slice(1)]),
      ),
      runCli(['check', of72, '--against', '-'], readFileSync(of72)),
    ];
    for (const { code, stderr } of await Promise.all(byStdin)) expect(`${code} ${stderr}`).toBe('0 ');
  });

  it('prints everything as JSON, and with --all also harmless differences', async () => {
    const { stdout, code } = await runCli(['check', '--json', of72, '--against', dump100]);
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ verdict: 'loads', machine: 'pc-i440fx-7.2', against: { kind: 'vmstate-dump' } });
    expect(result.reasons).toEqual([
      expect.objectContaining({ effect: 'note', rule: 'field', field: 'num_timers', place: expect.anything() }),
    ]);
    const all = await runCli(['check', '--all', of72, '--against', dump100]);
    expect(all.stdout).toMatch(
      /note field: num_timers is read as num_timers_save, which has the same number of bytes \(at 0x[0-9a-f]+, section hpet/,
    );
    expect(all.stdout).toContain('section timer: a dump lists the states of device types, and not all others');
  });

  it('treats doubts as refusals with --strict', async () => {
    // The target may read an older version of a section, or not.
    const odd = (version: number) =>
      savedFile({ devices: [{ state: { name: 'odd', version, fields: [word('a', version)] } }] });
    const file = written('odd', odd(1));
    const target = written('odd.target', odd(2));
    const lax = await runCli(['check', file, '--against', target]);
    expect(lax).toMatchObject({ code: 0, stdout: expect.stringMatching(/MAY NOT LOAD .*1 doubt/) });
    expect((await runCli(['check', '--strict', file, '--against', target])).code).toBe(1);
  });

  it('reports where a truncated file ends: no QEMU loads it', async () => {
    const cut = written('cut', readFileSync(of72).subarray(0, 300_000));
    const { code, stdout } = await runCli(['check', cut, '--against', dump100]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/refused file: the file is bad: .*\[truncated\] \(at 0x49/);
  });

  it('prints names from a file safely for a terminal', async () => {
    const saved = savedFile({
      devices: [{ idstr: 'a/\x1b[31m', state: { name: '\x1b[31m', version: 1, fields: [] } }],
    });
    const { stdout } = await runCli(['check', '--all', written('red', saved), '--against', dump100]);
    expect(stdout).toContain('\\x1b[31m');
    expect(stdout).not.toContain('\x1b');
  });
});

describe('an impossible target', () => {
  it.each([
    ['is not there', () => join(folder, 'nowhere'), /nowhere/],
    ['is no JSON', () => written('bad.json', '{"vmschkmachine": {'), /bad-vmstate-dump/],
    ['is other JSON', () => written('other.json', '{"a": 1}'), /expected the output of -dump-vmstate/],
    ['nests deep', () => written('deep.json', '{"a":'.repeat(100_000)), /limit-exceeded/],
    ['is long', () => written('long.json', `{"a": "${'x'.repeat(100 << 20)}"}`), /limit-exceeded/],
    ['is not a migration file', () => written('noise', 'noise, and nothing else'), /cannot be a target/],
    ['breaks off', () => written('cut', readFileSync(of72).subarray(0, 300_000)), /cannot be a target: .*truncated/],
  ])('ends with 2 if it %s', async (_, make, message) => {
    const result = await runCli(['check', of72, '--against', make()], undefined, { alone: true });
    const { code, stdout, stderr } = result;
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n +at /);
    expect(stdout).toBe('');
    expect(code).toBe(2);
    expectPeakMemory(result, 300 << 20);
  });

  it('ends with 2 without --against, and with standard input for both', async () => {
    expect((await runCli(['check', of72])).code).toBe(2);
    expect((await runCli(['check', '-', '--against', '-'])).code).toBe(2);
  });

  it('reports it if file and dump were exchanged', async () => {
    const { code, stdout } = await runCli(['check', dump100, '--against', of72]);
    expect(code).toBe(1);
    expect(stdout).toContain('use the dump as the target');
  });
});
