/**
 * Commands per second of the QMP server, through a unix socket in one process: `npm run bench:qmp`.
 *
 *     client: all requests in one write, in chunks ──→ socket ──→ session ──→ answers ──→ counted
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listenAt } from '../src/io/node/listen.ts';
import { serveLine } from '../src/qmp/serve-line.ts';
import { QmpServer } from '../src/qmp/server.ts';
import { schemaOf } from '../src/schema/qapi/schema.ts';

const commands = 100_000;
const rounds = 5;
const requests: [name: string, text: string][] = [
  ['query-status', '{"execute": "query-status", "id": 1}\n'],
  ['migrate-set-parameters', '{"execute": "migrate-set-parameters", "arguments": {"downtime-limit": 100}, "id": 1}\n'],
];

const server = new QmpServer({
  schema: schemaOf('9.0'),
  version: { qemu: { major: 9, minor: 0, micro: 0 }, package: 'bench' },
  handlers: { 'query-status': () => ({ running: true, status: 'running' }), 'migrate-set-parameters': () => {} },
  now: () => Date.now(),
});
const directory = mkdtempSync(join(tmpdir(), 'vmferry-bench-'));
const path = join(directory, 'qmp');
const listener = await listenAt({ transport: 'socket', type: 'unix', path });
void (async () => {
  for (let line = await listener.accept(); line !== undefined; line = await listener.accept()) {
    void serveLine(server, line);
  }
})();

/** Seconds until the last answer. */
function run(text: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const all = Buffer.from(`{"execute": "qmp_capabilities"}\n${text.repeat(commands)}`);
    const start = performance.now();
    let lines = 0;
    socket.on('data', (chunk) => {
      for (const byte of chunk) if (byte === 0x0a) lines++;
      // The greeting and the negotiation have a line each.
      if (lines < commands + 2) return;
      socket.destroy();
      resolve((performance.now() - start) / 1000);
    });
    socket.on('error', reject);
    socket.write(all);
  });
}

for (const [name, text] of requests) {
  const speeds: number[] = [];
  for (let round = 0; round < rounds; round++) speeds.push(commands / (await run(text)));
  speeds.sort((a, b) => a - b);
  const median = speeds[Math.floor(rounds / 2)] as number;
  console.log(`${name.padEnd(24)} ${Math.round(median).toLocaleString('en')} commands/s`);
}
await listener.close();
rmSync(directory, { recursive: true, force: true });
