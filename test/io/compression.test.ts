import { deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decompressSource, findCompression, inflateRaw } from '../../src/io/compression.ts';
import { ScriptedSource } from './sources.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);

describe('the format of compressed data', () => {
  it('is recognized by its first bytes', () => {
    expect(findCompression(bytes(0x1f, 0x8b, 8, 0))).toBe('gzip');
    expect(findCompression(new TextEncoder().encode('BZh9'))).toBe('bzip2');
    expect(findCompression(new TextEncoder().encode('BZh0'))).toBeUndefined();
    expect(findCompression(bytes(0x42, 0x5a, 0x68))).toBeUndefined();
    expect(findCompression(bytes(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0))).toBe('xz');
    expect(findCompression(bytes(0xfd, 0x37, 0x7a, 0x58))).toBeUndefined();
    expect(findCompression(bytes(0x89, 0x4c, 0x5a, 0x4f, 0, 13, 10, 26, 10))).toBe('lzop');
    expect(findCompression(bytes(0x28, 0xb5, 0x2f, 0xfd))).toBe('zstd');
    expect(findCompression(bytes(0x51, 0x45, 0x56, 0x4d))).toBeUndefined();
    expect(findCompression(bytes())).toBeUndefined();
  });
});

describe('a source that is decompressed', () => {
  it("fails with its input's error, whatever error the decompressor reports", async () => {
    const input = new ScriptedSource(new Uint8Array(100_000), { failAt: 70_000 });
    const source = decompressSource(input, 10, 'zstd', async function* (_, chunks) {
      try {
        for await (const chunk of chunks) yield chunk;
      } catch {
        throw new Error('unexpected end');
      }
    });
    expect(await source.read(new Uint8Array(10), 0)).toBe(10);
    await expect((async () => source.read(new Uint8Array(10), 90_000))()).rejects.toThrow('cannot read at 70000');
    await source.close();
    expect(input.isClosed).toBe(true);
  });

  it('names the place of damage, in decompressed bytes', async () => {
    const source = decompressSource(new ScriptedSource(new Uint8Array(10)), 0, 'lzop', async function* () {
      yield new Uint8Array(77);
      throw new Error('bad checksum');
    });
    expect(await source.read(new Uint8Array(100), 0)).toBe(77);
    await expect((async () => source.read(new Uint8Array(100), 77))()).rejects.toMatchObject({
      code: 'bad-compression',
      detail: 'expected lzop data: bad checksum',
      place: { source: 'scripted', offset: 77, coordinate: 'decompressed' },
    });
    await source.close();
  });
});

describe('raw deflate', () => {
  const text = new TextEncoder().encode('ferry '.repeat(100));
  const packed = deflateRawSync(text);

  it('is unpacked, and what follows it is ignored', async () => {
    expect(await inflateRaw(new Uint8Array(Buffer.concat([packed, Buffer.alloc(99, 7)])), text.length)).toEqual(text);
  });

  it('is refused if it is truncated or damaged', async () => {
    await expect(inflateRaw(packed.subarray(0, 10), text.length)).rejects.toThrow();
    await expect(inflateRaw(Uint8Array.of(7, 7, 7), text.length)).rejects.toThrow();
    // QEMU also ignores everything after a cluster.
    expect(await inflateRaw(packed, 50)).toEqual(text.subarray(0, 50));
    expect((await inflateRaw(packed, text.length + 9)).length).toBe(text.length);
  });
});
