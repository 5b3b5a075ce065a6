/**
 * A synthetic guest that writes while it goes into a mapped-ram file: QEMU 10.0 loads the guest as it stood still.
 * VMFERRY_QEMU=full runs all.
 */
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { NodeFile } from '../../src/io/node/file.ts';
import { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { countDifferences, makeSource, size } from './synthetic-source.ts';

const MiB = 1 << 20;

describe('a mapped-ram file of a running guest', () => {
  const cases = [
    ['multifd', { channels: 2 }, 4096],
    ['plain', undefined, 0],
  ] as const;
  test.skipIf(lacksQemu('10.0')).each(process.env.VMFERRY_QEMU === 'full' ? cases : cases.slice(0, 1))(
    '%s',
    async (_, multifd, offset) => {
      const dir = Qemu.makeDir();
      const path = join(dir, 'guest');
      await using file = new NodeFile(openSync(path, 'w+'), path, 0);
      const { migration, guest, events } = await makeSource(
        '10.0',
        {
          ...{ openFile: async () => ({ file, offset }), ...(multifd === undefined ? {} : { multifd }) },
        },
        { rate: 8 * MiB, workingSet: 4 * MiB, pattern: 'random' },
      );
      await migration.run();
      expect(migration.query()['error-desc']).toBeUndefined();
      expect(events.at(-1)).toBe('completed');
      expect(guest.pagesWritten).toBeGreaterThan(500);
      const ram = join(dir, 'ram');
      const backend = `memory-backend-file,id=ram,mem-path=${ram},size=${size},share=on`;
      const args = [
        '-M',
        'none,memory-backend=ram',
        '-m',
        '32',
        '-nodefaults',
        '-object',
        backend,
        '-incoming',
        'defer',
      ];
      await using qemu = await Qemu.start({ version: '10.0', dir, args });
      await qemu.setCapabilities(['mapped-ram', ...(multifd === undefined ? [] : ['multifd'])]);
      await qemu.execute('migrate-incoming', { uri: `file:${path}${offset > 0 ? `,offset=${offset}` : ''}` });
      await qemu.waitForMigration();
      expect(await countDifferences(guest, readFileSync(ram))).toBe(0);
    },
  );
});
