/** The states of an outgoing migration, their order, and what `query-migrate` says, in virtual time over lines in memory. */
import { describe, expect, it } from 'vitest';
import { PeerError } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { connectionPair } from '../../src/io/web-connection.ts';
import { open } from '../../src/node.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import type { GuestBlock } from '../../src/vm/guest.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { MiB, makeVm, withoutPasses } from './outgoing-scene.ts';

describe('a migration', () => {
  it('goes from setup to completed, with its events in the order of QEMU 10.0', async () => {
    const { migration, events, guest, receiving } = await makeVm();
    expect(migration.query()).toEqual({ status: 'none' });
    await migration.run();
    await receiving;
    expect(events.slice(0, 3)).toEqual(['setup', 'PASS 1', 'active']);
    const last = events.filter((event) => event.startsWith('PASS')).length;
    expect(events.slice(-5)).toEqual(['STOP', 'device', `PASS ${last}`, 'gone', 'completed']);
    expect(guest.isRunning).toBe(false);
    const { status, downtime, ram, ...times } = migration.query();
    expect(status).toBe('completed');
    expect(downtime).toBeLessThanOrEqual(times['total-time'] ?? 0);
    expect(ram).toMatchObject({ remaining: 0, 'dirty-pages-rate': 0, 'dirty-sync-count': last });
  });

  it('has no device without a pause before 10.0', async () => {
    const { migration, events } = await makeVm(8 * MiB, { alwaysEntersDevice: false });
    await migration.run();
    expect(withoutPasses(events)).toEqual(['setup', 'active', 'STOP', 'gone', 'completed']);
  });

  it('waits in pre-switchover for migrate-continue, with the guest stopped', async () => {
    const { migration, events, seen } = await makeVm(8 * MiB, {
      pauseBeforeSwitchover: true,
      alwaysEntersDevice: false,
    });
    const running = migration.run();
    await seen('pre-switchover');
    expect(events.at(-1)).toBe('pre-switchover');
    expect(events.at(-2)).toBe('STOP');
    expect(() => migration.continue('active')).toThrow('Migration not in expected state: pre-switchover');
    migration.continue('pre-switchover');
    await running;
    expect(withoutPasses(events)).toEqual([
      ...['setup', 'active', 'STOP', 'pre-switchover', 'device', 'gone', 'completed'],
    ]);
  });

  it('is cancelled while it is active, and the guest never stood still', async () => {
    const { migration, events, seen, guest } = await makeVm(1 * MiB);
    const running = migration.run();
    await seen('active');
    expect(migration.query()).toMatchObject({ status: 'active', 'expected-downtime': 300 });
    migration.cancel();
    expect(migration.query()).toMatchObject({ status: 'cancelling' });
    await running;
    expect(withoutPasses(events)).toEqual(['setup', 'active', 'cancelling', 'cancelled']);
    expect(guest.isRunning).toBe(true);
    expect(migration.query()).toEqual({ status: 'cancelled' });
    migration.cancel();
    expect(migration.status).toBe('cancelled');
  });

  it('is cancelled in pre-switchover, and the guest runs on before that is said', async () => {
    const { migration, events, seen, guest } = await makeVm(8 * MiB, { pauseBeforeSwitchover: true });
    const running = migration.run();
    await seen('pre-switchover');
    migration.cancel();
    await running;
    expect(withoutPasses(events)).toEqual([
      ...['setup', 'active', 'STOP', 'pre-switchover', 'cancelling', 'RESUME', 'cancelled'],
    ]);
    expect(guest.isRunning).toBe(true);
  });

  it('sends the guest as it was at STOP, and lets it run on, as a background snapshot', async () => {
    const { migration, events, seen, guest, receiving, output } = await makeVm(1, { backgroundSnapshot: true });
    const [block] = guest.ram.blocks as [GuestBlock];
    const all = async (ram: RamReader) => {
      const bytes = new Uint8Array(block.usedLength);
      await ram.read(ram.blocks[0] as RamBlock, 0, bytes);
      return bytes;
    };
    const image = new Uint32Array(block.usedLength / 4).map((_, i) => Math.imul(i, 2654435761));
    await guest.ram.load(block, new MemoryFile('image', new Uint8Array(image.buffer)));
    const running = migration.run();
    await seen('STOP');
    const atStop = await all(guest.ram);
    // It writes all of its working set again and again, before a page is sent.
    await seen('RESUME');
    for (let page = 256; page < 1280; page += 64) await guest.ram.write(block, page, new Uint8Array(64 * 4096).fill(7));
    await running;
    await receiving;
    expect(events).toEqual(['setup', 'active', 'STOP', 'RESUME', 'completed']);
    expect(guest.isRunning).toBe(true);
    await using file = await open(output);
    const vm = await openSavedVm(file, { makeScratch: () => new MemoryFile('scratch') });
    expect(Buffer.compare(await all(vm.ram), atStop)).toBe(0);
    expect(Buffer.compare(await all(guest.ram), atStop)).not.toBe(0);
    expect(migration.query()).toMatchObject({
      status: 'completed',
      downtime: 0,
      ram: {
        'dirty-sync-count': 0,
        'dirty-pages-rate': 0,
        remaining: 0,
        normal: 2048,
        duplicate: 0,
      },
    });
    expect(migration.query()).not.toHaveProperty('expected-downtime');
  });

  it('fails as a background snapshot, and the guest ran on before', async () => {
    const { migration, events, guest } = await makeVm(1, {
      ...{ backgroundSnapshot: true },
      connect: async () => {
        const [main, other] = connectionPair();
        const end = () => other.destroy();
        void other.read(new Uint8Array(1), 0).then(end, end);
        return main;
      },
    });
    await migration.run();
    expect(events.filter((event) => event === 'RESUME').length).toBeLessThanOrEqual(1);
    expect(events.at(-1)).toBe('failed');
    expect(guest.isRunning).toBe(true);
  });

  it('fails if nobody listens, in the words of the line', async () => {
    const message = "Failed to connect to '127.0.0.1:1': Connection refused";
    const { migration, events } = await makeVm(0, {
      connect: async () => {
        throw new PeerError(message);
      },
    });
    await migration.run();
    expect(events).toEqual(['setup', 'failed']);
    expect(migration.query()).toEqual({ status: 'failed', 'error-desc': message });
  });
});

describe('a migration that stops the guest first', () => {
  it('says STOP before anything is sent, and stands still all the time', async () => {
    const { migration, events, differences } = await makeVm(8 * MiB, { stopsFirst: true });
    await migration.run();
    expect(events).toEqual([
      ...['setup', 'STOP', 'PASS 1', 'active', 'PASS 2', 'device', 'PASS 3', 'gone', 'completed'],
    ]);
    expect(await differences()).toBe(0);
    const { downtime, ram, 'total-time': total } = migration.query();
    expect(downtime).toBe(total);
    expect(ram).toMatchObject({ 'precopy-bytes': 0, 'postcopy-bytes': 0 });
    expect(ram?.['downtime-bytes']).toBeGreaterThan(0);
  });

  it('lets it run on if it fails', async () => {
    const { migration, events, guest } = await makeVm(8 * MiB, { stopsFirst: true }, (line) => {
      line.destroy();
      return line;
    });
    await migration.run();
    expect(events).toEqual(['setup', 'STOP', 'PASS 1', 'active', 'failed', 'RESUME']);
    expect(guest.isRunning).toBe(true);
  });
});

describe('what a migration says of its failure', () => {
  const broken = async (release: '7.2' | '9.0' | '10.0', returnPath: boolean) => {
    const lines: { destroy(): void }[] = [];
    const { migration, seen, clock } = await makeVm(1 * MiB, { release, returnPath }, (line) => {
      lines.push(line);
      return line;
    });
    const running = migration.run();
    await seen('active');
    await clock.sleep(50);
    lines[0]?.destroy();
    await running;
    return migration.query();
  };

  it.each([
    ['7.2', true, 'Unable to write to socket: Bad file descriptor'],
    ['10.0', true, 'Channel error: Input/output error'],
    ['10.0', false, 'Unable to write to socket: Broken pipe'],
  ] as const)('a broken line, %s, return path %s', async (release, returnPath, text) => {
    expect(await broken(release, returnPath)).toEqual({ status: 'failed', 'error-desc': text });
  });

  it.each([
    ['7.2', 'Unable to write to socket: Broken pipe'],
    ['10.0', 'ram_save_setup failed: Input/output error'],
  ] as const)('a line that broke before the first page, %s', async (release, text) => {
    const { migration, events } = await makeVm(1 * MiB, { release, returnPath: false }, (line) => {
      line.destroy();
      return line;
    });
    await migration.run();
    expect(events).toEqual(['setup', 'PASS 1', 'active', 'failed']);
    expect(migration.query()['error-desc']).toBe(text);
  });
});

describe('migrate_cancel', () => {
  it('says cancelling each time, and ends a connection that does not come', async () => {
    const { migration, events } = await makeVm(0, { connect: () => new Promise(() => {}) });
    const running = migration.run();
    migration.cancel();
    migration.cancel();
    await running;
    expect(events).toEqual(['setup', 'cancelling', 'cancelling', 'cancelled']);
    expect(migration.query()).toEqual({ status: 'cancelled' });
  });
});

describe('migrate-continue', () => {
  it('with the present state does nothing outside of pre-switchover, and is forgotten', async () => {
    const { migration, seen, events } = await makeVm(8 * MiB, { pauseBeforeSwitchover: true });
    expect(() => migration.continue('none')).not.toThrow();
    const running = migration.run();
    await seen('active');
    migration.continue('active');
    expect(() => migration.continue('completed')).toThrow('Migration not in expected state: active');
    await seen('pre-switchover');
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(events.at(-1)).toBe('pre-switchover');
    migration.continue('pre-switchover');
    await running;
    expect(events.at(-1)).toBe('completed');
  });
});

describe('zero-page-detection', () => {
  it('none sends zero pages as data', async () => {
    const counts = async (zeroPageDetection: 'none' | 'legacy' | 'multifd', multifd?: { channels: number }) => {
      const more = { zeroPageDetection, stopsFirst: true, ...(multifd === undefined ? {} : { multifd }) };
      const { migration, differences } = await makeVm(0, more);
      await migration.run();
      expect(await differences()).toBe(0);
      const { normal = 0, duplicate = 0, transferred = 0, 'multifd-bytes': channels = 0 } = migration.query().ram ?? {};
      return { normal, duplicate, main: transferred - channels };
    };
    const found = await counts('legacy');
    const none = await counts('none');
    expect(found.duplicate).toBeGreaterThan(0);
    expect(none).toMatchObject({ duplicate: 0, normal: found.normal + found.duplicate });
    const legacy = await counts('legacy', { channels: 2 });
    const packets = await counts('multifd', { channels: 2 });
    // Records of zero pages are in the main stream.
    expect(legacy.main - packets.main).toBeGreaterThan(legacy.duplicate * 9 - 1000);
  });
});
