import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendTo } from '../../../src/io/byte-source.ts';
import type { Compression } from '../../../src/io/compression.ts';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { compressTo } from '../../../src/io/node/compress.ts';
import { nodeDecompress } from '../../../src/io/node/decompress.ts';

/** Random bytes and long runs. */
const content = Uint8Array.from({ length: 3 << 20 }, (_, i) => ((i >> 12) % 3 === 0 ? (i * i) >> 7 : i >> 14));

const isThere = (format: string) =>
  format === 'gzip' || spawnSync(format, ['--version'], { stdio: 'ignore' }).error === undefined;

async function decompressed(file: MemoryFile, format: Compression): Promise<Uint8Array> {
  const bytes = new Uint8Array(file.size);
  file.read(bytes, 0);
  async function* chunks() {
    yield bytes;
  }
  const parts: Uint8Array[] = [];
  for await (const part of nodeDecompress(format, chunks(), new AbortController().signal)) parts.push(part.slice());
  return Buffer.concat(parts);
}

describe('compressing a file', () => {
  it.each(['raw', 'lz4', 'sh'])('refuses the format %s, whatever programs are installed', (format) => {
    expect(() => compressTo(format as 'gzip', appendTo(new MemoryFile()))).toThrow(
      `format gzip, bzip2, xz, lzop, zstd, got ${format}`,
    );
  });

  it.each<Compression>(['gzip', 'bzip2', 'xz', 'lzop', 'zstd'])(
    '%s decompresses to the input, even though the caller reuses its buffer',
    async (format) => {
      if (!isThere(format)) {
        console.warn(`skipped: ${format} is not installed`);
        return;
      }
      const file = new MemoryFile();
      const sink = compressTo(format, appendTo(file));
      const buffer = new Uint8Array(1 << 19);
      for (let at = 0; at < content.length; at += buffer.length) {
        buffer.set(content.subarray(at, at + buffer.length));
        await sink.write(buffer);
        buffer.fill(0xee);
      }
      await sink.end();
      expect(file.size).toBeLessThan(content.length);
      expect(Buffer.compare(await decompressed(file, format), content)).toBe(0);
    },
  );

  describe('without the program zstd', () => {
    const { PATH } = process.env;
    beforeAll(() => {
      process.env.PATH = '/nowhere';
    });
    afterAll(() => {
      process.env.PATH = PATH;
    });

    async function compressed(bytes: Uint8Array): Promise<MemoryFile> {
      const file = new MemoryFile();
      const sink = compressTo('zstd', appendTo(file));
      for (let at = 0; at < bytes.length; at += 700_000) await sink.write(bytes.subarray(at, at + 700_000));
      await sink.end();
      return file;
    }

    it.each([0, 1, 1 << 20, content.length - 5])('zstd makes frames of at most 1 MiB of %i bytes', async (length) => {
      const file = await compressed(content.subarray(0, length));
      expect(isThere('zstd')).toBe(false);
      expect(Buffer.compare(await decompressed(file, 'zstd'), content.subarray(0, length))).toBe(0);
      process.env.PATH = PATH;
      if (isThere('zstd'))
        expect(Buffer.compare(await decompressed(file, 'zstd'), content.subarray(0, length))).toBe(0);
      else console.warn('skipped: the comparison with the program zstd, which is not installed');
      process.env.PATH = '/nowhere';
    });
  });

  it.each(['gzip', 'bzip2'] as const)('of %s fails with the error of its output', async (format) => {
    const full = Object.assign(new Error('no space left'), { code: 'ENOSPC' });
    const sink = compressTo(format, {
      write() {
        throw full;
      },
    });
    await expect(
      (async () => {
        for (let i = 0; i < 40; i++) await sink.write(content);
        await sink.end();
      })(),
    ).rejects.toBe(full);
  });

  it('names the missing program', async () => {
    const path = process.env.PATH;
    process.env.PATH = '/nowhere';
    try {
      const sink = compressTo('lzop', { write() {} });
      await expect(sink.end()).rejects.toThrow('the program "lzop" is not installed');
    } finally {
      process.env.PATH = path;
    }
  });
});
