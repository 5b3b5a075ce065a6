/** `vmferry vm` as processes: they migrate over real sockets, and end as they should. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { fixturePath } from '../../fixture-files.ts';
import { cliPath, runCli } from '../../run-cli.ts';
import { VmProcess } from '../../support/vm-process.ts';

const workload = 'write:rate=8M,working-set=4M,pattern=random,seed=7';

it('migrates to another one, which has the same memory, runs, and quits', async () => {
  await using from = await VmProcess.start('--memory', '16M', '--workload', workload, '--name', 'one');
  await using to = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
  await from.switchOn('events', 'return-path');
  await expect(to.switchOn('multifd')).rejects.toThrow('Multifd must be set before incoming starts');
  await to.switchOn('events');
  const uri = await to.incomingUri();
  await from.execute('migrate', { uri });
  await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
  const [sent, got] = await Promise.all([from.saveMemory(16 << 20), to.saveMemory(16 << 20)]);
  expect(readFileSync(got).equals(readFileSync(sent))).toBe(true);
  expect(await to.execute('query-status')).toEqual({ status: 'running', running: true });
  expect(await from.execute('query-name')).toEqual({ name: 'one' });
  await expect(connectTo(uri)).rejects.toThrow('ECONNREFUSED');
  await from.execute('quit');
  await to.execute('quit');
  expect(await Promise.all([from.ended, to.ended])).toEqual([0, 0]);
  expect([existsSync(from.socket), from.stderr, to.stderr]).toEqual([false, '', '']);
  expect(from.events.at(-1)).toBe('SHUTDOWN');
});

const connectTo = async (uri: string) => {
  const socket = connect({ host: '127.0.0.1', port: Number(uri.split(':')[2]) });
  await once(socket, 'connect');
  socket.destroy();
};

it('waits with --incoming defer, over three channels with zstd', async () => {
  await using from = await VmProcess.start('--memory', '16M', '--workload', workload, '--smp', '2');
  await using to = await VmProcess.start('--incoming', 'defer', '--memory', '16M', '--paused');
  for (const vm of [from, to]) {
    await vm.switchOn('events', 'multifd', 'return-path');
    await vm.execute('migrate-set-parameters', { 'multifd-channels': 3, 'multifd-compression': 'zstd' });
  }
  const uri = `unix:${join(to.dir, 'in')}`;
  await to.execute('migrate-incoming', { uri });
  await from.execute('migrate', { uri });
  await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
  const { ram } = (await from.execute('query-migrate')) as { ram: Record<string, number> };
  expect(ram['multifd-bytes']).toBeGreaterThan(0);
  expect(await to.execute('query-status')).toMatchObject({ status: 'paused' });
  expect(readdirSync(to.dir)).toEqual(['qmp', 'second']);
  expect(await from.execute('query-cpus-fast')).toHaveLength(2);
});

it('ends with 1 if what comes in breaks off, after the event', async () => {
  await using from = await VmProcess.start('--memory', '16M', '--workload', workload);
  await using to = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
  await from.switchOn('events', 'return-path');
  await to.switchOn('events');
  await from.execute('migrate-set-parameters', { 'max-bandwidth': 1 << 20 });
  await from.execute('migrate', { uri: await to.incomingUri() });
  await to.event('MIGRATION active');
  await from.execute('migrate_cancel');
  expect(await to.ended).toBe(1);
  expect(to.events.at(-1)).toBe('MIGRATION failed');
  expect(await from.execute('query-status')).toMatchObject({ running: true });
});

it('has the VM of a file, stopped, and sends it on as it was', async () => {
  const file = fixturePath('none-plain-10.0.bin');
  await using from = await VmProcess.start('--load', file);
  await using to = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
  expect(await from.execute('query-status')).toEqual({ status: 'paused', running: false });
  await to.switchOn('events');
  await from.execute('migrate', { uri: await to.incomingUri() });
  await to.event('MIGRATION completed');
  expect(await to.execute('query-status')).toMatchObject({ status: 'paused' });
  const { total } = (await from.execute('query-migrate')).ram as { total: number };
  expect(readFileSync(await to.saveMemory(total)).equals(readFileSync(await from.saveMemory(total)))).toBe(true);
});

it('talks on standard input and output, and ends with them', async () => {
  const child = spawn(process.execPath, [cliPath, 'vm', '--qmp', 'stdio', '--memory', '1M'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  child.stdin.write('{"execute": "qmp_capabilities"}{"execute": "query-status"}');
  child.stdin.end();
  const [code] = await once(child, 'close');
  expect(code).toBe(0);
  const lines = text.trim().split('\r\n');
  expect(lines[0]).toContain('"capabilities": ["oob"]');
  expect(lines.slice(1)).toEqual(['{"return": {}}', '{"return": {"status": "running", "running": true}}']);
});

it.each([
  [['--qmp', 'unix:/nonexistent/x'], 2, 'Failed to bind socket to /nonexistent/x: No such file or directory'],
  [['--qmp', 'file:x'], 2, 'expected unix:PATH, tcp:HOST:PORT, fd:N or stdio for a monitor, got file:x'],
  [['--qmp', 'stdio', '--incoming', 'foo:'], 2, 'unknown migration protocol: foo:'],
  [['--qmp', 'stdio', '--load', '/nonexistent'], 2, 'no such file'],
  [['--qmp', 'stdio', '--load', '/dev/null'], 1, ''],
  [['--qmp', 'stdio', '--workload', 'read:rate=1'], 2, 'expected write:rate=RATE'],
  [['--qmp', 'stdio', '--memory', '16M', '--workload', 'write:working-set=1G'], 2, 'working set'],
  [['--qmp', 'stdio', '--memory', '1000'], 2, 'expected whole pages of 4096 bytes'],
])('refuses %j with %i', async (args, code, text) => {
  const ended = await runCli(['vm', ...args]);
  expect([ended.code, ended.stdout]).toEqual([code, '']);
  expect(ended.stderr).toContain(text);
});
