/** Whatever clients and peers do, the monitors of `vmferry vm` answer, and it leaves no socket files behind. */
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { connectTo } from '../../../src/io/node/connect.ts';
import { QmpClient } from '../../../src/qmp/client.ts';
import { driveImages } from '../../qmp/drive-transcript.ts';
import { VmProcess } from '../../support/vm-process.ts';

const workload = 'write:rate=8M,working-set=4M,pattern=random,seed=7';
const small = ['--memory', '16M', '--workload', workload];
const opened: { destroy(): void }[] = [];
const servers: Server[] = [];
afterEach(() => {
  for (const each of opened.splice(0)) each.destroy();
  for (const server of servers.splice(0)) server.close();
});

async function rawClient(path: string): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  opened.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

const clientAt = async (path: string) =>
  QmpClient.connect(await connectTo({ transport: 'socket', type: 'unix', path }));

describe('another monitor answers while', () => {
  const hello = '{"execute": "qmp_capabilities"}';
  it.each<[string, number, string]>([
    ['a hundred clients say nothing', 100, ''],
    ['a client has sent half a JSON', 1, `${hello}{"execute": "query-`],
    ['a client has sent half a string', 1, `${hello}{"execute": "query-${'x'.repeat(100_000)}`],
    ['a client asks and never reads', 1, hello + '{"execute": "query-qmp-schema"}'.repeat(100)],
  ])('%s, and its monitor greets again when they have gone', async (_, count, text) => {
    await using vm = await VmProcess.startAlone(...small);
    const monitor = await clientAt(vm.second);
    const clients = await Promise.all(Array.from({ length: count }, () => rawClient(vm.socket)));
    if (text !== '') for (const client of clients) client.pause().write(text);
    for (let i = 0; i < 20; i++) expect(await monitor.execute('query-status')).toMatchObject({ running: true });
    for (const client of clients) client.destroy();
    const next = await clientAt(vm.socket);
    expect(await next.execute('query-name')).toEqual({});
    await monitor.execute('quit');
    expect(await vm.ended).toBe(0);
    expect([existsSync(vm.socket), existsSync(vm.second)]).toEqual([false, false]);
  });
});

it('forgets a client that dies in a command, and tells all others of events', async () => {
  await using vm = await VmProcess.start(...small);
  vm.leave();
  const dying = await rawClient(vm.socket);
  const filename = join(vm.dir, 'saved');
  const save = { execute: 'pmemsave', arguments: { val: 0, size: 256 << 20, filename } };
  dying.write(`{"execute": "qmp_capabilities"}${JSON.stringify(save)}`);
  await once(dying, 'data');
  dying.destroy();
  const [first, second] = await Promise.all([clientAt(vm.socket), clientAt(vm.second)]);
  const told = Promise.all([first.nextEvent('STOP'), second.nextEvent('STOP')]);
  await second.execute('stop');
  await told;
  await first.execute('quit');
  expect(await vm.ended).toBe(0);
});

it('answers while its migration has a line that nobody reads, and cancels it', async () => {
  await using vm = await VmProcess.start(
    '--memory',
    '64M',
    '--workload',
    'write:rate=64M,working-set=32M,pattern=random',
  );
  await vm.switchOn('events');
  await vm.event('RESUME', 0);
  const path = join(vm.dir, 'dead');
  const server = createServer({ pauseOnConnect: true }, (socket) => opened.push(socket)).listen(path);
  servers.push(server);
  await once(server, 'listening');
  await vm.execute('migrate', { uri: `unix:${path}` });
  await vm.event('MIGRATION active');
  for (let i = 0; i < 20; i++) expect(await vm.execute('query-migrate')).toMatchObject({ status: 'active' });
  await vm.execute('migrate_cancel');
  await vm.event('MIGRATION cancelled');
  await vm.execute('migrate', { uri: `unix:${path}` });
  await vm.event('MIGRATION active', 2);
  await vm.execute('quit');
  expect(await vm.ended).toBe(0);
});

it('answers while a silent client holds the incoming port, and quits', async () => {
  await using vm = await VmProcess.start('--incoming', 'tcp:127.0.0.1:0');
  const uri = await vm.incomingUri();
  const silent = connect({ host: '127.0.0.1', port: Number(uri.split(':')[2]) });
  opened.push(silent);
  silent.on('error', () => {});
  await once(silent, 'connect');
  for (let i = 0; i < 20; i++) expect(await vm.execute('query-status')).toMatchObject({ status: 'inmigrate' });
  await vm.execute('quit');
  expect(await vm.ended).toBe(0);
});

it.each([
  [4, 2],
  [2, 4],
])('answers when %i channels come and %i are expected', async (sent, expected) => {
  await using from = await VmProcess.start(...small);
  await using to = await VmProcess.start('--incoming', 'defer');
  for (const [vm, channels] of [
    [from, sent],
    [to, expected],
  ] as const) {
    await vm.switchOn('events', 'multifd');
    await vm.execute('migrate-set-parameters', { 'multifd-channels': channels });
  }
  await to.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  await from.execute('migrate', { uri: await to.incomingUri() });
  await from.event('MIGRATION setup');
  for (const vm of [from, to])
    await vm.execute('query-migrate').catch((error) => expect(to.events).toContain('MIGRATION failed') ?? error);
  await from.execute('quit');
  expect(await from.ended).toBe(0);
});

it('replaces a stale socket file, and refuses one that is in use', async () => {
  await using vm = await VmProcess.start('--memory', '1M');
  await expect(VmProcess.startAt(vm.socket)).rejects.toThrow(
    `Failed to bind socket to ${vm.socket}: Address already in use`,
  );
  vm.child.kill('SIGKILL');
  await vm.ended;
  expect(existsSync(vm.socket)).toBe(true);
  await using next = await VmProcess.startAt(vm.socket);
  expect(await next.execute('query-status')).toMatchObject({ running: true });
});

describe('memory', () => {
  it('is saved from any address, as zeros where there is none', async () => {
    await using vm = await VmProcess.start(
      '--memory',
      '4M',
      '--workload',
      'write:rate=64M,working-set=1M,pattern=text',
    );
    await vm.execute('stop');
    const whole = readFileSync(await vm.saveMemory(4 << 20));
    const filename = join(vm.dir, 'part');
    await vm.execute('pmemsave', { val: (1 << 20) + 17, size: 5001, filename });
    expect(readFileSync(filename).equals(whole.subarray((1 << 20) + 17, (1 << 20) + 17 + 5001))).toBe(true);
    await vm.execute('pmemsave', { val: (4 << 20) - 10, size: 20, filename });
    expect(readFileSync(filename).equals(Buffer.concat([whole.subarray(-10), Buffer.alloc(10)]))).toBe(true);
    await vm.execute('pmemsave', { val: 0, size: 0, filename });
    expect(readFileSync(filename)).toHaveLength(0);
    const nowhere = { val: 0, size: 1, filename: '/nonexistent/x' };
    await expect(vm.execute('pmemsave', nowhere)).rejects.toThrow(
      "Could not open '/nonexistent/x': No such file or directory",
    );
  });
});

it('dismisses the jobs that have ended when it quits, newest first, before it answers', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vm-jobs-'));
  try {
    const disk = join(dir, 'disk');
    writeFileSync(disk, driveImages().get('disk1') as Buffer);
    await using vm = await VmProcess.start('--memory', '1M', '--drive', `id=d0,file=${disk}`);
    const seen: string[] = [];
    vm.onMessage((event, data) => seen.push([event, data.id, data.status].filter(Boolean).join(' ')));
    for (const id of ['a', 'b']) {
      await vm.execute('snapshot-delete', { 'job-id': id, tag: 'none', devices: ['d0'] });
      while (seen.at(-1) !== `JOB_STATUS_CHANGE ${id} concluded`) await vm.execute('query-jobs');
    }
    await vm.execute('quit');
    expect(seen.slice(-3)).toEqual(['SHUTDOWN', 'JOB_STATUS_CHANGE b null', 'JOB_STATUS_CHANGE a null']);
    expect(await vm.ended).toBe(0);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
