/**
 * Real QEMU loads the stream that `writeGuest` writes of a simulated guest, with its final RAM: passes, deltas, and the
 * last pages in the END section. VMFERRY_QEMU=full also sends the devices of a real machine, which then continues.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type ByteSink, MemoryFile, open, openSavedVm, type WriteGuestOptions, writeGuest } from '../../src/node.ts';
import { MemoryGuest } from '../write/memory-guest.ts';
import { capture } from './capture.ts';
import { Guest, guestPage } from './guest.ts';
import { loadInto } from './load.ts';
import { PAGE, startDestination } from './machine.ts';
import { qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import type { Truth } from './truth.ts';

const options: WriteGuestOptions = { xbzrle: { cacheSize: 256 * PAGE }, maxPasses: 6, partBytes: 1 << 19 };

/** Makes the guest write between its syncs: new, slightly changed, unchanged and zero pages, and some at the end. */
function dirty(guest: MemoryGuest, first: number, count: number): void {
  guest.onSync = (syncs) => {
    if (guest.isStopped) return;
    for (let page = first; page < first + count; page++) {
      const kind = (page + syncs) % 7;
      if (kind === 0) guest.write(0, page, 0, ...guestPage('random', page, syncs));
      else if (kind === 1) guest.write(0, page, 0, ...new Uint8Array(PAGE));
      else if (kind === 2) guest.write(0, page, 0, guest.contents[0]![page * PAGE]!);
      else if (kind < 6) guest.write(0, page, (page * 16 + syncs) % PAGE, syncs);
    }
  };
}

async function writeTo(path: string, guest: MemoryGuest) {
  const parts: Uint8Array[] = [];
  const sink: ByteSink = { write: (bytes) => void parts.push(bytes.slice()) };
  const written = await writeGuest(guest, sink, options);
  writeFileSync(path, Buffer.concat(parts));
  const { pages = 0, overflow = 0, cacheMiss = 0 } = written.xbzrle ?? {};
  for (const count of [overflow, cacheMiss, pages - overflow]) expect(count).toBeGreaterThan(0);
  expect(written.dirtySyncCount).toBe(8);
}

function expectSame(guest: MemoryGuest, truth: Truth): void {
  expect([...truth.keys()].sort()).toEqual(guest.blocks.map(({ idstr }) => idstr).sort());
  for (const { idstr, index } of guest.blocks) {
    const there = readFileSync(truth.get(idstr)!.path);
    expect(Buffer.compare(there, guest.contents[index]!), `RAM of ${idstr}`).toBe(0);
  }
}

const isFull = process.env.VMFERRY_QEMU === 'full';

describe.each(qemuVersions)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version))('loads a simulated guest that wrote while it was sent', () => {
    test('with RAM alone', async () => {
      const directory = mkdtempSync(join(tmpdir(), 'vmferry-'));
      const file = join(directory, 'stream');
      const guest = new MemoryGuest({ ram: 1024 });
      dirty(guest, 100, 500);
      await writeTo(file, guest);
      const loaded = await loadInto({ version, machine: 'none', ramMiB: 4, route: 'exec', file });
      try {
        expectSame(guest, loaded.truth);
      } finally {
        loaded.dispose();
        rmSync(directory, { recursive: true });
      }
    });

    test.skipIf(!isFull)('with the devices of a machine, which continues', async () => {
      const made = await capture({ version, machine: 'bare', route: 'exec' });
      try {
        const saved = await openSavedVm(await open(made.file), {
          devices: true,
          makeScratch: async () => new MemoryFile(),
        });
        const sizes = Object.fromEntries(saved.ram.blocks.map((block) => [block.idstr, block.usedLength / PAGE]));
        const guest = Object.assign(new MemoryGuest(sizes), { configuration: saved.configuration, saved });
        for (const block of saved.ram.blocks) await saved.ram.read(block, 0, guest.contents[block.index]!);
        dirty(guest, 300, 200);
        const file = `${made.file}.again`;
        await writeTo(file, guest);
        const machine = { version, machine: 'bare' } as const;
        const loaded = await loadInto({ ...machine, route: 'exec', file });
        expectSame(guest, loaded.truth);
        loaded.dispose();
        const qemu = await startDestination(machine);
        try {
          await qemu.execute('migrate-incoming', { uri: `exec:cat '${file}'` });
          await qemu.waitForMigration();
          const running = await Guest.resume(qemu);
          await running.dirty({ first: 300, count: 10 }, 'few-bytes', 2);
          expect(await running.count()).toBe(2);
          running.close();
        } finally {
          await qemu[Symbol.asyncDispose]();
        }
      } finally {
        made.dispose();
      }
    });
  });
});
