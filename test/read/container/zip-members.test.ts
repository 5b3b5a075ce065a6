/** Captures in zip archives: the chosen member, and the channels of its multifd set. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  inspect,
  MemberError,
  MemoryFile,
  MigrationError,
  type MigrationFile,
  open as openPortable,
  StreamSource,
  verify,
} from '../../../src/index.ts';
import { open } from '../../../src/node.ts';
import { loadContainerFixture } from '../../container-fixtures.ts';
import { loadFixtures } from '../../fixture-files.ts';
import { chunksOf } from '../../io/sources.ts';
import { type MadeMember, makeZip } from '../../io/zips.ts';

const set = loadFixtures().find(({ name }) => name === 'pc-multifd-zstd-zero-multifd-10.0')!;
const plain = loadFixtures().find(({ name }) => name === 'none-plain-10.0')!;
const setMembers = (deflate: boolean): MadeMember[] => [
  ...set.channels.map((data, i) => ({ name: `vm/guest.${i}`, data, deflate })),
  { name: 'vm/guest', data: set.bytes, deflate },
];
const others: MadeMember[] = [
  { name: 'readme.txt', data: Buffer.from('what this is') },
  { name: 'plain.bin', data: plain.bytes, deflate: true },
];

async function verdict(file: MigrationFile) {
  const { ok, findings } = await verify(file);
  await file.close();
  return { ok, codes: findings.filter(({ severity }) => severity !== 'info').map(({ code }) => code) };
}
const sound = { ok: true, codes: [] };

describe.each([false, true])('an archive (deflated: %s)', (deflate) => {
  it('of one capture opens that capture', async () => {
    const bytes = makeZip([{ name: 'a', data: plain.bytes, deflate }]);
    const file = await openPortable(bytes);
    expect((await inspect(file)).inspection).toMatchObject({
      machine: 'none',
      complete: true,
      containers: [{ kind: 'zip', member: 'a', method: deflate ? 'deflated' : 'stored', size: plain.bytes.length }],
    });
    expect(file.isSeekable).toBe(!deflate);
    await file.close();
  });

  it('of a multifd set opens the set with its channels', async () => {
    const file = await openPortable(makeZip(setMembers(deflate)));
    expect(file.parts.channels.map(({ name }) => name)).toEqual(set.channels.map((_, i) => `memory#vm/guest.${i}`));
    expect(await verdict(file)).toEqual(sound);
  });

  it('finds the channels beside a named member', async () => {
    const bytes = makeZip([...others, ...setMembers(deflate)]);
    const file = await openPortable(bytes, { member: 'vm/guest' });
    expect(file.parts.channels.length).toBe(set.channels.length);
    expect(await verdict(file)).toEqual(sound);
  });

  it('uses the given channels instead, if any', async () => {
    const bytes = makeZip(setMembers(deflate));
    const channels = set.channels.map((channel, i) => new MemoryFile(`own ${i}`, channel));
    const file = await openPortable(bytes, { channels });
    expect(file.parts.channels.map(({ name }) => name)).toEqual(set.channels.map((_, i) => `own ${i}`));
    expect(await verdict(file)).toEqual(sound);
  });
});

describe('a member', () => {
  it('must be named if there are several', async () => {
    const error = await openPortable(makeZip(others)).catch((caught) => caught);
    expect(error).toBeInstanceOf(MemberError);
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toBe(
      'expected a member of the zip archive memory, as memory#NAME: it has "readme.txt", "plain.bin"',
    );
    expect(error.wanted).toBeUndefined();
  });

  it('that does not exist is reported, with those that exist', async () => {
    await expect(openPortable(makeZip(others), { member: 'plain' })).rejects.toThrow(
      'expected a member of the zip archive memory, got "plain": it has "readme.txt", "plain.bin"',
    );
    await expect(openPortable(makeZip([]))).rejects.toThrow(/it is empty/);
    const many = Array.from({ length: 30 }, (_, i) => ({ name: `m${i}`, data: new Uint8Array() }));
    await expect(openPortable(makeZip(many))).rejects.toThrow(/"m19", …$/);
  });

  it('cannot be named for another kind of file', async () => {
    await expect(openPortable(plain.bytes, { member: 'a' })).rejects.toThrow(
      /expected a zip archive with a member "a", got another kind of file/,
    );
  });

  it('may be compressed, or a qcow2 image with snapshots, or an archive', async () => {
    const { bytes, streams } = loadContainerFixture('qcow2-deflate');
    const snapshot = streams[0]?.snapshot as string;
    const archive = makeZip([{ name: 'disk.qcow2', data: bytes }, ...others]);
    const file = await openPortable(archive, { member: 'disk.qcow2', snapshot });
    expect(file.containers.map(({ kind }) => kind)).toEqual(['zip', 'qcow2']);
    await file.close();
    const inner = await openPortable(makeZip([{ name: 'inner.zip', data: makeZip(others.slice(1)) }]));
    expect(inner.containers.map(({ kind }) => kind)).toEqual(['zip', 'zip']);
    expect(await verdict(inner)).toEqual(sound);
  });

  it('that is damaged is refused before any of it is used, unless the check is off', async () => {
    const bytes = makeZip([{ name: 'a', data: plain.bytes }]);
    // A byte of a page. Nothing in a stream would reveal the damage.
    const at = bytes.length - 500;
    bytes[at] = (bytes[at] as number) ^ 1;
    await expect(openPortable(bytes)).rejects.toMatchObject({ code: 'bad-archive', place: { source: 'memory' } });
    await (await openPortable(bytes, { checkMember: false })).close();
  });

  it('that is deflated is checked while it is read', async () => {
    const bytes = makeZip([{ name: 'a', data: plain.bytes, deflate: true, lies: { crc32: 1 } }]);
    const file = await openPortable(bytes);
    const { inspection } = await inspect(file);
    expect(inspection.error).toMatchObject({ code: 'bad-archive' });
    expect(inspection.complete).toBe(false);
    await file.close();
  });

  it('cannot be read through a pipe without a copy', async () => {
    const source = new StreamSource(chunksOf(makeZip(others), 1000), 'pipe');
    await expect(openPortable(source, { spool: 'never' })).rejects.toMatchObject({ code: 'unsupported' });
  });
});

describe('ARCHIVE#MEMBER in Node', () => {
  let dir = '';
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'vmferry-zip-'));
    const { bytes } = loadContainerFixture('qcow2-deflate');
    writeFileSync(join(dir, 'a.zip'), makeZip([...others, ...setMembers(true), { name: 'disk', data: bytes }]));
    writeFileSync(join(dir, 'main'), set.bytes);
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  it('is a member, and channels may be members', async () => {
    expect(await verdict(await open(join(dir, 'a.zip#plain.bin')))).toEqual(sound);
    expect(await verdict(await open(join(dir, 'a.zip#vm/guest')))).toEqual(sound);
    const channels = set.channels.map((_, i) => join(dir, `a.zip#vm/guest.${i}`));
    expect(await verdict(await open(join(dir, 'main'), { channels }))).toEqual(sound);
  });

  it('may have a snapshot after the member', async () => {
    const { streams } = loadContainerFixture('qcow2-deflate');
    const file = await open(join(dir, `a.zip#disk#${streams[0]?.snapshot}`));
    expect(file.containers.map(({ kind }) => kind)).toEqual(['zip', 'qcow2']);
    await file.close();
    await expect(open(join(dir, 'a.zip#plain.bin#x'))).rejects.toThrow(MigrationError);
  });

  it('lists the members if the name does not exist', async () => {
    await expect(open(join(dir, 'a.zip#plain'))).rejects.toThrow(/a\.zip, got "plain": it has "readme\.txt", /);
    await expect(open(join(dir, 'main'), { channels: join(dir, 'a.zip#guest.0') })).rejects.toThrow(MemberError);
  });
});
