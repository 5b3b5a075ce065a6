/** A running guest goes into a mapped-ram file, in virtual time, with the states and statistics of every other migration. */
import { mkdtempSync, openSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeFile } from '../../src/io/node/file.ts';
import { open } from '../../src/node.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import type { GuestBlock } from '../../src/vm/guest.ts';
import { MiB, makeVm } from './outgoing-scene.ts';

describe('a mapped-ram file', () => {
  it.each([
    ['plain', {}],
    ['multifd', { multifd: { channels: 4 } }],
  ])('has the guest as it stood still, %s', async (_, more) => {
    const file = new MemoryFile('file');
    const { migration, events, differences, guest } = await makeVm(8 * MiB, {
      openFile: async () => ({ file }),
      ...more,
    });
    await migration.run();
    expect(migration.query()['error-desc']).toBeUndefined();
    expect(await differences(file)).toBe(0);
    expect(guest.pagesWritten).toBeGreaterThan(100);
    const last = events.filter((event) => event.startsWith('PASS')).length;
    expect(events.slice(0, 3)).toEqual(['setup', 'PASS 1', 'active']);
    expect(events.slice(-5)).toEqual(['STOP', 'device', `PASS ${last}`, 'gone', 'completed']);
    const { ram } = migration.query();
    expect(ram).toMatchObject({ remaining: 0, 'dirty-sync-count': last });
    // The passes overlap in the file.
    expect(ram?.['normal-bytes']).toBeGreaterThan(4 * MiB);
    expect(ram?.transferred).toBeGreaterThanOrEqual(ram?.['normal-bytes'] ?? 0);
    expect(file.size).toBeLessThan(10 * MiB);
    const { 'normal-bytes': pages = 0, 'multifd-bytes': channels, 'precopy-bytes': before = 0 } = ram ?? {};
    const bitmap = (8 * MiB) / 4096 / 8;
    if ('multifd' in more) expect([channels, before]).toEqual([pages, 0]);
    else {
      const rest = before + (ram?.['downtime-bytes'] ?? 0) - pages - bitmap;
      // 8 for each PART.
      expect(rest).toBeGreaterThan(0);
      expect(rest % 8).toBe(0);
      expect(rest).toBeLessThan(800);
    }
    await using opened = await open(file);
    // This guest has no devices.
    expect((await verify(opened)).findings.map(({ code }) => code)).toEqual(['description-missing']);
  });

  it('has the guest as it was at one moment, as a background snapshot', async () => {
    const file = new MemoryFile('file');
    const { migration, events, seen, guest, differences } = await makeVm(8 * MiB, {
      openFile: async () => ({ file }),
      backgroundSnapshot: true,
    });
    const running = migration.run();
    await seen('STOP');
    const [block] = guest.ram.blocks as [GuestBlock];
    const atStop = new Uint8Array(block.usedLength);
    await guest.ram.read(block, 0, atStop);
    await seen('RESUME');
    for (let page = 256; page < 1280; page += 64) await guest.ram.write(block, page, new Uint8Array(64 * 4096).fill(7));
    await running;
    expect(events).toEqual(['setup', 'active', 'STOP', 'RESUME', 'completed']);
    await guest.stop();
    expect(await differences(file)).toBeGreaterThan(2);
    for (let page = 0; page < 2048; page += 64)
      await guest.ram.write(block, page, atStop.subarray(page * 4096, (page + 64) * 4096));
    expect(await differences(file)).toBe(0);
    const { ram } = migration.query();
    expect(ram).toMatchObject({ remaining: 0, 'dirty-sync-count': 0 });
    // One PART, as QEMU counts it.
    expect(ram?.['precopy-bytes']).toBe((ram?.['normal-bytes'] ?? 0) + 8);
    await using opened = await open(file);
    expect((await verify(opened)).findings.map(({ code }) => code)).toEqual(['description-missing']);
  });

  it('has its pages written past the page cache, if it can be', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'direct-'));
    // What goes through the second descriptor goes to a file of its own here.
    const [fd, direct] = ['cached', 'direct'].map((name) => openSync(join(dir, name), 'w+')) as [number, number];
    const file = new NodeFile(fd, 'file', 0, direct);
    const { migration } = await makeVm(0, { openFile: async () => ({ file }), multifd: { channels: 2 } });
    await migration.run();
    expect(migration.status).toBe('completed');
    const written = (name: string) => statSync(join(dir, name)).blocks * 512;
    expect(written('direct')).toBeGreaterThanOrEqual(4 * MiB);
    // The stream around the pages.
    expect(written('cached')).toBeLessThan(MiB / 8);
    await file.close();
    rmSync(dir, { recursive: true });
  });

  it('holds max-bandwidth', async () => {
    const file = new MemoryFile('file');
    const { migration, clock } = await makeVm(4 * MiB, { openFile: async () => ({ file }) });
    await migration.run();
    const { ram, 'total-time': total = 0, downtime = 0 } = migration.query();
    const before = ((ram?.['precopy-bytes'] ?? 0) * 1000) / (total - downtime);
    expect(before / (4 * MiB)).toBeGreaterThan(0.8);
    expect(before / (4 * MiB)).toBeLessThan(1.1);
    expect(clock.now()).toBeGreaterThan(500);
  });

  it('may begin behind other bytes', async () => {
    const file = new MemoryFile('file');
    await file.write(new Uint8Array(12345).fill(7), 0);
    const { migration } = await makeVm(0, { openFile: async () => ({ file, offset: 12345 }) });
    await migration.run();
    expect(migration.status).toBe('completed');
    const head = new Uint8Array(12349);
    await file.read(head, 0);
    expect(head.subarray(0, 12345).every((byte) => byte === 7)).toBe(true);
    expect(Buffer.from(head.subarray(12345)).toString()).toBe('QEVM');
  });

  it('that cannot be written fails the migration, and the guest runs on', async () => {
    const file = new MemoryFile('file');
    const { write } = file;
    let left = 300;
    Object.assign(file, {
      write: (bytes: Uint8Array, position: number) => {
        if (left-- === 0) throw new Error('Unable to write to file: No space left on device');
        return write.call(file, bytes, position);
      },
    });
    const { migration, events, guest } = await makeVm(8 * MiB, { openFile: async () => ({ file }) });
    await migration.run();
    expect(events.at(-1)).toBe('failed');
    expect(migration.query()['error-desc']).toBe('Unable to write to file: No space left on device');
    expect(guest.isRunning).toBe(true);
  });

  it('cannot answer: with a return path the migration fails when all is there', async () => {
    const file = new MemoryFile('file');
    const { migration, events, guest } = await makeVm(8 * MiB, { openFile: async () => ({ file }), returnPath: true });
    await migration.run();
    expect(events.slice(-2)).toEqual(['failed', 'RESUME']);
    expect(migration.query()['error-desc']).toBe('Unable to read from file: Bad file descriptor');
    expect(guest.isRunning).toBe(true);
  });

  it('that cannot be opened fails it before anything is sent', async () => {
    const { migration, events } = await makeVm(0, {
      openFile: async () => {
        throw new Error("Could not open '/none/file': No such file or directory");
      },
    });
    await migration.run();
    expect(events).toEqual(['setup', 'failed']);
  });
});
