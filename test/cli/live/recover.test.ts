/** `vmferry receive` when the lines break in postcopy: the source comes again, to the same process or to a later one. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { open } from '../../../src/node.ts';
import { loadPartedFixtures, type PartedFixture } from '../../fixture-files.ts';
import { LiveCommand, type LiveEnd } from '../../qemu/live-command.ts';
import { runCli } from '../../run-cli.ts';
import { ramDigests, truthDigests } from '../../support/ram-digests.ts';
import { captured, PlayedSource, shut0 } from './played-source.ts';

const root = mkdtempSync(join(tmpdir(), 'vmferry-recover-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let dir = '';
let out = '';
let partial = '';
let cases = 0;
beforeEach(() => {
  dir = join(root, `case-${cases++}`);
  out = join(dir, 'out');
  partial = `${out}.partial`;
  mkdirSync(join(dir, 'tmp'), { recursive: true });
});

const start = (...args: string[]) => new LiveCommand(['receive', ...args], { env: { TMPDIR: join(dir, 'tmp') } });
const receive = (uri = 'tcp:127.0.0.1:0', ...args: string[]) => start(uri, out, ...args);
const recover = (uri = 'tcp:127.0.0.1:0', ...args: string[]) => start('--recover', partial, uri, ...args);

/** Everything in the directory of the test. */
const left = () => [...readdirSync(dir).filter((name) => name !== 'tmp'), ...readdirSync(join(dir, 'tmp'))];

/** A real source whose lines broke: what it sent before, and after it was told to go on. */
const sources = loadPartedFixtures().filter(({ resumeOf }) => resumeOf.length > 0);
const [one] = sources.filter(({ name }) => name === 'pc-recovery-10.0') as [PartedFixture];

/** The lines of a source: the main one, and the preempt channel if it has one. */
async function connect(uri: string, { preempt }: PartedFixture): Promise<PlayedSource[]> {
  const main = await PlayedSource.connect(uri);
  return preempt.length === 0 ? [main] : [main, await PlayedSource.connect(uri)];
}

/** Sends what came over the lines number `line`, as far as the line that broke, or up to `end`. */
async function play([main, second]: PlayedSource[], fixture: PartedFixture, line: 0 | 1, end?: number) {
  const bytes = (line === 0 ? fixture.resumeOf[0] : fixture.bytes) as Uint8Array;
  await main?.send(bytes.subarray(0, end));
  // What came over the preempt channel may not have been read when the main line ended: all of it comes again.
  await second?.send(Buffer.concat(fixture.preempt.slice(0, line + 1)));
  return main as PlayedSource;
}

/** How often the command said where the source can come again. */
const recoveries = ({ stderr }: { stderr: string }) => stderr.match(/^recover at \S+$/gm)?.length ?? 0;

/** Waits until it has said so `count` times. */
async function recoverUri(command: LiveCommand, count = 1): Promise<string> {
  await command.says(new RegExp(`(?:^recover at \\S+$[^]*?){${count}}`, 'm'));
  return (/^recover at (\S+)$/m.exec(command.stderr) as RegExpExecArray)[1] as string;
}

/** A command whose source has broken off in postcopy, and which waits. */
async function broken(command: LiveCommand, fixture = one) {
  const lines = await connect(await command.uri(), fixture);
  await play(lines, fixture, 0);
  // A reset would lose what was not read, and the rest of this source is what was missing without that.
  for (const line of lines) line.end();
  return recoverUri(command);
}

/** Plays the rest, and requires that the source was told at the end. */
async function finish(uri: string, fixture = one) {
  const lines = await connect(uri, fixture);
  const main = await play(lines, fixture, 1);
  while (!main.heard.endsWith(shut0)) await new Promise((resolve) => main.socket.once('data', resolve));
  for (const line of lines) line.end();
}

async function expectWhole(end: LiveEnd, fixture = one) {
  expect(end.code, end.stderr).toBe(0);
  expect(left()).toEqual(['out']);
  await using file = await open(out);
  expect(await ramDigests(file)).toEqual(truthDigests(fixture));
  expect((await runCli(['verify', out])).code).toBe(0);
}

describe.each(sources.map((fixture) => [fixture.name, fixture] as const))('%s', (_, fixture) => {
  it('goes on in the same process', async () => {
    await using command = receive();
    const uri = await broken(command, fixture);
    expect(uri).toBe(await command.uri());
    expect(left()).toEqual(['out.partial']);
    await finish(uri, fixture);
    await expectWhole(await command.ended, fixture);
  });

  it('goes on in another process, after kill -9', async () => {
    await using command = receive();
    await broken(command, fixture);
    command.kill('SIGKILL');
    await command.ended;
    expect(left()).toEqual(['out.partial']);
    await using second = recover();
    await finish(await second.uri(), fixture);
    await expectWhole(await second.ended, fixture);
  });
});

it('says what is at stake at the first Ctrl-C, and keeps the file at the second', async () => {
  await using command = receive();
  await broken(command);
  command.kill('SIGINT');
  await command.says(/^vmferry: warning: postcopy has begun: .*Press Ctrl-C again.*--recover/m);
  command.kill('SIGINT');
  const end = await command.ended;
  expect(end.code, end.stderr).toBe(130);
  expect(end.stderr).toMatch(/^vmferry: guest: split: .*what came is in .*out\.partial/m);
  expect(left()).toEqual(['out.partial']);
  // What was kept can be looked at.
  const inspected = await runCli(['inspect', partial]);
  expect([inspected.code, inspected.stdout]).toEqual([
    expect.not.stringMatching('2'),
    expect.stringContaining('pc.ram'),
  ]);
  expect((await runCli(['extract', partial, '--partial', '--all', join(dir, 'tmp', 'raw')])).code).toBe(1);
  rmSync(join(dir, 'tmp', 'raw'), { recursive: true });

  // The same words where it goes on, and again nothing is lost.
  await using second = recover();
  await second.uri();
  second.kill('SIGINT');
  await second.says(/Press Ctrl-C again/);
  second.kill('SIGINT');
  expect((await second.ended).code).toBe(130);
  expect(left()).toEqual(['out.partial']);
  await using third = recover();
  await finish(await third.uri());
  await expectWhole(await third.ended);
});

it.each(['SIGTERM', 'SIGHUP'] as const)('keeps the file at the first %s', async (signal) => {
  await using command = receive();
  await broken(command);
  command.kill(signal);
  expect((await command.ended).code).toBe(signal === 'SIGTERM' ? 143 : 129);
  expect(left()).toEqual(['out.partial']);
});

it('keeps what came until then if it is ended while pages come', async () => {
  await using command = receive();
  const lines = await connect(await command.uri(), one);
  const main = await play(lines, one, 0);
  // PONG 4 answers the last PING before the pages.
  while (!main.heard.includes('0002000400000004')) await new Promise((resolve) => main.socket.once('data', resolve));
  command.kill('SIGINT');
  await command.says(/Press Ctrl-C again/);
  command.kill('SIGINT');
  const end = await command.ended;
  expect(end.code, end.stderr).toBe(130);
  await using second = recover();
  await finish(await second.uri());
  await expectWhole(await second.ended);
});

it('takes several breaks, also while it goes on, and in later processes', async () => {
  await using command = receive();
  const uri = await broken(command);
  const length = one.bytes.length;
  const cuts = [5, 700, 40_000, length >> 1, length - 30];
  for (const [i, cut] of cuts.entries()) {
    const lines = await connect(uri, one);
    await play(lines, one, 1, cut);
    for (const line of lines) line.reset();
    await recoverUri(command, i + 2);
  }
  command.kill('SIGKILL');
  await command.ended;
  await using second = recover(`unix:${join(dir, 'socket')}`);
  const lines = await connect(await second.uri(), one);
  await play(lines, one, 1, 300_000);
  lines[0]?.end();
  expect(await recoverUri(second)).toBe(`unix:${join(dir, 'socket')}`);
  await finish(`unix:${join(dir, 'socket')}`);
  await expectWhole(await second.ended);
});

it('a source whose line breaks after its last byte is told when it comes again', async () => {
  await using command = receive();
  const uri = await broken(command);
  const lines = await connect(uri, one);
  await play(lines, one, 1, one.bytes.length - 100);
  lines[0]?.socket.end(one.bytes.subarray(-100));
  lines[0]?.socket.destroySoon();
  await recoverUri(command, 2);
  await finish(uri);
  await expectWhole(await command.ended);
});

it('a stranger, another guest, and a source with other blocks are refused, and it waits on', async () => {
  await using command = receive();
  const uri = await broken(command);
  const recvBitmap = (name: string) => {
    const payload = Buffer.from(`${String.fromCharCode(name.length)}${name}`, 'latin1');
    return Buffer.concat([Buffer.from([8, 0, 10, 0, payload.length]), payload]);
  };
  const resume = Buffer.from([8, 0, 9, 0, 0]);
  const others: [Buffer, RegExp][] = [
    [Buffer.from('GET / HTTP/1.1\r\n\r\n'), /Not a migration stream/],
    [Buffer.alloc(4096, 8), /Not a migration stream/],
    [captured('none-plain-10.0'), /it begins a migration/],
  ];
  for (const [bytes, why] of others) {
    const stranger = await PlayedSource.connect(uri);
    await stranger.send(bytes);
    await stranger.ended;
    await command.says(why);
  }
  const wrong: [Buffer, RegExp][] = [
    [recvBitmap('vga.vram'), /the name of a RAM block, got "vga\.vram"/],
    [Buffer.concat([recvBitmap('pc.ram'), resume]), /did not ask about RAM block "pc\.(rom|bios)"/],
    [Buffer.concat([recvBitmap('pc.ram'), Buffer.from('nonsense')]), /expected a section/],
  ];
  for (const [i, [bytes, why]] of wrong.entries()) {
    const source = await PlayedSource.connect(uri);
    await source.send(bytes);
    await source.ended;
    await command.says(why);
    await recoverUri(command, i + 2);
  }
  await finish(uri);
  await expectWhole(await command.ended);
});

it('a source that never comes again ends it if it may not wait', async () => {
  await using command = receive('tcp:127.0.0.1:0', '--idle-timeout', '300ms');
  await broken(command);
  const end = await command.ended;
  expect(end.code, end.stderr).toBe(3);
  expect(end.stderr).toMatch(/no source has come for 0\.3 s/);
  expect(left()).toEqual(['out.partial']);
});

it('a line that cannot come again ends it, and what came can go on', async () => {
  writeFileSync(join(dir, 'tmp', 'stream'), one.resumeOf[0] as Uint8Array);
  await using command = receive(`file:${join(dir, 'tmp', 'stream')}`);
  const end = await command.ended;
  rmSync(join(dir, 'tmp', 'stream'));
  expect(end.code, end.stderr).toBe(3);
  expect(recoveries(end)).toBe(0);
  expect(left()).toEqual(['out.partial']);
  await using second = recover();
  await finish(await second.uri());
  await expectWhole(await second.ended);
});

it('writes another form, and an older OUT stays until then', async () => {
  writeFileSync(out, 'older');
  await using command = receive('tcp:127.0.0.1:0', '--to', 'stream');
  await broken(command);
  command.kill('SIGKILL');
  await command.ended;
  await using second = recover('tcp:127.0.0.1:0', '--to', 'stream', '--json');
  const uri = await second.uri();
  expect(readFileSync(out, 'latin1')).toBe('older');
  await finish(uri);
  const end = await second.ended;
  await expectWhole(end);
  expect(JSON.parse(end.stdout)).toMatchObject({ output: out, confirmed: true, found: { postcopy: true } });
});

describe('what cannot go on is refused before anything listens', () => {
  const refused = async (args: string[], text: RegExp) => {
    const end = await runCli(['receive', ...args]);
    expect([end.code, end.stderr], end.stderr).toEqual([2, expect.stringMatching(text)]);
    expect(end.stderr).not.toContain('listening');
  };

  it('a file of another name, that is missing, that is whole, or whose record is damaged', async () => {
    await using command = receive();
    await broken(command);
    command.kill('SIGKILL');
    await command.ended;
    const kept = readFileSync(partial);
    await refused(['--recover', out, 'tcp:127.0.0.1:0'], /expected a file named OUT\.partial/);
    await refused(['--recover', `${out}2.partial`, 'tcp:127.0.0.1:0'], /which does not exist/);
    await refused(['--recover', partial, 'tcp:127.0.0.1:0', out], /OUT cannot be used with --recover/);
    await refused(['--recover', partial], /missing required argument 'URI'/);
    kept[kept.length - 200] = (kept[kept.length - 200] as number) ^ 1;
    writeFileSync(partial, kept);
    await refused(['--recover', partial, 'tcp:127.0.0.1:0'], /lacks what a migration needs to go on/);
    writeFileSync(partial, captured('none-plain-10.0'));
    await refused(['--recover', partial, 'tcp:127.0.0.1:0'], /lacks what a migration needs to go on/);
  });

  it('a new guest where one waits to go on', async () => {
    await using command = receive();
    await broken(command);
    command.kill('SIGTERM');
    await command.ended;
    await refused(['tcp:127.0.0.1:0', out], /go on with vmferry receive --recover .*out\.partial/);
    expect(left()).toEqual(['out.partial']);
  });
});
