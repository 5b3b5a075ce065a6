/** Files with holes: finding their data, and copying them. */
import { mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { NodeFile } from '../../../src/io/node/file.ts';
import { dataFinder } from '../../../src/io/node/holes.ts';
import { copyFile } from '../../../src/io/node/private-copy.ts';

const MiB = 1 << 20;
let dir = '';
let path = '';
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-holes-'));
  path = join(dir, 'file');
  await using file = new NodeFile(openSync(path, 'w+'), path, 0);
  file.write(new Uint8Array(100).fill(1), 3 * MiB + 5000);
  file.truncate(8 * MiB);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

it.skipIf(process.platform !== 'linux')('the data of a file with holes is found', async () => {
  await using file = new NodeFile(openSync(path, 'r'), path, 8 * MiB);
  const find = (await dataFinder(file)) as (position: number) => number;
  expect(find(0)).toBeGreaterThan(2 * MiB);
  expect(find(0)).toBeLessThanOrEqual(3 * MiB + 5000);
  expect(find(3 * MiB + 5050)).toBe(3 * MiB + 5050);
  expect(find(5 * MiB)).toBe(Number.POSITIVE_INFINITY);
});

it('a copy is equal, has no more data than the file, and overwrites nothing', async () => {
  const copy = join(dir, 'copy');
  await copyFile(path, copy);
  expect(readFileSync(copy).equals(readFileSync(path))).toBe(true);
  expect(statSync(copy).blocks * 512).toBeLessThanOrEqual(2 * MiB);
  await expect(copyFile(path, copy)).rejects.toMatchObject({ code: 'EEXIST' });
});
