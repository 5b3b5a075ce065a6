/** A saved VM is sent and received over lines in memory, as two pages would do it: both ends are ours. */
import { expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { Incoming } from '../../src/migrate/incoming.ts';
import { receive } from '../../src/migrate/receive.ts';
import { type SendFileOptions, sendFile } from '../../src/migrate/send-file.ts';
import { diff, open } from '../../src/node.ts';
import { fixturePath } from '../fixture-files.ts';
import { MemoryListener } from './memory-listener.ts';

const makeScratch = () => new MemoryFile('scratch');
const codecs = new NodeCodecs();

const cases: Record<string, Pick<SendFileOptions, 'multifd'>> = {
  'the main line alone': {},
  'three channels': { multifd: { channels: 3 } },
  'two channels with zstd': { multifd: { channels: 2, compression: 'zstd', codecs } },
  'sixteen channels with zlib': { multifd: { channels: 16, compression: 'zlib', codecs } },
};

it.each(Object.entries(cases))('over %s', async (_, options) => {
  const listener = new MemoryListener();
  const output = new MemoryFile('OUT');
  const receiving = receive(new Incoming(listener), { file: output, commit: async () => {} }, { codecs });
  await using file = await open(fixturePath('pc-xbzrle-10.0.bin'));
  const statuses: string[] = [];
  const sent = await sendFile(file, async () => listener.connect(), {
    ...{ ...options, makeScratch },
    onProgress: ({ status }) => {
      if (statuses.at(-1) !== status) statuses.push(status);
    },
  });
  const received = await receiving;
  expect(sent.isConfirmed).toBe(true);
  expect(received.confirmed).toBe(true);
  expect(received.found.channels).toBe(options.multifd?.channels ?? 0);
  expect(statuses).toEqual(['setup', 'active', 'device', 'completed']);
  await using before = await open(fixturePath('pc-xbzrle-10.0.bin'));
  await using after = await open(output);
  const { ram, devices } = await diff(before, after, { makeScratch });
  expect(ram?.blocks.map(({ pages, same }) => pages - same)).toEqual(ram?.blocks.map(() => 0));
  expect(devices).toMatchObject({ changed: [], removed: [], added: [] });
  expect(devices?.same).toBeGreaterThan(10);
});
