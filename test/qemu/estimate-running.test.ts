/**
 * `vmferry estimate SOCKET` with a running QEMU, and the migration that it predicted. Some cases run with `npm run test:qemu`,
 * and measure for a second; VMFERRY_QEMU=full runs all, and measures for 26 s.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { EstimateJson } from '../../src/tasks/json.ts';
import { runCli } from '../run-cli.ts';
import type { DirtyKind, PageRange } from './guest.ts';
import { MiB, PAGE, startMachine } from './machine.ts';
import type { MigrationInfo, Qemu, QemuVersion } from './qemu.ts';
import { lacksQemu } from './require.ts';

interface Case {
  name: string;
  version: QemuVersion;
  /** MiB that the guest writes to; 0: it writes nothing. And port reads after each page. */
  set: number;
  kind?: DirtyKind;
  pause?: number;
  /** MiB/s, ms. */
  bandwidth: number;
  downtimeLimit?: number;
  /** On at the source when it is asked, and when it migrates. */
  capability?: 'auto-converge' | 'xbzrle';
  verdict?: EstimateJson['verdict'];
  advice?: string[];
  essential?: boolean;
}

const cases: Case[] = [
  { name: 'nothing is written', version: '7.2', set: 0, bandwidth: 64, verdict: 'converges', essential: true },
  {
    ...{ name: 'faster than the wire', version: '10.0', set: 46, bandwidth: 20, verdict: 'no', essential: true },
    advice: ['raise-downtime-limit', 'raise-bandwidth', 'postcopy', 'xbzrle-if'],
  },
  { name: 'faster than the wire', version: '7.2', set: 46, bandwidth: 20, verdict: 'no', advice: ['postcopy'] },
  { name: 'a small set, all the time', version: '10.0', set: 2, bandwidth: 32, verdict: 'converges' },
  { name: 'a small set, all the time', version: '7.2', set: 2, bandwidth: 32 },
  { name: 'slower than the wire', version: '10.0', set: 46, pause: 9000, bandwidth: 48, verdict: 'converges' },
  { name: 'a long downtime', version: '10.0', set: 46, bandwidth: 20, downtimeLimit: 4000 },
  { name: 'a little slower than the wire', version: '10.0', set: 46, pause: 5000, bandwidth: 24, downtimeLimit: 50 },
  { name: 'auto-converge', version: '10.0', set: 46, pause: 2500, bandwidth: 20, capability: 'auto-converge' },
];

const isFull = process.env.VMFERRY_QEMU === 'full';
const ramMiB = 96;
/** A third of the pages are random; the rest is zero. */
const fills: PageRange = { first: 256, count: (32 * MiB) / PAGE };

describe.skipIf(lacksQemu('7.2', '10.0'))('a running QEMU', () => {
  const chosen = isFull ? cases : cases.filter(({ essential }) => essential);
  test.each(chosen)('$version: $name', async (each) => {
    const { version, set, kind = 'few-bytes', pause = 0 } = each;
    const args = ['-qmp', 'unix:second,server=on,wait=off'];
    const { qemu, guest } = await startMachine({ version, machine: 'bare', ramMiB, args });
    try {
      await guest?.fill(fills, 'random', 5);
      if (set > 0) await guest?.startDirtying({ first: 256, count: (set * MiB) / PAGE }, kind, pause);
      if (each.capability !== undefined) await qemu.setCapabilities([each.capability]);
      await qemu.setParameters({ 'downtime-limit': each.downtimeLimit ?? 300 });
      const before = await stateOf(qemu);
      const words = ['estimate', `unix:${join(qemu.dir, 'second')}`, '--bandwidth', `${each.bandwidth}M`, '--json'];
      const { code, stdout, stderr } = await runCli([...words, ...(isFull ? [] : ['--quick'])]);
      expect([code, stderr]).toEqual([0, '']);
      expect(await stateOf(qemu)).toEqual(before);
      expect(qemu.events.map(({ event }) => event).filter((name) => name === 'STOP')).toEqual([]);
      const found = JSON.parse(stdout) as EstimateJson;
      compare(each, found, await migrate(qemu, each));
    } finally {
      guest?.close();
      await qemu[Symbol.asyncDispose]();
    }
  });
});

const stateOf = async (qemu: Qemu) =>
  Promise.all(
    ['query-status', 'query-migrate-capabilities', 'query-migrate-parameters', 'query-migrate'].map((name) =>
      qemu.execute(name),
    ),
  );

/** Longer than every case that ends takes, and than it takes to see that one does not. */
const [giveUpMs, stillMs] = [60_000, isFull ? 15_000 : 1000];

async function migrate(qemu: Qemu, each: Case): Promise<MigrationInfo | undefined> {
  await qemu.setParameters({ 'max-bandwidth': each.bandwidth * MiB });
  await qemu.execute('migrate', { uri: 'exec:cat > /dev/null' });
  const until = performance.now() + (each.verdict === 'no' ? stillMs : giveUpMs);
  while (performance.now() < until) {
    const said = await qemu.queryMigrate();
    if (said.status === 'completed') return said;
    if (said.status === 'failed') throw new Error(`migration failed: ${said['error-desc']}`);
    await sleep(20);
  }
  await qemu.execute('migrate_cancel');
  return undefined;
}

function compare(each: Case, found: EstimateJson, completed: MigrationInfo | undefined): void {
  const [mode] = found.convergence;
  expect(mode?.mode).toBe(each.capability === 'auto-converge' ? 'auto-converge' : 'plain');
  const those = (mode?.predictions ?? []).map(({ prediction }) => prediction).filter(({ converges }) => converges);
  const range = (of: (prediction: (typeof those)[number]) => number) =>
    those.length === 0 ? '-' : `${Math.min(...those.map(of))}-${Math.max(...those.map(of))}`;
  const mib = (bytes: number) => (bytes / MiB).toFixed(1);
  const rates = found.running?.dirtyRates.map(({ ms, bytesPerSecond }) => `${mib(bytesPerSecond)} in ${ms} ms`);
  console.log(
    [
      `${each.version}: ${each.name}: ${rates?.join(', ')} MiB/s; ${found.memory.all.zero} of ${found.memory.all.pages} pages zero`,
      `  predicted ${found.verdict}: ${range((p) => p.totalMs)} ms, downtime ${range((p) => p.downtimeMs)} ms, ${range((p) => p.syncs)} syncs`,
      completed === undefined
        ? '  QEMU did not end'
        : `  QEMU took ${completed['total-time']} ms, downtime ${completed.downtime} ms, ${completed.ram?.['dirty-sync-count']} syncs`,
    ].join('\n'),
  );
  expect(found.running).toMatchObject({ isRunning: true, readPages: 256 });
  // About 62 of 96 MiB are zero: 256 pages show that within a tenth.
  const zeroShare = found.memory.all.zero / found.memory.all.pages;
  expect(Math.abs(zeroShare - (ramMiB - Math.max(33, each.set)) / ramMiB)).toBeLessThan(0.15);
  if (each.verdict !== undefined) expect(found.verdict).toBe(each.verdict);
  expect(found.recommendations.map(({ rule }) => rule)).toEqual(expect.arrayContaining(each.advice ?? []));
  if (found.verdict === 'converges') expect(completed).toBeDefined();
  if (each.verdict === 'no') expect(completed).toBeUndefined();
}
