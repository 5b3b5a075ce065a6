/** The command line on files that contain a stream. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeLibvirtHead } from '../../../src/read/container/libvirt-header.ts';
import { loadContainerFixture } from '../../container-fixtures.ts';
import { fixturePath } from '../../fixture-files.ts';
import { runCli } from '../../run-cli.ts';

let directory = '';
/** The fixture as an ordinary file. */
function place(name: string, as = name): string {
  const path = join(directory, as);
  writeFileSync(path, loadContainerFixture(name).bytes);
  return path;
}
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-cli-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('a libvirt save image', () => {
  it('is shown with its domain', async () => {
    const { stdout, code } = await runCli(['inspect', place('libvirt-gzip')]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/container {5}libvirt save image, version 2, gzip, guest was paused\n/);
    expect(stdout).toMatch(/domain {8}ferry-[0-9a-f]{8}, qemu, 9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1\n/);
    expect(stdout).toMatch(/XML {11}1\.\d+ KiB, cookie of \d+ B\n/);
    expect(stdout).toMatch(/format {8}QEMU migration stream, version 3, complete\n/);
  });

  it('gives its XML and its cookie', async () => {
    const path = place('libvirt-sparse');
    expect((await runCli(['inspect', '--xml', path])).stdout).toMatch(/^<domain type='qemu'>\n.*<\/domain>\n$/s);
    expect((await runCli(['inspect', '--cookie', path])).stdout).toMatch(/^<cookie>\n.*<\/cookie>\n$/s);
    const plain = await runCli(['inspect', '--xml', fixturePath('none-plain-10.0.bin')]);
    expect([plain.code, plain.stdout]).toEqual([2, '']);
    expect(plain.stderr).toMatch(/--xml: .* is not a libvirt save image/);
  });

  it('with a damaged head is bad for all commands', async () => {
    const path = join(directory, 'bad');
    const head = encodeLibvirtHead({ xml: '<domain/>', cookie: '<c/>', format: 'raw', wasRunning: false });
    new DataView(head.buffer).setUint32(32, 1 << 30, true);
    writeFileSync(path, head);
    const verified = await runCli(['verify', '--json', path]);
    expect([verified.code, verified.stderr]).toEqual([1, '']);
    expect(JSON.parse(verified.stdout)).toMatchObject({
      ok: false,
      findings: [{ code: 'bad-libvirt-header', count: 1 }],
    });
    const inspected = await runCli(['inspect', path]);
    expect(inspected.code).toBe(1);
    expect(inspected.stderr).toMatch(/\[bad-libvirt-header\] in .*bad at 0x20/);
  });

  it('names the missing program for its format', async () => {
    const { code, stderr } = await runCli(['verify', place('libvirt-bzip2')], undefined, { env: { PATH: '/nowhere' } });
    expect(code).toBe(2);
    expect(stderr).toBe('vmferry: error: bzip2 data cannot be decompressed: the program "bzip2" is not installed\n');
  });
});

describe('a qcow2 image', () => {
  it('lists its snapshots', async () => {
    const path = place('qcow2-v3-10.0', 'disk.qcow2');
    const { stdout, code } = await runCli(['inspect', path]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/qcow2 image, version 3, disk of 1 MiB, clusters of 64 KiB\n/);
    expect(stdout).toMatch(/id {2}name {4}date +VM clock +VM state +disk\n/);
    expect(stdout).toMatch(/1 {2}first +20\d\d-\d\d-\d\dT[\d:.]+Z +\d\d:\d\d:\d\d\.\d{3} +\d+ KiB +1 MiB\n/);
    expect(stdout).toContain(`vmferry inspect '${path}#first'`);
    const json = JSON.parse((await runCli(['inspect', '--json', path])).stdout);
    expect(json).toMatchObject({
      format: 'qcow2',
      snapshots: [
        { id: '1', name: 'first' },
        { id: '2', name: 'second' },
      ],
    });
  });

  it('asks which snapshot is meant', async () => {
    const path = place('qcow2-v3-10.0', 'disk.qcow2');
    for (const args of [
      ['verify', path],
      ['extract', path, '--all', join(directory, 'all')],
    ]) {
      const { code, stderr } = await runCli(args);
      expect(code).toBe(2);
      expect(stderr).toBe(
        `vmferry: error: expected a snapshot of the qcow2 image ${path}, as ${path}#NAME: it has "first", "second"\n`,
      );
    }
    expect((await runCli(['inspect', `${path}#third`])).stderr).toMatch(/got "third": it has "first", "second"/);
  });

  it('is read by the name of a snapshot, even if the path contains #', async () => {
    const path = place('qcow2-v3-10.0', 'disk#1.qcow2');
    const { stdout, code } = await runCli(['verify', `${path}#first`]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/disk#1\.qcow2#first: OK \(stream of none, /);
    const stream = join(directory, 'a#b');
    writeFileSync(stream, 'no stream');
    expect((await runCli(['verify', stream])).stdout).toMatch(/a#b: BAD/);
    expect((await runCli(['verify', join(directory, 'c#d')])).stderr).toMatch(/cannot read .*c#d: no such file/);
  });

  it('is never overwritten by what is extracted from it', async () => {
    const path = place('qcow2-v3-10.0', 'disk.qcow2');
    const { code, stderr } = await runCli(['extract', `${path}#first`, '--block', 'ram', '-o', path]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/expected an output other than the input/);
  });
});

it('a URL works like a path', async () => {
  const { bytes } = loadContainerFixture('qcow2-v3-10.0');
  const server = createServer((request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const part = bytes.subarray(Number(from), Number(to) + 1);
    const range = `bytes ${from}-${Number(from) + part.length - 1}/${bytes.length}`;
    response.writeHead(206, { 'content-range': range }).end(part);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.qcow2`;
    expect((await runCli(['verify', `${url}#second`])).stdout).toMatch(/disk\.qcow2#second: OK/);
    expect((await runCli(['inspect', url])).stdout).toMatch(/2 {2}second/);
  } finally {
    server.close();
  }
  const missing = await runCli(['inspect', 'http://127.0.0.1:1/guest.bin']);
  expect(missing.code).toBe(2);
  expect(missing.stderr).toMatch(/^vmferry: error: the server cannot be reached: /);
});

it('a compressed file can be piped in', async () => {
  const { stdout } = await runCli(['verify', '-'], loadContainerFixture('libvirt-xz').bytes);
  expect(stdout).toMatch(/^standard input: OK/);
});
