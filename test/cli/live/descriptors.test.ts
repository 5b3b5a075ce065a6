/** `fd:` addresses: sockets that listen, sockets that are connected, and descriptors that cannot be used. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { fixturePath, loadFixtures } from '../../fixture-files.ts';
import { someOf } from '../../limits.ts';
import { LiveCommand } from '../../qemu/live-command.ts';
import { cliPath, runCli } from '../../run-cli.ts';
import { captured, PlayedSource, pong1, shut0, shut1, withReturnPath } from './played-source.ts';

const root = mkdtempSync(join(tmpdir(), 'vmferry-descriptors-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let dir = '';
let cases = 0;
beforeEach(() => {
  dir = join(root, `case-${cases++}`);
  mkdirSync(dir);
});

const plain = captured('none-plain-10.0');
const answered = withReturnPath(plain);

/** The descriptor of a server or of a socket of Node. */
const fdOf = (of: Server | Socket): number => (of as unknown as { _handle: { fd: number } })._handle.fd;

/** A server whose socket only the command has: this process gives it up. */
async function handOver(start: (fd: number) => LiveCommand, at: { port: number } | { path: string }) {
  const server = createServer();
  server.listen({ ...at, ...('port' in at ? { host: '127.0.0.1' } : {}) });
  await once(server, 'listening');
  const uri = 'path' in at ? `unix:${at.path}` : `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
  const command = start(fdOf(server));
  // A server removes the file of its socket when it is closed.
  if ('path' in at) renameSync(at.path, `${at.path}.kept`);
  server.close();
  await once(server, 'close');
  if ('path' in at) renameSync(`${at.path}.kept`, at.path);
  return { command, uri };
}

/** A line between this process and one that inherits its other end. */
async function connectedPair(): Promise<{ near: Socket; inherited: Socket }> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = new Socket().connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [[inherited]] = await Promise.all([once(server, 'connection') as Promise<[Socket]>, once(near, 'connect')]);
  server.close();
  // The command may break the line with bytes unread.
  near.on('error', () => {});
  return { near, inherited };
}

describe('a socket that listens', () => {
  const places: [string, () => { port: number } | { path: string }][] = [
    ['tcp', () => ({ port: 0 })],
    ['unix', () => ({ path: join(dir, 'socket') })],
  ];
  it.each(places)('%s: receive says where it listens, passes strangers over, and takes the source', async (_, at) => {
    const out = join(dir, 'out');
    const start = (fd: number) => new LiveCommand(['receive', 'fd:3', out], { inherited: [fd] });
    const { command, uri } = await handOver(start, at());
    await using _command = command;
    expect(await command.uri()).toBe(uri);
    (await PlayedSource.connect(uri)).end();
    const stranger = await PlayedSource.connect(uri);
    await stranger.send(Buffer.from('GET / HTTP/1.1'));
    await stranger.ended;
    const source = await PlayedSource.connect(uri);
    await source.send(answered);
    await source.hears(pong1 + shut0);
    source.end();
    expect((await command.ended).code).toBe(0);
    expect(existsSync(out)).toBe(true);
    // Whoever made the socket removes its file.
    if (uri.startsWith('unix:')) expect(existsSync(uri.slice(5))).toBe(true);
  });

  it('takes the channels of multifd', async () => {
    const set = loadFixtures().find(({ name }) => name === 'none-multifd-uuid-10.0');
    const out = join(dir, 'out');
    const start = (fd: number) => new LiveCommand(['receive', 'fd:3', out, '--json'], { inherited: [fd] });
    const { command, uri } = await handOver(start, { port: 0 });
    await using _command = command;
    const streams = [set?.bytes, ...(set?.channels ?? [])];
    const sources = await Promise.all(streams.map(() => PlayedSource.connect(uri)));
    await Promise.all(sources.map((source, i) => source.send(streams[i] as Uint8Array)));
    for (const source of sources) source.end();
    const end = await command.ended;
    expect(end.code, end.stderr).toBe(0);
    expect(JSON.parse(end.stdout)).toMatchObject({ found: { channels: streams.length - 1 } });
  });

  it('relay takes the source from it', async () => {
    const out = join(dir, 'out');
    await using target = new LiveCommand(['receive', `unix:${join(dir, 'target')}`, out]);
    const args = ['relay', 'fd:3', await target.uri()];
    const { command, uri } = await handOver((fd) => new LiveCommand(args, { inherited: [fd] }), { port: 0 });
    await using _command = command;
    const source = await PlayedSource.connect(await command.uri());
    expect(await command.uri()).toBe(uri);
    await source.send(answered);
    await source.hears(pong1 + shut0);
    source.end();
    expect([(await command.ended).code, (await target.ended).code]).toEqual([0, 0]);
  });

  it('cannot be sent to', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const args = ['send', fixturePath('none-plain-10.0.bin'), 'fd:3', '--json'];
    await using command = new LiveCommand(args, { inherited: [fdOf(server)] });
    const { code, stderr } = await command.ended;
    expect(code).toBe(2);
    expect(JSON.parse(stderr).error).toMatchObject({
      message: expect.stringContaining('descriptor 3'),
      guest: 'source',
    });
    server.close();
  });
});

it('send over a connected TCP socket hears that the target refuses the guest', async () => {
  const { near, inherited } = await connectedPair();
  const args = ['send', fixturePath('pc-plain-10.0.bin'), 'fd:3', '--json'];
  await using command = new LiveCommand(args, { inherited: [fdOf(inherited)] });
  inherited.destroy();
  await once(near, 'readable');
  near.write(Buffer.from(shut1, 'hex'));
  const { code, stderr } = await command.ended;
  expect(code).toBe(3);
  expect(JSON.parse(stderr.trim().split('\n').at(-1) as string).error).toMatchObject({
    ...{ message: 'Sibling indicated error 1', guest: 'source' },
  });
  near.destroy();
});

describe('what cannot be used is a usage error', () => {
  const file = () => fixturePath('none-plain-10.0.bin');
  const commands: [string, (uri: string) => string[]][] = [
    ['receive', (uri) => ['receive', uri, join(dir, 'out')]],
    ['send', (uri) => ['send', file(), uri]],
    ['relay from', (uri) => ['relay', uri, `unix:${join(dir, 'none')}`]],
    ['relay to', (uri) => ['relay', `unix:${join(dir, 'socket')}`, uri]],
  ];

  /** The descriptors that Node opens for itself. A pipe of which it has one end only comes from its parent. */
  const ofNode = (): string[] => {
    const list = `const { readdirSync, readlinkSync } = require('fs');
      const open = readdirSync('/proc/self/fd').flatMap((fd) => {
        try { return [[fd, readlinkSync('/proc/self/fd/' + fd)]]; } catch { return []; }
      });
      const isOwn = (link) => /^anon_inode:/.test(link) ||
        (/^pipe:/.test(link) && open.filter((other) => other[1] === link).length === 2);
      console.log(open.filter(([fd, link]) => fd > 2 && isOwn(link)).map(([fd]) => fd).join(' '));`;
    return execFileSync(process.execPath, ['-e', list], { encoding: 'utf8' }).trim().split(' ');
  };

  it.each(commands)('%s: a descriptor of Node itself', async (_, argsOf) => {
    const own = ofNode();
    expect(own.length).toBeGreaterThan(3);
    for (const fd of someOf(own, 5, 3)) {
      await using command = new LiveCommand([...argsOf(`fd:${fd}`), '--json']);
      const { code, stderr, stdout } = await command.ended;
      expect([code, stdout], `${fd}: ${stderr}`).toEqual([2, '']);
      expect(JSON.parse(stderr).error).toMatchObject({
        ...{ message: expect.stringContaining(`cannot use file descriptor ${fd}: `), guest: 'source' },
      });
    }
  });

  it.each(commands)('%s: a number that is not open', async (_, argsOf) => {
    const { code, stderr } = await runCli([...argsOf('fd:987'), '--json']);
    expect(code).toBe(2);
    expect(JSON.parse(stderr).error.message).toBe('cannot use file descriptor 987: Bad file descriptor');
  });

  it('a pipe of the other direction', async () => {
    writeFileSync(join(dir, 'in'), plain);
    const run = async (line: string) => {
      const shell = spawn('/bin/bash', ['-c', line], { cwd: dir, env: { ...process.env, CLI: cliPath } });
      let stderr = '';
      shell.stderr.on('data', (text) => {
        stderr += text;
      });
      const [code] = await once(shell, 'close');
      return { code, stderr };
    };
    const node = `'${process.execPath}' "$CLI"`;
    const reading = await run(`${node} receive fd:3 out 3> >(cat >/dev/null)`);
    expect(reading).toMatchObject({ code: 2, stderr: expect.stringMatching(/descriptor 3: Bad file descriptor/) });
    const writing = await run(`${node} send '${file()}' fd:3 3< <(true)`);
    expect(writing).toMatchObject({ code: 2, stderr: expect.stringMatching(/descriptor 3: Bad file descriptor/) });
    const right = await run(`${node} receive fd:3 out 3< <(cat in)`);
    expect([right.code, existsSync(join(dir, 'out'))], right.stderr).toEqual([0, true]);
    const sent = await run(`${node} send '${file()}' fd:3 3> sent`);
    expect([sent.code, readFileSync(join(dir, 'sent')).length > 1000], sent.stderr).toEqual([0, true]);
  });

  it('the same line for the source and the target', async () => {
    const { near, inherited } = await connectedPair();
    await using command = new LiveCommand(['relay', 'fd:3', 'fd:3', '--json'], { inherited: [fdOf(inherited)] });
    const { code, stderr } = await command.ended;
    expect(code).toBe(2);
    expect(JSON.parse(stderr).error.message).toMatch(/expected different descriptors/);
    inherited.destroy();
    near.destroy();
  });
});
