/**
 * `transferred` is what passes: a proxy counts the bytes of every line, and the monitor of the source says the same, while
 * the migration goes on and when it is over.
 *
 *     source ──line 0: main──→ counted ──→ destination
 *            ──line 1, 2 …: channels──→ counted ──→
 */
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { Network, TestVm } from '../support/machines.ts';

const MiB = 1 << 20;
const workload = { rate: 6 * MiB, workingSet: 4 * MiB, pattern: 'counter' as const };

/** A network that counts what is written to each line. */
function counting() {
  const network = new Network();
  const counts: number[] = [];
  network.wrap = (line, number) => {
    counts[number] = 0;
    const write = async (bytes: Uint8Array) => {
      await line.write(bytes);
      counts[number] = (counts[number] as number) + bytes.length;
    };
    return new Proxy(line, {
      get(_, name) {
        const value = name === 'write' ? write : Reflect.get(line, name, line);
        return typeof value === 'function' ? value.bind(line) : value;
      },
    }) satisfies Connection;
  };
  const total = () => counts.reduce((sum, count) => sum + count, 0);
  return { network, counts, total };
}

const ramOf = async (vm: TestVm) => (await vm.execute('query-migrate')).ram as Record<string, number>;

/** Capabilities and parameters. */
type Mode = [name: string, capabilities: string[], parameters: Record<string, number | string>];

describe('transferred is what a proxy counts', () => {
  it.each<Mode>([
    ['plain', [], {}],
    ['return-path', ['return-path'], {}],
    ['xbzrle', ['xbzrle', 'return-path'], {}],
    ['multifd', ['multifd', 'return-path'], {}],
    ['multifd, zlib', ['multifd', 'return-path'], { 'multifd-compression': 'zlib', 'multifd-channels': 3 }],
    ['multifd, zstd', ['multifd', 'return-path'], { 'multifd-compression': 'zstd' }],
    ['postcopy', ['postcopy-ram'], {}],
    ['postcopy-preempt', ['postcopy-ram', 'postcopy-preempt'], {}],
  ])('%s', async (_, capabilities, parameters) => {
    const { network, counts, total } = counting();
    const from = new TestVm(network, { release: '10.0', workload });
    const to = new TestVm(network, { release: '10.0', incoming: 'defer' });
    for (const vm of [from, to]) {
      await vm.switchOn('events', ...capabilities);
      await vm.execute('migrate-set-parameters', parameters);
    }
    await from.switchOn('pause-before-switchover');
    await from.execute('migrate-set-parameters', { 'max-bandwidth': 8 * MiB });
    await to.execute('migrate-incoming', { uri: 'unix:in' });
    await network.clock.sleep(1000);
    await from.execute('migrate', { uri: 'unix:in' });
    if (capabilities.includes('postcopy-ram')) await from.execute('migrate-start-postcopy');
    await from.event('MIGRATION pre-switchover');
    const during = await ramOf(from);
    expect(during.transferred).toBe(total());
    await from.execute('migrate-continue', { state: 'pre-switchover' });
    await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
    const after = await ramOf(from);
    expect(after.transferred).toBe(total());
    const [main = 0] = counts;
    expect(after['multifd-bytes']).toBe(capabilities.includes('multifd') ? total() - main : 0);
    const { 'multifd-channels': channels = 2 } = parameters;
    const others = capabilities.includes('multifd') ? channels : Number(capabilities.includes('postcopy-preempt'));
    expect(counts).toHaveLength(1 + Number(others));
    expect(total()).toBeGreaterThan(during.transferred as number);
  });
});
