import { describe, expect, it } from 'vitest';
import { EventLoopYield, takeTurn } from '../../src/io/event-loop-yield.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { openOpfsScratch } from '../../src/io/opfs-scratch.ts';
import { MemoryScratch, NoRoomError } from '../../src/io/scratch.ts';
import { watchSource } from '../../src/io/watched-source.ts';

const KIB64 = 65_536;

describe('scratch files in memory', () => {
  it('share a limit, and report when it is reached', async () => {
    const scratch = new MemoryScratch(4 * KIB64);
    const [one, two] = [await scratch.makeFile(), await scratch.makeFile()];
    await one.write(new Uint8Array(2 * KIB64), 0);
    // A hole takes no space.
    await two.truncate(2 ** 40);
    await two.write(new Uint8Array(2 * KIB64), 2 ** 39);
    expect(() => two.write(new Uint8Array(1), 0)).toThrow(NoRoomError);
    expect(() => one.write(new Uint8Array(10), 0)).toThrow('would need more than 0.25 MiB of memory');
  });

  it('free their space when they are closed', async () => {
    const scratch = new MemoryScratch(2 * KIB64);
    for (let i = 0; i < 5; i++) {
      const file = await scratch.makeFile();
      await file.write(new Uint8Array(2 * KIB64).fill(i), 0);
      const last = new Uint8Array(1);
      expect(await file.read(last, 2 * KIB64 - 1)).toBe(1);
      expect(last[0]).toBe(i);
      await file.close();
    }
  });

  it('become files with a name', async () => {
    const file = await new MemoryScratch(8 * KIB64).makeFile();
    await file.write(Uint8Array.of(1, 2, 3), 2 ** 20);
    const finished = await file.finish('guest.raw');
    expect([finished.name, finished.size]).toEqual(['guest.raw', 2 ** 20 + 3]);
    expect([...new Uint8Array(await finished.slice(2 ** 20 - 1).arrayBuffer())]).toEqual([0, 1, 2, 3]);
  });
});

it('there is no private disk on a platform without one', async () => {
  expect(await openOpfsScratch({}, 'session')).toBeUndefined();
});

it('turns of the event loop come after a number of bytes, and let other work run', async () => {
  const turns = new EventLoopYield();
  expect(turns.after(1 << 20)).toBeUndefined();
  let heard = false;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    heard = true;
    port1.close();
  };
  port2.postMessage('hear me');
  const turn = turns.after(8 << 20);
  expect(turn).toBeInstanceOf(Promise);
  await turn;
  while (!heard) await takeTurn();
});

it('a watched source reports reads, ends when aborted, and leaves closing to its owner', async () => {
  const controller = new AbortController();
  const counts: number[] = [];
  const file = new MemoryFile('memory', new Uint8Array(100));
  const source = watchSource(file, { signal: controller.signal, onRead: (count) => counts.push(count) });
  expect([source.name, source.size]).toEqual(['memory', 100]);
  await source.read(new Uint8Array(60), 0);
  await source.read(new Uint8Array(60), 60);
  expect(counts).toEqual([60, 40]);
  controller.abort(new Error('enough'));
  expect(() => source.read(new Uint8Array(1), 0)).toThrow('enough');
});
