/**
 * Commands per second that the monitor of `vmferry vm` answers, in a process of its own: `npm run bench:qmp`. All requests of
 * a run are written at once.
 *
 *     client: pipelined requests ──→ unix socket ──→ vmferry vm ──→ answers ──→ counted
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const commands = 50_000;
const rounds = 5;
const requests: [name: string, text: string][] = [
  ['query-status', '{"execute": "query-status", "id": 1}\n'],
  ['migrate-set-parameters', '{"execute": "migrate-set-parameters", "arguments": {"downtime-limit": 100}, "id": 1}\n'],
  ['query-migrate-parameters', '{"execute": "query-migrate-parameters", "id": 1}\n'],
];

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'vmferry-bench-'));
const path = join(directory, 'qmp');

/** Seconds until the last answer. */
function run(text: string, count: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const all = Buffer.from(`{"execute": "qmp_capabilities"}\n${text.repeat(count)}`);
    const start = performance.now();
    let lines = 0;
    socket.on('data', (chunk) => {
      for (const byte of chunk) if (byte === 0x0a) lines++;
      // The greeting and the negotiation have a line each.
      if (lines < count + 2) return;
      socket.destroy();
      resolve((performance.now() - start) / 1000);
    });
    socket.on('error', reject);
    socket.write(all);
  });
}

/** Waits until the monitor answers. */
async function started(vm: ChildProcess): Promise<void> {
  for (;;) {
    try {
      await run('', 0);
      return;
    } catch (error) {
      if (vm.exitCode !== null) throw error;
      await sleep(20);
    }
  }
}

const vm = spawn(process.execPath, [cli, 'vm', '--qmp', `unix:${path}`, '--memory', '16M'], { stdio: 'inherit' });
try {
  await started(vm);
  for (const [name, text] of requests) {
    const speeds: number[] = [];
    for (let round = 0; round < rounds; round++) speeds.push(commands / (await run(text, commands)));
    speeds.sort((a, b) => a - b);
    const median = speeds[Math.floor(rounds / 2)] as number;
    console.log(`${name.padEnd(24)} ${Math.round(median).toLocaleString('en')} commands/s`);
  }
} finally {
  vm.kill();
  rmSync(directory, { recursive: true, force: true });
}
