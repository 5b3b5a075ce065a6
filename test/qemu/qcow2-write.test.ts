/**
 * Internal snapshots that vmferry makes in real qcow2 images: qemu-img of both releases finds no error and no leak after
 * each step, lists them, and reads the disk that they hold.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readFully } from '../../src/io/byte-source.ts';
import { WritableQcow2 } from '../../src/write/qcow2/qcow2-image.ts';
import { checkImage, cleanImage, lacksQemuImg, listSnapshots, openWritable, qemuImg, qemuIo } from './qemu-img.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

/** Options of `qemu-img create`; the essential run takes the first ones. */
const geometries: [options: string, compressed?: 'compressed'][] = [
  ['compat=1.1', 'compressed'],
  ['compat=1.1,cluster_size=4k,refcount_bits=4'],
  ['compat=0.10'],
  ['compat=1.1,extended_l2=on,cluster_size=64k'],
  ['compat=1.1,cluster_size=512'],
  ['compat=1.1,cluster_size=2M'],
  ['compat=1.1,cluster_size=16k,refcount_bits=16'],
  ['compat=1.1,cluster_size=1k,refcount_bits=8'],
  ['compat=1.1,refcount_bits=32,lazy_refcounts=on'],
  ['compat=1.1,refcount_bits=64,compression_type=zstd', 'compressed'],
];

const noise = (length: number, seed: number) => {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state >>> 24;
  });
};

describe.skipIf(lacksQemuImg())('a qcow2 image that vmferry changes', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'vmferry-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const made = (name: string) => ({ name, dateSeconds: 1_700_000_000, dateNanoseconds: 5, vmClock: 7n });
  const change = async <T>(path: string, use: (image: WritableQcow2) => Promise<T>): Promise<T> => {
    const store = openWritable(path);
    try {
      return await use(await WritableQcow2.open(store));
    } finally {
      await store.close();
    }
  };
  const expectClean = async (path: string) => {
    for (const version of ['7.2', '10.0'] as const) expect(await checkImage(version, path)).toBe(cleanImage);
  };

  test.each(isFull ? geometries : geometries.slice(0, 4))('%s', async (options, compressed) => {
    const path = join(dir, `${options}.qcow2`);
    await qemuImg('10.0', 'create', '-q', '-f', 'qcow2', '-o', options, path, '5M');
    const packed = compressed ? ['write -c -P 9 2M 64k'] : [];
    await qemuIo('10.0', path, 'write -P 1 0 600k', ...packed, 'write -z 3M 128k', 'write -P 1 5000k 40k');
    const state = noise(1_300_001, 3);
    await change(path, (image) =>
      image.save(made('a'), async (sink) => {
        for (let at = 0; at < state.length; at += 100_000) await sink.write(state.subarray(at, at + 100_000));
      }),
    );
    await expectClean(path);
    expect(await listSnapshots('7.2', path)).toEqual([{ name: 'a', size: state.length }]);

    await qemuIo('7.2', path, 'write -P 2 100k 300k', 'write -P 2 2M 64k', 'write -P 2 4M 64k');
    await expectClean(path);
    await change(path, (image) => image.save(made('b')));
    await expectClean(path);
    await qemuImg('10.0', 'snapshot', '-c', 'c', path);
    await qemuIo('10.0', path, 'write -P 3 0 64k', 'discard 300k 64k', 'read -P 2 200k 90k');

    await change(path, async (image) => {
      const a = image.find('a');
      expect(a).toMatchObject({ id: '1', vmStateSize: state.length, vmClock: 7n, dateNanoseconds: 5 });
      if (a === undefined) throw new Error('no snapshot');
      await image.load(a);
      const source = image.vmState(a);
      const read = new Uint8Array(state.length);
      if (source !== undefined) await readFully(source, read, 0);
      expect(Buffer.compare(read, state)).toBe(0);
    });
    await expectClean(path);
    await qemuIo('7.2', path, 'read -P 1 0 600k', 'read -P 0 4M 64k', 'read -P 1 5000k 40k');
    if (compressed) await qemuIo('10.0', path, 'read -P 9 2M 64k');

    await qemuImg('7.2', 'snapshot', '-a', 'b', path);
    await qemuIo('10.0', path, 'read -P 2 100k 300k', 'read -P 1 400k 200k', 'read -P 2 4M 64k');
    for (const name of ['b', 'a', 'c']) {
      await change(path, async (image) => {
        const found = image.find(name);
        if (found !== undefined) await image.delete(found);
      });
      await expectClean(path);
    }
    expect(await listSnapshots('10.0', path)).toEqual([]);
    await qemuIo('10.0', path, 'read -P 2 100k 300k');
  });

  test('with refcounts of 1 bit takes no snapshot', async () => {
    const path = join(dir, 'one-bit.qcow2');
    await qemuImg('10.0', 'create', '-q', '-f', 'qcow2', '-o', 'compat=1.1,refcount_bits=1', path, '5M');
    await qemuIo('10.0', path, 'write -P 1 0 64k');
    const refused = change(path, (image) => image.save(made('a')));
    await expect(refused).rejects.toMatchObject({ code: 'unsupported', message: expect.stringContaining('1 bit') });
    await expectClean(path);
  });
});
