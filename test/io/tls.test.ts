/** TLS between two of our own: who gets in, who does not, and in which words. Real QEMU: test/qemu/tls.test.ts. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import { type Connection, PeerError } from '../../src/io/connection.ts';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { listenAt } from '../../src/io/node/listen.ts';
import { UserObjects } from '../../src/io/node/tls-objects.ts';
import { securedSocket } from '../../src/io/node/tls-session.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { laterMoments } from './later-moments.ts';

const directories = new TlsDirectories();
afterAll(() => directories.remove());

interface Sides {
  server: string;
  client: string;
  uri?: string;
  hostname?: string;
  authz?: string;
  objects?: string[];
}

/** Both ends of a line, or why there is none: in the words of the client and of the server. */
async function meet({ server, client, uri = 'tcp:127.0.0.1:0', hostname, authz, objects = [] }: Sides) {
  const user = new UserObjects();
  for (const spec of [...objects, `${server},id=server,endpoint=server`, `${client},id=client,endpoint=client`]) {
    user.add(spec);
  }
  let refused: ((text: string) => void) | undefined;
  const refusal = new Promise<string>((resolve) => {
    refused = resolve;
  });
  const listener = await listenAt(parseMigrationUri(uri), {
    tls: user.serverTls('server', authz),
    onRefused: (error) => refused?.(error.message),
  });
  const dialed = connectTo(parseMigrationUri(listener.uri), { tls: user.clientTls('client', hostname) });
  const accepting = listener.accept();
  const near = await dialed.catch((error: Error) => error.message);
  const far = await Promise.race([accepting, refusal]);
  return { listener, near, far, accepting };
}

/** The words of both sides of a meeting that fails. */
async function refusals(sides: Sides): Promise<[client: string | undefined, server: string | undefined]> {
  const { listener, near, far } = await meet(sides);
  const words = [near, far].map((each) => (typeof each === 'string' ? each : undefined));
  for (const each of [near, far]) if (typeof each === 'object') each.destroy();
  await listener.close();
  return words as [string | undefined, string | undefined];
}

/** Sends bytes both ways over a line that is expected to work. */
async function exchange(sides: Sides): Promise<void> {
  const { listener, near, far } = await meet(sides);
  if (typeof near !== 'object' || typeof far !== 'object') throw new Error(`${near} / ${far}`);
  const bytes = Uint8Array.from({ length: 500_000 }, (_, index) => index * 11 + (index >> 8));
  const sent = near.write(bytes).then(() => near.end());
  expect(Buffer.compare(await readAll(far), bytes)).toBe(0);
  await sent;
  await far.write(Uint8Array.of(1, 2, 3));
  await far.end();
  expect(await readAll(near)).toEqual(Buffer.of(1, 2, 3));
  expect([near.method, far.method]).toEqual(['data', 'data']);
  await Promise.all([near.close(), far.close(), listener.close()]);
}

async function readAll(connection: Connection): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const target = new Uint8Array(50_000);
  for (let at = 0; ; ) {
    const count = await connection.read(target, at);
    if (count === 0) return Buffer.concat(parts);
    parts.push(target.slice(0, count));
    at += count;
  }
}

const x509 = (directory: string, more = '') => `tls-creds-x509,dir=${directory}${more}`;
const psk = (keys: string, more = '') => `tls-creds-psk,dir=${directories.psk(keys)}${more}`;
const server = x509(directories.server());
const client = x509(directories.client('client1'));
const key = 'qemu:0123456789abcdef\n';

describe('a line', () => {
  test.each<[string, Sides]>([
    ['to a literal address in the certificate', { server, client }],
    ['to ::1', { server, client, uri: 'tcp:[::1]:0' }],
    ['to localhost', { server, client, uri: 'tcp:localhost:0' }],
    [
      'by TLS 1.3',
      { server: `${server},priority=NORMAL:+VERS-TLS1.3`, client: `${client},priority=NORMAL:+VERS-TLS1.3` },
    ],
    ['over a unix socket with a name', { server, client, hostname: 'localhost', uri: `unix:${directories.root}/line` }],
    [
      'to a server with another name, which is not verified',
      { server: x509(directories.server('wrong-name')), client: `${client},verify-peer=off` },
    ],
    [
      'to a server with the name that is asked for',
      { server: x509(directories.server('wrong-name')), client, hostname: 'elsewhere.example' },
    ],
    [
      'from a client without a certificate to a server that does not verify',
      { server: `${server},verify-peer=off`, client: x509(directories.client()) },
    ],
    [
      'from a client that the list names',
      {
        ...{ server, client, authz: 'who' },
        objects: ['authz-list,id=who,rules.0.match=*CN=client1*,rules.0.policy=allow,rules.0.format=glob'],
      },
    ],
    [
      'from the one client',
      { server, client, authz: 'who', objects: ['authz-simple,id=who,identity=O=Org,,CN=client1'] },
    ],
    [
      'with an encrypted key',
      {
        ...{ server, objects: ['secret,id=word,data=open sesame'] },
        client: x509(directories.client('client1', { 'client-key.pem': 'locked-key.pem' }), ',passwordid=word'),
      },
    ],
    ['with a shared key', { server: psk(key), client: psk(key) }],
    ['with the shared key of a user', { server: psk(`${key}anna:11\n`), client: psk('anna:11\n', ',username=anna') }],
    [
      'with a shared key over a unix socket',
      { server: psk(key), client: psk(key), uri: `unix:${directories.root}/psk` },
    ],
  ])('%s', (_, sides) => exchange(sides));
});

const noIssuer = "The certificate hasn't got a known issuer";
const broken = 'TLS handshake failed: The TLS connection was non-properly terminated.';
const alert = 'TLS handshake failed: A TLS fatal alert has been received.';
const illegal = 'TLS handshake failed: An illegal parameter has been received.';
const noCipher = 'TLS handshake failed: Could not negotiate a supported cipher suite.';

/** Undefined: that side has a line. */
test.each<[string, Sides, client: string | undefined, server: string | undefined]>([
  [
    'a certificate for another name',
    { server: x509(directories.server('wrong-name')), client },
    ...(['Certificate does not match the hostname 127.0.0.1', undefined] as const),
  ],
  [
    'a certificate for another name than the one asked for',
    { server, client, hostname: 'elsewhere.example' },
    ...(['Certificate does not match the hostname elsewhere.example', undefined] as const),
  ],
  [
    'no name to compare with',
    { server, client, uri: `unix:${directories.root}/nameless` },
    ...(['No hostname for certificate validation', undefined] as const),
  ],
  [
    'a server of another authority',
    {
      server: `${server},verify-peer=off`,
      client: x509(directories.client(undefined, { 'ca-cert.pem': 'other-ca-cert.pem' })),
    },
    ...([noIssuer, undefined] as const),
  ],
  [
    'a server whose certificate has expired',
    { server: x509(directories.server('expired'), ',sanity-check=off'), client },
    ...(['The certificate is not trusted: it has expired', undefined] as const),
  ],
  [
    'a server whose certificate is revoked',
    {
      server: x509(directories.server('revoked')),
      client: x509(directories.client('client1', { 'ca-crl.pem': 'ca-crl.pem' })),
    },
    ...(['The certificate has been revoked', undefined] as const),
  ],
  [
    'a client without a certificate',
    { server, client: x509(directories.client()) },
    ...([broken, 'Verify failed: No certificate was found.'] as const),
  ],
  [
    'a client of another authority',
    { server: x509(directories.server('server', { 'ca-cert.pem': 'other-ca-cert.pem' }), ',sanity-check=off'), client },
    ...([broken, noIssuer] as const),
  ],
  [
    'a client that the list does not name',
    { server, client, authz: 'who', objects: ['authz-simple,id=who,identity=O=Org,,CN=client2'] },
    ...([broken, 'TLS x509 authz check for O=Org,CN=client1 is denied'] as const),
  ],
  [
    'a list that does not exist',
    { server, client, authz: 'missing' },
    ...([broken, 'Cannot find QAuthZ object ID missing'] as const),
  ],
  ['different keys', { server: psk('qemu:00\n'), client: psk(key) }, alert, illegal],
  ['a user without a key', { server: psk('anna:00\n'), client: psk(key) }, alert, illegal],
  ['a certificate and a key', { server, client: psk(key) }, alert, noCipher],
  [
    'TLS 1.3 only and TLS 1.2 only',
    { server: `${server},priority=NORMAL:-VERS-ALL:+VERS-TLS1.3`, client },
    ...([alert, 'TLS handshake failed: A packet with illegal or unsupported version was received.'] as const),
  ],
])('%s', async (_, sides, near, far) => {
  expect(await refusals(sides)).toEqual([near, far]);
});

/** A listener with shared keys, and what it refused. */
async function guarded(setupTimeoutMs?: number) {
  const user = new UserObjects();
  user.add(`${psk(key)},id=server,endpoint=server`);
  user.add(`${psk(key)},id=client,endpoint=client`);
  const refused: string[] = [];
  let note = () => {};
  const listener = await listenAt(parseMigrationUri('tcp:127.0.0.1:0'), {
    ...{ tls: user.serverTls('server'), setupTimeoutMs },
    onRefused: (error) => {
      refused.push(error.message);
      note();
    },
  });
  const refusal = () =>
    new Promise<void>((resolve) => {
      note = resolve;
    });
  const dial = () => connectTo(parseMigrationUri(listener.uri), { tls: user.clientTls('client') });
  const raw = () => connect({ host: '127.0.0.1', port: Number(listener.uri.split(':')[2]) });
  return { listener, user, refused, refusal, dial, raw };
}

test('junk, silence and a connection that ends at once do not keep others out', async () => {
  const { listener, refused, refusal, dial, raw } = await guarded();
  const silent = raw();
  await once(silent, 'connect');
  const failed = [refusal()];
  const junk = raw();
  junk.on('error', () => {});
  junk.write('QEVM, without TLS');
  await failed[0];
  const ended = refusal();
  raw().end();
  await ended;
  expect(refused).toEqual(['TLS handshake failed: An unexpected TLS packet was received.', broken]);
  const [near, far] = await Promise.all([dial(), listener.accept()]);
  expect(far).toBeDefined();
  near.destroy();
  far?.destroy();
  await listener.close();
  // The handshake of the silent connection ends with the listener.
  silent.resume();
  silent.on('error', () => {});
  await once(silent, 'close');
  expect(refused).toHaveLength(2);
});

test.each(['near', 'far'] as const)('the %s side may be destroyed as soon as the handshake is done', async (first) => {
  const { listener, near, far } = await meet({ server, client });
  if (typeof near !== 'object' || typeof far !== 'object') throw new Error(`${near} / ${far}`);
  const [own, other] = first === 'near' ? [near, far] : [far, near];
  const failures = Promise.allSettled([own, other].map((each) => each.read(new Uint8Array(8), 0)));
  own.destroy();
  const messages = (await failures).map((each) => each.status === 'rejected' && each.reason.message);
  expect(messages).toEqual([
    'the connection was closed on this side',
    'Cannot read from TLS channel: Connection reset by peer',
  ]);
  await expect(other.write(new Uint8Array(8))).rejects.toThrow(/^Cannot write to TLS channel: /);
  other.destroy();
  await listener.close();
});

test.each([...laterMoments])('a line may be destroyed %s after its end began', async (_, moment) => {
  const { listener, near, far } = await meet({ server, client });
  if (typeof near !== 'object' || typeof far !== 'object') throw new Error(`${near} / ${far}`);
  await near.write(new Uint8Array(8));
  const ending = near.end();
  await moment();
  near.destroy();
  await ending;
  // Nobody is there any more: a socket that was left open would take some bytes, and then none.
  await expect(far.write(new Uint8Array(64 << 20))).rejects.toThrow(PeerError);
  far.destroy();
  await listener.close();
});

test('a handshake in which the client says nothing ends after its time', async () => {
  const { listener, refused, refusal, raw } = await guarded(20);
  const failed = refusal();
  const silent = raw();
  silent.on('error', () => {});
  silent.resume();
  await failed;
  expect(refused).toEqual(['TLS handshake failed: the peer did not answer in time']);
  await once(silent, 'close');
  await listener.close();
});

test('a server without TLS', async () => {
  const user = new UserObjects();
  user.add(`${client},id=client,endpoint=client`);
  const tls = user.clientTls('client');
  const server = createServer((socket: Socket) => socket.once('data', () => socket.destroy()));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as { port: number };
  await expect(connectTo(parseMigrationUri(`tcp:127.0.0.1:${port}`), { tls })).rejects.toThrow(broken);
  server.close();
});

/** A program that passes its input on to a port, and what comes from there to its output. */
const bridge = (port: string | number) =>
  `exec:'${process.execPath}' -e '
    const line = require("net").connect({ port: process.argv[1], host: "127.0.0.1", allowHalfOpen: true });
    process.stdin.pipe(line).pipe(process.stdout)' ${port}`;

test('TLS over the streams of a program, connecting', async () => {
  const { listener, user } = await guarded();
  const tls = user.clientTls('client');
  const dialed = connectTo(parseMigrationUri(bridge(listener.uri.split(':')[2] as string)), { tls });
  const [near, far] = await Promise.all([dialed, listener.accept()]);
  const sent = near.write(Buffer.from('there')).then(() => near.end());
  expect((await readAll(far as Connection)).toString()).toBe('there');
  await sent;
  await far?.write(Buffer.from('back'));
  await far?.end();
  expect((await readAll(near)).toString()).toBe('back');
  await Promise.all([near.close(), far?.close(), listener.close()]);
});

test('TLS over the streams of a program, listening', async () => {
  const { listener: unused, user } = await guarded();
  await unused.close();
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as { port: number };
  const listener = await listenAt(parseMigrationUri(bridge(port)), { tls: user.serverTls('server') });
  const accepting = listener.accept();
  const [socket] = (await once(server, 'connection')) as [Socket];
  const near = await securedSocket(socket, 'near', (each) => user.clientTls('client').secure(each, undefined));
  const far = await accepting;
  await near.write(Buffer.from('there'));
  await near.end();
  expect((await readAll(far as Connection)).toString()).toBe('there');
  await Promise.all([near.close(), far?.close(), listener.close()]);
  server.close();
});

test('TLS needs both directions', async () => {
  const { listener, user } = await guarded();
  await listener.close();
  const address = parseMigrationUri(`file:${directories.root}/file`);
  await expect(connectTo(address, { tls: user.clientTls('client') })).rejects.toThrow(
    /^TLS needs a connection in both/,
  );
});
