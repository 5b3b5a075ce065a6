/**
 * Compares the predictions of `estimate` with QEMU: a guest that writes to its memory in a known way is saved twice,
 * measured by calc-dirty-rate, and then migrated. The essential case runs with `npm run test:qemu`; VMFERRY_QEMU=full
 * runs all.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type ConvergenceVerdict, type Estimate, estimate, MemoryFile, NodeCodecs, open } from '../../src/node.ts';
import type { DirtyKind, Guest, PageRange } from './guest.ts';
import { MiB, PAGE, startMachine } from './machine.ts';
import type { MigrationInfo, Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';

interface Case {
  name: string;
  /** MiB that the guest writes to, and port reads after each page. */
  set: number;
  kind: DirtyKind;
  pause: number;
  /** Seconds between the saves. */
  seconds: number;
  /** MiB/s, ms. */
  bandwidth: number;
  downtimeLimit?: number;
  mode?: 'plain' | 'xbzrle' | 'auto-converge';
  /** The expected prediction. Undefined: two saves do not determine it. */
  verdict?: ConvergenceVerdict;
  essential?: boolean;
}

const cases: Case[] = [
  {
    ...{ name: 'a small set that is written constantly fits into the downtime', set: 2, kind: 'few-bytes', pause: 0 },
    ...{ seconds: 0.5, bandwidth: 32, verdict: 'converges', essential: true },
  },
  {
    ...{ name: 'slower than the wire', set: 46, kind: 'few-bytes', pause: 9000, seconds: 1 },
    ...{ bandwidth: 48, verdict: 'converges' },
  },
  {
    ...{
      name: 'a little slower than the wire, with little downtime',
      set: 46,
      kind: 'rewrite',
      pause: 5000,
      seconds: 1,
    },
    ...{ bandwidth: 24, downtimeLimit: 50 },
  },
  {
    ...{ name: 'faster than the wire', set: 46, kind: 'few-bytes', pause: 0, seconds: 1 },
    ...{ bandwidth: 20, verdict: 'no' },
  },
  {
    ...{ name: 'faster than the wire, which a long downtime allows', set: 46, kind: 'few-bytes', pause: 0, seconds: 1 },
    ...{ bandwidth: 20, downtimeLimit: 4000 },
  },
  {
    ...{ name: 'a little faster than the wire, with XBZRLE', set: 46, kind: 'few-bytes', pause: 2500, seconds: 1 },
    ...{ bandwidth: 20, mode: 'xbzrle' as const },
  },
  {
    ...{
      name: 'a little faster than the wire, with rewritten pages and XBZRLE',
      set: 46,
      kind: 'rewrite',
      pause: 2000,
    },
    ...{ seconds: 1, bandwidth: 20, mode: 'xbzrle' as const },
  },
  {
    ...{
      name: 'a little faster than the wire, with auto-converge',
      set: 46,
      kind: 'few-bytes',
      pause: 2500,
      seconds: 1,
    },
    ...{ bandwidth: 20, mode: 'auto-converge' as const },
  },
];

/** Bytes of the guest's RAM. */
const ramMiB = 96;
const fills: PageRange = { first: 256, count: ((ramMiB - 2) * MiB) / PAGE / 2 };

describe.skipIf(lacksQemu('10.0'))('the prediction of estimate', () => {
  const chosen = process.env.VMFERRY_QEMU === 'full' ? cases : cases.filter(({ essential }) => essential);
  test.each(chosen)('$name', async (each) => {
    const { qemu, guest } = await startMachine({ version: '10.0', machine: 'bare', ramMiB });
    try {
      const found = await observe(qemu, guest as Guest, each);
      compare(each, found);
    } finally {
      guest?.close();
      await qemu[Symbol.asyncDispose]();
    }
  });
});

interface Observed {
  estimated: Estimate;
  intervalMs: number;
  /** MiB/s by calc-dirty-rate. */
  dirtyRate: number;
  /** QEMU's last answer; undefined if the migration had to be cancelled. */
  completed: MigrationInfo | undefined;
  last: MigrationInfo;
}

async function observe(qemu: Qemu, guest: Guest, each: Case): Promise<Observed> {
  await guest.fill(fills, 'random', 5);
  await guest.startDirtying({ first: 256, count: (each.set * MiB) / PAGE }, each.kind, each.pause);
  const dirtyRate = await calcDirtyRate(qemu);
  const files = ['before', 'after'].map((name) => join(qemu.dir, name));
  await save(qemu, files[0] as string);
  const begin = performance.now();
  await qemu.execute('cont');
  // The interval to measure.
  await sleep(each.seconds * 1000);
  await qemu.execute('stop');
  const intervalMs = Math.round(performance.now() - begin);
  await save(qemu, files[1] as string);
  const estimated = await predict(files, intervalMs, each);
  for (const file of files) rmSync(file);
  await qemu.execute('cont');
  // Its answer shows that it runs.
  await guest.count();
  return { estimated, intervalMs, dirtyRate, ...(await migrate(qemu, each)) };
}

async function calcDirtyRate(qemu: Qemu): Promise<number> {
  await qemu.execute('calc-dirty-rate', { 'calc-time': 1, 'sample-pages': 16384 });
  for (;;) {
    await sleep(100);
    const said = await qemu.execute<{ status: string; 'dirty-rate'?: number }>('query-dirty-rate');
    if (said.status === 'measured') return said['dirty-rate'] as number;
  }
}

/** Saves the stopped VM, which can run again afterwards. */
async function save(qemu: Qemu, file: string): Promise<void> {
  await qemu.execute('stop');
  await qemu.migrate(`exec:cat > ${file}`, { parameters: { 'max-bandwidth': 0 } });
}

async function predict([before, after]: string[], intervalMs: number, each: Case): Promise<Estimate> {
  const file = await open(before as string);
  const later = await open(after as string);
  try {
    return await estimate(file, {
      makeScratch: () => new MemoryFile('scratch'),
      codecs: new NodeCodecs(),
      clock: () => performance.now(),
      levels: [],
      later: { file: later, intervalMs },
      bandwidth: each.bandwidth * MiB,
      downtimeLimit: each.downtimeLimit,
      samplePages: 16384,
    });
  } finally {
    await file.close();
    await later.close();
  }
}

/** Longer than every converging case takes. */
const giveUpMs = 40_000;

async function migrate(qemu: Qemu, each: Case): Promise<Pick<Observed, 'completed' | 'last'>> {
  const { bandwidth, downtimeLimit = 300, mode = 'plain' } = each;
  const parameters = {
    'max-bandwidth': bandwidth * MiB,
    'downtime-limit': downtimeLimit,
    'xbzrle-cache-size': 128 * MiB,
  };
  if (mode !== 'plain') await qemu.setCapabilities([mode]);
  await qemu.setParameters(parameters);
  await qemu.execute('migrate', { uri: 'exec:cat > /dev/null' });
  let last: MigrationInfo = {};
  for (
    const until = performance.now() + (each.verdict === 'no' ? giveUpMs / 4 : giveUpMs);
    performance.now() < until;
    await sleep(20)
  ) {
    const said = await qemu.queryMigrate();
    if (said.status === 'completed') return { completed: said, last };
    if (said.status === 'failed') throw new Error(`migration failed: ${said['error-desc']}`);
    last = said;
  }
  await qemu.execute('migrate_cancel');
  return { completed: undefined, last };
}

/** Passes start at window boundaries. */
const windowsMs = 200;
const mib = (bytes: number) => Math.round(bytes / MiB);

function compare(each: Case, { estimated, intervalMs, dirtyRate, completed, last }: Observed): void {
  const { changes, convergence } = estimated;
  const mode = convergence.find((one) => one.mode === (each.mode ?? 'plain'))!;
  const those = mode.predictions.filter(({ prediction }) => prediction.converges).map(({ prediction }) => prediction);
  const range = (of: (prediction: (typeof those)[number]) => number) =>
    those.length === 0 ? '-' : `${Math.min(...those.map(of))}-${Math.max(...those.map(of))}`;
  console.log(
    [
      each.name,
      `  ${mib(changes!.changedBytes)} MiB changed in ${intervalMs} ms; sampled ${changes!.sampled.rate} MiB/s, calc-dirty-rate ${dirtyRate} MiB/s`,
      `  predicted ${mode.verdict}: ${range((p) => p.totalMs)} ms, downtime ${range((p) => p.downtimeMs)} ms, ${range((p) => mib(p.bytes))} MiB, ${range((p) => p.syncs)} syncs`,
      completed === undefined
        ? `  QEMU did not end: ${last.ram!['dirty-sync-count']} syncs, ${mib(last.ram!.transferred!)} MiB, ${last.ram!['dirty-pages-rate']} dirty pages/s`
        : `  QEMU took ${completed['total-time']} ms, downtime ${completed.downtime} ms, ${mib(completed.ram!.transferred!)} MiB, ${completed.ram!['dirty-sync-count']} syncs`,
    ].join('\n'),
  );
  // The guest clock runs from `cont` to `stop`: at least for the pause, at most for the whole interval.
  expect(changes!.guestMs).toBeGreaterThan(each.seconds * 1000 - 5);
  expect(changes!.guestMs).toBeLessThan(intervalMs + 5);
  if (each.verdict !== undefined) expect(mode.verdict).toBe(each.verdict);
  if (mode.verdict === 'converges') expect(completed).toBeDefined();
  if (completed === undefined) return;
  // A migration may slow the guest down, especially under TCG: then less is sent again than the guest wrote before.
  const seconds = ((completed['total-time'] as number) - (completed.downtime as number)) / 1000;
  const again = (completed.ram!.transferred! - estimated.firstPass[0]!.bytes) / seconds;
  const slowedBy = changes!.changedBytes / (intervalMs / 1000) / again;
  if (mode.verdict === 'no' || mode.verdict === 'unlikely') {
    console.log(`  sent again at ${mib(again)} MiB/s: the guest was slowed down by ${slowedBy.toFixed(1)}`);
  }
  if (mode.verdict === 'no') {
    expect(slowedBy).toBeGreaterThan(2);
    return;
  }
  // Only while the guest runs, since a stopped guest is sent at full speed. Under TCG, the guest's write rate depends
  // on the machine's load: allow a third more or less, or as much as the two measurements differ.
  const rates = [Math.max(1, dirtyRate), Math.max(1, changes!.changedBytes / MiB / (intervalMs / 1000))];
  const slack = Math.max(4 / 3, Math.max(...rates) / Math.min(...rates));
  const took = (completed['total-time'] as number) - (completed.downtime as number);
  const predicted = those.map(({ totalMs, downtimeMs }) => totalMs - downtimeMs);
  const sooner = mode.verdict === 'unlikely' ? Math.max(1, slowedBy) : 1;
  expect(took).toBeGreaterThan(Math.min(...predicted) / slack / sooner - windowsMs);
  if (mode.verdict === 'converges') expect(took).toBeLessThan(Math.max(...predicted) * slack + windowsMs);
}
