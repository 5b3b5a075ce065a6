/** The packet is the one that was captured from QEMU 10.0; its times are QEMU's. */
import { describe, expect, it } from 'vitest';
import { announceGaps, announcePacket, SelfAnnouncer } from '../../src/migrate/self-announce.ts';
import { ManualClock } from '../support/manual-clock.ts';

const defaults = { 'announce-initial': 50, 'announce-max': 550, 'announce-rounds': 5, 'announce-step': 100 };
const mac = Uint8Array.of(0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc);
const captured = [
  'ffffffffffff525400aabbcc8035',
  '0001080006040003',
  '525400aabbcc00000000',
  '525400aabbcc00000000',
  '00'.repeat(18),
].join('');

describe('an announcement', () => {
  it('is the packet of QEMU', () => {
    expect(Buffer.from(announcePacket(mac)).toString('hex')).toBe(captured);
    expect(() => announcePacket(new Uint8Array(5))).toThrow(new RangeError('expected a MAC address of 6 bytes, got 5'));
  });

  it.each([
    ['by default', {}, [0, 50, 150, 250, 350]],
    ['never with no round', { 'announce-rounds': 0 }, []],
    ['once with one', { 'announce-rounds': 1 }, [0]],
    ['at most announce-max later', { 'announce-max': 200 }, [0, 50, 150, 200, 200]],
    ['at the same gap without a step', { 'announce-step': 0 }, [0, 50, 50, 50, 50]],
  ])('leaves %s', (_, more, gaps) => {
    expect(announceGaps({ ...defaults, ...more })).toEqual(gaps);
  });
});

function makeAnnouncer(names = ['net0', 'net1']) {
  const clock = new ManualClock();
  const sent: [at: number, name: string][] = [];
  const cards = names.map((name) => ({ name, mac, send: () => sent.push([clock.now(), name]) }));
  return { clock, sent, announcer: new SelfAnnouncer(cards, clock) };
}

describe('the announcements of a VM', () => {
  it('come from each card, at once and at the times of QEMU', async () => {
    const { clock, sent, announcer } = makeAnnouncer();
    announcer.announce({ parameters: defaults });
    await clock.advance(10_000);
    expect(sent).toEqual(
      [0, 50, 200, 450, 800].flatMap((at) => [
        [at, 'net0'],
        [at, 'net1'],
      ]),
    );
    expect(announcer.isAnnouncing).toBe(false);
  });

  it('come from the cards that are named, and begin again with the same id', async () => {
    const { clock, sent, announcer } = makeAnnouncer();
    const parameters = { ...defaults, 'announce-rounds': 2 };
    announcer.announce({ parameters, interfaces: ['net1'], id: 'a' });
    await clock.advance(20);
    announcer.announce({ parameters, interfaces: ['net1'], id: 'a' });
    announcer.announce({ parameters, interfaces: ['net0'], id: 'b' });
    await clock.advance(1000);
    expect(sent).toEqual([
      [0, 'net1'],
      [20, 'net1'],
      [20, 'net0'],
      [70, 'net1'],
      [70, 'net0'],
    ]);
  });

  it('are none without a card, and end when they are closed', async () => {
    const without = makeAnnouncer([]);
    without.announcer.announce({ parameters: defaults });
    expect(without.announcer.isAnnouncing).toBe(false);
    const { clock, sent, announcer } = makeAnnouncer(['net0']);
    announcer.announce({ parameters: defaults });
    await clock.advance(50);
    announcer.close();
    await clock.advance(1000);
    expect(sent).toHaveLength(2);
  });
});
