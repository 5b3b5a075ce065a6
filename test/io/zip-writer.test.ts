/** Written archives, read back by vmferry's reader and, if Python is installed, by Python's zipfile. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { appendTo } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { openZipMember, readZip } from '../../src/io/zip.ts';
import { requireZippable, type ZipMemberOptions, ZipWriter, zipLength } from '../../src/io/zip-writer.ts';
import { chunksOf, ScriptedSource } from './sources.ts';

type File = [name: string, content: Uint8Array, level?: ZipMemberOptions['level']];

async function written(files: readonly File[]): Promise<MemoryFile> {
  const output = new MemoryFile('a.zip');
  const zip = new ZipWriter(appendTo(output));
  for (const [name, content, level = 0] of files) await zip.add(name, chunksOf(content, 70_001), { level });
  await zip.end();
  expect(zip.length).toBe(output.size);
  return output;
}

async function readBack(archive: MemoryFile): Promise<[string, Buffer][]> {
  const { members, source } = await readZip(archive);
  const found: [string, Buffer][] = [];
  for (const member of members) {
    const opened = await openZipMember({ members, source }, member);
    const content = Buffer.alloc(member.size + 1);
    let at = 0;
    for (let count = -1; count !== 0; at += count) count = await opened.read(content.subarray(at), at);
    found.push([member.name, content.subarray(0, at)]);
  }
  return found;
}

const content = Uint8Array.from({ length: 700_000 }, (_, i) => ((i >> 14) % 2 === 0 ? i * i * 31 : i >> 9));
const files: File[] = [
  ['guest', content],
  ['guest.0', content.subarray(0, 300_001), 6],
  ['größe/ü.raw', content.subarray(5, 9), 1],
  ['nothing', new Uint8Array()],
];

describe('an archive', () => {
  it('returns what was put in, stored and deflated', async () => {
    const archive = await written(files);
    expect(archive.size).toBeLessThan(1_000_000);
    const found = await readBack(archive);
    expect(found.map(([name]) => name)).toEqual(files.map(([name]) => name));
    for (const [i, [, bytes]] of found.entries()) expect(Buffer.compare(bytes, files[i]?.[1] as Uint8Array)).toBe(0);
  });

  it('is readable by zipfile', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'vmferry-zip-'));
    try {
      const archive = await written(files);
      const bytes = new Uint8Array(archive.size);
      archive.read(bytes, 0);
      writeFileSync(join(dir, 'a.zip'), bytes);
      const script = `import sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None
print([(i.filename, i.file_size, i.compress_type) for i in z.infolist()])`;
      const { stdout, stderr, error } = spawnSync('python3', ['-c', script, join(dir, 'a.zip')], { encoding: 'utf8' });
      if (error !== undefined) {
        console.warn('not compared with zipfile: python3 is not installed');
        return;
      }
      expect(stderr).toBe('');
      expect(stdout.trim()).toBe(
        "[('guest', 700000, 0), ('guest.0', 300001, 8), ('größe/ü.raw', 4, 8), ('nothing', 0, 0)]",
      );
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('deflates without loss, whatever the pieces', async () => {
    const levels = fc.constantFrom(1, 6, 9);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 3000 }), { maxLength: 8 }),
        levels,
        async (pieces, level) => {
          const output = new MemoryFile('a.zip');
          const zip = new ZipWriter(appendTo(output));
          const all = Buffer.concat([...pieces, ...pieces]);
          async function* chunks() {
            yield* pieces;
            yield* pieces;
          }
          await zip.add('m', chunks(), { level });
          await zip.end();
          expect(Buffer.compare((await readBack(output))[0]?.[1] as Buffer, all)).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('takes sources, with a size and without', async () => {
    const output = new MemoryFile('a.zip');
    const zip = new ZipWriter(appendTo(output));
    await zip.add('a', new ScriptedSource(content, { chunk: 4001 }));
    await zip.add('b', new ScriptedSource(content, { chunk: 4001, isSeekable: false }));
    await zip.end();
    for (const [, bytes] of await readBack(output)) expect(Buffer.compare(bytes, content)).toBe(0);
  });

  it('of stored files has the predicted length', async () => {
    const stored = files.map(([name, bytes]) => ({ name, size: bytes.length }));
    expect((await written(files.map(([name, bytes]) => [name, bytes]))).size).toBe(zipLength(stored));
  });
});

describe('content that does not fit', () => {
  it('is refused before anything is written, if sizes are known', () => {
    const size = 2 ** 32 - 200;
    expect(() => requireZippable([{ name: 'a', size }])).not.toThrow();
    expect(() => requireZippable([{ name: 'a', size: size + 100 }])).toThrow(/at most 4294967295 bytes/);
    const many = Array.from({ length: 65535 }, (_, i) => ({ name: String(i), size: 0 }));
    expect(() => requireZippable(many)).toThrow(/at most 65534 files/);
  });

  it('is refused when it appears, and the archive never gets longer', async () => {
    let length = 0;
    const output = {
      write(bytes: Uint8Array) {
        length += bytes.length;
      },
    };
    const most = zipLength([{ name: 'a', size: content.length }]);
    const fits = new ZipWriter(output, most);
    await fits.add('a', chunksOf(content, 1000));
    await fits.end();
    expect(length).toBe(most);
    length = 0;
    await expect(new ZipWriter(output, most - 1).add('a', chunksOf(content, 1000))).rejects.toThrow(
      /a zip archive written here has at most \d+ bytes, and this one needs \d+/,
    );
    expect(length).toBeLessThan(most);
    await expect(new ZipWriter(output, most).add('b', chunksOf(Buffer.alloc(most), 1000))).rejects.toThrow(RangeError);
    expect(() => new ZipWriter(output, 2 ** 32)).toThrow(RangeError);
  });

  it('includes a name that is taken or empty', async () => {
    const zip = new ZipWriter(appendTo(new MemoryFile()));
    await zip.add('a', chunksOf(content, 1000));
    await expect(zip.add('a', chunksOf(content, 1000))).rejects.toThrow(/the name of a new file, got "a"/);
    await expect(zip.add('', chunksOf(content, 1000))).rejects.toThrow(RangeError);
  });
});

it("fails with its output's error", async () => {
  const zip = new ZipWriter({
    write() {
      throw new Error('no space left');
    },
  });
  await expect(zip.add('a', chunksOf(content, 1000))).rejects.toThrow('no space left');
});
