/**
 * Makes the qcow2 images of test/fixtures/containers. Runs only on request:
 *
 *   VMFERRY_MAKE_FIXTURES=1 npx vitest run --project 'qemu*' test/qemu/make-qcow2-fixtures.test.ts
 *
 * Images with snapshots are as QEMU wrote them. QEMU writes no VM state into compressed clusters. For those, qemu-img
 * (VMFERRY_QEMU_IMG names it) compresses a disk that holds a real migration stream far behind its beginning. A snapshot
 * table entry added by this test says that the disk ends before the stream, which makes the stream a VM state.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadFixtures } from '../fixture-files.ts';
import { runCli } from '../run-cli.ts';
import { writeContainerFixture } from './container-fixtures.ts';
import { type FillKind, guestPage } from './guest.ts';
import { writePage } from './machine.ts';
import { lacksQemu } from './require.ts';
import { type ImageOptions, type SavevmOptions, savevm } from './savevm.ts';

const fill: NonNullable<SavevmOptions['fill']> = async ({ qemu }, ours, snapshot) => {
  const runs: [number, number, FillKind][] = [
    [0, 12, 'text'],
    [16 + snapshot, 12, 'same'],
    [ours.count - 1 - snapshot, 1, 'random'],
  ];
  for (const [first, count, kind] of runs) {
    for (let page = first; page < first + count; page++) writePage(qemu, page, guestPage(kind, page, 7 + snapshot));
  }
};

const wanted: Record<string, { version: '7.2' | '10.0'; image: ImageOptions }> = {
  'qcow2-v2-7.2': { version: '7.2', image: { version: 'v2', 'cluster-size': 4096 } },
  'qcow2-v3-10.0': { version: '10.0', image: {} },
  'qcow2-subclusters-10.0': { version: '10.0', image: { 'extended-l2': true, 'cluster-size': 16384 } },
};

const qemuImg = process.env.VMFERRY_QEMU_IMG;
const isAsked = Boolean(process.env.VMFERRY_MAKE_FIXTURES);

describe.skipIf(!isAsked || lacksQemu('7.2', '10.0'))('qcow2 fixtures', () => {
  test.each(Object.entries(wanted))('%s', async (name, { version, image }) => {
    const tags = ['first', 'second'];
    const made = await savevm({ version, machine: 'none', ramMiB: 4, image, tags, fill });
    try {
      writeContainerFixture(name, readFileSync(made.file), {
        madeBy: `QEMU ${made.qemu}, snapshot-save`,
        image,
        streams: tags.map((snapshot) => ({ snapshot, truth: made.truths.get(snapshot) ?? new Map() })),
      });
    } finally {
      made.dispose();
    }
  });
});

const compressed: Record<string, string[]> = {
  'qcow2-deflate': ['-o', 'cluster_size=4096'],
  'qcow2-deflate-v2': ['-o', 'cluster_size=512,compat=0.10'],
  'qcow2-zstd': ['-o', 'cluster_size=65536,compression_type=zstd'],
  'qcow2-deflate-subclusters': ['-o', 'cluster_size=16384,extended_l2=on'],
};

describe.skipIf(!isAsked || qemuImg === undefined)('compressed qcow2 fixtures', () => {
  test.each(Object.entries(compressed))('%s', async (name, options) => {
    const directory = mkdtempSync(join(tmpdir(), 'vmferry-qcow2-'));
    try {
      const { bytes: stream, name: of, truth } = loadFixtures().find((each) => each.name === 'none-plain-10.0')!;
      const clusterSize = Number(/cluster_size=(\d+)/.exec(options[1] ?? '')?.[1]);
      const reach = (clusterSize * clusterSize) / (name.endsWith('subclusters') ? 16 : 8);
      const raw = join(directory, 'raw');
      const image = join(directory, 'image');
      // The range of an L1 entry for the disk, then the stream.
      const whole = Buffer.alloc(Math.ceil((reach + stream.length) / clusterSize) * clusterSize);
      whole.set(stream, reach);
      writeFileSync(raw, whole);
      execFileSync(qemuImg as string, ['convert', '-c', '-f', 'raw', '-O', 'qcow2', ...options, raw, image]);
      const bytes = addSnapshot(readFileSync(image), clusterSize, stream.length);
      writeFileSync(image, bytes);
      const hashed = await runCli(['inspect', '--hash', '--json', `${image}#packed`]);
      const blocks = JSON.parse(hashed.stdout).ram.blocks as { idstr: string; sha256: string }[];
      expect(blocks.map(({ sha256 }) => sha256)).toEqual(truth.map(({ sha256 }) => sha256));
      const version = execFileSync(qemuImg as string, ['--version'], { encoding: 'utf8' }).split('\n')[0];
      writeContainerFixture(name, bytes, {
        madeBy: `${version}, convert -c ${options.join(' ')}, of ${of}; its snapshot table by hand`,
        streams: [{ snapshot: 'packed', truth }],
      });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});

/** Adds a snapshot at the end of an image: the active L1 table, and a disk of one byte. */
function addSnapshot(image: Buffer, clusterSize: number, vmStateSize: number): Buffer {
  const at = Math.ceil(image.length / clusterSize) * clusterSize;
  const bytes = Buffer.alloc(at + 40 + 16 + 8);
  bytes.set(image);
  bytes.writeUInt32BE(1, 60);
  bytes.writeBigUInt64BE(BigInt(at), 64);
  bytes.writeBigUInt64BE(image.readBigUInt64BE(40), at);
  bytes.writeUInt32BE(image.readUInt32BE(36), at + 8);
  bytes.writeUInt16BE(1, at + 12);
  bytes.writeUInt16BE(6, at + 14);
  bytes.writeUInt32BE(16, at + 36);
  bytes.writeBigUInt64BE(BigInt(vmStateSize), at + 40);
  bytes.writeBigUInt64BE(1n, at + 48);
  bytes.write('1packed', at + 56, 'latin1');
  return bytes;
}
