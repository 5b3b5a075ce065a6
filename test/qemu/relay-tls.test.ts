/**
 * TLS with certificates through a relay, between real QEMUs: on the side of the source, on that of the target, and on both,
 * with authorization and names. Bad credentials of the target end the relay with 3, and the guest is at the source. Bad
 * credentials of a source are refused, and the relay goes on listening.
 *
 * The essential subset runs with `npm run test:qemu`; VMFERRY_QEMU=full runs all.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { TlsDirectories } from '../tls-directories.ts';
import { Between, failureOf, multifd, reportOf, type Setup } from './between.ts';
import { Guest } from './guest.ts';
import { LiveCommand } from './live-command.ts';
import { type Qemu, type QemuVersion, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

const directories = new TlsDirectories();
afterAll(() => directories.remove());

const isFull = process.env.VMFERRY_QEMU === 'full';
const authorized = 'O=Org,CN=client1';

/** Credentials of a QEMU. */
async function arm(qemu: Qemu, endpoint: 'client' | 'server', dir: string, authz?: string): Promise<void> {
  await qemu.execute('object-add', { 'qom-type': 'tls-creds-x509', id: 'tls0', endpoint, dir });
  await qemu.setParameters({ 'tls-creds': 'tls0' });
  if (authz === undefined) return;
  await qemu.execute('object-add', { 'qom-type': 'authz-simple', id: 'who', identity: authz });
  await qemu.setParameters({ 'tls-authz': 'who' });
}

/** What the relay needs to be a server for the source. */
const listens = (allowed = authorized) => [
  ...['--object', `tls-creds-x509,id=here,endpoint=server,dir=${directories.server()}`],
  ...['--object', `authz-simple,id=who,identity=${allowed.replaceAll(',', ',,')}`],
  ...['--listen-tls-creds', 'here', '--listen-tls-authz', 'who'],
];
/** What it needs to be a client of the target, whose certificate has this name. */
const connects = (name: string, client = 'client1') => [
  ...['--object', `tls-creds-x509,id=there,endpoint=client,dir=${directories.client(client)}`],
  ...['--target-tls-creds', 'there', '--target-tls-hostname', name],
];

const armSource = (source: Qemu, client = 'client1') => arm(source, 'client', directories.client(client));

interface Good {
  args: string[];
  prepare: Required<Setup>['prepare'];
  isEssential?: boolean;
}

const good: Record<string, Good> = {
  'both sides': {
    args: [...listens(), ...connects('elsewhere.example')],
    async prepare(source, target) {
      await armSource(source);
      await arm(target, 'server', directories.server('wrong-name'), authorized);
    },
    isEssential: true,
  },
  'the side of the source': { args: listens(), prepare: (source) => armSource(source) },
  'the side of the target': {
    args: connects('localhost'),
    prepare: (_, target) => arm(target, 'server', directories.server()),
  },
};

const all = qemuVersions.flatMap((version) => Object.entries(good).map(([name, each]) => ({ version, name, ...each })));
const chosen = all.filter(({ version, isEssential }) => isFull || (version === '10.0' && isEssential === true));
const base = (version: QemuVersion): Setup => ({
  ...{ version, capabilities: ['multifd', 'return-path'], parameters: multifd(2, 'none') },
});

describe.skipIf(lacksQemu('7.2', '10.0'))('certificates through a relay', () => {
  test.each(chosen)('$version: TLS on $name', async ({ version, args, prepare }) => {
    await using between = await Between.start({ ...base(version), args, prepare });
    await between.migrate();
    expect(await reportOf(between.relay)).toMatchObject({ confirmed: true, connections: 3 });
    // Reading the addresses of 7.2 is a migration, too, without TLS.
    await between.target.setParameters({ 'tls-creds': '' });
    await between.expectSame();
    (await Guest.resume(between.target)).close();
  });

  test('a relay that encodes RAM again, with TLS on both sides', async () => {
    const { args, prepare } = good['both sides'] as Good;
    const encoding = ['--target-multifd-channels', '3', '--target-multifd-compression', 'zlib'];
    await using between = await Between.start({
      ...{ version: '10.0', capabilities: ['return-path'], args: [...args, ...encoding], prepare },
      target: { capabilities: ['multifd', 'return-path'], parameters: multifd(3, 'zlib') },
    });
    await between.migrate();
    expect(await reportOf(between.relay)).toMatchObject({ confirmed: true, connections: 4 });
    await between.expectSame();
  });
});

const withoutName = 'Certificate does not match the hostname elsewhere.example';

const badTargets: [string, string[], Required<Setup>['prepare'], RegExp, guests?: readonly string[]][] = [
  [
    'has another name',
    connects('elsewhere.example'),
    (_, target) => arm(target, 'server', directories.server()),
    new RegExp(withoutName),
  ],
  [
    'does not allow the relay',
    connects('localhost', 'client2'),
    (_, target) => arm(target, 'server', directories.server(), authorized),
    // Its handshake is in order. It may close before it is known that the source has a return path.
    ...([/./, ['source', 'either']] as const),
  ],
  ['does not use TLS', connects('localhost'), async () => {}, /^TLS handshake failed: /],
];

/** A migration whose relay fails: exit code 3, and the guest runs on at the source. */
async function expectRefused(between: Between, message: RegExp, guests: readonly string[]): Promise<void> {
  const { source, relay } = between;
  await between.guest.startDirtying(between.ours, 'mixed');
  // A stream that fits into the buffers of two systems could be there.
  await source.setParameters({ 'max-bandwidth': 2 << 20, 'downtime-limit': 1 });
  await source.execute('migrate', { uri: await relay.uri() });
  const failure = await failureOf(relay);
  expect(guests).toContain(failure.guest);
  expect(failure.message).toMatch(message);
  await expect(source.waitForMigration()).rejects.toThrow(/failed/);
  await between.expectGoesOn();
}

describe.skipIf(lacksQemu('7.2', '10.0'))('bad credentials', () => {
  const cases = badTargets.slice(0, isFull ? undefined : 2);
  test.each(cases)('a target that %s', async (_, args, prepare, message, guests = ['source']) => {
    const setup: Setup = { version: '10.0', capabilities: ['return-path'], args, prepare };
    await using between = await Between.start(setup);
    await expectRefused(between, message, guests);
  });

  test('a source that is not allowed, or does not use TLS, is refused; one that is allowed is taken', async () => {
    const setup: Setup = { version: '10.0', capabilities: ['return-path'], args: listens('O=Org,CN=client2') };
    await using between = await Between.start(setup);
    const { source, relay, guest } = between;
    await guest.startDirtying(between.ours, 'mixed');
    const uri = await relay.uri();
    await source.execute('migrate', { uri });
    await expect(source.waitForMigration()).rejects.toThrow(/failed/);
    await armSource(source);
    await source.execute('migrate', { uri });
    await expect(source.waitForMigration()).rejects.toThrow(/failed/);
    await between.expectGoesOn();
    await source.execute('object-add', {
      ...{ 'qom-type': 'tls-creds-x509', id: 'tls1', endpoint: 'client', dir: directories.client('client2') },
    });
    await source.setParameters({ 'tls-creds': 'tls1' });
    await guest.stop();
    await source.execute('migrate', { uri });
    await source.waitForMigration();
    expect(await reportOf(relay)).toMatchObject({ confirmed: true });
    await between.expectSame();
  });

  test('credentials that are not there are a usage error, before anything listens', async () => {
    const relay = new LiveCommand([
      ...['relay', 'tcp:127.0.0.1:0', 'tcp:127.0.0.1:1', '--json', '--target-tls-creds', 'nobody'],
    ]);
    expect(await failureOf(relay, 2)).toMatchObject({ guest: 'source' });
    expect(relay.stderr).not.toMatch('listening');
  });
});
