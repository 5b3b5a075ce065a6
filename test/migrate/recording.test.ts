import { expect, test } from 'vitest';
import { Recording, type RecordingFolder } from '../../src/migrate/recording.ts';
import { loadPartedFixtures } from '../fixture-files.ts';
import { startRelay, take } from '../support/relay-ends.ts';

/** A folder in memory, whose files take `most` bytes in all. */
class MemoryFolder implements RecordingFolder {
  readonly files = new Map<string, { bytes: Buffer; isClosed: boolean }>();
  #left: number;

  constructor(most = Number.POSITIVE_INFINITY) {
    this.#left = most;
  }

  open(name: string) {
    const file = { bytes: Buffer.alloc(0), isClosed: false };
    this.files.set(name, file);
    return {
      write: (bytes: Uint8Array) => {
        this.#left -= bytes.length;
        if (this.#left < 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
        file.bytes = Buffer.concat([file.bytes, bytes]);
      },
      close: () => {
        file.isClosed = true;
      },
    };
  }
}

const { bytes, preempt, returnPath } = loadPartedFixtures().find(({ name }) => name === 'pc-preempt-10.0')!;

/** A migration in postcopy with a preempt channel. */
async function relayed(recording: Recording): Promise<void> {
  const { listener, targets, connected, result } = startRelay({ recording });
  const [main, second] = [listener.connect(), listener.connect()];
  await main.write(bytes);
  await second.write(preempt[0]!);
  await connected(2);
  await take(targets[0]!, bytes.length);
  await take(targets[1]!, preempt[0]!.length);
  await targets[0]!.write(returnPath[0]!);
  await take(main, returnPath[0]!.length);
  for (const line of [main, second, ...targets]) await line.end();
  await result;
  await recording.close();
}

test('keeps the bytes of each connection of the source, and of the return path', async () => {
  const folder = new MemoryFolder();
  const recording = new Recording(folder);
  await relayed(recording);
  expect(recording.failure).toBeUndefined();
  const got = Object.fromEntries(
    [...folder.files].map(([name, { bytes: kept, isClosed }]) => {
      expect(isClosed).toBe(true);
      return [name, kept.toString('hex')];
    }),
  );
  const hex = (part: Uint8Array) => Buffer.from(part).toString('hex');
  expect(got).toEqual({ main: hex(bytes), preempt: hex(preempt[0]!), 'return-path': hex(returnPath[0]!) });
});

test('a recording that fails does not end the migration', async () => {
  const folder = new MemoryFolder(1000);
  const recording = new Recording(folder);
  await relayed(recording);
  expect(recording.failure).toMatchObject({ error: { code: 'ENOSPC' } });
});
