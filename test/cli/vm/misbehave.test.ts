/** `vmferry vm --misbehave`: clients survive whatever it does, and it does the same with the same seed. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { connectTo } from '../../../src/io/node/connect.ts';
import { MonitorBusyError, QmpClient } from '../../../src/qmp/client.ts';
import { migrationEnded } from '../../../src/qmp/migration-ended.ts';
import { runCli } from '../../run-cli.ts';
import { VmProcess } from '../../support/vm-process.ts';

const workload = 'write:rate=8M,working-set=4M,pattern=random,seed=7';
const small = ['--memory', '16M', '--workload', workload];

const lineTo = (path: string) => () => connectTo({ transport: 'socket', type: 'unix', path });

/** What a monitor says to a client that sends the given text at once, until it has answered so many times. */
async function transcript(path: string, sent: string, answers: number): Promise<string[]> {
  const socket = connect({ path });
  socket.setEncoding('utf8').write(sent);
  let text = '';
  const lines = () => text.split('\r\n').slice(0, -1);
  while (lines().filter((line) => line.includes('"return"')).length < answers) {
    text += (await once(socket, 'data'))[0];
  }
  socket.destroy();
  await once(socket, 'close');
  return lines();
}

describe('a monitor', () => {
  const asked = '{"execute": "qmp_capabilities"}{"execute": "query-name"}{"execute": "query-version"}';

  it('has events where no client expects them, the same with the same seed', async () => {
    const started = (seed: number) => VmProcess.start('--memory', '1M', '--misbehave', `early-events,seed=${seed}`);
    const vms = await Promise.all([started(3), started(3), started(4)]);
    const texts = await Promise.all(
      vms.map(async (vm) => {
        vm.leave();
        return transcript(vm.socket, asked, 3);
      }),
    );
    await Promise.all(vms.map((vm) => vm[Symbol.asyncDispose]()));
    const [first, again, other] = texts;
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
    const kinds = first?.map((line) => /^\{"(QMP|timestamp|return)"/.exec(line)?.[1]);
    const order = kinds?.filter((kind, index) => kind !== kinds[index - 1]);
    // Answers that leave together have their events before them.
    expect(order?.slice(0, 4)).toEqual(['timestamp', 'QMP', 'timestamp', 'return']);
  });

  it.each([
    'early-events,seed=5',
    'split-answers,seed=6',
    'late-answers=50ms',
    'late-greeting=300ms',
    'early-events,split-answers,late-answers=20ms,late-greeting',
  ])('does not disturb clients: %s', async (spec) => {
    await using vm = await VmProcess.start(...small, '--misbehave', spec);
    expect(await vm.execute('query-status')).toEqual({ status: 'running', running: true });
    expect(await vm.execute('query-qmp-schema')).not.toHaveLength(0);
    await expect(vm.execute('no-such')).rejects.toThrow('The command no-such has not been found');
    await vm.switchOn('events');
    vm.leave();
    const ended = await runCli(['qmp', vm.socket, 'query-name']);
    expect([ended.code, ended.stdout.trim()]).toEqual([0, '{}']);
    await using to = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
    const end = migrationEnded(lineTo(vm.socket));
    const starter = await QmpClient.connect(await lineTo(vm.second)());
    await starter.execute('migrate', { uri: await to.incomingUri() });
    expect((await end).status).toBe('completed');
    await starter.execute('quit');
    expect(await vm.ended).toBe(0);
  });

  it('answers late', async () => {
    await using vm = await VmProcess.start('--memory', '1M', '--misbehave', 'late-answers=400ms');
    const before = performance.now();
    await vm.execute('query-name');
    expect(performance.now() - before).toBeGreaterThan(390);
  });

  it('greets so late that a client gives up, and another one comes back until it is greeted', async () => {
    await using vm = await VmProcess.startAlone('--memory', '1M', '--misbehave', 'late-greeting=1500ms');
    await expect(QmpClient.connect(await lineTo(vm.socket)())).rejects.toThrow(MonitorBusyError);
    const stop = new AbortController();
    const end = migrationEnded(lineTo(vm.socket), { signal: stop.signal });
    end.catch(() => {});
    // It gets through as soon as the greeting comes, and turns events on.
    const other = await QmpClient.connect(await lineTo(vm.second)(), { greetingTimeoutMs: 5000 });
    for (let isOn = false; !isOn; ) {
      const capabilities = await other.execute('query-migrate-capabilities');
      isOn = capabilities.some(({ capability, state }) => capability === 'events' && state);
    }
    stop.abort(new Error('enough'));
    await expect(end).rejects.toThrow('enough');
    await other.close();
  });
});

describe('a migration', () => {
  async function both(spec: string) {
    const from = await VmProcess.start(...small, '--misbehave', spec);
    const to = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
    await from.switchOn('events');
    const uri = await to.incomingUri();
    const client = await QmpClient.connect(await lineTo(from.second)());
    const end = migrationEnded(client);
    return { from, to, uri, client, end };
  }

  it('fails where it should, and its guest runs on', async () => {
    const { from, to, uri, client, end } = await both('fail=50');
    await using _ = from;
    await using __ = to;
    await client.execute('migrate', { uri });
    const { status, info } = await end;
    const text = 'Unable to write to socket: Connection reset by peer';
    expect([status, info['error-desc']]).toEqual(['failed', text]);
    expect(await from.execute('query-status')).toMatchObject({ running: true });
    expect(await to.ended).toBe(1);
    await client.close();
  });

  it('stands still until it is cancelled, while another one comes to its end', async () => {
    const { from, to, uri, client, end } = await both('stall=25');
    await using _ = from;
    await using __ = to;
    await client.execute('migrate', { uri });
    await from.event('MIGRATION active');
    await using other = await VmProcess.start(...small);
    await using target = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
    await target.switchOn('events');
    await other.execute('migrate', { uri: await target.incomingUri() });
    await target.event('MIGRATION completed');
    expect(await client.execute('query-migrate')).toMatchObject({ status: 'active' });
    await client.execute('migrate_cancel');
    expect((await end).status).toBe('cancelled');
    expect(await from.execute('query-status')).toMatchObject({ running: true });
    await client.close();
  });

  it('never converges, whatever downtime is allowed, until it is cancelled', async () => {
    const { from, to, uri, client, end } = await both('never-converges,seed=9');
    await using _ = from;
    await using __ = to;
    await client.execute('migrate-set-parameters', { 'downtime-limit': 2_000_000 });
    await client.execute('migrate', { uri });
    await from.event('MIGRATION_PASS 6');
    expect(await client.execute('query-migrate')).toMatchObject({ status: 'active' });
    await client.execute('migrate_cancel');
    expect((await end).status).toBe('cancelled');
    await client.close();
  });
});

it.each([
  ['late', 'expected late-greeting, early-events'],
  ['fail', 'expected fail=PERCENT with 0 to 100, got ""'],
  ['stall=101', 'expected stall=PERCENT'],
  ['early-events=1', 'early-events has no value, got "1"'],
  ['late-answers=soon', 'expected a time above 0'],
  ['seed=x', 'expected seed=N'],
])('refuses --misbehave %s', async (spec, text) => {
  const ended = await runCli(['vm', '--qmp', 'stdio', '--misbehave', spec]);
  expect(ended.code).toBe(2);
  expect(ended.stderr).toContain(text);
});
