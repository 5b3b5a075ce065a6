import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openDriveFile } from '../../src/io/node/drive-file.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

it('opens the file of a disk, and says what it takes', async () => {
  const path = join(dir, 'disk');
  writeFileSync(path, Buffer.alloc(10_000, 7));
  const { store, allocatedBytes } = await openDriveFile(path);
  expect(store.size).toBe(10_000);
  store.write(new Uint8Array(1 << 20), 1 << 20);
  expect(store.size).toBe(2 << 20);
  expect(allocatedBytes()).toBeGreaterThanOrEqual((1 << 20) + 10_000);
  expect(allocatedBytes()).toBeLessThan(2 << 20);
  await store.close();
});

it('says as QEMU why it cannot', async () => {
  const path = join(dir, 'missing');
  await expect(openDriveFile(path)).rejects.toMatchObject({
    message: `Could not open '${path}': No such file or directory`,
    code: 'ENOENT',
  });
});
