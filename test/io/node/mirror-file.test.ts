/** The copy of a file on a server, on disk: it is gone on with, and is the file in the end. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, expect, it } from 'vitest';
import { readFully } from '../../../src/io/byte-source.ts';
import { openHttp } from '../../../src/io/http-source.ts';
import { openMirror } from '../../../src/io/node/mirror-file.ts';
import { CountingServer } from '../counting-server.ts';

const directory = mkdtempSync(join(tmpdir(), 'vmferry-mirror-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const content = new Uint8Array(3_000_000).map((_, i) => (i * 7 + (i >> 10)) & 0xff);
let server: CountingServer;
let path = '';
let number = 0;
beforeEach(async () => {
  server = await CountingServer.start({ guest: content, other: content.subarray(0, 2_000_000) });
  path = join(directory, `copy-${number++}`);
});
afterEach(() => server.close());

const opened = async (name = 'guest') => openMirror(path, await openHttp(server.url(name)));

async function read(mirror: Awaited<ReturnType<typeof opened>>, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await readFully(mirror.source, bytes, position);
  return bytes;
}

it('goes on where an earlier run ended', async () => {
  const first = await opened();
  expect(Buffer.compare(await read(first, 1_000_000, 50_000), content.subarray(1_000_000, 1_050_000))).toBe(0);
  await first.close();
  expect(existsSync(`${path}.blocks`)).toBe(true);
  server.take();
  const second = await opened();
  expect(Buffer.compare(await read(second, 1_000_000, 50_000), content.subarray(1_000_000, 1_050_000))).toBe(0);
  // Only the first bytes, by which the file is recognized.
  expect(server.take().requests).toBe(1);
  await second.close();
});

it('is the file when all of it was read, and stays it', async () => {
  const first = await opened();
  await read(first, 0, content.length);
  await first.close();
  expect(Buffer.compare(readFileSync(path), content)).toBe(0);
  server.take();
  const second = await opened();
  expect(Buffer.compare(await read(second, 0, content.length), content)).toBe(0);
  expect(server.take().requests).toBe(1);
  await second.close();
});

it('is refused for another file, and for another version of the same one', async () => {
  const first = await opened();
  await read(first, 0, 10);
  await first.close();
  await expect(opened('other')).rejects.toThrow('is a copy of another file');
  const source = await openHttp(server.url('guest'));
  const changed = Object.create(source, { validator: { value: '"two"' } });
  await expect(openMirror(path, changed)).rejects.toThrow('another version of');
  const silent = Object.create(source, { validator: { value: undefined } });
  await expect(openMirror(path, silent)).rejects.toThrow('cannot be known');
  await source.close();
});

it('does not touch a file of which no list says what it is', async () => {
  writeFileSync(path, content);
  await expect(opened()).rejects.toThrow('which says what it is a copy of');
  expect(Buffer.compare(readFileSync(path), content)).toBe(0);
});
