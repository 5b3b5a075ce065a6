/**
 * Snapshots that real QEMU saved inside qcow2 images: vmferry lists them and reads each to its last byte, and every RAM
 * block equals the stopped guest's.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { runCli } from '../run-cli.ts';
import { lacksQemu } from './require.ts';
import { type SavevmOptions, savevm } from './savevm.ts';

const two = ['first', 'the second #2'];
const cases: [name: string, options: SavevmOptions][] = [
  ['bare, 10.0, clusters of 64 KiB', { version: '10.0', machine: 'bare', tags: two }],
  ['bare, 7.2, version 2', { version: '7.2', machine: 'bare', tags: two, image: { version: 'v2' } }],
  [
    'none, 10.0, clusters of 512 bytes',
    { version: '10.0', machine: 'none', tags: two, image: { 'cluster-size': 512 } },
  ],
  ['none, 7.2, clusters of 2 MiB', { version: '7.2', machine: 'none', tags: two, image: { 'cluster-size': 2 << 20 } }],
  ['q35, 10.0, subclusters', { version: '10.0', machine: 'q35', tags: two, image: { 'extended-l2': true } }],
  ['pc, 7.2, clusters of 4 KiB', { version: '7.2', machine: 'pc', tags: ['7'], image: { 'cluster-size': 4096 } }],
];

const isEqual = (a: string, b: string) =>
  promisify(execFile)('cmp', ['-s', a, b]).then(
    () => true,
    () => false,
  );

describe.skipIf(lacksQemu('7.2', '10.0'))('snapshots in a qcow2 image of', () => {
  test.each(cases)('%s', async (_, options) => {
    const made = await savevm(options);
    try {
      const listed = await runCli(['inspect', '--json', made.file]);
      expect(listed.code).toBe(0);
      const { snapshots } = JSON.parse(listed.stdout);
      expect(snapshots.map(({ name }: { name: string }) => name)).toEqual(options.tags);

      for (const [i, tag] of options.tags.entries()) {
        const { vmStateSize } = snapshots[i];
        const inspected = await runCli(['inspect', '--json', `${made.file}#${tag}`]);
        expect(inspected.stderr).toBe('');
        expect(JSON.parse(inspected.stdout)).toMatchObject({ complete: true, error: null, length: vmStateSize });
        // The id selects the same snapshot.
        const verified = await runCli(['verify', '--json', `${made.file}#${i + 1}`]);
        expect(
          JSON.parse(verified.stdout).findings.filter(({ severity }: { severity: string }) => severity !== 'info'),
        ).toEqual([]);
        expect(verified.code).toBe(0);

        const directory = join(made.file, '..', `extracted-${i}`);
        const extracted = await runCli(['extract', `${made.file}#${tag}`, '--all', directory, '--json']);
        expect(extracted.stderr).toBe('');
        const truth = made.truths.get(tag);
        const blocks: { idstr: string; path: string }[] = JSON.parse(extracted.stdout).blocks;
        expect(blocks.map(({ idstr }) => idstr).sort()).toEqual([...(truth?.keys() ?? [])].sort());
        for (const { idstr, path } of blocks) {
          expect(await isEqual(path, truth?.get(idstr)?.path ?? ''), `${idstr} of "${tag}" equals the source's`).toBe(
            true,
          );
        }
      }
    } finally {
      made.dispose();
    }
  });
});
