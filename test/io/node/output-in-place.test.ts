import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { openInPlace } from '../../../src/io/node/output-in-place.ts';
import { makeDirectory } from './directory.ts';

const directory = makeDirectory();

function makeFifo(name: string): string {
  const path = directory.at(name);
  execFileSync('mkfifo', [path]);
  return path;
}

describe('output in place', () => {
  it('waits for the reader of a FIFO without blocking anything else, and writes in order', async () => {
    const path = makeFifo('fifo');
    const opening = openInPlace(path);
    // Timers run while it waits.
    for (let turns = 0; turns < 30; turns++) await sleep(5);
    const reader = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const received: Buffer[] = [];
    reader.stdout.on('data', (chunk: Buffer) => received.push(chunk));
    const output = await opening;
    // The caller reuses its buffer for each piece.
    const piece = new Uint8Array(100_000);
    for (let i = 0; i < 30; i++) await output.write(piece.fill(i));
    await output.close();
    await once(reader, 'close');
    const expected = Buffer.concat(Array.from({ length: 30 }, (_, i) => Buffer.alloc(100_000, i)));
    expect(Buffer.concat(received).equals(expected)).toBe(true);
  });

  it('fails when the reader of a FIFO goes away, and can then be closed', async () => {
    const path = makeFifo('broken');
    const opening = openInPlace(path);
    const reader = createReadStream(path);
    reader.once('data', () => reader.destroy());
    const output = await opening;
    const writing = (async () => {
      for (let i = 0; i < 1000; i++) await output.write(new Uint8Array(100_000));
    })();
    await expect(writing).rejects.toMatchObject({ code: expect.stringMatching(/EPIPE|ECONNRESET/) });
    await expect(output.write(new Uint8Array(10))).rejects.toThrow();
    await output.close();
  });

  it('writes to a device and passes on its errors', async () => {
    const nothing = await openInPlace('/dev/null');
    await nothing.write(new Uint8Array(1 << 20));
    await nothing.close();
    const full = await openInPlace('/dev/full');
    await expect(full.write(new Uint8Array(10))).rejects.toMatchObject({ code: 'ENOSPC' });
    await full.close();
  });

  it('fails for a missing path', async () => {
    await expect(openInPlace(directory.at('missing'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
