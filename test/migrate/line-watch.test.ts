import { describe, expect, it } from 'vitest';
import { LineWatch } from '../../src/migrate/line-watch.ts';
import { connectionPair } from '../support/connection-pair.ts';
import { ManualClock } from '../support/manual-clock.ts';

function watched(idleTimeoutMs?: number) {
  const clock = new ManualClock();
  const waits: number[] = [];
  const watch = new LineWatch({ clock, idleTimeoutMs, onWaiting: (ms) => waits.push(ms) });
  const [here, there] = connectionPair();
  return { clock, waits, watch, line: watch.add(here), there };
}

const word = () => new Uint8Array(4);

describe('LineWatch', () => {
  it('reports a silent peer every 10 s, and waits for as long as it takes', async () => {
    const { clock, waits, watch, line } = watched();
    line.read(word(), 0).catch(() => {});
    await clock.advance(9999);
    expect(waits).toEqual([]);
    await clock.advance(20_001);
    expect(waits).toEqual([10_000, 20_000, 30_000]);
    await clock.advance(3_600_000);
    expect(watch.failure).toBeUndefined();
  });

  it('begins anew with each byte', async () => {
    const { clock, waits, line, there } = watched();
    const read = line.read(word(), 0);
    await clock.advance(9000);
    await there.write(word());
    await read;
    line.read(word(), 4).catch(() => {});
    await clock.advance(9000);
    expect(waits).toEqual([]);
    await clock.advance(1250);
    expect(waits).toHaveLength(1);
  });

  it('gives a silent peer up after the idle timeout, and breaks all lines', async () => {
    const { clock, watch, line } = watched(2500);
    const read = line.read(word(), 0);
    const broken = expect(read).rejects.toThrow();
    await clock.advance(2500);
    expect(() => watch.throwIfFailed()).toThrow('the peer was silent for 2.5 s');
    await broken;
  });

  it('does not count the time in which this side is at work', async () => {
    const { clock, waits, watch, line } = watched(15_000);
    watch.pause();
    await clock.advance(60_000);
    watch.resume();
    await clock.advance(9000);
    // Between two reads it was at work, too.
    line.read(word(), 0).catch(() => {});
    await clock.advance(9000);
    expect(waits).toEqual([]);
    expect(watch.failure).toBeUndefined();
  });

  it('says what is waited for: bytes, a peer that takes none, or what its user says', async () => {
    const waits: string[] = [];
    const clock = new ManualClock();
    const phase = { awaited: 'the source to send more' };
    const onWaiting = (_: number, what: string) => waits.push(what);
    const watch = new LineWatch({ clock, onWaiting, awaited: () => phase.awaited });
    const line = watch.add(connectionPair()[0], 'target');
    await clock.advance(10_000);
    phase.awaited = 'the target to confirm that it has the guest';
    await clock.advance(10_000);
    // The other end never reads, so a line takes only so much.
    void line.write(new Uint8Array(64 << 20)).catch(() => {});
    await clock.advance(10_000);
    expect(waits).toEqual([
      'the source to send more',
      'the target to confirm that it has the guest',
      'the target to take more',
    ]);
    watch.stop();
    line.destroy();
  });

  it('leaves no timer when it is stopped', async () => {
    const { clock, watch } = watched(2500);
    await clock.advance(1);
    watch.stop();
    await clock.advance(1);
    expect(clock.hasSleeper).toBe(false);
  });
});
