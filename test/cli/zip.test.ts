/** Captures in zip archives, on the command line. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import { makeZip } from '../io/zips.ts';
import { runCli } from '../run-cli.ts';

const set = loadFixtures().find(({ name }) => name === 'pc-multifd-zstd-zero-multifd-10.0')!;
const plain = loadFixtures().find(({ name }) => name === 'none-plain-10.0')!;
const setMembers = [
  ...set.channels.map((data, i) => ({ name: `guest.${i}`, data, deflate: true })),
  { name: 'guest', data: set.bytes },
];
let dir = '';
const path = (name: string) => join(dir, name);

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-zip-'));
  writeFileSync(path('set.zip'), makeZip(setMembers));
  writeFileSync(path('all.zip'), makeZip([...setMembers, { name: 'plain.bin', data: plain.bytes, deflate: true }]));
  const broken = makeZip([{ name: 'plain.bin', data: plain.bytes }]);
  broken[200] = (broken[200] as number) ^ 1;
  writeFileSync(path('broken.zip'), broken);
});
afterAll(() => rmSync(dir, { recursive: true }));

it('shows the member and the set in an archive', async () => {
  const { code, stdout } = await runCli(['inspect', path('set.zip')]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/container +member "guest" of a zip archive, stored, /);
  expect(stdout).toMatch(/multifd +2 channels, \d+ syncs, zstd\n/);
  const json = await runCli(['inspect', `${path('all.zip')}#plain.bin`, '--json']);
  expect(JSON.parse(json.stdout)).toMatchObject({
    containers: [{ kind: 'zip', member: 'plain.bin', method: 'deflated', size: plain.bytes.length }],
  });
});

it('accepts ARCHIVE#MEMBER wherever it reads a file', async () => {
  const [archive, file] = [`${path('all.zip')}#plain.bin`, fixturePath('none-plain-10.0.bin')];
  expect((await runCli(['verify', archive])).code).toBe(0);
  expect((await runCli(['diff', archive, file])).code).toBe(0);
  expect((await runCli(['extract', archive, '--all', path('blocks')])).code).toBe(0);
  const converted = await runCli(['convert', `${path('all.zip')}#guest`, path('guest.mapped-ram')]);
  expect([converted.code, converted.stderr]).toEqual([0, '']);
  expect((await runCli(['diff', path('guest.mapped-ram'), path('set.zip')])).code).toBe(0);
});

it('lists the members if none, or a wrong one, is named', async () => {
  const list = 'it has "guest.0", "guest.1", "guest", "plain.bin"';
  for (const [input, got] of [
    [path('all.zip'), `as ${path('all.zip')}#NAME`],
    [`${path('all.zip')}#nothing`, 'got "nothing"'],
  ] as const) {
    const { code, stderr } = await runCli(['inspect', input]);
    expect(code).toBe(2);
    expect(stderr).toContain(`expected a member of the zip archive ${path('all.zip')}, ${got}: ${list}`);
  }
});

it('refuses a damaged member', async () => {
  const { code, stderr } = await runCli(['extract', path('broken.zip'), '--all', path('none')]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/member "plain\.bin" has content with CRC-32 .* \[bad-archive\]/);
});
