/** The line on a terminal: there while a migration goes on, and gone before anything else is printed. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { fixturePath } from '../../fixture-files.ts';
import { cliPath } from '../../run-cli.ts';
import { captured, PlayedSource, pong1, shut0, withReturnPath } from './played-source.ts';

let dir = '';
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmferry-dashboard-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hasScript = () => {
  try {
    return execFileSync('script', ['--version'], { encoding: 'utf8' }).includes('util-linux');
  } catch {
    return false;
  }
};

/** A command on a terminal of its own, by the program `script`. In its text, ⌫ stands for the clearing of a line. */
function onTerminal(...args: string[]) {
  const command = [process.execPath, cliPath, ...args].map((arg) => `'${arg}'`).join(' ');
  const child = spawn('script', ['-qec', `stty cols 200; ${command}`, '/dev/null'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [raw, text] = ['', ''];
  const seen: (() => void)[] = [];
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    raw += more;
    text = raw.replaceAll('\u001b[K', '⌫');
    for (const wake of seen.splice(0)) wake();
  });
  const ended = once(child, 'close').then(([code]) => ({ code: code as number, text }));
  async function shows(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(text);
      if (match !== null) return match;
      await Promise.race([
        new Promise<void>((resolve) => seen.push(resolve)),
        ended.then(() => {
          if (!pattern.test(text)) throw new Error(`expected ${pattern}, got the end of the command: ${text}`);
        }),
      ]);
    }
  }
  return { ended, shows, [Symbol.dispose]: () => child.kill() };
}

it.skipIf(!hasScript())('receive and send show how the migration goes, and clear the line', async () => {
  const stream = withReturnPath(captured('none-plain-10.0'));
  using receive = onTerminal('receive', 'tcp:127.0.0.1:0', join(dir, 'out'));
  const [, uri = ''] = await receive.shows(/^listening on (\S+)\r$/m);
  const source = await PlayedSource.connect(uri);
  await source.send(stream.subarray(0, stream.length >> 1));
  await source.hears(pong1);
  await receive.shows(/\r⌫receive: active, pass 1, .* received, .*\/s(, .* of .* left)?/);
  await source.send(stream.subarray(stream.length >> 1));
  await source.hears(pong1 + shut0);
  source.end();
  const { code, text } = await receive.ended;
  expect(code, text).toBe(0);
  expect(text).toMatch(/⌫receive: device, pass \d+, [^\r]*\r⌫[^\r]*: received [^\r]* the source was told\r\n$/);

  using target = onTerminal('receive', `unix:${join(dir, 'socket')}`, join(dir, 'out'));
  const [, at = ''] = await target.shows(/^listening on (\S+)\r$/m);
  using send = onTerminal('send', fixturePath('pc-plain-10.0.bin'), at);
  const sent = await send.ended;
  expect(sent.code, sent.text).toBe(0);
  expect(sent.text).toMatch(/\r⌫send: active, pass 1, .* of .* left/);
  expect(sent.text).toMatch(/⌫send: device, [^\r]*\r⌫[^\r]*: sent to [^\r]*\r\n$/);
  expect((await target.ended).code).toBe(0);
});
