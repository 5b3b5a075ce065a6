import { describe, expect, it } from 'vitest';
import {
  appendTo,
  loadKernel,
  MappedRamStore,
  MemoryFile,
  MultifdWriter,
  multifdArenaBytes,
  open,
  PortableCodecs,
  ramScanArenaBytes,
  StreamWriter,
  settle,
  writerArenaBytes,
} from '../../src/node.ts';
import { releaseRulesOf } from '../../src/schema/release-rules.ts';
import { Passes } from '../../src/write/passes.ts';
import { MemoryGuest } from './memory-guest.ts';

describe('passes', () => {
  it.each(['7.2', '9.0', '10.0'] as const)(
    'go through multifd channels, the last in the END, for %s',
    async (release) => {
      const guest = new MemoryGuest({ a: 300, b: 8 });
      const files = ['main', '0', '1'].map((name) => new MemoryFile(name));
      const [main, ...channels] = files.map((file) => appendTo(file));
      const arenaBytes = (64 << 10) + writerArenaBytes + ramScanArenaBytes + multifdArenaBytes;
      const writer = new StreamWriter(await loadKernel({ arenaBytes }), main!);
      const rules = releaseRulesOf('none', release);
      const multifd = await MultifdWriter.open(writer, channels, {
        rules,
        pageSize: 4096,
        codecs: new PortableCodecs(),
      });
      const passes = new Passes(guest, writer, { ramWriter: multifd, rules });
      for (let page = 0; page < 200; page++) guest.write(0, page, page, 1);
      await passes.begin();
      await passes.sync();
      await passes.sendAll();
      for (let page = 7; page < 300; page += 3) guest.write(0, page, 0, 2);
      await passes.sync();
      await passes.sendDirty();
      // A page that is now data, and a page that is zero again.
      guest.write(0, 10, 0, 3);
      guest.write(0, 250, 0, 0);
      guest.write(1, 3, 0, 4);
      guest.stop();
      await passes.sync();
      expect(passes.dirtyBytes).toBe(3 * 4096);
      await passes.finish();
      await multifd.close();
      expect([passes.syncs, passes.records]).toEqual([3, 308 + 98 + 3]);

      const [stream, ...sources] = files as [MemoryFile, ...MemoryFile[]];
      const file = await open(stream, { channels: sources });
      const store = new MappedRamStore(new MemoryFile(), file.pageSlots);
      await settle(file, store);
      for (const block of store.blocks) {
        const content = new Uint8Array(block.usedLength);
        await store.read(block, 0, content);
        expect(Buffer.compare(content, guest.contents[block.index]!), `block ${block.idstr}`).toBe(0);
      }
      await file.close();
    },
  );
});
