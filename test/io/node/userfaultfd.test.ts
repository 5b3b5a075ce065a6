/** Who may not use userfaultfd, by what this host says about itself. */
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { parseMigrationUri } from '../../../src/io/migration-address.ts';
import { whoLacksUserfaultfd } from '../../../src/io/node/userfaultfd.ts';

const directory = mkdtempSync(join(tmpdir(), 'vmferry-userfaultfd-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const isRoot = process.getuid?.() === 0;
const uid = isRoot ? 1234 : (process.getuid?.() ?? 0);

/** A file of a user who is not root, which stands for the socket of that user's QEMU. */
const socket = join(directory, 'socket');
writeFileSync(socket, '');
if (isRoot) chownSync(socket, uid, uid);
const address = parseMigrationUri(`unix:${socket}`);

function files(setting: string, mode?: number) {
  const paths = { setting: join(directory, 'setting'), device: join(directory, 'device') };
  writeFileSync(paths.setting, setting);
  rmSync(paths.device, { force: true });
  if (mode === undefined) return paths;
  writeFileSync(paths.device, '');
  chmodSync(paths.device, mode);
  if (!isRoot) return paths;
  chownSync(paths.device, 0, 0);
  return paths;
}

it('is nobody where the kernel lets everybody use it', () => {
  expect(whoLacksUserfaultfd(address, files('1\n'))).toBeUndefined();
});

it('is the user of the socket where it does not, and the device is not there', () => {
  expect(whoLacksUserfaultfd(address, files('0\n'))).toEqual({ uid, isCertain: true });
});

it('is nobody who can open the device', () => {
  expect(whoLacksUserfaultfd(address, files('0\n', 0o666))).toBeUndefined();
  expect(whoLacksUserfaultfd(address, files('0\n', 0o660))).toBeUndefined();
  if (isRoot) expect(whoLacksUserfaultfd(address, files('0\n', 0o600))).toEqual({ uid, isCertain: true });
});

it('cannot be known of another host, of a missing socket, and without the setting', () => {
  const refusing = files('0\n');
  expect(whoLacksUserfaultfd(parseMigrationUri('tcp:elsewhere.example:4444'), refusing)).toBeUndefined();
  expect(whoLacksUserfaultfd(parseMigrationUri('exec:cat'), refusing)).toBeUndefined();
  expect(whoLacksUserfaultfd(parseMigrationUri(`unix:${socket}.gone`), refusing)).toBeUndefined();
  const missing = { ...refusing, setting: join(directory, 'missing') };
  expect(whoLacksUserfaultfd(address, missing)).toBeUndefined();
});

it('is taken to be the user of this process over the loopback interface', () => {
  const found = whoLacksUserfaultfd(parseMigrationUri('tcp:127.0.0.1:4444'), files('0\n'));
  expect(found).toEqual(isRoot ? undefined : { uid, isCertain: false });
});
