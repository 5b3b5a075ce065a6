import { describe, expect, it } from 'vitest';
import type { PeerError } from '../../src/io/connection.ts';
import { PeerWatch } from '../../src/migrate/peer-watch.ts';
import { ManualClock } from '../support/manual-clock.ts';

function watched(idleTimeoutMs?: number) {
  const clock = new ManualClock();
  const waits: [number, string][] = [];
  const errors: PeerError[] = [];
  const options = { clock, idleTimeoutMs, onWaiting: (ms: number, what: string) => waits.push([ms, what]) };
  const watch = new PeerWatch(options, (error) => errors.push(error));
  return { clock, waits, errors, watch };
}

const forever = () => new Promise<void>(() => {});

describe('PeerWatch', () => {
  it('reports a silent peer every 10 s, and waits for as long as it takes', async () => {
    const { clock, waits, errors, watch } = watched();
    void watch.during('the target to take more', forever());
    await clock.advance(9999);
    expect(waits).toEqual([]);
    await clock.advance(20_001);
    expect(waits.map(([ms]) => ms)).toEqual([10_000, 20_000, 30_000]);
    expect(waits[0]?.[1]).toBe('the target to take more');
    await clock.advance(3_600_000);
    expect(errors).toEqual([]);
  });

  it('counts only while something waits, and from the latest byte', async () => {
    const { clock, waits, watch } = watched();
    await clock.advance(60_000);
    void watch.during('an answer', forever());
    await clock.advance(8000);
    watch.moved();
    await clock.advance(8000);
    expect(waits).toEqual([]);
    await clock.advance(2000);
    expect(waits).toEqual([[10_000, 'an answer']]);
  });

  it('does not count the time between two waits', async () => {
    const { clock, errors, watch } = watched(5000);
    for (let i = 0; i < 10; i++) {
      await watch.during('a piece', clock.advance(3000));
      await clock.advance(4000);
    }
    expect(errors).toEqual([]);
  });

  it('gives a silent peer up after the idle timeout, once', async () => {
    const { clock, waits, errors, watch } = watched(2500);
    await clock.advance(1000);
    void watch.during('the target to take more', forever());
    await clock.advance(2499);
    expect(errors).toEqual([]);
    await clock.advance(100_000);
    expect(errors.map(({ message, code }) => [message, code])).toEqual([
      ['the peer was silent for 2.5 s', 'ETIMEDOUT'],
    ]);
    expect(waits).toEqual([]);
  });

  it('leaves no timer when it is closed', async () => {
    const { clock, watch } = watched(2500);
    void watch.during('the target to take more', forever());
    await clock.advance(1);
    expect(clock.hasSleeper).toBe(true);
    watch.close();
    expect(clock.hasSleeper).toBe(false);
  });
});
