/** Channels that are found beside their main stream. */
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChannels, groupSets } from '../../src/node.ts';
import { fixturePath, loadFixtures } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';

const plain = fixturePath('pc-plain-10.0.bin');
const xbzrle = fixturePath('pc-xbzrle-10.0.bin');
let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
async function convert(source: string, set: string, channels: number, ...more: string[]): Promise<void> {
  const args = ['convert', source, at(set), '--to', 'multifd', '--multifd-channels', String(channels), ...more];
  expect((await runCli(args)).code).toBe(0);
}

/** Writes a captured set as `set`, `set.0` and so on. */
function place(fixture: string, set: string): void {
  const { bytes, channels = [] } = loadFixtures().find(({ name }) => name === fixture)!;
  writeFileSync(at(set), bytes);
  for (const channel of channels) writeFileSync(at(`${set}.${channel[24]}`), channel);
}

describe('channels beside a main stream', () => {
  it('are used by every command that takes a file, and said in one line', async () => {
    await convert(plain, 'set', 3);
    const said = `vmferry: note: ${at('set')} is read with 3 channels: ${at('set.0')} to ${at('set.2')} (--no-discover reads it alone)\n`;
    for (const [args, expected] of [
      [['verify', at('set')], /: OK/],
      [['inspect', at('set')], /multifd +3 channels/],
      [['diff', plain, at('set'), '--ram'], /the same/],
      [['diff', at('set'), plain, '--ram'], /the same/],
      [['extract', at('set'), '--block', 'pc.ram', '-o', at('ram')], /pc.ram/],
      [['convert', at('set'), at('again.stream')], /verified/],
      [['convert', plain, at('both.stream'), '--base', at('set')], /verified/],
      [['convert', xbzrle, at('changes'), '--only-changed-from', at('set')], /changes/],
      [['merge', at('set'), at('changes'), at('merged.stream')], /verified/],
      [['read', at('set'), '--at', '1MiB', '--length', '16'], /0d a4 6b 2a/],
      [['search', at('set'), '--hex', '0da46b2a', '--count'], /1/],
      [['estimate', at('set'), '--sample', '512K'], /2.19 MiB of RAM/],
      [['check', at('set'), '--against', plain], /should load/],
    ] as const) {
      const { stdout, stderr } = await runCli([...args]);
      expect(stderr, args.join(' ')).toBe(said);
      expect(stdout, args.join(' ')).toMatch(expected);
    }
  });

  it('are not used with --no-discover, nor beside given channels', async () => {
    const alone = await runCli(['inspect', at('set'), '--no-discover']);
    expect([alone.stderr, alone.stdout]).toEqual(['', expect.stringMatching(/channels not given/)]);
    const given = [0, 1, 2].flatMap((i) => ['--channel', at(`set.${i}`)]);
    expect(await runCli(['verify', at('set'), ...given])).toMatchObject({ code: 0, stderr: '' });
    expect((await runCli(['verify', '-q', at('set')])).stderr).toBe('');
  });

  it('are not sought for a stream without marks', async () => {
    copyFileSync(plain, at('other'));
    copyFileSync(at('set.0'), at('other.0'));
    expect(await runCli(['verify', at('other')])).toMatchObject({ code: 0, stderr: '' });
  });

  it.each([['10.0'], ['7.2']])('of a later, smaller set for %s exclude what is left over, by name', async (compat) => {
    const [old, now] = [`old-${compat}`, `now-${compat}`];
    const machine = fixturePath(compat === '7.2' ? 'pc-xbzrle-7.2.bin' : 'pc-xbzrle-10.0.bin');
    await convert(machine, old, 4, '--compat', compat);
    await convert(machine, now, 2, '--compat', compat);
    for (const id of [2, 3]) copyFileSync(at(`${old}.${id}`), at(`${now}.${id}`));
    const { code, stdout, stderr } = await runCli(['verify', at(now)]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/: OK/)]);
    expect(stderr).toMatch(/is read with 2 channels/);
    for (const id of [2, 3]) {
      expect(stderr).toMatch(
        new RegExp(`warning: \\S+${now}\\.${id} is not used .*: it is left over from another save`),
      );
    }
  });

  it.each([
    ['pc-multifd-none-zero-none-10.0', 'pc-multifd-none-zero-multifd-10.0'],
    ['pc-multifd-zstd-7.2', 'pc-multifd-none-7.2'],
  ])('of QEMU exclude those of %s beside %s', async (before, after) => {
    place(before, after);
    place(after, after);
    expect(readdirSync(folder).filter((name) => name.startsWith(`${after}.`))).toHaveLength(4);
    const { channels, refused } = await findChannels(at(after));
    expect(channels).toEqual([0, 1].map((id) => at(`${after}.${id}`)));
    expect(refused.map(({ name }) => name)).toEqual([2, 3].map((id) => at(`${after}.${id}`)));
  });

  it('are refused if a leftover has their place, and the same UUID', async () => {
    place('pc-multifd-none-zero-multifd-10.0', 'mixed');
    const old = loadFixtures().find(({ name }) => name === 'pc-multifd-none-zero-none-10.0')!;
    writeFileSync(at('mixed.1'), old.channels!.find((channel) => channel[24] === 1)!);
    const { stderr } = await runCli(['verify', at('mixed')]);
    for (const id of [0, 1]) expect(stderr).toMatch(new RegExp(`mixed\\.${id} is not used .* both have packet \\d+`));
    expect(stderr).not.toMatch(/is read with/);
  });

  it('are grouped with their main stream', async () => {
    const paths = ['set', 'set.0', 'set.1', 'set.2', 'other', 'now-10.0', 'now-10.0.0', 'now-10.0.1', 'now-10.0.2'].map(
      at,
    );
    const groups = await groupSets([plain, ...paths]);
    expect(groups.map(({ path }) => path)).toEqual([plain, at('set'), at('other'), at('now-10.0')]);
    expect(groups.map(({ channels }) => channels.length)).toEqual([0, 3, 0, 2]);
    expect(groups[3]?.refused.map(({ name }) => name)).toEqual([2, 3].map((id) => at(`now-10.0.${id}`)));
    expect((await groupSets([at('set.0')])).map(({ path }) => path)).toEqual([at('set.0')]);
  });
});
