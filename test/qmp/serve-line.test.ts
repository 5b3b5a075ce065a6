/** Clients that do not read, over lines in memory: their commands wait, nobody else does, and memory stays bounded. */
import { describe, expect, it } from 'vitest';
import { connectionPair } from '../../src/io/web-connection.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { maxUnreadBytes, serveLine } from '../../src/qmp/serve-line.ts';
import { settingsServer } from './settings-server.ts';

const encode = (text: string) => new TextEncoder().encode(text);
const enough = '{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}\n';

/** A server whose query-name answers 100 KB, and how often it did. */
function talkative() {
  let asked = 0;
  const server = settingsServer('9.0', {
    'query-name': () => {
      asked++;
      return { name: 'x'.repeat(100_000) };
    },
  });
  return { server, asked: () => asked };
}

describe('a client that does not read', () => {
  it('has its commands wait, while others are answered, and gets all answers when it reads', async () => {
    const { server, asked } = talkative();
    const [here, there] = connectionPair(4096);
    const served = serveLine(server, there);
    const commands = Array.from({ length: 500 }, (_, id) => `{"execute": "query-name", "id": ${id}}`).join('\n');
    const sent = here.write(encode(enough + commands));
    const [other, otherThere] = connectionPair();
    void serveLine(server, otherThere);
    const client = await QmpClient.connect(other);
    for (let i = 0; i < 50; i++) await client.execute('query-status');
    const begun = asked();
    expect(begun).toBeLessThan(20);
    for (let i = 0; i < 50; i++) await client.execute('query-status');
    expect(asked()).toBe(begun);

    const ids: number[] = [];
    const buffer = new Uint8Array(1 << 20);
    for (let at = 0, text = ''; ids.length < 500; ) {
      const count = await here.read(buffer, at);
      at += count;
      const lines = (text + Buffer.from(buffer.subarray(0, count)).toString('latin1')).split('\r\n');
      text = lines.pop() as string;
      for (const line of lines) if (line.includes('xxx')) ids.push(JSON.parse(line).id);
    }
    expect(ids).toEqual(Array.from({ length: 500 }, (_, id) => id));
    await sent;
    await client.close();
    here.destroy();
    await served;
  });

  it('is dropped when too many events wait', async () => {
    const { server } = talkative();
    const [here, there] = connectionPair(4096);
    const served = serveLine(server, there);
    await here.write(encode(enough));
    const [other, otherThere] = connectionPair();
    void serveLine(server, otherThere);
    const client = await QmpClient.connect(other);
    let events = 0;
    client.subscribe(() => events++);
    const count = Math.ceil(maxUnreadBytes / 1e6) + 10;
    for (let i = 0; i < count; i++) {
      const seen = client.nextEvent('BIG');
      server.emit('BIG', { text: 'x'.repeat(1e6) });
      await seen;
    }
    await served;
    expect(events).toBe(count);
    expect(await client.execute('query-status')).toMatchObject({ status: 'running' });
    await client.close();
  });

  it('may leave at any time', async () => {
    const { server } = talkative();
    for (const text of ['', enough, `${enough}{"execute": "query-name"}`.repeat(2), '{"execute": ']) {
      const [here, there] = connectionPair(4096);
      const served = serveLine(server, there);
      void here.write(encode(text)).catch(() => {});
      await here.read(new Uint8Array(10), 0);
      here.destroy();
      await served;
    }
  });

  it('gets its last answers when it has said that it sends no more', async () => {
    const { server } = talkative();
    const [here, there] = connectionPair();
    const served = serveLine(server, there);
    await here.write(encode(`${enough}{"execute": "query-status", "id": "last"}`));
    await here.end();
    let text = '';
    const buffer = new Uint8Array(4096);
    for (let at = 0; ; ) {
      const count = await here.read(buffer, at).catch(() => 0);
      if (count === 0) break;
      at += count;
      text += Buffer.from(buffer.subarray(0, count)).toString('latin1');
    }
    expect(text).toMatch(/"id": "last"\}\r\n$/);
    await served;
  });
});
