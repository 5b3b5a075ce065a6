/** Descriptors that a process inherits, and its standard input and output, carry a migration. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { build } from 'esbuild';
import { afterAll, beforeAll, expect, test } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'vmferry-inherited-'));
const program = join(dir, 'child.mjs');
const input = join(dir, 'input');

beforeAll(async () => {
  const entryPoints = [join(import.meta.dirname, 'inherited-child.ts')];
  await build({ entryPoints, outfile: program, bundle: true, platform: 'node', format: 'esm', logLevel: 'error' });
  writeFileSync(input, bytes);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const bytes = new Uint8Array(300_000).fill(7);

type Stdio = 'ignore' | 'pipe' | number;

function start(args: string[], stdio: Stdio[]): ChildProcess {
  return spawn(process.execPath, [program, ...args], { stdio, env: { ...process.env, NODE_OPTIONS: '' } });
}

async function endsWell(child: ChildProcess): Promise<void> {
  expect(await once(child, 'close')).toEqual([0, null]);
}

test('a socket is read, and answered', async () => {
  const child = start(['count', 'fd:3'], ['ignore', 'ignore', 'pipe', 'pipe']);
  const line = child.stdio[3] as Socket;
  line.end(bytes);
  expect(await text(line)).toBe('300000 bytes');
  await endsWell(child);
});

test('a socket is written', async () => {
  const child = start(['say', 'fd:3'], ['ignore', 'ignore', 'pipe', 'pipe']);
  const line = child.stdio[3] as Socket;
  const said = text(line);
  line.end();
  expect(await said).toBe('a stream');
  await endsWell(child);
});

test('the side that connects reads a socket in the way that loses nothing when the line breaks', async () => {
  const child = start(['method', 'fd:3'], ['ignore', 'ignore', 'pipe', 'pipe']);
  const line = child.stdio[3] as Socket;
  const said = text(line);
  line.end();
  expect(await said).toBe('data');
  await endsWell(child);
});

test('a file is read from where its descriptor stands, and written there', async () => {
  const output = join(dir, 'output');
  const [from, to] = [openSync(input, 'r'), openSync(output, 'w')];
  const counting = start(['count', 'fd:3'], ['ignore', 'ignore', 'pipe', from]);
  expect(await text(counting.stderr as NodeJS.ReadableStream)).toBe('300000 bytes');
  await endsWell(counting);
  await endsWell(start(['say', 'fd:3'], ['ignore', 'ignore', 'pipe', to]));
  expect(readFileSync(output, 'utf8')).toBe('a stream');
  closeSync(from);
  closeSync(to);
});

test('standard input is read: a pipe of a shell, a file, a socket', async () => {
  const shell = spawn('/bin/sh', ['-c', `cat '${input}' | '${process.execPath}' '${program}' count -`]);
  expect(await text(shell.stderr)).toBe('300000 bytes');
  const from = openSync(input, 'r');
  const ofFile = start(['count', '-'], [from, 'ignore', 'pipe']);
  expect(await text(ofFile.stderr as NodeJS.ReadableStream)).toBe('300000 bytes');
  closeSync(from);
  // Standard output is not the way back.
  const ofSocket = start(['count', '-'], ['pipe', 'pipe', 'pipe']);
  ofSocket.stdin?.end(bytes);
  expect(await text(ofSocket.stdout as NodeJS.ReadableStream)).toBe('');
  expect(await text(ofSocket.stderr as NodeJS.ReadableStream)).toBe('300000 bytes');
});

test('standard output is written: a pipe of a shell, a file, a socket', async () => {
  const shell = spawn('/bin/sh', ['-c', `'${process.execPath}' '${program}' say - | cat`]);
  expect(await text(shell.stdout)).toBe('a stream');
  const output = join(dir, 'said');
  const to = openSync(output, 'w');
  await endsWell(start(['say', '-'], ['ignore', to, 'pipe']));
  closeSync(to);
  expect(readFileSync(output, 'utf8')).toBe('a stream');
  const ofSocket = start(['say', '-'], ['ignore', 'pipe', 'pipe']);
  expect(await text(ofSocket.stdout as NodeJS.ReadableStream)).toBe('a stream');
});
