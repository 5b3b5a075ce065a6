/** One listener for several users, one after another. */
import { expect, it } from 'vitest';
import { ListenerTurns } from '../../src/io/listener-turns.ts';
import { MemoryListener } from '../migrate/memory-listener.ts';

const bytes = new Uint8Array(1);

/** The first byte that comes over an accepted connection. */
async function hear(listener: { accept(): ReturnType<MemoryListener['accept']> }) {
  const connection = await listener.accept();
  if (connection === undefined) return undefined;
  await connection.read(bytes, 0);
  return bytes[0];
}

const connect = async (listener: MemoryListener, byte: number) => listener.connect().write(Uint8Array.of(byte));

it('what connects between two turns waits for the next one', async () => {
  const listener = new MemoryListener();
  const turns = new ListenerTurns(listener);
  const first = turns.turn();
  const waiting = hear(first);
  await connect(listener, 1);
  expect(await waiting).toBe(1);
  const unused = hear(first);
  await first.close();
  expect(await unused).toBeUndefined();
  expect(await first.accept()).toBeUndefined();
  await connect(listener, 2);
  await connect(listener, 3);
  const second = turns.turn();
  expect([await hear(second), await hear(second)]).toEqual([2, 3]);
  expect(turns.hasEnded).toBe(false);
  await turns.close();
  expect(await second.accept()).toBeUndefined();
  expect(turns.hasEnded).toBe(true);
});

it('a turn that is closed when a connection comes leaves it to the next one', async () => {
  const listener = new MemoryListener();
  const turns = new ListenerTurns(listener);
  const first = turns.turn();
  const unused = hear(first);
  const connecting = connect(listener, 7);
  await first.close();
  await connecting;
  expect(await unused).toBeUndefined();
  expect(await hear(turns.turn())).toBe(7);
});

it('a listener that fails says so to whoever accepts', async () => {
  const failing = {
    uri: 'memory:',
    accept: () => Promise.reject(new Error('no more descriptors')),
    close: async () => {},
  };
  const turns = new ListenerTurns(failing);
  await expect(turns.turn().accept()).rejects.toThrow('no more descriptors');
  expect(turns.hasEnded).toBe(true);
});
