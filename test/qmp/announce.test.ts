/** Announcements over QMP: of a VM without network cards, as a QEMU with -nodefaults, and of one that has some. */
import { describe, expect, it } from 'vitest';
import { Network, TestVm } from '../support/machines.ts';

const given = { initial: 50, max: 550, rounds: 5, step: 100 };

/** A VM with two cards, and the times at which they sent. */
function makeCards(network: Network) {
  const sent: string[] = [];
  const cards = ['net0', 'net1'].map((name, i) => ({
    ...{ name, mac: Uint8Array.of(0x52, 0x54, 0, 0, 0, i) },
    send: () => void sent.push(`${name} ${network.clock.now()}`),
  }));
  return { sent, cards };
}

describe('announce-self', () => {
  it.each([
    ['all of it', given, undefined],
    ['nothing', {}, "Parameter 'initial' is missing"],
    ['no step', { initial: 50, max: 550, rounds: 5 }, "Parameter 'step' is missing"],
    ['numbers out of any range', { initial: 500000, max: 550, rounds: -1, step: 0 }, undefined],
    ['unknown cards', { ...given, interfaces: ['x'], id: 'a' }, undefined],
    ['one card as a text', { ...given, interfaces: 'x' }, "Invalid parameter type for 'interfaces', expected: array"],
    ['a time as a text', { ...given, initial: 'a' }, "Invalid parameter type for 'initial', expected: integer"],
  ])('with %s answers as QEMU', async (_, args, text) => {
    const vm = new TestVm(new Network(), { release: '10.0' });
    if (text === undefined) expect(await vm.execute('announce-self', args)).toEqual({});
    else await expect(vm.execute('announce-self', args)).rejects.toThrow(new Error(text));
  });

  it('sends from the cards that it names, at its own times', async () => {
    const network = new Network();
    const { sent, cards } = makeCards(network);
    const vm = new TestVm(network, { cards });
    await vm.execute('announce-self', { ...given, rounds: 3, interfaces: ['net1'] });
    await network.clock.sleep(1000);
    expect(sent).toEqual(['net1 0', 'net1 50', 'net1 200']);
  });
});

describe('a guest that has arrived', () => {
  it('is announced by announce-rounds packets of each card', async () => {
    const network = new Network();
    const { sent, cards } = makeCards(network);
    const from = new TestVm(network);
    const to = new TestVm(network, { incoming: 'in', cards });
    await to.switchOn('events');
    await to.execute('migrate-set-parameters', { 'announce-rounds': 2, 'announce-initial': 30 });
    await from.execute('migrate', { uri: 'unix:in' });
    await to.event('MIGRATION completed');
    await network.clock.sleep(1000);
    const [first = '', second, third] = sent;
    const start = Number(first.split(' ')[1]);
    expect([first, second, third]).toEqual([`net0 ${start}`, `net1 ${start}`, `net0 ${start + 30}`]);
    expect(sent).toHaveLength(4);
  });
});
