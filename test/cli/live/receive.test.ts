/** `vmferry receive` with played captures over real transports: its words, its exit codes, and what it leaves behind. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { someOf } from '../../limits.ts';
import { LiveCommand, type LiveEnd } from '../../qemu/live-command.ts';
import { runCli } from '../../run-cli.ts';
import { captured, PlayedSource, pong1, shut0, shut1, withReturnPath } from './played-source.ts';

const root = mkdtempSync(join(tmpdir(), 'vmferry-receive-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const plain = captured('none-plain-10.0');
const answered = withReturnPath(plain);
const postcopy = readFileSync(new URL('../../fixtures/pc-postcopy-10.0.bin', import.meta.url));

/** A new directory for each test, the output in it, and the directory for temporary files. */
let dir = '';
let out = '';
let scratch = '';
let cases = 0;
beforeEach(() => {
  dir = join(root, `case-${cases++}`);
  out = join(dir, 'out');
  scratch = join(dir, 'tmp');
  mkdirSync(scratch, { recursive: true });
});

const receive = (uri: string, args: string[] = [], options: ConstructorParameters<typeof LiveCommand>[1] = {}) =>
  new LiveCommand(['receive', uri, out, ...args], { ...options, env: { TMPDIR: scratch } });

/** Everything in the directory of the test. */
const left = () => [...readdirSync(dir).filter((name) => name !== 'tmp'), ...readdirSync(scratch)];

/** The error of a command with --json: one line, the last one. */
function errorOf({ stderr }: { stderr: string }) {
  const lines = stderr.split('\n');
  expect(lines.pop()).toBe('');
  expect(lines.filter((line) => line.startsWith('{"error"'))).toHaveLength(1);
  return JSON.parse(lines.at(-1) as string).error as { message: string; guest: string; code: string; next?: string };
}

/** Requires an end without success, which leaves nothing. */
function expectFailure(end: LiveEnd, code: number, guest: string) {
  expect(end.code, end.stderr).toBe(code);
  const error = errorOf(end);
  expect(error, end.stderr).toMatchObject({ guest });
  expect(end.stdout).toBe('');
  expect(end.stderr).not.toMatch(/^\s+at /m);
  expect(left()).toEqual([]);
  return error;
}

/** The file that convert makes of a capture. */
async function converted(stream: Uint8Array): Promise<Buffer> {
  writeFileSync(join(scratch, 'stream'), stream);
  await runCli(['convert', join(scratch, 'stream'), join(scratch, 'converted'), '--to', 'mapped-ram']);
  const bytes = readFileSync(join(scratch, 'converted'));
  for (const name of ['stream', 'converted']) rmSync(join(scratch, name));
  return bytes;
}

async function expectArrived(end: LiveEnd, stream: Uint8Array) {
  expect(end.code, end.stderr).toBe(0);
  expect(readFileSync(out).equals(await converted(stream))).toBe(true);
  expect(left()).toEqual(['out']);
}

describe('what cannot work is refused before anything listens', () => {
  const refusals: [string, string[], RegExp][] = [
    ['no such directory', ['tcp:127.0.0.1:0', 'none/out'], /the directory none does not exist/],
    ['a directory for OUT', ['tcp:127.0.0.1:0', 'folder'], /got the directory folder/],
    ['a device for OUT', ['tcp:127.0.0.1:0', '/dev/null'], /regular file/],
    ['OUT is the socket', ['unix:same', 'same'], /same/],
    ['an unknown scheme', ['foo:1', 'out'], /unknown migration protocol: foo:1/],
    ['a bad port', ['tcp:127.0.0.1:nonsense', 'out'], /Servname not supported for ai_socktype/],
    ['vsock', ['vsock:2:1', 'out'], /vsock: is not supported/],
    ['rdma', ['rdma:host:1', 'out'], /rdma: is not supported/],
    ['no directory for the socket', ['unix:none/socket', 'out'], /Failed to bind socket to none\/socket: No such/],
    ['unknown credentials', ['tcp:127.0.0.1:0', 'out', '--tls-creds', 'tls0'], /No TLS credentials with id 'tls0'/],
    ['a bad object', ['tcp:127.0.0.1:0', 'out', '--object', 'nonsense,id=one'], /nonsense/],
    ['a closed descriptor', ['fd:987', 'out'], /987/],
    ['a descriptor of a name', ['fd:migrate', 'out'], /File descriptor named 'migrate' has not been found/],
    ['a missing file', ['file:none', 'out'], /Could not open 'none': No such file or directory/],
    ['a directory for a file', ['file:folder', 'out'], /Could not open 'folder': Is a directory/],
    ['no OUT', ['tcp:127.0.0.1:0'], /OUT/],
    ['an unknown option', ['tcp:127.0.0.1:0', 'out', '--nonsense'], /nonsense/],
    ['a bad time', ['tcp:127.0.0.1:0', 'out', '--idle-timeout', '-1'], /idle-timeout/],
  ];
  it.each(refusals)('%s', async (_, args, text) => {
    mkdirSync(join(dir, 'folder'));
    const told = await runCli(['receive', ...args], undefined, { cwd: dir, env: { TMPDIR: scratch } });
    const end = await runCli(['receive', ...args, '--json'], undefined, { cwd: dir, env: { TMPDIR: scratch } });
    for (const { code, stderr, stdout } of [told, end]) {
      expect([code, stdout]).toEqual([2, '']);
      expect(stderr).not.toContain('listening');
      expect(stderr).not.toMatch(/^\s+at /m);
    }
    expect(told.stderr.match(/^vmferry: error: .*/gm)).toHaveLength(1);
    expect(told.stderr).toMatch(text);
    expect(told.stderr).toMatch(/^vmferry: guest: source/m);
    expect(end.stderr.split('\n')).toHaveLength(2);
    expect(errorOf(end)).toMatchObject({ guest: 'source', message: expect.stringMatching(text) });
    expect(left()).toEqual(['folder']);
  });

  it('a port that is taken, and a socket that another listens on', async () => {
    const inet = createServer().listen(0, '127.0.0.1');
    const unix = createServer().listen(join(dir, 'taken'));
    await Promise.all([once(inet, 'listening'), once(unix, 'listening')]);
    const { port } = inet.address() as AddressInfo;
    for (const uri of [`tcp:127.0.0.1:${port}`, `unix:${join(dir, 'taken')}`]) {
      const end = await runCli(['receive', uri, out, '--json']);
      expect(end.code).toBe(2);
      expect(errorOf(end)).toMatchObject({
        guest: 'source',
        message: expect.stringContaining('Address already in use'),
      });
      expect(left()).toEqual(['taken']);
    }
    inet.close();
    unix.close();
  });
});

describe('the ready line', () => {
  it('is printed with -q, too, and its URI can be used as it stands', async () => {
    for (const uri of [
      'tcp:127.0.0.1:0',
      'tcp::0',
      'tcp:localhost:0',
      'tcp::0,ipv4=on',
      `unix:${join(dir, 'socket')}`,
    ]) {
      await using command = receive(uri, ['-q']);
      const source = await PlayedSource.connect(await command.uri());
      await source.send(plain);
      source.end();
      const end = await command.ended;
      await expectArrived(end, plain);
      expect(end.stderr).toMatch(/^listening on \S+\n$/);
      rmSync(out);
    }
  });
});

describe('a signal ends the command in good order', () => {
  const signals = [['SIGHUP', 129] as const, ['SIGINT', 130] as const, ['SIGTERM', 143] as const];
  it.each(signals)('%s before anything connected', async (signal, code) => {
    await using command = receive(`unix:${join(dir, 'socket')}`, ['--json']);
    await command.uri();
    command.kill(signal);
    expectFailure(await command.ended, code, 'source');
  });

  it.each(signals)('%s during a migration', async (signal, code) => {
    for (const [stream, guest] of [[plain, 'either'] as const, [answered, 'source'] as const]) {
      writeFileSync(out, 'older');
      await using command = receive(`unix:${join(dir, 'socket')}`, ['--json']);
      const source = await PlayedSource.connect(await command.uri());
      await source.send(stream.subarray(0, -1));
      if (guest === 'source') await source.hears(pong1);
      else await command.says(/no return path/);
      expect(readFileSync(out, 'utf8')).toBe('older');
      command.kill(signal);
      const end = await command.ended;
      expect(readFileSync(out, 'utf8')).toBe('older');
      rmSync(out);
      expectFailure(end, code, guest);
      expect(await source.ended).not.toBe('');
      expect(source.heard).not.toContain(shut0);
    }
  });
});

it('keeps an older OUT until the new one is whole', async () => {
  writeFileSync(out, 'older');
  await using command = receive('tcp:127.0.0.1:0');
  const source = await PlayedSource.connect(await command.uri());
  await source.send(answered.subarray(0, -1));
  await source.hears(pong1);
  expect(readFileSync(out, 'utf8')).toBe('older');
  await source.send(answered.subarray(-1));
  await source.hears(pong1 + shut0);
  expect(readFileSync(out).equals(await converted(answered))).toBe(true);
  source.end();
  await expectArrived(await command.ended, answered);
});

describe('strangers', () => {
  /** Strangers: idle, with half of the first word, with junk, and closed without a byte. */
  async function visit(uri: string): Promise<PlayedSource[]> {
    const visitors = await Promise.all(Array.from({ length: 16 }, () => PlayedSource.connect(uri)));
    for (const [i, visitor] of visitors.entries()) {
      if (i % 4 === 1) await visitor.send(Buffer.from('QE'));
      if (i % 4 === 2) await visitor.send(Buffer.from('GET / HTTP/1.1\r\nHost: here\r\n\r\n'));
      if (i % 8 === 3) visitor.end();
      if (i % 8 === 7) visitor.reset();
    }
    return visitors;
  }

  it.each([
    ['plain', plain],
    ['with a return path', answered],
  ])('before and beside the source, %s', async (_, stream) => {
    await using command = receive('tcp:127.0.0.1:0');
    const uri = await command.uri();
    const before = await visit(uri);
    const source = await PlayedSource.connect(uri);
    await source.send(stream.subarray(0, 1000));
    if (stream === answered) await source.hears(pong1);
    else await command.says(/no return path/);
    const beside = await visit(uri);
    const late = beside[2] as PlayedSource;
    expect(await late.ended).not.toBe('');
    await source.send(stream.subarray(1000));
    if (stream === answered) await source.hears(pong1 + shut0);
    source.end();
    await expectArrived(await command.ended, stream);
    for (const visitor of [...before, ...beside]) await visitor.ended;
  });

  it('a silent first connection is closed after --setup-timeout, and the source is taken', async () => {
    await using command = receive('tcp:127.0.0.1:0', ['--setup-timeout', '100ms']);
    const uri = await command.uri();
    const idle = await PlayedSource.connect(uri);
    const half = await PlayedSource.connect(uri);
    await half.send(Buffer.from('QEV'));
    expect(await idle.ended).not.toBe('');
    expect(await half.ended).not.toBe('');
    const source = await PlayedSource.connect(uri);
    await source.send(plain);
    source.end();
    await expectArrived(await command.ended, plain);
  });
});

it('--idle-timeout ends a silent migration', async () => {
  for (const [stream, guest] of [[plain, 'either'] as const, [answered, 'source'] as const]) {
    await using command = receive('tcp:127.0.0.1:0', ['--json', '--idle-timeout', '300ms']);
    const source = await PlayedSource.connect(await command.uri());
    await source.send(stream.subarray(0, 3000));
    expect(expectFailure(await command.ended, 3, guest).message).toMatch(/silent/);
    await source.ended;
    if (guest === 'source') expect(source.heard).toBe(pong1);
  }
});

describe('a source that dies', () => {
  const ends = [['closes', 'end'] as const, ['resets', 'reset'] as const];
  // A line that is reset may have brought more than was read of it.
  it.each([
    ['closes', 'end', 'source'],
    ['resets', 'reset', 'either'],
  ] as const)('%s the line before its first bytes were known: it was a stranger', async (_, end, guest) => {
    await using command = receive('tcp:127.0.0.1:0', ['--json']);
    const source = await PlayedSource.connect(await command.uri());
    await source.send(plain.subarray(0, 3));
    source[end]();
    await source.ended;
    command.kill('SIGINT');
    expectFailure(await command.ended, 130, guest);
  });

  it.each(ends)('%s the line without a return path', async (_, end) => {
    for (const cut of someOf([plain.length - 1, 4, 9, 30, 5000, plain.length >> 1], 3)) {
      await using command = receive('tcp:127.0.0.1:0', ['--json']);
      const source = await PlayedSource.connect(await command.uri());
      await source.send(plain.subarray(0, cut));
      source[end]();
      expectFailure(await command.ended, 3, 'either');
    }
  });

  it.each(ends)('%s the line with a return path', async (_, end) => {
    for (const cut of someOf([answered.length - 1, 5000, answered.length >> 1], 2)) {
      await using command = receive('tcp:127.0.0.1:0', ['--json']);
      const source = await PlayedSource.connect(await command.uri());
      await source.send(answered.subarray(0, cut));
      await source.hears(pong1);
      source[end]();
      expectFailure(await command.ended, 3, 'source');
    }
  });

  it.each(ends)('%s the line after SHUT 0', async (_, end) => {
    await using command = receive('tcp:127.0.0.1:0', ['--json']);
    const source = await PlayedSource.connect(await command.uri());
    await source.send(answered);
    await source.hears(pong1 + shut0);
    source[end]();
    const ended = await command.ended;
    if (end === 'end') return expectArrived(ended, answered);
    expect(ended.code).toBe(3);
    expect(errorOf(ended)).toMatchObject({ guest: 'either' });
    await expectArrived({ ...ended, code: 0 }, answered);
  });

  it('is gone when the guest has arrived: OUT stays, and nobody knows where the guest runs', async () => {
    for (const uri of ['tcp:127.0.0.1:0', `unix:${join(dir, 'socket')}`]) {
      await using command = receive(uri, ['--json']);
      const source = await PlayedSource.connect(await command.uri());
      await source.send(answered.subarray(0, -1000));
      await source.hears(pong1);
      source.socket.end(answered.subarray(-1000));
      source.socket.destroySoon();
      const ended = await command.ended;
      expect(ended.code, ended.stderr).toBe(3);
      expect(errorOf(ended)).toMatchObject({ guest: 'either' });
      await expectArrived({ ...ended, code: 0 }, answered);
      rmSync(out);
    }
  });

  it.each(ends)('%s the line in postcopy: what came is kept, and says that it is incomplete', async (_, end) => {
    await using command = receive('tcp:127.0.0.1:0', ['--json']);
    const source = await PlayedSource.connect(await command.uri());
    await source.send(postcopy.subarray(0, -9));
    // PONG 4 answers the last PING.
    await source.hears('');
    while (!source.heard.includes('0002000400000004')) await once(source.socket, 'data');
    source[end]();
    await command.says(/^recover at tcp:127\.0\.0\.1:\d+$/m);
    expect(left()).toEqual(['out.partial']);
    command.kill('SIGTERM');
    const ended = await command.ended;
    expect(ended.code, ended.stderr).toBe(143);
    const error = errorOf(ended);
    expect(error).toMatchObject({ guest: 'split', next: expect.stringContaining(`${out}.partial`) });
    expect(left()).toEqual(['out.partial']);
    const verified = await runCli(['verify', `${out}.partial`]);
    expect(verified.code).toBe(1);
    expect(verified.stdout + verified.stderr).toMatch(/incomplete/i);
    const inspected = await runCli(['inspect', `${out}.partial`]);
    expect(inspected.code).not.toBe(2);
    expect(inspected.stdout).toContain('pc.ram');
  });

  it('before the package of postcopy has come: split, too', async () => {
    await using command = receive('tcp:127.0.0.1:0', ['--json']);
    const source = await PlayedSource.connect(await command.uri());
    // PING 2 comes after the discards.
    const ping2 = postcopy.indexOf(Buffer.from('0800020004 00000002'.replace(' ', ''), 'hex'));
    await source.send(postcopy.subarray(0, ping2 + 9));
    while (!source.heard.includes('0002000400000002')) await once(source.socket, 'data');
    source.end();
    const ended = await command.ended;
    expect(ended.code).toBe(3);
    expect(errorOf(ended)).toMatchObject({ guest: 'split' });
  });
});

describe('transports with one connection', () => {
  const path = () => {
    writeFileSync(join(scratch, 'in'), Buffer.concat([Buffer.alloc(4096, 'x'), plain]));
    return join(scratch, 'in');
  };

  it('file: from an offset', async () => {
    await using command = receive(`file:${path()},offset=4096`);
    const end = await command.ended;
    rmSync(join(scratch, 'in'));
    await expectArrived(end, plain);
  });

  it('exec:', async () => {
    await using command = receive(`exec:tail -c +4097 ${path()}`);
    const end = await command.ended;
    rmSync(join(scratch, 'in'));
    await expectArrived(end, plain);
  });

  it('exec: of a program that does not listen, to a source that had a return path', async () => {
    writeFileSync(join(scratch, 'in'), answered);
    await using command = receive(`exec:cat ${join(scratch, 'in')} && sleep 0.1`);
    const end = await command.ended;
    rmSync(join(scratch, 'in'));
    // The program may have ended before it was told.
    expect(end.code === 0 || end.code === 3, end.stderr).toBe(true);
    await expectArrived({ ...end, code: 0 }, answered);
  });

  it('standard input: a pipe, and a file', async () => {
    await using command = receive('-', [], { stdin: 'pipe' });
    (command.child.stdin as Writable).end(plain);
    await expectArrived(await command.ended, plain);
    writeFileSync(join(scratch, 'in'), plain);
    const fd = openSync(join(scratch, 'in'), 'r');
    await using second = receive('-', [], { stdin: fd });
    closeSync(fd);
    const end = await second.ended;
    rmSync(join(scratch, 'in'));
    await expectArrived(end, plain);
  });

  it('fd: a socket, with a return path', async () => {
    await using command = receive('fd:3', [], { inherited: ['pipe'] });
    const line = command.child.stdio[3] as import('node:net').Socket;
    line.write(answered);
    let heard = '';
    while (heard !== pong1 + shut0) heard += (await once(line, 'data'))[0].toString('hex');
    line.end();
    await expectArrived(await command.ended, answered);
  });

  it('fd: a pipe', async () => {
    const pipe = join(scratch, 'pipe');
    execFileSync('mkfifo', [pipe]);
    // Opened for both directions, so that neither end waits for the other.
    const fd = openSync(pipe, 'r+');
    await using command = receive('fd:3', [], { inherited: [fd] });
    writeFileSync(pipe, plain);
    closeSync(fd);
    const end = await command.ended;
    rmSync(pipe);
    await expectArrived(end, plain);
  });

  it('an end that comes too early', async () => {
    writeFileSync(join(scratch, 'in'), plain.subarray(0, -1));
    for (const uri of [`file:${join(scratch, 'in')}`, `exec:cat ${join(scratch, 'in')}`]) {
      await using command = receive(uri, ['--json']);
      const end = await command.ended;
      expect(end.code).toBe(3);
      expect(errorOf(end)).toMatchObject({ guest: 'either' });
      expect(left()).toEqual(['in']);
    }
  });
});

it('a bad byte in the stream: exit code 1, and the source hears SHUT 1', async () => {
  const bad = Buffer.from(answered);
  bad.fill(0xff, 60_000, 60_100);
  bad[answered.indexOf(Buffer.from('\x03ram')) + 12] = 0x77;
  await using command = receive('tcp:127.0.0.1:0', ['--json']);
  const source = await PlayedSource.connect(await command.uri());
  await source.send(bad);
  expectFailure(await command.ended, 1, 'source');
  await source.ended;
  expect(source.heard).toBe(pong1 + shut1);
});
