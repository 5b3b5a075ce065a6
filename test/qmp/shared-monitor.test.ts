/** Many clients of one monitor, over lines in memory. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Connection } from '../../src/io/connection.ts';
import { connectionPair } from '../../src/io/web-connection.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { JsonDouble } from '../../src/qmp/json-value.ts';
import { QmpError } from '../../src/qmp/qmp-error.ts';
import { serveLine } from '../../src/qmp/serve-line.ts';
import type { Handler } from '../../src/qmp/server.ts';
import { SharedMonitor } from '../../src/qmp/shared-monitor.ts';
import { settingsServer } from './settings-server.ts';

const encode = (text: string) => new TextEncoder().encode(text);
const lines: Connection[] = [];
afterEach(() => {
  for (const line of lines.splice(0)) line.destroy();
});

/** A server with one client, which is shared. */
async function shared(more: Record<string, Handler> = {}) {
  const server = settingsServer('9.0', more);
  const [here, there] = connectionPair();
  lines.push(here);
  void serveLine(server, there);
  const monitor = new SharedMonitor(await QmpClient.connect(here));
  const line = () => {
    const [mine, its] = connectionPair(8192);
    lines.push(mine);
    void serveLine(monitor, its);
    return mine;
  };
  return { server, line, client: () => QmpClient.connect(line()) };
}

const positions = new WeakMap<Connection, number>();

/** Reads lines of text until one contains `last`. */
async function readUntil(line: Connection, last: string): Promise<string[]> {
  const buffer = new Uint8Array(65536);
  let text = '';
  for (let at = positions.get(line) ?? 0; !text.includes(last) || !text.endsWith('\r\n'); ) {
    const count = await line.read(buffer, at);
    if (count === 0) break;
    at += count;
    positions.set(line, at);
    text += Buffer.from(buffer.subarray(0, count)).toString('latin1');
  }
  return text.split('\r\n').slice(0, -1);
}

describe('clients of a shared monitor', () => {
  it('are greeted as by the server, and negotiate each for itself', async () => {
    const { line } = await shared();
    const [first, second] = [line(), line()];
    await first.write(
      encode('{"execute": "query-name"} {"execute": "qmp_capabilities"} {"execute": "query-name", "id": 1}'),
    );
    expect(await readUntil(first, '"id": 1')).toEqual([
      '{"QMP": {"version": {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": "<package>"}, "capabilities": ["oob"]}}',
      expect.stringContaining("Expecting capabilities negotiation with 'qmp_capabilities'"),
      '{"return": {}}',
      '{"return": {}, "id": 1}',
    ]);
    await second.write(encode('{"execute": "query-name", "id": 2}'));
    expect((await readUntil(second, '"id": 2'))[1]).toContain('Expecting capabilities negotiation');
    await second.write(encode('{"execute": "qmp_capabilities", "arguments": {"enable": ["x"]}, "id": 3}'));
    expect(await readUntil(second, '"id": 3')).toEqual([expect.stringContaining("does not accept value 'x'")]);
  });

  it('get their own answers, though their ids are the same', async () => {
    const { client } = await shared();
    const [first, second] = [await client(), await client()];
    const answers = await Promise.all([
      ...[first.execute('query-status'), second.execute('query-version')],
      ...[first.execute('query-name'), second.execute('query-status')],
    ]);
    expect(answers).toMatchObject([{ status: 'running' }, { qemu: { major: 9 } }, {}, { status: 'running' }]);
  });

  it('all get the events, once they have negotiated', async () => {
    const { client, line, server } = await shared();
    const clients = [await client(), await client(), await client()];
    const silent = line();
    const seen = clients.map((each) => each.nextEvent('STOP'));
    await clients[0]?.execute('stop');
    for (const event of await Promise.all(seen)) expect(event.timestamp.seconds).toBe(1_700_000_000);
    server.emit('NEWER', { x: [1, 2 ** 60] });
    await silent.write(encode('{"execute": "qmp_capabilities", "id": 0}'));
    const texts = await readUntil(silent, '"id": 0');
    expect(texts.join()).not.toContain('STOP');
  });

  it("get the server's own errors, classes included, and arguments pass as they were", async () => {
    const { client } = await shared();
    const one = await client();
    const error = await one.execute('no-such-command').catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      errorClass: 'CommandNotFound',
      message: 'The command no-such-command has not been found',
    });
    const double = { 'multifd-channels': new JsonDouble(1) as never };
    await expect(one.execute('migrate-set-parameters', double)).rejects.toThrow("'multifd-channels' expects uint64");
    await one.execute('migrate-set-parameters', { 'max-bandwidth': 2n ** 64n - 1n });
    expect(await one.execute('query-migrate-parameters')).toMatchObject({ 'max-bandwidth': 2n ** 64n - 1n });
  });

  it('are not held up by one that never reads, or leaves', async () => {
    const { client, line } = await shared({ 'query-name': () => ({ name: 'x'.repeat(100_000) }) });
    const stuck = line();
    const flood = `{"execute": "qmp_capabilities"}${'{"execute": "query-name"}'.repeat(1000)}`;
    void stuck.write(encode(flood)).catch(() => {});
    const gone = line();
    void gone.write(encode(flood)).catch(() => {});
    await gone.read(new Uint8Array(10), 0);
    gone.destroy();
    const one = await client();
    for (let i = 0; i < 50; i++) expect(await one.execute('query-status')).toMatchObject({ status: 'running' });
  });

  it('run commands out of band beside one that takes its time, if they asked for it', async () => {
    let release = () => {};
    const slow = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { client, line } = await shared({ 'query-migrate': () => slow.then(() => ({})) });
    const one = await client();
    const waiting = one.execute('query-migrate');
    const other = await client();
    expect(await other.executeOob('query-yank')).toHaveLength(2);
    const without = line();
    await without.write(encode('{"execute": "qmp_capabilities"} {"exec-oob": "query-yank", "id": 1}'));
    expect((await readUntil(without, '"id": 1')).at(-1)).toContain("QMP input member 'exec-oob' is unexpected");
    // Others wait in band, as in QEMU.
    const next = other.execute('query-status');
    release();
    expect(await waiting).toEqual({});
    expect(await next).toMatchObject({ status: 'running' });
  });

  it('are served in turns when many ask at a time', async () => {
    const { client } = await shared();
    const clients = await Promise.all(Array.from({ length: 30 }, client));
    const answers = await Promise.all(clients.map((each) => each.execute('query-status')));
    expect(answers).toHaveLength(30);
    expect(await clients[29]?.execute('x').catch((error: unknown) => error)).toBeInstanceOf(QmpError);
  });
});
