/**
 * A synthetic guest that writes while it migrates in postcopy into a real QEMU, whose monitor reads its RAM meanwhile: the
 * pages that it meets are asked for. What arrives is what the guest had when it stopped. VMFERRY_QEMU=full runs all.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { Qemu, type QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { countDifferences, makeSource, size } from './synthetic-source.ts';
import { waitUntil } from './wait-until.ts';

const MiB = 1 << 20;

interface Waiting extends AsyncDisposable {
  qemu: Qemu;
  /** Its RAM. */
  ram: string;
  uri: string;
}

/** Starts a QEMU without a machine, whose RAM is a file in memory. */
async function startWaiting(version: QemuVersion, transport: 'tcp' | 'unix', preempt: boolean): Promise<Waiting> {
  const dir = Qemu.makeDir();
  const ram = join('/dev/shm', `vmferry-${process.pid}-${Math.random().toString(36).slice(2)}`);
  const backend = `memory-backend-file,id=ram,mem-path=${ram},size=${size},share=on`;
  const args = ['-M', 'none,memory-backend=ram', '-m', '32', '-nodefaults', '-object', backend, '-incoming', 'defer'];
  const qemu = await Qemu.start({ version, dir, args });
  await qemu.setCapabilities(['events', 'postcopy-ram', ...(preempt ? ['postcopy-preempt'] : [])]);
  await qemu.execute('migrate-incoming', {
    uri: transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(dir, 'incoming')}`,
  });
  const [address] = (await qemu.queryMigrate())['socket-address'] as { port?: string; path?: string }[];
  return {
    ...{ qemu, ram, uri: transport === 'tcp' ? `tcp:127.0.0.1:${address?.port}` : `unix:${address?.path}` },
    async [Symbol.asyncDispose]() {
      await qemu[Symbol.asyncDispose]();
      rmSync(ram, { force: true });
    },
  };
}

const withoutPasses = (events: string[]) => events.filter((event) => !event.startsWith('PASS'));
const orders = {
  '7.2': ['setup', 'active', 'postcopy-active', 'STOP', 'completed'],
  '10.0': ['setup', 'active', 'STOP', 'device', 'postcopy-active', 'completed'],
};

const isFull = process.env.VMFERRY_QEMU === 'full';
const lines = [
  ['tcp', false],
  ['unix', false],
  ['tcp', true],
  ['unix', true],
] as const;
const essential = { '7.2': lines[1], '10.0': lines[2] };

describe.each(['7.2', '10.0'] as const)('postcopy into QEMU %s', (version) => {
  test.skipIf(lacksQemu(version)).each(lines.filter((each) => isFull || each === essential[version]))(
    'over %s, preempt %s',
    async (transport, preempt) => {
      await using waiting = await startWaiting(version, transport, preempt);
      const { qemu, ram, uri } = waiting;
      const { migration, guest, events } = await makeSource(version, {
        ...{ postcopy: { preempt }, connect: () => connectTo(parseMigrationUri(uri)) },
      });
      const running = migration.run();
      await waitUntil('the guest writes', async () => {
        await guest.look();
        return guest.pagesWritten > 500 && migration.status === 'active';
      });
      migration.startPostcopy();
      await qemu.event('MIGRATION', { where: ({ status }) => status === 'postcopy-active' });
      const seen = join(qemu.dir, 'seen');
      // What the monitor meets is asked for, page by page.
      await qemu.execute('pmemsave', { val: size / 2, size: size / 2, filename: seen });
      await running;
      expect(migration.query()['error-desc']).toBeUndefined();
      expect(withoutPasses(events)).toEqual(orders[version]);
      await qemu.waitForMigration();
      const arrived = readFileSync(ram);
      expect(await countDifferences(guest, arrived)).toBe(0);
      expect(Buffer.compare(readFileSync(seen), arrived.subarray(size / 2))).toBe(0);
      const { ram: counts, downtime = 0, 'total-time': total = 0 } = migration.query();
      expect(counts?.['postcopy-requests']).toBeGreaterThan(preempt ? 100 : 1);
      expect(counts?.['postcopy-bytes']).toBeGreaterThan(MiB);
      expect(downtime).toBeLessThan(total / 2);
    },
  );

  test.skipIf(lacksQemu(version)).each(isFull ? [false, true] : [version === '7.2'])(
    'goes on after a break, preempt %s',
    async (preempt) => {
      await using waiting = await startWaiting(version, 'unix', preempt);
      const { qemu, ram, uri } = waiting;
      const connectBy = (address: string) => () => connectTo(parseMigrationUri(address));
      const { migration, guest, events } = await makeSource(version, {
        postcopy: { preempt },
        connect: connectBy(uri),
      });
      const running = migration.run();
      await waitUntil('the guest writes', async () => {
        await guest.look();
        return guest.pagesWritten > 500 && migration.status === 'active';
      });
      migration.startPostcopy();
      await waitUntil('pages go in postcopy', () => (migration.query().ram?.['postcopy-bytes'] ?? 0) > MiB);
      migration.pause();
      await waitUntil('a pause', () => migration.status === 'postcopy-paused');
      const why = version === '7.2' ? undefined : 'Postcopy migration is paused by the user';
      expect(migration.query()['error-desc']).toBe(why);
      await qemu.waitForStatus('postcopy-paused');
      const again = `unix:${join(qemu.dir, 'again')}`;
      await qemu.execute('migrate-recover', { uri: again });
      const sent = migration.query().ram?.normal ?? 0;
      await migration.resume(connectBy(again));
      await running;
      expect(migration.query()['error-desc']).toBeUndefined();
      const setup = version === '10.0' ? ['postcopy-recover-setup'] : [];
      expect(events.slice(-4 - setup.length)).toEqual([
        ...['postcopy-paused', ...setup, 'postcopy-recover', 'postcopy-active', 'completed'],
      ]);
      await qemu.waitForMigration();
      expect(await countDifferences(guest, readFileSync(ram))).toBe(0);
      // What had arrived did not come again.
      expect((migration.query().ram?.normal ?? 0) - sent).toBeLessThan((24 * MiB) / 4096);
    },
  );
});
