/** `vmferry send` into `vmferry receive`, and into what is not a QEMU. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../fixture-files.ts';
import { LiveCommand } from '../qemu/live-command.ts';
import { runCli } from '../run-cli.ts';
import { TlsDirectories } from '../tls-directories.ts';

let dir = '';
let mapped = '';
const tls = new TlsDirectories();
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-send-'));
  mapped = join(dir, 'guest.mapped-ram');
  writeFileSync(mapped, gunzipSync(readFileSync(fixturePath('pc-mapped-ram-multifd-10.0.bin.gz'))));
});
afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
  tls.remove();
});

const plain = fixturePath('pc-plain-10.0.bin');
const multifd = fixturePath('pc-multifd-zlib-7.2.bin');
const channels = [0, 1].flatMap((i) => ['--channel', multifd.replace('.bin', `.channel-${i}.bin`)]);

/** What a command says at its end, with --json. */
const errorOf = ({ stderr }: { stderr: string }) => JSON.parse(stderr.trim().split('\n').at(-1) as string).error;

describe('send into receive', () => {
  const cases: [string, { from: () => string[]; args?: string[]; secret?: boolean; unix?: boolean }][] = [
    ['a plain stream', { from: () => [plain] }],
    ['a mapped-ram file over a unix socket', { from: () => [mapped], unix: true }],
    [
      'deltas, over two channels',
      { from: () => [fixturePath('pc-xbzrle-10.0.bin')], args: ['--multifd-channels', '2'] },
    ],
    [
      'a multifd set, over other channels',
      {
        from: () => [multifd, ...channels],
        args: ['--multifd-channels', '3', '--multifd-compression', 'zlib', '--level', '6'],
      },
    ],
    ['over TLS and zstd', { from: () => [plain], args: ['--multifd-compression', 'zstd'], secret: true }],
  ];
  it.each(cases)('%s', async (name, { from, args = [], secret = false, unix = false }) => {
    const out = join(dir, 'received.mapped-ram');
    const keys = secret ? tls.psk('qemu:00112233445566778899aabbccddeeff\n') : '';
    const objectOf = (endpoint: string) =>
      secret ? ['--object', `tls-creds-psk,id=tls0,endpoint=${endpoint},dir=${keys}`, '--tls-creds', 'tls0'] : [];
    const listen = unix ? `unix:${join(dir, 'line')}` : 'tcp:127.0.0.1:0';
    await using target = new LiveCommand(['receive', listen, out, ...objectOf('server')]);
    const sent = await runCli(['send', ...from(), await target.uri(), '--json', ...args, ...objectOf('client')]);
    expect([sent.code, sent.stderr], name).toEqual([0, '']);
    expect(JSON.parse(sent.stdout)).toMatchObject({ confirmed: true, progress: { status: 'completed' } });
    expect((await target.ended).code).toBe(0);
    const [file, ...parts] = from();
    const compared = await runCli([
      'diff',
      file as string,
      out,
      '--json',
      ...parts.map((part) => part.replace('--channel', '--channel-a')),
    ]);
    expect(JSON.parse(compared.stdout)).toMatchObject({ same: true });
  });
});

/** A server that keeps what it gets, and does what a test says. */
async function serve(act: (socket: Socket) => void = () => {}) {
  const received: Buffer[] = [];
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (bytes) => received.push(bytes));
    act(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return {
    uri: `tcp:127.0.0.1:${port}`,
    sockets,
    bytes: () => Buffer.concat(received),
    [Symbol.dispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** A command that sends what it should not would wait for an answer. */
const patience = ['--idle-timeout', '5'];

describe('a FILE that is not whole', () => {
  const cuts = [20, 3000, 100_000, 580_000, 594_000];
  it.each(cuts)('because it has only %d bytes, is not sent', async (length) => {
    const cut = join(dir, 'cut');
    writeFileSync(cut, readFileSync(plain).subarray(0, length));
    using server = await serve();
    const sent = await runCli(['send', cut, server.uri, '--json', ...patience]);
    expect(sent.code, sent.stderr).toBe(1);
    expect(errorOf(sent)).toMatchObject({ guest: 'source', exitCode: 1 });
    expect(server.sockets).toHaveLength(0);
  });

  it('because a byte was lost, is not sent', async () => {
    const bytes = readFileSync(plain);
    const damaged = join(dir, 'damaged');
    writeFileSync(damaged, Buffer.concat([bytes.subarray(0, 200_000), bytes.subarray(200_001)]));
    using server = await serve();
    const sent = await runCli(['send', damaged, server.uri, '--json', ...patience]);
    expect([sent.code, errorOf(sent).guest]).toEqual([1, 'source']);
    expect(server.sockets).toHaveLength(0);
  });

  it('because a mapped-ram file is cut, is not sent', async () => {
    const cut = join(dir, 'cut.mapped-ram');
    const bytes = readFileSync(mapped);
    writeFileSync(cut, bytes.subarray(0, bytes.length - 1000));
    using server = await serve();
    const sent = await runCli(['send', cut, server.uri, '--json', ...patience]);
    expect([sent.code, errorOf(sent).guest]).toEqual([1, 'source']);
    expect(server.sockets).toHaveLength(0);
  });

  it('any more while it is sent, does not complete the target', async () => {
    const file = join(dir, 'shrinking.mapped-ram');
    writeFileSync(file, readFileSync(mapped));
    using server = await serve((socket) => socket.once('data', () => truncateSync(file, 1 << 20)));
    const sent = await runCli(['send', file, server.uri, '--json', '--max-bandwidth', '2M'], undefined, {
      alone: true,
    });
    expect(sent.code, sent.stderr).toBe(1);
    expect(errorOf(sent)).toMatchObject({ guest: 'source', code: 'truncated' });
    expect(server.bytes().includes('"devices"')).toBe(false);
  });
});

describe('send without success', () => {
  const usage: [string[], string][] = [
    [['/nowhere/file', 'tcp:127.0.0.1:1'], 'no such file'],
    [[plain, 'nonsense'], 'unknown migration protocol: nonsense'],
    [[plain, 'tcp:127.0.0.1'], "error parsing address '127.0.0.1'"],
    [[plain, 'vsock:2:99'], 'vsock: is not supported'],
    [[plain, 'exec:cat', '--multifd-channels', '2'], 'Migration requires multi-channel URIs (e.g. tcp)'],
    [[plain, 'fd:1', '--multifd-compression', 'zlib'], 'Migration requires multi-channel URIs (e.g. tcp)'],
    [[plain, 'tcp:127.0.0.1:1', '--multifd-channels', '256'], 'expected at most 255 channels, got 256'],
    [[plain, 'tcp:127.0.0.1:1', '--level', '3'], '--level goes with --multifd-compression'],
    [[plain, 'tcp:127.0.0.1:1', '--tls-creds', 'tls0'], "No TLS credentials with id 'tls0'"],
    [[plain, 'tcp:127.0.0.1:1', '--tls-hostname', 'x'], '--tls-hostname goes with --tls-creds'],
    [[plain, 'tcp::4444'], 'expected a host to connect to, got tcp::4444'],
    [[plain, 'tcp:127.0.0.1:1', '--max-bandwidth', 'fast'], 'expected a rate'],
    [[plain, 'tcp:127.0.0.1:1', '--max-bandwidth', '9'], 'expected at least 10 bytes per second'],
    [[plain, 'tcp:127.0.0.1:1', '--compat', '7.2'], 'QEMU 7.2 does not have the machine type'],
    [[plain, '-'], 'expected either --json or the stream on standard output'],
  ];
  it.each(usage)('%j', async (args, message) => {
    const sent = await runCli(['send', ...args, '--json']);
    expect(sent.code, sent.stderr).toBe(2);
    expect(errorOf(sent)).toMatchObject({
      ...{ guest: 'source', next: 'nothing was connected', message: expect.stringContaining(message) },
    });
  });

  it('because a certificate has expired, in one line', async () => {
    const object = `tls-creds-x509,id=tls0,endpoint=client,dir=${tls.client('expired')}`;
    const args = ['send', plain, 'tcp:127.0.0.1:1', '--object', object, '--tls-creds', 'tls0'];
    const sent = await runCli(args);
    expect(sent.code).toBe(2);
    expect(sent.stderr).toMatch(
      /^vmferry: error: The .*certificate.* has expired\nvmferry: guest: source: nothing was connected\n$/,
    );
  });

  it('because nothing listens', async () => {
    const gone = await serve();
    gone[Symbol.dispose]();
    const sent = await runCli(['send', plain, gone.uri, '--json']);
    expect(sent.code).toBe(3);
    const where = gone.uri.slice('tcp:'.length);
    expect(errorOf(sent)).toMatchObject({
      ...{ guest: 'source', message: `Failed to connect to '${where}': Connection refused`, code: 'ECONNREFUSED' },
    });
  });

  it('because a web server answers', async () => {
    using server = await serve((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const sent = await runCli(['send', plain, server.uri, '--json']);
    expect([sent.code, errorOf(sent).message]).toEqual([3, 'return path: unknown message type 18516']);
  });

  it('because the target hangs up at once', async () => {
    using server = await serve((socket) => socket.destroy());
    const sent = await runCli(['send', plain, server.uri, '--json']);
    expect(sent.code, sent.stderr).toBe(3);
  });

  it('because the target never confirms, and says in words where the guest is', async () => {
    using server = await serve();
    const sent = await runCli(['send', plain, server.uri, '--idle-timeout', '300ms']);
    expect(sent.code).toBe(3);
    expect(sent.stderr).toBe(
      [
        'vmferry: error: the peer was silent for 0.3 s',
        'vmferry: guest: either: the guest may run at the target: look there (query-migrate, query-status) before you start it anywhere else',
        '',
      ].join('\n'),
    );
    expect(server.bytes().includes('"devices"')).toBe(true);
  });

  it('because a signal ends it while FILE does not come', async () => {
    using server = await serve();
    for (const times of [1, 2, 3]) {
      const interrupt = { signal: 'SIGINT', times } as const;
      const sent = await runCli(['send', '-', server.uri, '--json'], new PassThrough(), { interrupt });
      expect([sent.code, errorOf(sent).guest]).toEqual([130, 'source']);
    }
    expect(server.sockets).toHaveLength(0);
  });
});

describe('send in one direction', () => {
  const noted = 'vmferry: note: everything was sent; it could not be confirmed that the target has the guest\n';

  it('to standard output is the stream that convert writes', async () => {
    const sent = await runCli(['send', plain, '-', '-q'], undefined, { alone: true });
    const converted = await runCli(['convert', plain, '-', '--to', 'stream']);
    expect([sent.code, sent.stderr]).toEqual([0, '']);
    expect(Buffer.compare(sent.bytes, converted.bytes)).toBe(0);
  });

  it('to a file and to a program, too', async () => {
    const [file, piped] = [join(dir, 'out.stream'), join(dir, 'piped.stream')];
    for (const uri of [`file:${file}`, `exec:cat > '${piped}'`]) {
      const sent = await runCli(['send', plain, uri], undefined, { alone: true });
      expect([sent.code, sent.stderr]).toEqual([0, noted]);
      expect(sent.stdout).toMatch(/not confirmed\n$/);
    }
    const converted = await runCli(['convert', plain, '-', '--to', 'stream']);
    expect(readFileSync(file).equals(converted.bytes)).toBe(true);
    expect(readFileSync(piped).equals(converted.bytes)).toBe(true);
  });

  it('to a socket, if the target is not asked to confirm', async () => {
    using server = await serve();
    const sent = await runCli(['send', plain, server.uri, '--no-confirm', '--json']);
    expect([sent.code, sent.stderr]).toEqual([0, noted]);
    expect(JSON.parse(sent.stdout)).toMatchObject({ confirmed: false, length: server.bytes().length });
  });

  it('cannot be confirmed by a program that ends early', async () => {
    // The end of the stream must not fit into the buffers before the program has ended.
    const args = ['send', plain, 'exec:head -c 1000 > /dev/null', '--max-bandwidth', '200kB', '--json'];
    const sent = await runCli(args, undefined, { alone: true });
    expect(sent.code, sent.stderr).toBe(3);
    expect(errorOf(sent)).toMatchObject({ guest: 'source', message: 'Unable to write to command: Broken pipe' });
  });
});
