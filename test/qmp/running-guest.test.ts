/** What is measured through a monitor, and that nothing else is asked of it. */
import { describe, expect, it } from 'vitest';
import { connectionPair } from '../../src/io/web-connection.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { printJson } from '../../src/qmp/json-value.ts';
import { measureGuest, ramRanges } from '../../src/qmp/running-guest.ts';

const mtree = `FlatView #0
 AS "I/O", root: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000cafff (prio 0, rom): pc.ram @00000000000c0000
  0000000000100000-0000000007ffffff (prio 0, ram): pc.ram @0000000000100000
  00000000fd000000-00000000fdffffff (prio 1, ramd): vga.vram
`;

/** A monitor that answers by rules, and notes what it was asked. */
async function monitor(isNew: boolean, more: Record<string, unknown> = {}) {
  const [here, there] = connectionPair();
  const asked: { execute: string; arguments?: Record<string, unknown> }[] = [];
  const send = (message: object) => there.write(new TextEncoder().encode(`${printJson(message)}\r\n`));
  const answers: Record<string, (given: Record<string, unknown>) => unknown> = {
    qmp_capabilities: () => ({}),
    'query-status': () => ({ running: true, status: 'running' }),
    'query-migrate': () => ({}),
    'query-migrate-capabilities': () => [
      { capability: 'xbzrle', state: false },
      { capability: 'auto-converge', state: true },
    ],
    'query-migrate-parameters': () => ({ 'max-bandwidth': 134217728, 'downtime-limit': 300, 'tls-creds': '' }),
    'query-memory-size-summary': () => ({ 'base-memory': 134217728 }),
    'qom-get': () => 'pc-i440fx-10.0-machine',
    'human-monitor-command': ({ 'command-line': line }) =>
      line === 'info mtree -f' ? mtree : `000:${' 0x00000001'.repeat(1024)}`,
    'calc-dirty-rate': () => ({}),
    'query-dirty-rate': () => ({ status: 'measured', 'calc-time': isNew ? 107 : 1, 'dirty-rate': 12 }),
    ...Object.fromEntries(Object.entries(more).map(([name, answer]) => [name, () => answer])),
  };
  void (async () => {
    await send({ QMP: { version: {}, capabilities: [] } });
    const buffer = new Uint8Array(65536);
    let text = '';
    for (let at = 0; ; ) {
      const count = await there.read(buffer, at).catch(() => 0);
      if (count === 0) return;
      at += count;
      const lines = (text + Buffer.from(buffer.subarray(0, count)).toString()).split('\n');
      text = lines.pop() as string;
      for (const line of lines) {
        const request = JSON.parse(line);
        asked.push(request);
        const given = request.arguments ?? {};
        const isUnknown = !isNew && given['calc-time-unit'] !== undefined;
        if (isUnknown) {
          const desc = "Parameter 'calc-time-unit' is unexpected";
          await send({ id: request.id, error: { class: 'GenericError', desc } });
        } else await send({ return: answers[request.execute]?.(given), id: request.id });
      }
    }
  })();
  const slept: number[] = [];
  const clock = {
    now: () => 0,
    sleep: async (ms: number) => {
      slept.push(ms);
    },
  };
  return { client: await QmpClient.connect(here), asked, slept, clock };
}

describe('a running guest', () => {
  it('is measured for 0.1, 1, 5 and 20 s, and left as it was', async () => {
    const { client, asked, slept, clock } = await monitor(true);
    const guest = await measureGuest(client, { random: () => 0.5, pages: 3, clock });
    expect(guest).toMatchObject({
      ...{ machine: 'pc-i440fx-10.0', isRunning: true, ramBytes: 134217728, capabilities: ['auto-converge'] },
      parameters: { 'max-bandwidth': 134217728, 'downtime-limit': 300 },
      dirtyRates: Array.from({ length: 4 }, () => ({ ms: 107, bytesPerSecond: 12 * 2 ** 20 })),
    });
    expect(guest.pages).toHaveLength(3);
    expect(guest.pages[0]?.subarray(0, 8)).toEqual(new Uint8Array([1, 0, 0, 0, 1, 0, 0, 0]));
    expect(slept).toEqual([100, 1000, 5000, 20_000]);
    const changing = asked.map(({ execute }) => execute).filter((name) => !/^(query-|qom-get)/.test(name));
    expect([...new Set(changing)].sort()).toEqual(['calc-dirty-rate', 'human-monitor-command', 'qmp_capabilities']);
    const lines = asked
      .filter(({ execute }) => execute === 'human-monitor-command')
      .map((request) => String(request.arguments?.['command-line']));
    expect(lines.every((line) => line === 'info mtree -f' || /^xp \/1024xw 0x[0-9a-f]+000$/.test(line))).toBe(true);
    await client.close();
  });

  it('of an older QEMU is measured in whole seconds', async () => {
    const { client, slept, clock } = await monitor(false);
    const { dirtyRates } = await measureGuest(client, { random: () => 0, pages: 0, seconds: [1, 5], clock });
    expect(dirtyRates.map(({ ms }) => ms)).toEqual([1000, 5000]);
    expect(slept).toEqual([1000, 5000]);
    await client.close();
  });

  it('is not measured while it is stopped, and not at all while it migrates', async () => {
    const stopped = await monitor(true, { 'query-status': { running: false, status: 'paused' } });
    const { isRunning, dirtyRates } = await measureGuest(stopped.client, { random: () => 0, clock: stopped.clock });
    expect([isRunning, dirtyRates]).toEqual([false, []]);
    const migrating = await monitor(true, { 'query-migrate': { status: 'active' } });
    const measured = measureGuest(migrating.client, { random: () => 0, clock: migrating.clock });
    await expect(measured).rejects.toThrow('a migration is running (active)');
  });

  it('is read only where it has RAM', () => {
    expect(ramRanges(mtree)).toEqual([
      { from: 0, to: 0xa0000 },
      { from: 0x100000, to: 0x8000000 },
    ]);
    expect(ramRanges('')).toEqual([]);
  });
});
