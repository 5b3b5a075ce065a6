import { describe, expect, it } from 'vitest';
import { SectionQueues } from '../../src/vm/section-queues.ts';

describe('SectionQueues', () => {
  const entries = [
    { name: 'cpu', instanceId: 0, at: 1 },
    { name: 'cpu', instanceId: 1, at: 2 },
    { name: 'cpu', instanceId: 0, at: 3 },
    { name: 'timer', instanceId: 0, at: 4 },
  ];

  it('gives entries of the same name and instance in order, each once', () => {
    const queues = new SectionQueues(entries);
    const take = (name: string, instanceId: number) => queues.take({ name, instanceId })?.at;
    expect([take('cpu', 0), take('cpu', 0), take('cpu', 0)]).toEqual([1, 3, undefined]);
    expect([take('cpu', 1), take('vga', 0), take('timer', 1)]).toEqual([2, undefined, undefined]);
    expect(queues.rest()).toEqual([entries[3]]);
  });

  it('gives the last entry of an identity again on request', () => {
    const queues = new SectionQueues(entries);
    const take = (name: string, instanceId: number) => queues.takeOrRepeat({ name, instanceId })?.at;
    expect([take('cpu', 0), take('cpu', 0), take('cpu', 0), take('vga', 0)]).toEqual([1, 3, 3, undefined]);
    expect(queues.has({ name: 'cpu', instanceId: 0 })).toBe(true);
    expect(queues.has({ name: 'timer', instanceId: 1 })).toBe(false);
  });

  it('does not confuse a name that ends in a number with an instance id', () => {
    const queues = new SectionQueues([{ name: '2 cpu', instanceId: 1 }]);
    expect(queues.take({ name: 'cpu', instanceId: 12 })).toBeUndefined();
    expect(queues.rest()).toHaveLength(1);
  });
});
