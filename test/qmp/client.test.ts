/** The client over lines in memory, and what a session does at its edges. */
import { describe, expect, expectTypeOf, it } from 'vitest';
import type { Clock } from '../../src/io/clock.ts';
import { connectionPair } from '../../src/io/web-connection.ts';
import { type CommandReturns, MonitorBusyError, QmpClient } from '../../src/qmp/client.ts';
import { QmpError } from '../../src/qmp/qmp-error.ts';
import { serveLine } from '../../src/qmp/serve-line.ts';
import type { Handler } from '../../src/qmp/server.ts';
import type { MigrationInfo } from '../../src/qmp/types/migration.ts';
import { settingsServer } from './settings-server.ts';

async function connected(more: Record<string, Handler> = {}) {
  const server = settingsServer('9.0', more);
  const [here, there] = connectionPair();
  void serveLine(server, there);
  return { server, client: await QmpClient.connect(here) };
}

/** A command that ends when the test says so. */
function held() {
  let release = () => {};
  const done = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { handler: () => done, release };
}

describe('a client', () => {
  it('runs commands, and gets integers exactly', async () => {
    const { client } = await connected();
    await client.execute('migrate-set-parameters', { 'max-bandwidth': 2n ** 64n - 1n, 'downtime-limit': 5 });
    expect(await client.execute('query-migrate-parameters')).toMatchObject({
      ...{ 'max-bandwidth': 18446744073709551615n, 'downtime-limit': 5 },
    });
    await client.close();
  });

  it("rejects with the server's error", async () => {
    const { client } = await connected();
    const error = await client.execute('no-such-command').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(QmpError);
    expect(error).toMatchObject({
      errorClass: 'CommandNotFound',
      message: 'The command no-such-command has not been found',
    });
    await client.close();
  });

  it('gets the answers of many commands at a time, each its own', async () => {
    const { client } = await connected();
    const answers = await Promise.all([
      client.execute('query-status'),
      client.execute('query-name'),
      client.execute('query-version'),
    ]);
    expect(answers).toMatchObject([{ status: 'running' }, {}, { qemu: { major: 9 } }]);
    await client.close();
  });

  it('sends commands out of band beside one that takes its time', async () => {
    const slow = held();
    const { client } = await connected({ 'query-migrate': slow.handler });
    const order: string[] = [];
    const migrate = client.execute('query-migrate').then(() => order.push('in band'));
    await client.executeOob('query-yank').then(() => order.push('out of band'));
    slow.release();
    await migrate;
    expect(order).toEqual(['out of band', 'in band']);
    await client.close();
  });

  it('reports events, known or not, as they came', async () => {
    const { client, server } = await connected();
    const seen: unknown[] = [];
    client.subscribe(({ event, data }) => seen.push([event, data]));
    const stopped = client.nextEvent('STOP');
    await client.execute('stop');
    expect(await stopped).toMatchObject({ timestamp: { seconds: 1_700_000_000, microseconds: 123_500 } });
    const newer = client.nextEvent('NEWER', { where: (data) => data?.a === 2 });
    server.emit('NEWER', { a: 1 });
    server.emit('NEWER', { a: 2 });
    await newer;
    expect(seen).toEqual([
      ['STOP', undefined],
      ['NEWER', { a: 1 }],
      ['NEWER', { a: 2 }],
    ]);
    await client.close();
  });

  it('rejects what waits when the line ends', async () => {
    const slow = held();
    const { client, server } = await connected({ 'query-migrate': slow.handler });
    const answer = client.execute('query-migrate');
    const event = client.nextEvent('STOP');
    server.emit('RESUME');
    await client.close();
    await expect(answer).rejects.toThrow('the connection to the monitor was closed');
    await expect(event).rejects.toThrow('the connection to the monitor was closed');
    await expect(client.execute('query-name')).rejects.toThrow('the connection to the monitor was closed');
    slow.release();
  });

  it('says that another client holds a monitor that does not greet', async () => {
    const [here] = connectionPair();
    const asked: number[] = [];
    const clock: Clock = {
      now: () => 0,
      sleep: async (ms) => {
        asked.push(ms);
      },
    };
    await expect(QmpClient.connect(here, { clock })).rejects.toThrow(MonitorBusyError);
    expect(asked).toEqual([1000]);
  });

  it('refuses a server that is none of QMP', async () => {
    const [here, there] = connectionPair();
    await there.write(new TextEncoder().encode('{"hello": 1}\n'));
    await expect(QmpClient.connect(here)).rejects.toThrow('expected the greeting of a QMP server');
    const [other, noise] = connectionPair();
    await noise.write(new TextEncoder().encode('SSH-2.0-x\r\n'));
    await expect(QmpClient.connect(other)).rejects.toThrow("what is not QMP: JSON parse error, stray 'S'");
  });

  it('ends with the reason of its signal', async () => {
    const [here] = connectionPair();
    const reason = new Error('given up');
    await expect(QmpClient.connect(here, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('has its arguments and results checked by tsc', async () => {
    const { client } = await connected({ 'query-migrate': () => ({ status: 'active' }) });
    expectTypeOf(client.execute('query-migrate')).resolves.toEqualTypeOf<MigrationInfo>();
    expectTypeOf<CommandReturns<'something-newer'>>().toBeUnknown();
    // @ts-expect-error no such argument
    await expect(client.execute('migrate', { url: 'tcp:x:1' })).rejects.toThrow("Parameter 'url' is unexpected");
    // @ts-expect-error the arguments are missing
    await expect(client.execute('migrate-continue')).rejects.toThrow("Parameter 'state' is missing");
    const channel = { 'channel-type': 'main', addr: { transport: 'file', filename: 'x', offset: 'none' } } as const;
    // @ts-expect-error offset is a number
    await expect(client.execute('migrate', { channels: [channel] })).rejects.toThrow('expects uint64');
    await client.close();
  });
});

describe('a session', () => {
  const encode = (text: string) => new TextEncoder().encode(text);

  it('reads no more while a command runs, and then answers in order', async () => {
    const slow = held();
    const answers: string[] = [];
    const session = settingsServer('9.0', { 'query-migrate': slow.handler }).connect((text) => answers.push(text));
    await session.receive(encode('{"execute": "qmp_capabilities"}'));
    answers.length = 0;
    let isReady = false;
    const received = session
      .receive(encode('{"execute": "query-migrate", "id": 1} {"execute": "query-name", "id": 2}'))
      .then(() => {
        isReady = true;
      });
    await Promise.resolve();
    expect([isReady, answers]).toEqual([false, []]);
    slow.release();
    await received;
    expect(answers).toEqual(['{"return": {}, "id": 1}\r\n', '{"return": {}, "id": 2}\r\n']);
  });

  it('reads up to eight more with oob', async () => {
    const slow = held();
    const session = settingsServer('9.0', { 'query-migrate': slow.handler }).connect(() => {});
    await session.receive(encode('{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}'));
    await session.receive(encode('{"execute": "query-migrate"}'));
    for (let i = 0; i < 7; i++) await session.receive(encode('{"execute": "query-name"}'));
    let isReady = false;
    const eighth = session.receive(encode('{"execute": "query-name"}')).then(() => {
      isReady = true;
    });
    await Promise.resolve();
    expect(isReady).toBe(false);
    slow.release();
    await eighth;
  });

  it('reports no events before the negotiation has ended', async () => {
    const lines: string[] = [];
    const server = settingsServer('9.0');
    const session = server.connect((text) => lines.push(text));
    server.emit('STOP');
    await session.receive(encode('{"execute": "qmp_capabilities"}'));
    server.emit('RESUME');
    server.disconnect(session);
    server.emit('STOP');
    expect(lines.map((line) => Object.keys(JSON.parse(line)))).toEqual([['QMP'], ['return'], ['timestamp', 'event']]);
  });

  it('answers only commands that do something, and says so', async () => {
    const server = settingsServer('7.2');
    expect(server.command('query-migrationthreads')).toBeUndefined();
    expect(server.command('migrate')).toBeDefined();
  });
});
