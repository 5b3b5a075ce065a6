/** Zip archives as Python's zipfile writes them, damaged archives, and malicious ones. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ByteSource } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { isZip, openZipMember, readZip, type ZipMember } from '../../src/io/zip.ts';
import { MigrationError } from '../../src/vm/migration-error.ts';
import { fixturePath } from '../fixture-files.ts';
import { moreCases } from '../limits.ts';
import { ScriptedSource } from './sources.ts';
import { type MadeMember, makeZip } from './zips.ts';

/** The contents in test/fixtures/zips/make.py. */
const contents: Record<string, Uint8Array> = {
  'text.txt': Buffer.from(Array.from({ length: 20 }, (_, i) => `line ${i} of a text\n`).join('')),
  'folder/noise.bin': Uint8Array.from({ length: 600 }, (_, i) => i * i * 7 + (i >> 3)),
  nothing: new Uint8Array(),
};
const zipBytes = (name: string) => readFileSync(fixturePath(`zips/${name}.zip`));

/** All bytes of a source, in order, in reads of some length. */
async function readAll(source: ByteSource, step = 1000): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const piece = new Uint8Array(step);
  for (let at = 0; ; ) {
    const count = await source.read(piece, at);
    if (count === 0) break;
    pieces.push(piece.slice(0, count));
    at += count;
  }
  await source.close();
  return Buffer.concat(pieces);
}

async function readMembers(source: ByteSource): Promise<Record<string, Buffer>> {
  const archive = await readZip(source);
  const found: Record<string, Buffer> = {};
  for (const member of archive.members) found[member.name] = await readAll(await openZipMember(archive, member));
  return found;
}

const one = async (bytes: Uint8Array) => {
  const archive = await readZip(new MemoryFile('a.zip', bytes));
  return { archive, member: archive.members[0] as ZipMember };
};

const names = ['stored', 'deflated', 'stored-by-pipe', 'deflated-by-pipe', 'local-zip64', 'zip64'];

describe.each(names)("zipfile's %s archive", (name) => {
  it('has its members, without folders', async () => {
    const bytes = zipBytes(name);
    expect(isZip(bytes)).toBe(true);
    const found = await readMembers(new ScriptedSource(bytes, { chunk: 700, isSlow: true }));
    expect(Object.keys(found).sort()).toEqual(Object.keys(contents).sort());
    for (const [key, content] of Object.entries(contents)) {
      expect(Buffer.compare(found[key] as Buffer, content), key).toBe(0);
    }
  });

  it('gives an error or the packed content, whichever byte is damaged', async () => {
    const bytes = Buffer.from(zipBytes(name));
    let errors = 0;
    for (let at = 0; at < bytes.length; at++) {
      const flip = [0x01, 0xff, 0x80][at % 3] as number;
      bytes[at] = (bytes[at] as number) ^ flip;
      try {
        // A name may have changed, because no checksum protects it.
        for (const content of Object.values(await readMembers(new MemoryFile('a.zip', bytes)))) {
          const isRight = Object.values(contents).some((each) => Buffer.compare(each, content) === 0);
          expect(isRight, `byte ${at} ^ ${flip}`).toBe(true);
        }
      } catch (error) {
        if (!(error instanceof MigrationError)) throw error;
        expect(['bad-archive', 'unsupported', 'truncated', 'limit-exceeded']).toContain(error.code);
        expect(error.place.source).toBe('a.zip');
        errors++;
      }
      bytes[at] = (bytes[at] as number) ^ flip;
    }
    expect(errors).toBeGreaterThan(bytes.length / 2);
  });

  it('gives an error wherever it is truncated', async () => {
    const bytes = zipBytes(name);
    for (let length = 0; length < bytes.length; length++) {
      await expect(readMembers(new MemoryFile('a.zip', bytes.subarray(0, length)))).rejects.toThrow(MigrationError);
    }
  });
});

describe('a member', () => {
  const data = Uint8Array.from({ length: 5000 }, (_, i) => i >> 3);

  it.each([false, true])('has sizes in zip64 fields (deflated: %s)', async (deflate) => {
    const bytes = makeZip([{ name: 'm', data, deflate }], { zip64: true });
    expect(Buffer.compare((await readMembers(new MemoryFile('a.zip', bytes))).m as Buffer, data)).toBe(0);
  });

  it('can seek if it is stored, but not if it is deflated', async () => {
    const stored = await one(makeZip([{ name: 'm', data }]));
    const source = await openZipMember(stored.archive, stored.member);
    expect([source.name, source.size]).toEqual(['a.zip#m', 5000]);
    const target = new Uint8Array(100);
    for (const [at, count] of [
      [4000, 100],
      [10, 100],
      [4950, 50],
      [5000, 0],
      [9000, 0],
    ] as const) {
      expect(await source.read(target, at)).toBe(count);
      expect(Buffer.compare(target.subarray(0, count), data.subarray(at, at + count))).toBe(0);
    }
    const deflated = await one(makeZip([{ name: 'm', data, deflate: true }]));
    const forward = await openZipMember(deflated.archive, deflated.member);
    expect([forward.size, forward.coordinate]).toEqual([undefined, 'decompressed']);
    await forward.close();
  });

  it('of more than 4 GiB is read in place', async () => {
    const size = 5 * 2 ** 30;
    const made = makeZip([{ name: 'm', data: Uint8Array.of(1), lies: { size, compressedSize: size } }], {
      zip64: true,
    });
    // The same archive with a hole after the first byte of data, so that everything after it is 5 GiB further.
    const dataEnd = 30 + 1 + 1;
    const moved = size - 1;
    for (const [at, value] of [
      [made.length - 22 - 20 - 56 + 48, dataEnd + moved],
      [made.length - 22 - 20 + 8, made.length - 22 - 20 - 56 + moved],
    ] as const) {
      made.writeBigUInt64LE(BigInt(value), at);
    }
    const source: ByteSource = {
      name: 'large.zip',
      size: made.length + moved,
      read(target, position) {
        for (let i = 0; i < target.length; i++) {
          const at = position + i;
          target[i] = (at < dataEnd ? made[at] : at < dataEnd + moved ? at & 0xff : made[at - moved]) as number;
        }
        return Math.min(target.length, made.length + moved - position);
      },
      close: async () => {},
    };
    const archive = await readZip(source);
    const member = await openZipMember(archive, archive.members[0] as ZipMember, { check: false });
    expect(member.size).toBe(size);
    const target = new Uint8Array(4);
    expect(await member.read(target, size - 4)).toBe(4);
    expect([...target]).toEqual([-4, -3, -2, -1].map((back) => (31 + size + back) & 0xff));
  });

  it.each([
    ['is encrypted', { flags: 0x801 }, /encrypted/],
    ['is packed by another method', { method: 12 }, /a method other than deflate/],
  ] as const)('that %s is listed, and refused when it is opened', async (_, lies, message) => {
    const { archive, member } = await one(makeZip([{ name: 'm', data, lies }]));
    await expect(openZipMember(archive, member)).rejects.toThrow(message);
    await expect(openZipMember(archive, member)).rejects.toMatchObject({ code: 'unsupported' });
  });

  it.each([false, true])(
    'is checked even if its local header has no size or CRC-32 (deflated: %s)',
    async (deflate) => {
      const { archive, member } = await one(makeZip([{ name: 'm', data, deflate, lies: { crc32: 5 } }]));
      await expect((async () => readAll(await openZipMember(archive, member)))()).rejects.toThrow(
        /member "m" has content with CRC-32 0x[0-9a-f]{8} instead of 0x00000005 \[bad-archive\] in a.zip at 0x0/,
      );
    },
  );

  it('gives its last bytes only if everything is correct, if it is deflated', async () => {
    const { archive, member } = await one(makeZip([{ name: 'm', data, deflate: true, lies: { crc32: 5 } }]));
    const source = await openZipMember(archive, member);
    let given = 0;
    const piece = new Uint8Array(64);
    const reading = (async () => {
      for (;;) given += await source.read(piece, given);
    })();
    await expect(reading).rejects.toThrow(MigrationError);
    expect(given).toBeLessThan(data.length);
  });
});

describe('an archive that lies', () => {
  const data = new Uint8Array(3000).fill(7);
  const refused = (members: MadeMember[], message: RegExp) =>
    expect(readMembers(new MemoryFile('a.zip', makeZip(members)))).rejects.toThrow(message);

  it('about sizes is refused', async () => {
    await refused([{ name: 'm', data, deflate: true, lies: { size: 2999 } }], /more than 2999 bytes/);
    await refused([{ name: 'm', data, deflate: true, lies: { size: 3001 } }], /3000 of 3001 bytes/);
    await refused([{ name: 'm', data, lies: { size: 4000, compressedSize: 4000 } }], /overlaps what follows it/);
    await refused([{ name: 'm', data, lies: { size: 10 } }], /expected 10 bytes of the stored member/);
  });

  it('about offsets is refused: no two members share bytes', async () => {
    const two = [
      { name: 'a', data },
      { name: 'b', data, lies: { offset: 0 } },
    ];
    await refused(two, /member "a" overlaps|member "b" overlaps/);
    await refused([{ name: 'a', data, lies: { offset: 2 ** 31 } }], /overlaps what follows it/);
  });

  it('with two members of one name is refused', async () => {
    await refused(
      [
        { name: 'a', data },
        { name: 'a', data },
      ],
      /expected one member "a", got two/,
    );
  });

  it('about its directory is refused', async () => {
    const bytes = makeZip([{ name: 'm', data }]);
    const patched = (at: number, value: number) => {
      const copy = Buffer.from(bytes);
      copy.writeUInt32LE(value, copy.length - 22 + at);
      return readZip(new MemoryFile('a.zip', copy));
    };
    await expect(patched(12, 0x7fffffff)).rejects.toMatchObject({ code: 'limit-exceeded' });
    await expect(patched(16, 3)).rejects.toThrow(/expected the zip directory to end at/);
    await expect(readZip(new MemoryFile('a.zip', Buffer.concat([bytes, Buffer.alloc(5)])))).rejects.toThrow(
      /the end of the zip archive was not found/,
    );
  });

  it('with a bomb takes little memory: a thousandth of its content, and a size of 100 bytes', async () => {
    const size = moreCases ? 2 ** 29 : 2 ** 28;
    const bomb = makeZip([{ name: 'm', data: new Uint8Array(size), deflate: true }]);
    expect(bomb.length).toBeLessThan(size / 500);
    const { archive, member } = await one(bomb);
    const source = await openZipMember(archive, member);
    const piece = new Uint8Array(1 << 20);
    const before = process.memoryUsage().rss;
    let most = 0;
    for (let at = 0; ; ) {
      const count = await source.read(piece, at);
      if (count === 0) break;
      at += count;
      most = Math.max(most, process.memoryUsage().rss - before);
    }
    expect(most).toBeLessThan(200 << 20);
    const lying = { archive, member: { ...member, size: 100 } };
    await expect((async () => readAll(await openZipMember(lying.archive, lying.member)))()).rejects.toThrow(
      /more than 100 bytes/,
    );
  });
});
