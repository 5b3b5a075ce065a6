/**
 * TLS with a real QEMU at the other end: a QEMU source connects to our listener, and we connect to a QEMU that waits. Good
 * credentials carry a whole migration, and bad ones fail on both sides in QEMU's words.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { listenAt } from '../../src/io/node/listen.ts';
import { UserObjects } from '../../src/io/node/tls-objects.ts';
import { TlsDirectories } from '../tls-directories.ts';
import { type MigrationInfo, Qemu, type QemuVersion, qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';

const directories = new TlsDirectories();
afterAll(() => directories.remove());

const ramBytes = 16 << 20;

/** A machine without processors whose RAM is the given content. */
async function start(version: QemuVersion, content: Uint8Array, more: string[] = []): Promise<Qemu> {
  const dir = Qemu.makeDir();
  writeFileSync(join(dir, 'ram'), content);
  const backend = `memory-backend-file,id=ram,mem-path=${join(dir, 'ram')},size=${ramBytes},share=on`;
  const args = ['-accel', 'tcg', '-nodefaults', '-no-user-config', '-vga', 'none', '-m', `${ramBytes >> 20}`];
  return Qemu.start({ version, dir, args: [...args, '-object', backend, '-M', 'none,memory-backend=ram', ...more] });
}

type ObjectDefinition = Record<string, unknown> & { 'qom-type': string };

const x509 = (dir: string, more: object = {}): ObjectDefinition => ({ 'qom-type': 'tls-creds-x509', dir, ...more });
const psk = (keys: string): ObjectDefinition => ({ 'qom-type': 'tls-creds-psk', dir: directories.psk(keys) });

const key = 'qemu:0123456789abcdef0123456789abcdef\n';
const server = x509(directories.server());
const client = x509(directories.client('client1'));

interface Sides {
  /** Undefined: no TLS. */
  server?: ObjectDefinition;
  client?: ObjectDefinition;
  hostname?: string;
  authz?: string;
}

/** A QEMU's credentials. */
async function arm(qemu: Qemu, side: 'client' | 'server', { hostname, authz, ...sides }: Sides): Promise<void> {
  const definition = sides[side];
  if (definition === undefined) return;
  await qemu.execute('object-add', { ...definition, id: 'tls0', endpoint: side });
  const rule = authz === undefined ? undefined : { 'qom-type': 'authz-simple', id: 'who', identity: authz };
  if (side === 'server' && rule !== undefined) await qemu.execute('object-add', rule);
  await qemu.setParameters({
    'tls-creds': 'tls0',
    ...(side === 'client' && hostname !== undefined ? { 'tls-hostname': hostname } : {}),
    ...(side === 'server' && rule !== undefined ? { 'tls-authz': 'who' } : {}),
  });
}

/** Our objects. */
function ours(side: 'client' | 'server', { authz, ...sides }: Sides): UserObjects {
  const user = new UserObjects();
  const definition = sides[side];
  if (definition !== undefined) user.add({ ...definition, id: 'tls0', endpoint: side });
  if (authz !== undefined) user.add({ 'qom-type': 'authz-simple', id: 'who', identity: authz });
  return user;
}

/** Waits until a migration has ended. */
async function outcome(qemu: Qemu): Promise<MigrationInfo> {
  let info: MigrationInfo = {};
  await expect
    .poll(async () => {
      info = await qemu.queryMigrate();
      return info.status;
    })
    .toMatch(/^(?:completed|failed)$/);
  return info;
}

async function readAll(connection: Connection): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const target = new Uint8Array(1 << 20);
  for (let at = 0; ; ) {
    const count = await connection.read(target, at);
    if (count === 0) return Buffer.concat(parts);
    parts.push(target.slice(0, count));
    at += count;
  }
}

/** What a migration of a QEMU source into our listener comes to: its bytes, or why we refused it. */
async function receive(source: Qemu, sides: Sides, uri = 'tcp:127.0.0.1:0') {
  await arm(source, 'client', sides);
  const user = ours('server', sides);
  let refuse: (text: string) => void = () => {};
  const refused = new Promise<string>((resolve) => {
    refuse = resolve;
  });
  const listener = await listenAt(parseMigrationUri(uri), {
    tls: sides.server && user.serverTls('tls0', sides.authz && 'who'),
    onRefused: ({ message }) => refuse(message),
  });
  await source.execute('migrate', { uri: listener.uri });
  const accepted = listener.accept().then(async (connection) => {
    if (connection === undefined) throw new Error('the listener was closed');
    const bytes = await readAll(connection).catch((error: Error) => error.message);
    await connection.close();
    return bytes;
  });
  const received = await Promise.race([accepted, refused]);
  const { status, 'error-desc': why } = await outcome(source);
  await listener.close();
  return { received, status, why };
}

/** Sends a stream to a QEMU that waits. */
async function send(target: Qemu, sides: Sides, stream: Uint8Array): Promise<string> {
  await arm(target, 'server', sides);
  await target.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const { 'socket-address': addresses } = (await target.queryMigrate()) as { 'socket-address'?: { port: string }[] };
  const address = parseMigrationUri(`tcp:127.0.0.1:${addresses?.[0]?.port}`);
  const tls = sides.client && ours('client', sides).clientTls('tls0', sides.hostname);
  try {
    const connection = await connectTo(address, { tls });
    await connection.write(stream);
    await connection.close();
    return 'sent';
  } catch (error) {
    return (error as Error).message;
  }
}

const good: [string, Sides][] = [
  ['shared keys', { server: psk(key), client: psk(key) }],
  ['certificates', { server, client }],
  [
    'a name that is asked for',
    { server: x509(directories.server('wrong-name')), client, hostname: 'elsewhere.example' },
  ],
  [
    'a client without a certificate',
    { server: { ...server, 'verify-peer': false }, client: x509(directories.client()) },
  ],
  ['a client that the list names', { server, client, authz: 'O=Org,CN=client1' }],
];

const closed = 'TLS handshake failed: The TLS connection was non-properly terminated.';

describe.each(qemuVersions)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version))('TLS', () => {
    const content = randomBytes(ramBytes);

    test.each(good)('%s carry a migration both ways', async (_, sides) => {
      await using source = await start(version, content);
      const { received, status, why } = await receive(source, sides);
      expect({ status, why }).toEqual({ status: 'completed', why: undefined });
      if (typeof received === 'string') throw new Error(received);
      expect(received.length).toBeGreaterThan(ramBytes);
      await using target = await start(version, new Uint8Array(ramBytes), ['-incoming', 'defer', '-S']);
      expect(await send(target, sides, received)).toBe('sent');
      expect((await outcome(target)).status).toBe('completed');
      expect(Buffer.compare(readFileSync(join(target.dir, 'ram')), content)).toBe(0);
    });

    test('a unix socket needs a name', async () => {
      await using source = await start(version, content);
      const named = await receive(source, { server, client, hostname: 'localhost' }, `unix:${source.dir}/line`);
      expect(named).toMatchObject({ status: 'completed' });
      expect(named.received).toBeInstanceOf(Buffer);
    });

    test('a source refuses a certificate for another name', async () => {
      await using source = await start(version, content);
      const result = await receive(source, { server: x509(directories.server('wrong-name')), client });
      const why = 'Certificate does not match the hostname 127.0.0.1';
      // The handshake was in order: we see a line that ends at once.
      expect(result).toEqual({ status: 'failed', why, received: Buffer.alloc(0) });
    });

    test('a source with TLS fails if we listen without', async () => {
      await using source = await start(version, content);
      expect(await meetWithoutTls(source, { client: psk(key) })).toMatch(/^TLS handshake failed: /);
    });

    test.each<[string, Sides, refused: string]>([
      [
        'has no certificate',
        { server, client: x509(directories.client()) },
        'Verify failed: No certificate was found.',
      ],
      [
        'is not in the list',
        { server, client, authz: 'O=Org,CN=client2' },
        'TLS x509 authz check for O=Org,CN=client1 is denied',
      ],
      [
        'has another key',
        { server: psk('qemu:00\n'), client: psk(key) },
        'TLS handshake failed: An illegal parameter has been received.',
      ],
      ['does not use TLS', { server }, 'TLS handshake failed: An unexpected TLS packet was received.'],
    ])('we refuse a source that %s', async (_, sides, refused) => {
      await using source = await start(version, content);
      const { received, status } = await receive(source, sides);
      expect({ received, status }).toEqual({ received: refused, status: 'failed' });
    });

    test.each<[string, Sides, string, says: RegExp]>([
      [
        'has another name',
        { server: x509(directories.server('wrong-name')), client },
        ...(['Certificate does not match the hostname 127.0.0.1', /Not a migration stream/] as const),
      ],
      ['has another key', { server: psk('qemu:00\n'), client: psk(key) }, closed, /TLS handshake failed: /],
      ['does not use TLS', { client }, closed, /Not a migration stream/],
    ])('we fail with a target that %s', async (_, sides, message, says) => {
      await using target = await start(version, new Uint8Array(ramBytes), ['-incoming', 'defer', '-S']);
      expect(await send(target, sides, new Uint8Array(1000))).toBe(message);
      await expect.poll(() => target.stderr).toMatch(says);
    });
  });
});

/** Why a source with TLS fails that meets a listener without. */
async function meetWithoutTls(source: Qemu, sides: Sides): Promise<string | undefined> {
  await arm(source, 'client', sides);
  const listener = await listenAt(parseMigrationUri('tcp:127.0.0.1:0'));
  await source.execute('migrate', { uri: listener.uri });
  const connection = await listener.accept();
  const first = new Uint8Array(4);
  await connection?.read(first, 0);
  // The type of a TLS record, not the magic of a stream.
  expect(first[0]).toBe(0x16);
  connection?.destroy();
  await listener.close();
  return (await outcome(source))['error-desc'];
}
