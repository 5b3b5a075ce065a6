import { expect, test } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import { LiveError } from '../../src/migrate/live-error.ts';
import type { TeeTarget } from '../../src/migrate/tee.ts';
import { open } from '../../src/node.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { type Fixture, loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { someOf } from '../limits.ts';
import { ramDigests, truthDigests } from '../support/ram-digests.ts';
import { startRelay, takeAll } from '../support/relay-ends.ts';

const out = new ByteWriter();
encodeReturnMessage(out, { type: ReturnType.shut, value: 0 });
const shut = out.bytes();

/** Relays a fixture, with all its connections, and keeps it. */
async function teeOf(fixture: Fixture & { preempt?: Uint8Array[] }, target: TeeTarget) {
  const { listener, targets, connected, result } = startRelay({ tee: { target, codecs: new NodeCodecs() } });
  const hasAnswer = fixture.preempt !== undefined || /postcopy|hugepages/.test(fixture.name);
  const streams = [fixture.bytes, ...fixture.channels, ...(fixture.preempt ?? [])];
  const sources = streams.slice(0, 1 + fixture.channels.length).map(() => listener.connect());
  if (fixture.preempt !== undefined) {
    // A preempt channel says nothing before the main connection has.
    await sources[0]!.write(fixture.bytes.subarray(0, 8));
    await connected(1);
    sources.push(listener.connect());
  }
  const rest = (i: number) => streams[i]!.subarray(i === 0 && fixture.preempt !== undefined ? 8 : 0);
  const sent = sources.map(async (source, i) => {
    await source.write(rest(i));
    if (!hasAnswer || i > 0) await source.end();
  });
  await connected(streams.length);
  const got = targets.map((line) => takeAll(line));
  await Promise.all(sent);
  if (hasAnswer) {
    await targets[0]!.write(shut);
    await sources[0]!.end();
  }
  for (const line of targets) await line.end();
  const passed = await Promise.all(got);
  for (const [i, bytes] of streams.entries())
    expect(
      passed.some((each) => Buffer.from(bytes).equals(each)),
      `${i}`,
    ).toBe(true);
  return result;
}

class Kept implements TeeTarget {
  readonly file = new MemoryFile();
  isCommitted = false;

  async commit(): Promise<void> {
    this.isCommitted = true;
  }
}

const all = [...loadFixtures(), ...loadPartedFixtures()].filter(
  ({ name, offset }) => offset === 0 && !/mapped-ram|recovery/.test(name),
);
/** Every third multifd set, and all others. */
const fixtures = [
  ...all.filter(({ channels }) => channels.length === 0),
  ...someOf(
    all.filter(({ channels }) => channels.length > 0),
    3,
    1,
  ),
];

test.each(fixtures.map((fixture) => [fixture.name, fixture] as const))('keeps the guest of %s', async (_, fixture) => {
  const target = new Kept();
  await teeOf(fixture, target);
  expect(target.isCommitted).toBe(true);
  const file = await open(target.file);
  expect(file.format).toBe('mapped-ram');
  expect(await ramDigests(file)).toEqual(truthDigests(fixture));
});

const plain = fixtures.find(({ name }) => name === 'pc-plain-10.0')!;

test('a file that cannot be written does not end the migration', async () => {
  class Full extends Kept {
    constructor(after: number) {
      super();
      let left = after;
      const write = this.file.write.bind(this.file);
      this.file.write = (bytes, position) => {
        left -= bytes.length;
        if (left < 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
        return write(bytes, position);
      };
    }
  }
  for (const after of [0, 100_000]) {
    const target = new Full(after);
    const error = await teeOf(plain, target).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LiveError);
    expect(error).toMatchObject({ guest: 'target', message: 'no space left on device', cause: { code: 'ENOSPC' } });
    expect(target.isCommitted).toBe(false);
  }
});

test('a stream that cannot be kept passes all the same', async () => {
  const bytes = plain.bytes.slice();
  // A page beyond the end of its block.
  const at = Buffer.from(bytes).indexOf(Buffer.from([0x10, 0x28]), 3000) - 6;
  bytes.set([0x00, 0x7f], at);
  const target = new Kept();
  const error = await teeOf({ ...plain, bytes }, target).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ guest: 'target', cause: { code: expect.any(String) } });
  expect(target.isCommitted).toBe(false);
});
