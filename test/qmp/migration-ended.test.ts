/** migrationEnded over lines in memory: which end it takes, and which not. */
import { describe, expect, it } from 'vitest';
import { type Connection, PeerError } from '../../src/io/connection.ts';
import type { AbortSignalLike } from '../../src/io/platform.ts';
import { connectionPair } from '../../src/io/web-connection.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { migrationEnded } from '../../src/qmp/migration-ended.ts';
import { QmpError } from '../../src/qmp/qmp-error.ts';
import { serveLine } from '../../src/qmp/serve-line.ts';
import type { QmpServer } from '../../src/qmp/server.ts';
import { settingsServer } from './settings-server.ts';

/** A server whose query-migrate answers what the test says. Its clock passes at once. */
function vm(refusal?: string) {
  let info: object = {};
  let asked = 0;
  const server = settingsServer('9.0', {
    'query-migrate': () => {
      asked++;
      return info;
    },
    ...(refusal !== undefined && {
      'migrate-set-capabilities': () => {
        throw new QmpError(refusal);
      },
    }),
  });
  return {
    server,
    set: (next: object) => {
      info = next;
    },
    asked: () => asked,
    /** The status changes, with an event. */
    turn(next: { status: string; 'total-time'?: number }) {
      info = next;
      server.emit('MIGRATION', { status: next.status });
    },
  };
}

async function clientOf(server: QmpServer): Promise<QmpClient> {
  const [here, there] = connectionPair();
  void serveLine(server, there);
  return QmpClient.connect(here);
}

/** A clock that goes on when the test says so. */
function stepClock() {
  const sleepers: (() => void)[] = [];
  let onSleep = () => {};
  return {
    now: () => 0,
    sleep: (_ms: number, signal?: AbortSignalLike) =>
      new Promise<void>((resolve, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason));
        sleepers.push(resolve);
        onSleep();
      }),
    /** Waits until something sleeps, changes what it will find, and wakes it. */
    async step(change = () => {}) {
      if (sleepers.length === 0) {
        await new Promise<void>((resolve) => {
          onSleep = resolve;
        });
      }
      change();
      sleepers.shift()?.();
    },
  };
}

describe('with events', () => {
  it.each(['completed', 'failed', 'cancelled'])('takes the next end: %s', async (status) => {
    const { server, turn } = vm();
    const client = await clientOf(server);
    const ended = migrationEnded(client);
    // It turns events on first, and is then told of the migration.
    await client.execute('query-name');
    expect(await client.execute('query-migrate-capabilities')).toContainEqual({ capability: 'events', state: true });
    for (const each of ['setup', 'active']) turn({ status: each });
    turn({ status });
    expect(await ended).toEqual({ status, info: { status } });
    await client.close();
  });

  it("turns events on before the caller's own migrate, which may end at once", async () => {
    const server = settingsServer('9.0', {
      async migrate() {
        server.emit('MIGRATION', { status: 'failed' });
      },
      'query-migrate': () => ({ status: 'failed' }),
    });
    const client = await clientOf(server);
    const before = await client.execute('query-migrate-capabilities');
    expect(before).toContainEqual({ capability: 'events', state: false });
    const ended = migrationEnded(client);
    const migrating = client.execute('migrate', { uri: 'tcp:127.0.0.1:1' });
    expect(await ended).toMatchObject({ status: 'failed' });
    await migrating;
    await client.close();
  });

  it('is not fooled by an earlier result', async () => {
    const { server, turn, set } = vm();
    set({ status: 'failed', 'error-desc': 'earlier' });
    const client = await clientOf(server);
    let result: unknown;
    const ended = migrationEnded(client).then((end) => {
      result = end;
    });
    for (let i = 0; i < 5; i++) await client.execute('query-name');
    expect(result).toBeUndefined();
    turn({ status: 'setup' });
    turn({ status: 'completed' });
    await ended;
    expect(result).toEqual({ status: 'completed', info: { status: 'completed' } });
    await client.close();
  });

  it('waits on while postcopy is paused', async () => {
    const { server, turn } = vm();
    const client = await clientOf(server);
    let isEnded = false;
    const ended = migrationEnded(client).then((end) => {
      isEnded = true;
      return end;
    });
    for (let i = 0; i < 3; i++) await client.execute('query-name');
    turn({ status: 'postcopy-paused' });
    for (let i = 0; i < 5; i++) await client.execute('query-name');
    expect(isEnded).toBe(false);
    turn({ status: 'completed' });
    expect(await ended).toMatchObject({ status: 'completed' });
    await client.close();
  });

  it("asks again while QEMU 7.2's times are still 0", async () => {
    const { server, turn, set } = vm();
    const client = await clientOf(server);
    const clock = stepClock();
    const ended = migrationEnded(client, { clock });
    for (let i = 0; i < 3; i++) await client.execute('query-name');
    turn({ status: 'completed', 'total-time': 0 });
    await clock.step();
    await clock.step(() => set({ status: 'completed', 'total-time': 12 }));
    expect(await ended).toMatchObject({ info: { 'total-time': 12 } });
    await client.close();
  });

  it('has only the status of a destination that has gone', async () => {
    const { server, turn } = vm();
    const [here, there] = connectionPair();
    void serveLine(server, there);
    const client = await QmpClient.connect(here);
    const ended = migrationEnded(client);
    for (let i = 0; i < 3; i++) await client.execute('query-name');
    client.subscribe(() => there.destroy());
    turn({ status: 'failed' });
    expect(await ended).toEqual({ status: 'failed', info: { status: 'failed' } });
  });
});

describe('without events', () => {
  it('asks until the running migration has ended', async () => {
    const { server, set } = vm("There's a migration process in progress");
    set({ status: 'active' });
    const client = await clientOf(server);
    const clock = stepClock();
    const ended = migrationEnded(client, { clock });
    await clock.step();
    await clock.step();
    await clock.step(() => set({ status: 'cancelled' }));
    expect(await ended).toEqual({ status: 'cancelled', info: { status: 'cancelled' } });
    await client.close();
  });

  it('takes the result of a migration that ended just after it was refused', async () => {
    const { server, set } = vm("There's a migration process in progress");
    set({ status: 'failed', 'error-desc': 'x' });
    const client = await clientOf(server);
    expect(await migrationEnded(client)).toMatchObject({ status: 'failed' });
    await client.close();
  });

  it('does not take none, or an earlier result, of a destination that already listens', async () => {
    const { server, set, asked } = vm('Multifd must be set before incoming starts');
    set({ status: 'completed', 'total-time': 3 });
    const client = await clientOf(server);
    const clock = stepClock();
    const ended = migrationEnded(client, { clock });
    for (let i = 0; i < 3; i++) await clock.step();
    expect(asked()).toBeGreaterThanOrEqual(3);
    await clock.step(() => set({ status: 'completed', 'total-time': 5 }));
    expect(await ended).toMatchObject({ info: { 'total-time': 5 } });
    set({ status: 'none' });
    const second = migrationEnded(client, { clock });
    await clock.step();
    await clock.step(() => set({ status: 'active' }));
    await clock.step(() => set({ status: 'completed', 'total-time': 5 }));
    expect(await second).toMatchObject({ status: 'completed' });
    await client.close();
  });
});

describe('connecting', () => {
  it('tries again until QMP greets, and closes its client', async () => {
    const { server, turn } = vm();
    let attempts = 0;
    let line: Connection | undefined;
    const connect = async (): Promise<Connection> => {
      if (++attempts < 4) throw new PeerError("Failed to connect to 'qmp': No such file or directory");
      const [here, there] = connectionPair();
      line = here;
      void serveLine(server, there);
      return here;
    };
    const clock = { now: () => 0, sleep: () => new Promise<void>((resolve) => setImmediate(resolve)) };
    const ended = migrationEnded(connect, { clock });
    const watcher = await clientOf(server);
    const isOn = async () =>
      (await watcher.execute('query-migrate-capabilities')).some((one) => one.capability === 'events' && one.state);
    while (!(await isOn())) await clock.sleep();
    turn({ status: 'completed' });
    expect(await ended).toMatchObject({ status: 'completed' });
    expect(attempts).toBe(4);
    await expect(line?.read(new Uint8Array(1), 1e9)).rejects.toThrow(PeerError);
    await watcher.close();
  });

  it('ends with the reason of its signal, connected or not', async () => {
    const controller = new AbortController();
    const refused = migrationEnded(() => Promise.reject(new PeerError('nobody')), { signal: controller.signal });
    const { server } = vm();
    const client = await clientOf(server);
    const waiting = migrationEnded(client, { signal: controller.signal });
    await client.execute('query-name');
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(refused).rejects.toBe(reason);
    await expect(waiting).rejects.toBe(reason);
    // The client goes on.
    expect(await client.execute('query-status')).toMatchObject({ status: 'running' });
    await client.close();
    await expect(migrationEnded(client)).rejects.toThrow('the connection to the monitor was closed');
  });

  it('passes on what is not of the line', async () => {
    await expect(migrationEnded(() => Promise.reject(new TypeError('a mistake')))).rejects.toThrow('a mistake');
  });
});
