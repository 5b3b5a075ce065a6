/** Postcopy as a source, in virtual time: the order of events and pages, requests, the limit, and broken lines. */
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { open } from '../../src/node.ts';
import { MigrationError } from '../../src/vm/migration-error.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { MiB, makeVm, withoutPasses } from './outgoing-scene.ts';

const page = 4096;
const pages = (8 * MiB) / page;

/** A line that keeps what is sent, and into whose return path messages can be put between those that come. */
function tapped(line: Connection) {
  const sent: Uint8Array[] = [];
  let inserted = new Uint8Array();
  let coming: Promise<number> | undefined;
  const buffer = new Uint8Array(4096);
  let at = 0;
  let wake = () => {};
  const connection: Connection = Object.create(line, {
    name: { value: line.name },
    canRead: { value: true },
    canWrite: { value: true },
    size: { value: undefined },
    write: {
      value: (bytes: Uint8Array) => {
        sent.push(bytes.slice());
        return line.write(bytes);
      },
    },
    read: {
      value: async (target: Uint8Array): Promise<number> => {
        for (;;) {
          if (inserted.length > 0) {
            target.set(inserted);
            const { length } = inserted;
            inserted = new Uint8Array();
            return length;
          }
          coming ??= line.read(buffer, at);
          const stirred = new Promise<undefined>((resolve) => {
            wake = () => resolve(undefined);
          });
          const count = await Promise.race([coming, stirred]);
          if (count === undefined) continue;
          coming = undefined;
          target.set(buffer.subarray(0, count));
          at += count;
          return count;
        }
      },
    },
    ...Object.fromEntries((['end', 'destroy', 'close'] as const).map((name) => [name, { value: () => line[name]() }])),
  });
  return {
    connection,
    bytes: () => Buffer.concat(sent),
    ask(first: number, count = 1) {
      const out = new ByteWriter();
      encodeReturnMessage(out, {
        ...{ type: ReturnType.reqPagesId, block: 'ram', start: first * page, bytes: count * page },
      });
      inserted = out.bytes().slice();
      wake();
    },
  };
}

type Tap = ReturnType<typeof tapped>;

/** The pages that come after the package, in order, as far as they have come. */
async function pagesAfterSwitch(bytes: Uint8Array): Promise<number[]> {
  await using file = await open(new MemoryFile('sent', bytes));
  const found: number[] = [];
  let hasRun = false;
  try {
    for await (const item of file.flow()) {
      if (item.kind === 'command' && item.command.name === 'POSTCOPY_RUN') hasRun = true;
      if (item.kind !== 'pages' || !hasRun) continue;
      for (let i = 0; i < item.batch.count; i++) found.push(item.batch.page[i] as number);
    }
  } catch (error) {
    if (!(error instanceof MigrationError && error.code === 'truncated')) throw error;
  }
  return found;
}

/** Begins postcopy of a VM after its first pages. */
async function begin(more: Parameters<typeof makeVm>[1] = {}) {
  const taps: Tap[] = [];
  const vm = await makeVm(8 * MiB, { postcopy: { preempt: false }, ...more }, (line) => {
    const tap = tapped(line);
    taps.push(tap);
    return tap.connection;
  });
  const running = vm.migration.run();
  await vm.seen('active');
  await vm.clock.sleep(250);
  vm.migration.startPostcopy();
  return { ...vm, running, taps };
}

describe('postcopy', () => {
  it('has its events in the order of QEMU 10.0, and all of the guest arrives', async () => {
    const { migration, events, running, differences, guest } = await begin();
    await running;
    expect(events).toEqual([
      ...['setup', 'PASS 1', 'active', 'STOP', 'device', 'PASS 2', 'postcopy-active', 'gone', 'completed'],
    ]);
    expect(await differences()).toBe(0);
    expect(guest.isRunning).toBe(false);
    const { status, downtime, ram } = migration.query();
    expect(status).toBe('completed');
    expect(downtime).toBeLessThan(10);
    expect(ram).toMatchObject({ remaining: 0, 'dirty-sync-count': 2, 'postcopy-requests': 0 });
    const bytes = ['precopy-bytes', 'downtime-bytes', 'postcopy-bytes'].map((name) => ram?.[name as 'precopy-bytes']);
    expect(bytes.map((each) => (each ?? 0) > 0)).toEqual([true, false, true]);
    const [before = 0, , after = 0] = bytes;
    expect(ram?.transferred).toBeGreaterThanOrEqual(before + after);
    expect(ram?.transferred).toBeLessThan(before + after + 4000);
  });

  it('says postcopy-active before it stops the guest in earlier releases, and after a pause', async () => {
    const early = await begin({ alwaysEntersDevice: false });
    await early.running;
    expect(early.events.slice(-6)).toEqual(['active', 'postcopy-active', 'STOP', 'PASS 2', 'gone', 'completed']);
    for (const alwaysEntersDevice of [false, true]) {
      const { migration, events, seen, running } = await begin({ alwaysEntersDevice, pauseBeforeSwitchover: true });
      await seen('pre-switchover');
      migration.continue('pre-switchover');
      await running;
      const device = alwaysEntersDevice ? ['device'] : [];
      expect(withoutPasses(events)).toEqual([
        ...['setup', 'active', 'STOP', 'pre-switchover', ...device, 'postcopy-active', 'gone', 'completed'],
      ]);
    }
  });

  it('may be asked for before RAM begins, and every page then comes once', async () => {
    const taps: Tap[] = [];
    const { migration, differences, events } = await makeVm(8 * MiB, { postcopy: { preempt: false } }, (line) => {
      taps.push(tapped(line));
      return taps[0]!.connection;
    });
    expect(() => migration.startPostcopy()).toThrow('Postcopy must be started after migration has been started');
    const running = migration.run();
    migration.startPostcopy();
    await running;
    expect(events.slice(0, 5)).toEqual(['setup', 'PASS 1', 'active', 'STOP', 'device']);
    expect(await differences()).toBe(0);
    const sent = await pagesAfterSwitch(taps[0]!.bytes());
    expect(sent.toSorted((a, b) => a - b)).toEqual(Array.from({ length: pages }, (_, i) => i));
  });

  it('is a precopy migration if nobody asks for it', async () => {
    const { migration, events, differences } = await makeVm(8 * MiB, { postcopy: { preempt: true } });
    await migration.run();
    expect(events).not.toContain('postcopy-active');
    expect(await differences()).toBe(0);
  });

  it('sends what is asked for at once, though the budget is spent, and goes on behind it', async () => {
    const { taps, running, seen, clock, parameters, migration, differences } = await begin();
    Object.assign(parameters, { 'max-postcopy-bandwidth': 1 * MiB });
    await seen('postcopy-active');
    await clock.sleep(130);
    const before = (await pagesAfterSwitch(taps[0]!.bytes())).length;
    const asked = clock.now();
    taps[0]!.ask(1900, 2);
    await clock.sleep(1);
    expect(clock.now() - asked).toBeLessThan(5);
    expect((await pagesAfterSwitch(taps[0]!.bytes())).length).toBe(before + 2);
    await running;
    const sent = await pagesAfterSwitch(taps[0]!.bytes());
    const at = sent.indexOf(1900);
    expect(at).toBe(before);
    expect(sent.slice(at, at + 4)).toEqual([1900, 1901, 1902, 1903]);
    expect(new Set(sent).size).toBe(sent.length);
    expect(migration.query().ram?.['postcopy-requests']).toBe(1);
    expect(await differences()).toBe(0);
  });

  it('holds max-postcopy-bandwidth', async () => {
    const { running, seen, clock, parameters, migration } = await begin();
    Object.assign(parameters, { 'max-postcopy-bandwidth': 2 * MiB });
    await seen('postcopy-active');
    const start = clock.now();
    await running;
    const sent = migration.query().ram?.['postcopy-bytes'] ?? 0;
    expect(sent / ((clock.now() - start) / 1000) / (2 * MiB)).toBeCloseTo(1, 1);
  });

  it('refuses pages that do not exist, and multifd', async () => {
    const { taps, running, seen, events, parameters, clock } = await begin();
    Object.assign(parameters, { 'max-postcopy-bandwidth': 1 * MiB });
    await seen('postcopy-active');
    await clock.sleep(130);
    taps[0]!.ask(pages);
    await seen('postcopy-paused');
    expect(events.at(-1)).toBe('postcopy-paused');
    void running;
    const both = await makeVm(8 * MiB, { postcopy: { preempt: false }, multifd: { channels: 2 } });
    await both.migration.run();
    expect(both.migration.query()['error-desc']).toBe('Postcopy is not yet compatible with multifd');
  });
});

describe('a preempt channel', () => {
  it.each(['7.2', '10.0'] as const)('carries what is asked for, of %s', async (release) => {
    const preemptFirst = release === '7.2';
    const rules = { switchoverStart: false, multifdMarks: 'section', zeroPages: 'records' } as const;
    const { taps, running, seen, clock, parameters, differences } = await begin({
      ...{ postcopy: { preempt: true }, release, alwaysEntersDevice: !preemptFirst },
      rules: { ...rules, pagesAllocatedInSync: true, preemptFirst },
    });
    expect(taps).toHaveLength(preemptFirst ? 2 : 1);
    Object.assign(parameters, { 'max-postcopy-bandwidth': 1 * MiB });
    await seen('postcopy-active');
    await clock.sleep(130);
    taps[0]!.ask(1900, 2);
    await clock.sleep(1);
    const [main, urgent] = taps;
    const { length } = urgent!.bytes();
    // A zero page with the name of its block, and another one.
    expect(length).toBe(9 + 4 + 8 + page);
    await running;
    expect(urgent!.bytes().length - length).toBe(preemptFirst ? 8 : 0);
    const sent = await pagesAfterSwitch(main!.bytes());
    expect(sent).not.toContain(1900);
    expect(sent).not.toContain(1901);
    expect(sent).toContain(1902);
    expect(await differences()).toBe(0);
  });
});

describe('a line that breaks in postcopy', () => {
  it('pauses the migration, which keeps its pages, and can neither be cancelled nor be migrated again', async () => {
    const { migration, taps, running, seen, events, guest, parameters, clock } = await begin();
    Object.assign(parameters, { 'max-postcopy-bandwidth': 1 * MiB });
    expect(() => migration.pause()).toThrow(
      'migrate-pause is currently only supported during postcopy-active or postcopy-recover state',
    );
    await expect(migration.resume(async () => taps[0]!.connection)).rejects.toThrow(
      'Cannot resume if there is no paused migration',
    );
    await seen('postcopy-active');
    await clock.sleep(130);
    taps[0]!.connection.destroy();
    await seen('postcopy-paused');
    expect(migration.query()).toMatchObject({
      ...{ status: 'postcopy-paused', 'error-desc': 'Channel error: Input/output error' },
      ram: { 'dirty-sync-count': 2 },
    });
    expect(migration.isUnderWay).toBe(true);
    expect(() => migration.cancel()).toThrow('Postcopy migration in progress, cannot cancel.');
    await migration.resume(async () => {
      throw new Error('Failed to connect');
    });
    expect(migration.query()).toMatchObject({ status: 'postcopy-paused', 'error-desc': 'Failed to connect' });
    expect(events.slice(-2)).toEqual(['postcopy-recover-setup', 'postcopy-paused']);
    migration.close();
    await running;
    expect(migration.status).toBe('cancelled');
    // Somebody else may run it.
    expect(guest.isRunning).toBe(false);
    expect(events).not.toContain('RESUME');
  });

  it.each(['7.2', '9.0'] as const)('is what migrate-pause does, and %s can be cancelled then', async (release) => {
    const { migration, running, seen, events, parameters } = await begin({ alwaysEntersDevice: false, release });
    Object.assign(parameters, { 'max-postcopy-bandwidth': 1 * MiB });
    await seen('PASS 2');
    await seen('postcopy-active');
    while (migration.query().ram?.['postcopy-bytes'] === 0) await new Promise((resolve) => setImmediate(resolve));
    migration.pause();
    await seen('postcopy-paused');
    const is72 = release === '7.2';
    expect(migration.query()['error-desc']).toBe(is72 ? undefined : 'Postcopy migration is paused by the user');
    expect(migration.query()).toHaveProperty(is72 ? 'expected-downtime' : 'downtime');
    expect(migration.query()).not.toHaveProperty(is72 ? 'downtime' : 'expected-downtime');
    migration.cancel();
    await running;
    expect(events.slice(-3)).toEqual(['postcopy-paused', 'cancelling', 'cancelled']);
  });

  it('before the package fails the migration, and the guest runs on', async () => {
    const { migration, taps, running, seen, events, guest } = await begin({ pauseBeforeSwitchover: true });
    await seen('pre-switchover');
    taps[0]!.connection.destroy();
    migration.continue('pre-switchover');
    await running;
    expect(events).not.toContain('postcopy-paused');
    expect(events.slice(-2)).toEqual(['failed', 'RESUME']);
    expect(guest.isRunning).toBe(true);
  });
});
