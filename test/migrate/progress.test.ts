import { describe, expect, it } from 'vitest';
import { LiveError } from '../../src/migrate/live-error.ts';
import { type MigrationProgress, ProgressMeter, type RamCounts } from '../../src/migrate/progress.ts';

const counts = (transferred: number, normal: number, duplicate = 0): RamCounts => ({
  ...{ transferred, remaining: 1 << 20, total: 4 << 20, normal, duplicate },
  ...{ 'page-size': 4096, 'dirty-sync-count': 1, 'multifd-bytes': 0 },
});

function meter() {
  const seen: MigrationProgress[] = [];
  const state = { now: 1000, counts: undefined as RamCounts | undefined };
  const clock = { now: () => state.now, sleep: () => Promise.reject(new Error('a meter does not wait')) };
  const progress = new ProgressMeter({ onProgress: (each) => seen.push(each), clock }, () => state.counts);
  return { seen, state, progress };
}

describe('ProgressMeter', () => {
  it('reports each status at once, and nothing else within 100 ms', () => {
    const { seen, state, progress } = meter();
    progress.enter('setup');
    state.now = 1030;
    state.counts = counts(500, 0);
    progress.enter('active');
    state.now = 1129;
    progress.tick();
    expect(seen.map(({ status }) => status)).toEqual(['setup', 'active']);
    expect(seen[0]).toEqual({ status: 'setup', 'total-time': 0 });
    expect(seen[1]).toMatchObject({ 'setup-time': 30, 'total-time': 30, ram: { transferred: 500 } });
    state.now = 1130;
    progress.tick();
    expect(seen).toHaveLength(3);
  });

  it("computes QEMU's rates from the latest window, and the average at the end", () => {
    const { seen, state, progress } = meter();
    state.counts = counts(0, 0);
    progress.enter('active');
    state.now += 100;
    state.counts = counts(2_101_266, 400, 112);
    progress.tick();
    expect(seen.at(-1)?.ram).toMatchObject({ mbps: 168.10128, 'pages-per-second': 5120, 'normal-bytes': 400 * 4096 });
    state.now += 100;
    progress.enter('completed');
    expect(seen.at(-1)?.ram).toMatchObject({ mbps: 84.05064, remaining: 0 });
  });

  it('gives the reason of a failure', () => {
    const { seen, progress } = meter();
    progress.enter('failed', 'Unable to write to socket: Broken pipe');
    expect(seen).toEqual([
      { status: 'failed', 'total-time': 0, 'error-desc': 'Unable to write to socket: Broken pipe' },
    ]);
  });
});

describe('LiveError', () => {
  it('has the message of its cause', () => {
    const cause = new Error('Sibling indicated error 1');
    expect(new LiveError('source', 'FILE can be sent again', cause)).toMatchObject({
      ...{ name: 'LiveError', message: cause.message, cause, guest: 'source', next: 'FILE can be sent again' },
    });
    expect(new LiveError('either', 'look there', 'the line broke').message).toBe('the line broke');
  });
});
