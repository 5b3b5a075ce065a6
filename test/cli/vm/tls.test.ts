/** TLS between two `vmferry vm`: good credentials carry a migration, and bad ones leave the destination waiting. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { VmProcess } from '../../support/vm-process.ts';
import { TlsDirectories } from '../../tls-directories.ts';

const directories = new TlsDirectories();
afterAll(() => directories.remove());

const workload = 'write:rate=8M,working-set=4M,pattern=random,seed=7';
const small = ['--memory', '16M', '--workload', workload];
const key = 'qemu:0123456789abcdef0123456789abcdef\n';

type Definition = Record<string, unknown>;
const x509 = (dir: string, endpoint: 'client' | 'server', id = 'tls0'): Definition => ({
  ...{ 'qom-type': 'tls-creds-x509', id, endpoint, dir },
});

async function same(from: VmProcess, to: VmProcess): Promise<void> {
  const [sent, got] = await Promise.all([from.saveMemory(16 << 20), to.saveMemory(16 << 20)]);
  expect(readFileSync(got).equals(readFileSync(sent))).toBe(true);
}

/** Gives both sides their objects with object-add, and lets the destination listen. */
async function armed(server: Definition[], client: Definition[], { multifd = false, uri = 'tcp:127.0.0.1:0' } = {}) {
  const [from, to] = await Promise.all([VmProcess.start(...small), VmProcess.start('--incoming', 'defer')]);
  for (const [vm, objects] of [
    [from, client],
    [to, server],
  ] as const) {
    for (const object of objects) await vm.execute('object-add', object);
    await vm.switchOn('events', 'return-path', ...(multifd ? ['multifd'] : []));
    if (objects.length > 0) await vm.execute('migrate-set-parameters', { 'tls-creds': 'tls0' });
  }
  const at = uri === 'unix' ? `unix:${join(to.dir, 'in')}` : uri;
  await to.execute('migrate-incoming', { uri: at });
  return { from, to, uri: await to.incomingUri() };
}

it('takes credentials at the start, with shared keys', async () => {
  const psk = `tls-creds-psk,id=tls0,dir=${directories.psk(key)}`;
  await using from = await VmProcess.start(...small, '--object', `${psk},endpoint=client`);
  await using to = await VmProcess.start('--incoming', 'defer', '--object', `${psk},endpoint=server`);
  for (const vm of [from, to]) {
    await vm.switchOn('events');
    await vm.execute('migrate-set-parameters', { 'tls-creds': 'tls0' });
  }
  await to.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  await from.execute('migrate', { uri: await to.incomingUri() });
  await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
  await same(from, to);
});

it.each([
  ['over one line', {}],
  ['over channels', { multifd: true }],
  ['over a unix socket, with a name', { uri: 'unix', multifd: true }],
])('takes certificates %s', async (_, how) => {
  const server = x509(directories.server(), 'server');
  const { from, to, uri } = await armed([server], [x509(directories.client('client1'), 'client')], how);
  await using __ = from;
  await using ___ = to;
  if (uri.startsWith('unix')) await from.execute('migrate-set-parameters', { 'tls-hostname': 'localhost' });
  await from.execute('migrate', { uri });
  await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
  await same(from, to);
});

it('listens on whatever fails before or in a handshake, and takes the next source', async () => {
  const who = { 'qom-type': 'authz-simple', id: 'who', identity: 'O=Org,CN=client1' };
  const server = x509(directories.server(), 'server');
  const { from, to, uri } = await (async () => {
    const [source, target] = await Promise.all([VmProcess.start(...small), VmProcess.start('--incoming', 'defer')]);
    for (const object of [server, who]) await target.execute('object-add', object);
    await target.switchOn('events');
    await source.switchOn('events');
    await target.execute('migrate-set-parameters', { 'tls-creds': 'tls0', 'tls-authz': 'who' });
    await target.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    return { from: source, to: target, uri: await target.incomingUri() };
  })();
  await using _ = from;
  await using __ = to;
  await from.execute('object-add', x509(directories.client('client1'), 'client', 'good'));
  await from.execute('object-add', x509(directories.client(), 'client', 'nobody'));
  await from.execute('object-add', x509(directories.server(), 'server', 'wrong-side'));
  await from.execute('object-add', { ...who, id: 'rule' });
  let count = 0;
  const attempt = async (creds: string) => {
    await from.execute('migrate-set-parameters', { 'tls-creds': creds });
    await from.execute('migrate', { uri });
    await from.event('MIGRATION failed', ++count);
    expect(await to.execute('query-migrate')).toMatchObject({ status: 'setup' });
    return (await from.execute('query-migrate'))['error-desc'];
  };
  expect(await attempt('nope')).toBe("No TLS credentials with id 'nope'");
  expect(await attempt('rule')).toBe("Object with id 'rule' is not TLS credentials");
  expect(await attempt('wrong-side')).toBe('Expected TLS credentials for a client endpoint');
  const broken = /^(?:TLS handshake failed: |Unable to (?:write to|read from) socket: |Failed to )/;
  expect(await attempt('nobody')).toMatch(broken);
  await to.said('Verify failed: No certificate was found.');
  expect(await attempt('')).toMatch(broken);
  await to.said('TLS handshake failed: An unexpected TLS packet was received.');
  await to.execute('object-del', { id: 'who' });
  expect(await attempt('good')).toMatch(broken);
  await to.said('Cannot find QAuthZ object ID who');
  await to.execute('object-add', { ...who, identity: 'O=Org,CN=client2' });
  expect(await attempt('good')).toMatch(broken);
  await to.said('TLS x509 authz check for O=Org,CN=client1 is denied');
  await to.execute('object-del', { id: 'who' });
  await to.execute('object-add', who);
  await from.execute('migrate', { uri });
  await Promise.all([from.event('MIGRATION completed'), to.event('MIGRATION completed')]);
  await same(from, to);
  expect(from.child.exitCode).toBe(null);
});

it.each([
  ['another name', 'wrong-name', {}, 'Certificate does not match the hostname 127.0.0.1'],
  ['a unix socket without a name', 'server', { uri: 'unix' }, 'No hostname for certificate validation'],
])('the source refuses %s, and runs on', async (_, name, how, text) => {
  const server = x509(directories.server(name), 'server');
  const { from, to, uri } = await armed([server], [x509(directories.client('client1'), 'client')], how);
  await using __ = from;
  await using ___ = to;
  await from.execute('migrate', { uri });
  await from.event('MIGRATION failed');
  expect(await from.execute('query-migrate')).toMatchObject({ 'error-desc': text });
  expect(await from.execute('query-status')).toMatchObject({ running: true });
});
