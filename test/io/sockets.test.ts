/** Every transport carries bytes in both directions that it has, reports its errors in QEMU's words, and leaves nothing. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { Connection, Listener } from '../../src/io/connection.ts';
import { PeerError } from '../../src/io/connection.ts';
import { parseMigrationUri } from '../../src/io/migration-address.ts';
import { connectTo } from '../../src/io/node/connect.ts';
import { listenAt } from '../../src/io/node/listen.ts';
import { removeUnfinished } from '../../src/io/node/output-file.ts';
import { chooseReadMethod, type ReadMethod } from '../../src/io/node/socket-reader.ts';
import { laterMoments } from './later-moments.ts';

const dir = mkdtempSync(join(tmpdir(), 'vmferry-sockets-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const listen = (uri: string, method?: ReadMethod) => listenAt(parseMigrationUri(uri), { method });
const dial = (uri: string, method?: ReadMethod) => connectTo(parseMigrationUri(uri), { method });

/** A listener, and both ends of a line to it. */
async function pair(uri: string, method: ReadMethod) {
  const listener = await listen(uri, method);
  const [near, far] = await Promise.all([dial(listener.uri, method), accepted(listener)]);
  return { listener, near, far };
}

async function accepted(listener: Listener): Promise<Connection> {
  const connection = await listener.accept();
  if (connection === undefined) throw new Error('the listener was closed');
  return connection;
}

/** All bytes up to the end, read in pieces of `length` bytes. */
async function readAll(connection: Connection, length = 70_000): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const target = new Uint8Array(length + 8);
  for (let at = 0; ; ) {
    const count = await connection.read(target.subarray(0, length), at);
    if (count === 0) break;
    parts.push(target.slice(0, count));
    at += count;
  }
  // Nothing was written behind the part that was asked for.
  expect(target.subarray(length)).toEqual(new Uint8Array(8));
  return Buffer.concat(parts);
}

const pattern = (length: number) => Uint8Array.from({ length }, (_, index) => index * 7 + (index >> 8));
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

test('sockets are read directly on this version of Node', async () => {
  expect(await chooseReadMethod()).toBe('direct');
});

const uris = ['tcp:127.0.0.1:0', 'tcp:localhost:0', 'tcp::0', `unix:${join(dir, 'line')}`];

describe.each<ReadMethod>(['direct', 'data'])('%s', (method) => {
  test.each(uris)('%s carries bytes both ways, and each direction ends by itself', async (uri) => {
    const { listener, near, far } = await pair(uri, method);
    expect([near.method, far.method]).toEqual([method, method]);
    const [there, back] = [pattern(3_000_000), pattern(1_000)];
    const sent = near.write(there).then(() => near.end());
    expect(Buffer.compare(await readAll(far), there)).toBe(0);
    await sent;
    await far.write(back);
    await far.end();
    expect(await readAll(near, 3)).toEqual(Buffer.from(back));
    await Promise.all([near.close(), far.close()]);
    await listener.close();
    expect(await listener.accept()).toBe(undefined);
    await expect(dial(listener.uri)).rejects.toThrow(/^Failed to connect to /);
  });

  test('a read at a later position skips the bytes before it', async () => {
    const { listener, near, far } = await pair('tcp:127.0.0.1:0', method);
    await near.write(pattern(100));
    await near.end();
    const target = new Uint8Array(4);
    expect(await far.read(target, 50)).toBe(4);
    expect(target).toEqual(pattern(54).slice(50));
    await expect(far.read(target, 0)).rejects.toThrow('expected a position from 54 on, got 0');
    expect(await far.read(new Uint8Array(), 54)).toBe(0);
    expect(await far.read(target, 54)).toBe(4);
    await Promise.all([near.close(), far.close(), listener.close()]);
  });

  test('a destroyed TCP line breaks for both sides', async () => {
    const { listener, near, far } = await pair('tcp:127.0.0.1:0', method);
    const waiting = [near.read(new Uint8Array(4), 0), far.read(new Uint8Array(4), 0)];
    const settled = Promise.allSettled(waiting);
    near.destroy();
    const [own, others] = (await settled) as PromiseRejectedResult[];
    expect(own?.reason).toMatchObject({ name: 'PeerError', message: 'the connection was closed on this side' });
    expect(others?.reason).toMatchObject({
      ...{ name: 'PeerError', message: 'Unable to read from socket: Connection reset by peer', code: 'ECONNRESET' },
    });
    await expect(far.write(pattern(10))).rejects.toThrow(/^Unable to write to socket: /);
    await expect(near.write(pattern(10))).rejects.toThrow(PeerError);
    far.destroy();
    await listener.close();
  });

  test('a write that the peer does not take rejects when the line is destroyed', async () => {
    const { listener, near, far } = await pair('tcp:127.0.0.1:0', method);
    const big = new Uint8Array(64 << 20);
    const writing = near.write(big);
    const outcome = writing.then(
      () => 'written',
      (error: unknown) => error,
    );
    expect(await far.read(new Uint8Array(10), 0)).toBe(10);
    near.destroy();
    expect(await outcome).toBeInstanceOf(PeerError);
    far.destroy();
    await listener.close();
  });

  test.each([...laterMoments])('a line may be destroyed %s after its end began', async (_, moment) => {
    const { listener, near, far } = await pair('tcp:127.0.0.1:0', method);
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

  test('a peer that ends while bytes are on their way gets them all', async () => {
    const { listener, near, far } = await pair('tcp:127.0.0.1:0', method);
    // The bytes that `near` never reads would turn its end into a reset.
    await far.write(pattern(1_000));
    const bytes = pattern(2_000_000);
    const closed = near.write(bytes).then(() => near.close());
    expect(Buffer.compare(await readAll(far), bytes)).toBe(0);
    await far.close();
    await closed;
    await listener.close();
  });
});

test('connections that wait when a listener is closed are closed, accepted ones live on', async () => {
  const { listener, near, far } = await pair('tcp:127.0.0.1:0', 'direct');
  const second = await dial(listener.uri);
  const pending = listener.accept().then((connection) => connection && listener.accept());
  await listener.close();
  expect(await pending).toBe(undefined);
  await near.write(pattern(3));
  expect(await far.read(new Uint8Array(8), 0)).toBe(3);
  for (const each of [near, far, second]) each.destroy();
});

test('an aborted signal closes a listener', async () => {
  const controller = new AbortController();
  const listener = await listenAt(parseMigrationUri('tcp:127.0.0.1:0'), { signal: controller.signal });
  const pending = listener.accept();
  controller.abort();
  expect(await pending).toBe(undefined);
  await expect(listenAt(parseMigrationUri('tcp:127.0.0.1:0'), { signal: controller.signal })).rejects.toThrow(
    controller.signal.reason,
  );
});

test('connecting ends by its signal, and after its time', async () => {
  // A listener whose queue is full answers nobody.
  const server = createServer().listen({ host: '127.0.0.1', port: 0, backlog: 1 });
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const address = parseMigrationUri(`tcp:127.0.0.1:${port}`);
  const controller = new AbortController();
  controller.abort(new Error('enough'));
  await expect(connectTo(address, { signal: controller.signal })).rejects.toThrow('enough');
  const silent = { secure: () => new Promise<never>(() => {}) };
  await expect(connectTo(address, { tls: silent, setupTimeoutMs: 1000 })).rejects.toThrow(
    'TLS handshake failed: the peer did not answer in time',
  );
  server.close();
});

test('the file of a unix socket goes with its listener, or with the process', async () => {
  const path = join(dir, 'gone');
  const listener = await listen(`unix:${path}`);
  await expect(listen(`unix:${path}`)).rejects.toThrow(`Failed to bind socket to ${path}: Address already in use`);
  await listener.close();
  expect(existsSync(path)).toBe(false);
  const second = await listen(`unix:${path}`);
  removeUnfinished();
  expect(existsSync(path)).toBe(false);
  await second.close();
});

test('a socket file that nothing listens on is replaced, any other file is not', async () => {
  const [stale, other] = [join(dir, 'stale'), join(dir, 'other')];
  // Node removes the file of a socket that it closes, so the listener of another process is killed.
  const listener = await listen(`exec:exec '${process.execPath}' -e '
    require("net").createServer().listen(process.argv[1], () => console.log("ready"))' '${stale}'`);
  const child = await accepted(listener);
  expect(await child.read(new Uint8Array(16), 0)).toBe(6);
  await expect(listen(`unix:${stale}`)).rejects.toThrow('Address already in use');
  child.destroy();
  await expect.poll(() => refuses(stale)).toBe(true);
  expect(existsSync(stale)).toBe(true);
  await (await listen(`unix:${stale}`)).close();
  writeFileSync(other, 'precious');
  await expect(listen(`unix:${other}`)).rejects.toThrow('Address already in use');
  expect(readFileSync(other, 'utf8')).toBe('precious');
});

const refuses = (path: string) =>
  new Promise<boolean>((resolve) => {
    const probe: Socket = connect({ path });
    probe.once('connect', () => resolve(false));
    probe.once('error', () => resolve(true));
    probe.once('connect', () => probe.destroy());
  });

test('`to` finds the first free port', async () => {
  const first = await listen('tcp:127.0.0.1:0');
  const port = Number(first.uri.split(':')[2]);
  await expect(listen(first.uri)).rejects.toThrow('Failed to find an available port: Address already in use');
  const second = await listen(`tcp:127.0.0.1:${port},to=65535`);
  expect(Number(second.uri.split(':')[2])).toBeGreaterThan(port);
  await Promise.all([first.close(), second.close()]);
});

test('the port counts modulo 65536', async () => {
  const listener = await listen('tcp:127.0.0.1:0');
  const port = Number(listener.uri.split(':')[2]);
  const near = await dial(`tcp:127.0.0.1:${port + 65536}`);
  near.destroy();
  await listener.close();
});

test.each([
  ['tcp:127.0.0.1:1', "Failed to connect to '127.0.0.1:1': Connection refused"],
  ['tcp:nosuch.invalid:1', /^address resolution failed for nosuch\.invalid:1: /],
  ['tcp:localhost:nosuch', 'address resolution failed for localhost:nosuch: Servname not supported for ai_socktype'],
  ['tcp:[::1]:1,ipv6=off', 'address resolution failed for ::1:1: Address family for hostname not supported'],
  ['unix:/nonexistent/x', "Failed to connect to '/nonexistent/x': No such file or directory"],
])('the peer at %s cannot be reached', async (uri, message) => {
  const error = await dial(uri).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(PeerError);
  expect((error as Error).message).toMatch(message);
});

test.each([
  ['fd:nosuch', "File descriptor named 'nosuch' has not been found", 'ENOENT'],
  ['fd:999', 'cannot use file descriptor 999: Bad file descriptor', 'EBADF'],
  ['file:/nonexistent/x', "Could not create '/nonexistent/x': No such file or directory", 'ENOENT'],
])('connecting to %s fails on this host', async (uri, message, code) => {
  const error = await dial(uri).catch((reason: unknown) => reason);
  expect(error).not.toBeInstanceOf(PeerError);
  expect(error).toMatchObject({ message, code });
});

test.each([
  ['tcp:192.0.2.1:0', 'Failed to bind socket: Cannot assign requested address', 'EADDRNOTAVAIL'],
  ['unix:/nonexistent/x', 'Failed to bind socket to /nonexistent/x: No such file or directory', 'ENOENT'],
  [`unix:/${'x'.repeat(120)}`, `UNIX socket path '/${'x'.repeat(120)}' is too long`, 'ENAMETOOLONG'],
  ['file:/nonexistent/x', "Could not open '/nonexistent/x': No such file or directory", 'ENOENT'],
  ['fd:nosuch', "File descriptor named 'nosuch' has not been found", 'ENOENT'],
])('listening at %s fails on this host', async (uri, message, code) => {
  const error = await listen(uri).catch((reason: unknown) => reason);
  expect(error).not.toBeInstanceOf(PeerError);
  expect(error).toMatchObject({ message, code });
});

test('a program takes the stream on its standard input, and answers on its standard output', async () => {
  const path = join(dir, 'taken');
  const connection = await dial(`exec:cat > '${path}'; echo done`);
  await connection.write(pattern(200_000));
  await connection.end();
  expect(text(await readAll(connection))).toBe('done\n');
  await connection.close();
  expect(Buffer.compare(readFileSync(path), pattern(200_000))).toBe(0);
});

test('closing waits for what a program does with the stream', async () => {
  const path = join(dir, 'late');
  const connection = await dial(`exec:x=$(cat); sleep 0.2; echo "$x" > '${path}'`);
  await connection.write(Buffer.from('stream'));
  await connection.close();
  expect(readFileSync(path, 'utf8')).toBe('stream\n');
});

test('a program that ends early breaks the line', async () => {
  const connection = await dial('exec:exit 3');
  const write = async () => {
    for (;;) await connection.write(pattern(100_000));
  };
  await expect(write()).rejects.toMatchObject({
    ...{ name: 'PeerError', message: 'Unable to write to command: Broken pipe', code: 'EPIPE' },
  });
  connection.destroy();
});

test('a program that cannot be started is reported', async () => {
  const address = { transport: 'exec', args: ['/nonexistent'] } as const;
  const started = connectTo({ ...address, args: [...address.args] });
  const message = 'Failed to execute child process “/nonexistent” (No such file or directory)';
  await expect(started).rejects.toMatchObject({ message, code: 'ENOENT' });
});

test('a listener on a program yields its output once', async () => {
  const listener = await listen('exec:echo stream');
  const connection = await accepted(listener);
  expect(text(await readAll(connection))).toBe('stream\n');
  expect(await listener.accept()).toBe(undefined);
  await Promise.all([connection.close(), listener.close()]);
});

test('destroying the line to a program kills it', async () => {
  const listener = await listen('exec:echo $$; exec sleep 1000');
  const connection = await accepted(listener);
  const target = new Uint8Array(16);
  const pid = Number(text(target.subarray(0, await connection.read(target, 0))));
  expect(existsSync(`/proc/${pid}`)).toBe(true);
  connection.destroy();
  await expect.poll(() => existsSync(`/proc/${pid}`)).toBe(false);
});

test('a file is cut off at the offset, and read from there', async () => {
  const path = join(dir, 'file');
  writeFileSync(path, 'headold content');
  const out = await dial(`file:${path},offset=4`);
  expect([out.canRead, out.canWrite]).toEqual([false, true]);
  await out.write(Buffer.from('new'));
  await out.end();
  await out.close();
  expect(readFileSync(path, 'utf8')).toBe('headnew');
  const listener = await listen(`file:${path},offset=4`);
  const connection = await accepted(listener);
  expect([connection.canRead, connection.canWrite]).toEqual([true, false]);
  expect(text(await readAll(connection, 2))).toBe('new');
  await connection.close();
});

test('a new file is readable for its owner only', async () => {
  const path = join(dir, 'private');
  await (await dial(`file:${path}`)).close();
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('a FIFO is written once it has a reader, and read once it has a writer', async () => {
  const path = join(dir, 'fifo');
  execFileSync('mkfifo', [path]);
  await expect(dial(`file:${path}`)).rejects.toThrow(`Could not create '${path}': No such device or address`);
  const far = await accepted(await listen(`file:${path}`));
  const content = readAll(far);
  const near = await dial(`file:${path}`);
  await near.write(pattern(200_000));
  await near.close();
  expect(Buffer.compare(await content, pattern(200_000))).toBe(0);
  await far.close();
});
