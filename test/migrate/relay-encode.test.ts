import { expect, test } from 'vitest';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { NodeCodecs } from '../../src/io/node/codecs.ts';
import type { StreamFormat } from '../../src/io/page-codec.ts';
import type { RelayOptions } from '../../src/migrate/relay.ts';
import { open, verify } from '../../src/node.ts';
import type { MigrationFile } from '../../src/read/open.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { CommandCode, encodeCommand } from '../../src/wire/command.ts';
import { encodeReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { type Fixture, loadFixtures } from '../fixture-files.ts';
import { someOf } from '../limits.ts';
import { ramDigests, truthDigests } from '../support/ram-digests.ts';
import { startRelay, takeAll } from '../support/relay-ends.ts';

const fixtures = loadFixtures().filter(({ name, offset }) => offset === 0 && !/mapped-ram/.test(name));
const isPostcopy = ({ name }: Fixture) => /postcopy|hugepages/.test(name);
const fixture = (name: string) => fixtures.find((each) => each.name === name)!;

function shut(value: number): Uint8Array {
  const out = new ByteWriter();
  encodeReturnMessage(out, { type: ReturnType.shut, value });
  return out.bytes();
}

interface Encoding {
  channels?: number;
  compression?: 'none' | StreamFormat;
  /** The same as of the option `tee`. */
  tee?: RelayOptions['tee'] | undefined;
  makeScratch?: () => Promise<MemoryFile>;
  /** What the target says when it has everything. */
  answer?: Uint8Array;
}

/** Relays a fixture with another encoding. Returns what the target received on each connection, main first. */
async function relayed({ bytes, channels: sent }: Fixture, { tee, answer, makeScratch: make, ...encoding }: Encoding) {
  let isClosed = false;
  const makeScratch = async () => {
    const file = (await make?.()) ?? new MemoryFile('scratch');
    const close = file.close.bind(file);
    file.close = async () => {
      isClosed = true;
      await close();
    };
    return file;
  };
  const codecs = new NodeCodecs();
  const { listener, targets, result } = startRelay({ tee, encoding: { ...encoding, codecs, makeScratch } });
  const sources = [bytes, ...sent].map(() => listener.connect());
  const all = [bytes, ...sent].map(async (stream, i) => {
    await sources[i]!.write(stream);
    await sources[i]!.end();
  });
  const got: Promise<Uint8Array>[] = [];
  const push = targets.push.bind(targets);
  targets.push = (...lines) => {
    for (const line of lines) {
      const isMain = got.length === 0;
      const all = takeAll(line).then(async (stream) => {
        if (isMain && answer !== undefined) await line.write(answer);
        return stream;
      });
      got.push(all.finally(() => line.end()));
    }
    return push(...lines);
  };
  const outcome = await result.then(
    () => undefined,
    (error: unknown) => error,
  );
  await Promise.allSettled(all);
  return { outcome, streams: await Promise.all(got.map((each) => each.catch(() => new Uint8Array()))), isClosed };
}

const opened = ([main, ...channels]: readonly Uint8Array[]) =>
  open(new MemoryFile('main', main as Uint8Array), {
    channels: channels.map((each) => new MemoryFile('channel', each)),
  });

/** Everything in a stream except RAM. */
async function restOf(file: MigrationFile): Promise<unknown[]> {
  const rest: unknown[] = [];
  for await (const item of file.flow({ read: 'bitmaps' })) {
    if (item.kind === 'configuration') rest.push(item.configuration);
    else if (item.kind === 'command') rest.push([item.command.name, Buffer.from(item.command.payload).toString('hex')]);
    else if (item.kind === 'device') rest.push([item.device.name, Buffer.from(item.device.data).toString('hex')]);
    else if (item.kind === 'dirty-bitmap') rest.push(item.bitmap);
    else if (item.kind === 'description') rest.push(item.description.text);
    else if (item.kind === 'block') rest.push(item.block);
  }
  return rest;
}

const encodings: Encoding[] = [
  { channels: 1 },
  { channels: 3, compression: 'zlib' },
  { channels: 4, compression: 'zstd' },
  { compression: 'none' },
];

const cases = fixtures
  .filter((each) => !isPostcopy(each))
  .flatMap((each, i) =>
    someOf(encodings, encodings.length).map((_, j) => {
      const encoding = encodings[(i + j) % encodings.length] as Encoding;
      const { channels = 'as many', compression = 'none' } = encoding;
      return [`${each.name} as ${channels} channels ${compression}`, each, encoding] as const;
    }),
  );

test.each(cases)('%s', async (_, source, encoding) => {
  const { outcome, streams, isClosed } = await relayed(source, encoding);
  expect(outcome).toBeUndefined();
  expect(streams.length).toBe(1 + (encoding.channels ?? (source.channels.length || 2)));
  expect(isClosed).toBe(true);
  const file = await opened(streams);
  const { findings } = await verify(file);
  expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
  expect(await ramDigests(await opened(streams))).toEqual(truthDigests(source));
  const before = await open(new MemoryFile('main', source.bytes), {
    channels: source.channels.map((each) => new MemoryFile('channel', each)),
  });
  expect(await restOf(await opened(streams))).toEqual(await restOf(before));
});

test('marks are where the source has them, if its machine type names no version', async () => {
  const old = await relayed({ ...fixture('pc-multifd-none-7.2') }, { channels: 2 });
  expect(old.outcome).toBeUndefined();
  const flushes = async (streams: readonly Uint8Array[]) => {
    let count = 0;
    const file = await open(new MemoryFile('main', streams[0] as Uint8Array));
    for await (const item of file.flow({ read: 'bitmaps' })) if (item.kind === 'sync') count++;
    return count;
  };
  expect(await flushes(old.streams)).toBe(0);
  const recent = await relayed(fixture('none-multifd-uuid-10.0'), {});
  expect(recent.outcome).toBeUndefined();
  expect(await flushes(recent.streams)).toBeGreaterThan(0);
});

test('the UUID of the channels is that of the source', async () => {
  const source = fixture('none-multifd-uuid-10.0');
  const { streams } = await relayed(source, { channels: 3 });
  const uuid = (hello: Uint8Array) => Buffer.from(hello.subarray(8, 24)).toString('hex');
  for (const stream of streams.slice(1)) expect(uuid(stream)).toBe(uuid(source.channels[0]!));
  expect(uuid(streams[1]!)).not.toBe('0'.repeat(32));
});

test('keeps the guest meanwhile', async () => {
  const target = { file: new MemoryFile('kept'), commit: async () => {} };
  const source = fixture('pc-xbzrle-10.0');
  const { outcome, streams } = await relayed(source, { channels: 2, tee: { target, codecs: new NodeCodecs() } });
  expect(outcome).toBeUndefined();
  expect(await ramDigests(await open(target.file))).toEqual(truthDigests(source));
  expect(await ramDigests(await opened(streams))).toEqual(truthDigests(source));
});

const postcopyCases = fixtures
  .filter(isPostcopy)
  .flatMap((each) => [[each.name, each, false] as const, [each.name, each, true] as const]);

test.each(postcopyCases)('%s passes on in postcopy, kept: %3$s', async (_, source, isKept) => {
  const target = { file: new MemoryFile('kept'), commit: async () => {} };
  const tee = isKept ? { target, codecs: new NodeCodecs() } : undefined;
  const { outcome, streams } = await relayed(source, { channels: 2, tee, answer: shut(0) });
  expect(outcome).toBeUndefined();
  expect(streams.length).toBe(3);
  // From the first discard on, main is what the source sent.
  const rest = (bytes: Uint8Array) => Buffer.from(bytes).subarray(Buffer.from(bytes).indexOf(Buffer.from([8, 0, 6])));
  expect(rest(streams[0]!).equals(rest(source.bytes))).toBe(true);
  expect(rest(source.bytes).length).toBeGreaterThan(1000);
  expect(await ramDigests(await opened(streams))).toEqual(truthDigests(source));
  if (isKept) expect(await ramDigests(await open(target.file))).toEqual(truthDigests(source));
});

test('a target that breaks a channel breaks everything', async () => {
  const makeScratch = async () => new MemoryFile('scratch');
  const { listener, targets, connected, result } = startRelay({
    encoding: { channels: 2, codecs: new NodeCodecs(), makeScratch },
  });
  const source = listener.connect();
  const sent = source.write(fixture('pc-plain-10.0').bytes);
  sent.catch(() => {});
  await connected(3);
  targets[2]!.destroy();
  await expect(result).rejects.toMatchObject({ guest: 'either', cause: { code: 'EPIPE' } });
  await expect(sent).rejects.toThrow('Broken pipe');
});

test('SHUT 0 passes, and the target has the guest', async () => {
  const makeScratch = async () => new MemoryFile('scratch');
  const { listener, targets, connected, result } = startRelay({
    encoding: { channels: 1, codecs: new NodeCodecs(), makeScratch },
  });
  const source = listener.connect();
  const { bytes } = fixture('pc-plain-10.0');
  const sent = source.write(bytes);
  await connected(2);
  const got = targets.map((line) => takeAll(line));
  await sent;
  await targets[0]!.write(shut(0));
  const answer = new Uint8Array(8);
  expect(await source.read(answer, 0)).toBe(8);
  expect(Buffer.from(answer).equals(shut(0))).toBe(true);
  await source.end();
  await Promise.all(got);
  for (const line of targets) await line.end();
  expect(await result).toMatchObject({ isConfirmed: true, connections: 2 });
});

test('a target that waits for more channels does not answer, and is given up', async () => {
  const makeScratch = async () => new MemoryFile('scratch');
  const ends = startRelay({ encoding: { channels: 1, codecs: new NodeCodecs(), makeScratch }, setupTimeoutMs: 5000 });
  const source = ends.listener.connect();
  const { bytes } = fixture('pc-plain-10.0');
  const headLength = 13 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(9);
  const out = new ByteWriter();
  encodeCommand(out, CommandCode.openReturnPath);
  encodeCommand(out, CommandCode.ping, Uint8Array.from([0, 0, 0, 1]));
  const sent = source.write(
    Buffer.concat([bytes.subarray(0, headLength), out.bytes(), bytes.subarray(headLength, bytes.length / 2)]),
  );
  sent.catch(() => {});
  await ends.connected(2);
  for (const line of ends.targets) void takeAll(line).catch(() => {});
  await sent;
  await ends.clock.advance(4999);
  await ends.clock.advance(1);
  await expect(ends.result).rejects.toMatchObject({
    guest: 'source',
    message: 'the target did not answer within 5 s: it may wait for more multifd channels',
  });
});

test('a target that waits for more channels, of a source without a return path: it is said what is waited for', async () => {
  const waits = new Set<string>();
  const makeScratch = async () => new MemoryFile('scratch');
  const encoding = { channels: 1, codecs: new NodeCodecs(), makeScratch };
  const onWaiting = (_: number, what: string) => void waits.add(what);
  const ends = startRelay({ encoding, onWaiting });
  const source = ends.listener.connect();
  const sent = source.write(fixture('none-plain-10.0').bytes).then(() => source.end());
  await ends.connected(2);
  const got = ends.targets.map((line) => takeAll(line));
  await Promise.all([sent, ...got]);
  await ends.clock.advance(11_000);
  expect([...waits]).toEqual(['the target to take the rest and end the line: it may wait for more multifd channels']);
  for (const line of ends.targets) await line.end();
  expect(await ends.result).toMatchObject({ isConfirmed: false });
});

test('a scratch file that cannot be written matters only if deltas come', async () => {
  const full = Object.assign(new Error('no space left'), { code: 'ENOSPC' });
  const makeScratch = async () => {
    const file = new MemoryFile('scratch');
    file.write = () => {
      throw full;
    };
    return file;
  };
  const plain = await relayed(fixture('pc-plain-10.0'), { channels: 2, makeScratch });
  expect(plain.outcome).toBeUndefined();
  expect(await ramDigests(await opened(plain.streams))).toEqual(truthDigests(fixture('pc-plain-10.0')));
  const { outcome } = await relayed(fixture('pc-xbzrle-10.0'), { channels: 2, makeScratch });
  expect(outcome).toMatchObject({ cause: full });
});

test('pages that come on a channel before the START of RAM has ended', async () => {
  const source = fixture('none-multifd-uuid-10.0');
  await using file = await opened([source.bytes, ...source.channels]);
  let end = 0;
  for await (const item of file.flow({ read: 'bitmaps' })) {
    if (item.kind !== 'section-end' || item.section.name !== 'ram' || item.section.kind !== 'start') continue;
    end = item.section.offset + item.section.length;
    break;
  }
  const codecs = new NodeCodecs();
  const makeScratch = async () => new MemoryFile('scratch');
  const { listener, targets, result } = startRelay({ encoding: { channels: 2, codecs, makeScratch } });
  const heard: (() => void)[] = [];
  const begun = new Promise<void>((resolve) => heard.push(resolve));
  const got: Promise<Uint8Array>[] = [];
  const push = targets.push.bind(targets);
  targets.push = (...lines) => {
    for (const line of lines) {
      const read = line.read.bind(line);
      line.read = async (bytes, position) => {
        const count = await read(bytes, position);
        heard[0]?.();
        return count;
      };
      got.push(takeAll(line).finally(() => line.end()));
    }
    return push(...lines);
  };
  const [main, ...channels] = [source.bytes, ...source.channels].map(() => listener.connect());
  const sending = source.channels.map(async (stream, i) => {
    await channels[i]!.write(stream);
    await channels[i]!.end();
  });
  const failed = result.then(
    () => {},
    () => {},
  );
  // The footer is cut: without the pages, nothing of RAM could be sent on.
  await main!.write(source.bytes.subarray(0, end - 3));
  await Promise.race([begun, failed]);
  await main!.write(source.bytes.subarray(end - 3));
  await main!.end();
  await result;
  await Promise.all(sending);
  expect(await ramDigests(await opened(await Promise.all(got)))).toEqual(truthDigests(source));
});
