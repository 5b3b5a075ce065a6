/** Dirty rates of guests whose rates are known, in virtual time; checks and answers as real QEMUs 7.2 and 10.0 gave them. */
import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import type { WorkloadOptions } from '../../src/guest/workload.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { type CalcDirtyRate, DirtyRate, type DirtyRateOptions } from '../../src/migrate/dirty-rate.ts';
import { seededRandom } from '../../src/tasks/estimate/seeded-random.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { ManualClock } from '../support/manual-clock.ts';

const MiB = 1 << 20;
const startTime = 1_796_051_583;
const workload: WorkloadOptions = { rate: 24 * MiB, workingSet: 48 * MiB, vcpus: 2 };

function makeVm(size = 256 * MiB, more: Partial<DirtyRateOptions> = {}, given: WorkloadOptions | null = workload) {
  const clock = new ManualClock();
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size }]);
  const guest = new SyntheticGuest({ ram, workload: given ?? undefined, clock });
  const options = { timeOfDay: () => startTime * 1000 + clock.now(), random: seededRandom(5), clock };
  const rate = new DirtyRate({ vm: () => guest, release: '10.0', ...options, ...more });
  /** Measures, and returns the answer. */
  const measure = async (arguments_: CalcDirtyRate, ms: number) => {
    rate.calculate(arguments_);
    // The hashes are computed while the clock stands still.
    while (!clock.hasSleeper) await new Promise(setImmediate);
    await clock.advance(ms);
    while (rate.query().status !== 'measured') await new Promise(setImmediate);
    return rate.query();
  };
  return { clock, guest, rate, measure };
}

const textOf = (rate: DirtyRate, given: CalcDirtyRate) => {
  try {
    rate.calculate(given);
    return 'accepted';
  } catch (error) {
    return (error as Error).message;
  }
};

describe('calc-dirty-rate', () => {
  it.each([
    ['all that is written', 1000, 24],
    ['a page only once, however often it is written', 4000, 12],
  ])('by the bitmap counts %s', async (_, ms, expected) => {
    const { measure } = makeVm();
    const given: CalcDirtyRate = { 'calc-time': ms, 'calc-time-unit': 'millisecond', mode: 'dirty-bitmap' };
    expect((await measure(given, ms))['dirty-rate']).toBe(expected);
  });

  it('by samples comes close to what is written, with as many samples as asked for', async () => {
    const { measure, clock } = makeVm();
    const { 'dirty-rate': rate = 0, ...rest } = await measure({ 'calc-time': 1, 'sample-pages': 16384 }, 1000);
    expect(Math.abs(rate - 24)).toBeLessThanOrEqual(3);
    expect(rest).toEqual({
      ...{ status: 'measured', 'sample-pages': 16384, mode: 'page-sampling' },
      ...{ 'calc-time-unit': 'second', 'start-time': startTime, 'calc-time': 1 },
    });
    await clock.advance(5000);
    const again = await measure({ 'calc-time': 2, 'sample-pages': 16384 }, 2000);
    expect(Math.abs((again['dirty-rate'] ?? 0) - 24)).toBeLessThanOrEqual(3);
    expect(again).toMatchObject({ 'start-time': startTime + 6, 'calc-time': 2 });
  });

  it('sees no change in a guest that stands still, and -1 in one without a block of 128 KiB', async () => {
    const still = makeVm();
    await still.guest.stop();
    expect((await still.measure({ 'calc-time': 1 }, 1000))['dirty-rate']).toBe(0);
    const small = makeVm(124 << 10, {}, null);
    expect((await small.measure({ 'calc-time': 1, 'sample-pages': 16384 }, 1000))['dirty-rate']).toBe(-1);
  });

  it('leaves out blocks that do not migrate', async () => {
    const { guest, measure } = makeVm(256 * MiB, { vm: () => ({ ram: guest.ram, ignored: guest.ram.blocks }) });
    expect((await measure({ 'calc-time': 1 }, 1000))['dirty-rate']).toBe(-1);
  });

  it('reports the time that it really took, in whole units', async () => {
    const { rate, clock } = makeVm(8 * MiB, {}, null);
    clock.sleep = async (ms) => {
      await clock.advance(ms + 8);
    };
    rate.calculate({ 'calc-time': 50, 'calc-time-unit': 'millisecond' });
    while (rate.query().status !== 'measured') await new Promise(setImmediate);
    expect(rate.query({ 'calc-time-unit': 'millisecond' })['calc-time']).toBe(58);
    expect(rate.query()['calc-time']).toBe(0);
  });

  it('with a ring counts each vCPU', async () => {
    const { guest, measure, rate } = makeVm(256 * MiB, {
      ring: {
        pageSize: 4096,
        pagesWritten: async () => {
          await guest.look();
          return guest.vcpuPagesWritten;
        },
      },
    });
    expect(textOf(rate, { 'calc-time': 1, mode: 'dirty-bitmap' })).toBe(
      'mode dirty-bitmap is not enabled, use other method instead.',
    );
    await guest.limitVcpu(1, 4 * MiB);
    expect(await measure({ 'calc-time': 1, mode: 'dirty-ring' }, 1000)).toMatchObject({
      ...{ 'dirty-rate': 16, 'sample-pages': 0, mode: 'dirty-ring' },
      'vcpu-dirty-rate': [
        { id: 0, 'dirty-rate': 12 },
        { id: 1, 'dirty-rate': 4 },
      ],
    });
  });

  it('ends with -1 if RAM cannot be read, and can be asked again', async () => {
    let isBroken = true;
    const block: RamBlock = { index: 0, idstr: 'ram', usedLength: 8 * MiB, pageSize: 4096 };
    const ram: RamReader = {
      blocks: [block],
      state: () => 'data',
      read: async () => {
        if (isBroken) throw new Error('the disk is gone');
      },
      nextData: async () => ({ first: 0, end: 1 }),
      close: async () => {},
    };
    const { rate, measure } = makeVm(8 * MiB, { vm: () => ({ ram }) }, null);
    rate.calculate({ 'calc-time': 1 });
    while (rate.query().status !== 'measured') await new Promise(setImmediate);
    expect(rate.query()['dirty-rate']).toBe(-1);
    isBroken = false;
    expect((await measure({ 'calc-time': 1 }, 1000))['dirty-rate']).toBe(0);
  });

  it('ends at once when it is closed', async () => {
    const { rate, clock } = makeVm();
    rate.calculate({ 'calc-time': 60 });
    while (!clock.hasSleeper) await new Promise(setImmediate);
    await rate.close();
    expect(clock.now()).toBe(0);
  });

  it.each<[release: '7.2' | '10.0', given: CalcDirtyRate, text: string]>([
    ['10.0', { 'calc-time': 1, 'sample-pages': 0 }, 'sample-pages is out of range[128, 16384].'],
    ['10.0', { 'calc-time': 0, 'sample-pages': 0 }, 'Calculation time is out of range [50ms, 60000ms].'],
    ['10.0', { 'calc-time': 61 }, 'Calculation time is out of range [50ms, 60000ms].'],
    ['10.0', { 'calc-time': 2n ** 63n - 1n }, 'Calculation time is out of range [50ms, 60000ms].'],
    ['10.0', { 'calc-time': 18446744073709552n }, 'accepted'],
    ['10.0', { 'calc-time': 49, 'calc-time-unit': 'millisecond' }, 'Calculation time is out of range [50ms, 60000ms].'],
    [
      '10.0',
      { 'calc-time': 60_001, 'calc-time-unit': 'millisecond' },
      'Calculation time is out of range [50ms, 60000ms].',
    ],
    [
      '10.0',
      { 'calc-time': 1, 'sample-pages': 512, mode: 'dirty-ring' },
      'sample-pages is used only in page-sampling mode',
    ],
    [
      '10.0',
      { 'calc-time': 1, 'sample-pages': 0, mode: 'dirty-bitmap' },
      'sample-pages is used only in page-sampling mode',
    ],
    ['10.0', { 'calc-time': 1, mode: 'dirty-ring' }, 'mode dirty-ring is not enabled, use other method instead.'],
    ['10.0', { 'calc-time': 1, mode: 'dirty-bitmap' }, 'accepted'],
    ['7.2', { 'calc-time': 1, 'sample-pages': 0 }, 'sample-pages is out of range[128, 16384].'],
    ['7.2', { 'calc-time': 0, 'sample-pages': 0 }, 'calc-time is out of range[1, 60].'],
    ['7.2', { 'calc-time': 61 }, 'calc-time is out of range[1, 60].'],
    [
      '7.2',
      { 'calc-time': 1, 'sample-pages': 512, mode: 'dirty-ring' },
      'either sample-pages or dirty-ring can be specified.',
    ],
    ['7.2', { 'calc-time': 1, 'sample-pages': 0, mode: 'dirty-bitmap' }, 'sample-pages is out of range[128, 16384].'],
    ['7.2', { 'calc-time': 1, mode: 'dirty-bitmap' }, 'mode dirty-bitmap is not enabled, use other method instead.'],
    ['7.2', { 'calc-time': 1 }, 'accepted'],
  ])('of %s answers %o with %s', async (release, given, text) => {
    const { rate } = makeVm(8 * MiB, { release }, null);
    expect(textOf(rate, given)).toBe(text);
    if (text === 'accepted') {
      expect(textOf(rate, { 'calc-time': 0 })).toBe('the dirty rate is already being measured.');
    }
    await rate.close();
  });
});

describe('query-dirty-rate', () => {
  const unstarted = { status: 'unstarted', 'sample-pages': 0, mode: 'page-sampling', 'start-time': 0, 'calc-time': 0 };

  it('answers as QEMU 10.0 in each state', async () => {
    const { rate, clock } = makeVm(8 * MiB, {}, null);
    expect(rate.query()).toEqual({ ...unstarted, 'calc-time-unit': 'second' });
    rate.calculate({ 'calc-time': 200, 'calc-time-unit': 'millisecond', 'sample-pages': 1024 });
    const measuring = {
      ...{ status: 'measuring', 'sample-pages': 1024, mode: 'page-sampling' },
      ...{ 'calc-time-unit': 'millisecond', 'start-time': startTime, 'calc-time': 200 },
    };
    expect(rate.query({ 'calc-time-unit': 'millisecond' })).toEqual(measuring);
    expect(rate.query()).toEqual({ ...measuring, 'calc-time-unit': 'second', 'calc-time': 0 });
    while (!clock.hasSleeper) await new Promise(setImmediate);
    await clock.advance(200);
    while (rate.query().status !== 'measured') await new Promise(setImmediate);
    expect(rate.query({ 'calc-time-unit': 'millisecond' })).toEqual({
      ...measuring,
      ...{ status: 'measured', 'dirty-rate': 0 },
    });
    rate.calculate({ 'calc-time': 1, mode: 'dirty-bitmap' });
    expect(rate.query()).toMatchObject({ status: 'measuring', 'sample-pages': 512, mode: 'dirty-bitmap' });
    await rate.close();
    expect(rate.query()).toMatchObject({ status: 'measured', 'sample-pages': 0, mode: 'dirty-bitmap' });
  });

  it('has no unit in 7.2, and counts the start from any moment', async () => {
    const { rate, clock } = makeVm(8 * MiB, { release: '7.2' }, null);
    expect(rate.query()).toEqual(unstarted);
    await clock.advance(25_873_500);
    rate.calculate({ 'calc-time': 1 });
    expect(rate.query()).toEqual({
      ...{ status: 'measuring', 'sample-pages': 512, mode: 'page-sampling', 'start-time': 25_873, 'calc-time': 1 },
    });
    await rate.close();
  });
});
