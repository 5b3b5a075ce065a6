/** Hand-built main streams with their channels: every rule of epochs and packets, and every violation. */

import { createHash } from 'node:crypto';
import { deflateRawSync, deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  extractBlocks,
  inspect,
  MemoryFile,
  open,
  PortableCodecs,
  StreamSource,
  settle,
  verify,
} from '../../src/index.ts';
import { NodeCodecs } from '../../src/node.ts';
import { loadFixtures } from '../fixture-files.ts';
import { chunksOf } from '../io/sources.ts';
import {
  blockList,
  channelHello,
  command,
  configuration,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  header,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  packet,
  part,
  ramEnd,
  ramStart,
  start,
  subsection,
  syncPacket,
  u32,
  u64,
  zeroPage,
} from '../oracle/build.ts';
import { slowRead } from '../oracle/slow-reader.ts';
import { mappedRamFile } from '../wire/mapped-ram-file.ts';

const list = blockList(['ram', 16 * KIB4]);
/** A main stream with a mark in START and `marks` marks in a PART, in the new way. */
const main = (marks = 1): Uint8Array =>
  join(none, start(7, 'ram', 4, list, FLUSH, EOS), part(7, ...Array(marks).fill(FLUSH), EOS), ramEnd, EOF);
/** A channel with the packets of each epoch. The SYNC of START is included. */
const channel = (id: number, ...epochs: Uint8Array[][]): Uint8Array =>
  join(channelHello(id), syncPacket, ...epochs.flatMap((packets) => [...packets, syncPacket]));
const data = (...pages: [page: number, value: number][]): Uint8Array =>
  packet({
    normal: pages.map(([page]) => page * KIB4),
    payload: join(...pages.map(([, value]) => filled(value))),
  });

const named = (channels: readonly Uint8Array[]) => channels.map((bytes, i) => new MemoryFile(`channel ${i}`, bytes));

/** Final content as the first byte of each page; null for missing pages. */
async function contentOf(bytes: Uint8Array, ...channels: Uint8Array[]): Promise<Uint8Array> {
  const file = await open(bytes, { channels: named(channels) });
  const image = new MemoryFile();
  await extractBlocks(file, () => image);
  await file.close();
  const content = new Uint8Array(image.size);
  image.read(content, 0);
  const slow = slowRead(bytes, 0, channels).blocks[0]?.content ?? new Uint8Array();
  expect(Buffer.compare(content, slow), 'equals the slow reader').toBe(0);
  return content;
}
const firstBytes = (content: Uint8Array) => Array.from({ length: content.length / KIB4 }, (_, i) => content[i * KIB4]);

async function findingsOf(bytes: Uint8Array, ...channels: Uint8Array[]) {
  const file = await open(bytes, { channels: named(channels) });
  const { findings } = await verify(file);
  await file.close();
  return findings.filter(({ code }) => code !== 'pages-absent' && code !== 'description-missing');
}

describe('epochs', () => {
  it('are applied in order, whatever the order of channels on the command line', async () => {
    const one = channel(0, [data([0, 1], [1, 1])], [data([1, 3])]);
    const two = channel(1, [data([2, 2])], [data([0, 4]), data([3, 4])]);
    for (const channels of [
      [one, two],
      [two, one],
    ]) {
      expect(firstBytes(await contentOf(main(2), ...channels)).slice(0, 5)).toEqual([4, 3, 2, 4, 0]);
    }
  });

  it('end at every EOS if START has no mark', async () => {
    const old = join(none, ramStart, part(7, zeroPage(0, 'ram'), EOS), part(7, EOS), ramEnd, EOF);
    const bytes = channel(0, [data([0, 1])], [data([0, 2])], [data([1, 3])]);
    expect(firstBytes(await contentOf(old, bytes)).slice(0, 3)).toEqual([2, 3, 0]);
    expect(await findingsOf(old, bytes)).toEqual([]);
  });

  it('include the zero pages of the main stream: a later epoch overwrites them, and they overwrite an earlier one', async () => {
    const bytes = join(
      none,
      start(7, 'ram', 4, list, FLUSH, EOS),
      part(7, FLUSH, zeroPage(0, 'ram'), zeroPage(KIB4), FLUSH, EOS),
      part(7, FLUSH, EOS),
      ramEnd,
      EOF,
    );
    const content = await contentOf(bytes, channel(0, [data([0, 1], [2, 1])], [], [data([1, 3])]));
    expect(firstBytes(content).slice(0, 3)).toEqual([0, 3, 1]);
  });

  it('give sync items with the number of channels read', async () => {
    const file = await open(main(1), { channels: named([channel(0, [data([5, 9])])]) });
    const kinds: unknown[] = [];
    for await (const item of file.flow()) {
      if (item.kind === 'sync') kinds.push(['sync', item.channels]);
      if (item.kind === 'pages') kinds.push(['pages', item.batch.origin, item.batch.offset[0]]);
    }
    const at = 64 + 1344 + 1344;
    expect(kinds).toEqual([
      ['sync', 1],
      ['pages', { source: 'channel 0', coordinate: 'file', channel: 0 }, at],
      ['sync', 1],
    ]);
  });
});

describe('packets', () => {
  it('may have stale lengths, offsets and names if they have no pages', async () => {
    const stale = packet({ length: 4096, stale: 0xfff, block: 'gone' });
    const bytes = channel(0, [data([0, 1]), stale, stale]);
    expect(firstBytes(await contentOf(main(), bytes))[0]).toBe(1);
    expect(await findingsOf(main(), bytes)).toEqual([]);
  });

  it('may have data in the SYNC packet, which comes before the SYNC', async () => {
    const last = packet({ flags: 1, normal: [0], payload: filled(7) });
    const bytes = join(channelHello(0), syncPacket, last, data([0, 8]), syncPacket);
    expect(firstBytes(await contentOf(main(2), bytes))[0]).toBe(8);
  });

  it('without pages may follow the last SYNC', async () => {
    expect(await findingsOf(main(), join(channel(0, [data([0, 1])]), packet({ length: 99 })))).toEqual([]);
  });

  it('may have a meaningless payload length if pages are uncompressed', async () => {
    const odd = packet({ normal: [0], payload: filled(7), length: 0x1234 });
    expect(firstBytes(await contentOf(main(), channel(0, [odd])))[0]).toBe(7);
  });

  it('may name pages in any order, even twice', async () => {
    const pages: [number, number][] = [
      [9, 1],
      [8, 2],
      [7, 3],
      [10, 4],
      [8, 5],
    ];
    const zeros = packet({ zero: [3, 1, 2, 1].map((page) => page * KIB4) });
    const bytes = channel(0, [data([1, 9], [2, 9]), zeros, data(...pages)]);
    const content = await contentOf(main(), bytes);
    expect(firstBytes(content).slice(0, 12)).toEqual([0, 0, 0, 0, 0, 0, 0, 3, 5, 1, 4, 0]);
  });

  it('with the state of a device are skipped and reported', async () => {
    const device = join(hex('11223344 00000001 00000040'), 'vfio', new Uint8Array(252), u32(3), u32(5), 'state');
    const bytes = channel(0, [device, data([0, 1])]);
    expect(firstBytes(await contentOf(main(), bytes))[0]).toBe(1);
    expect(await findingsOf(main(), bytes)).toMatchObject([
      { severity: 'warning', code: 'unsupported', place: { source: 'channel 0', offset: 64 + 1344, channel: 0 } },
    ]);
    const file = await open(main(), { channels: named([bytes]) });
    await expect(settle(file, { take() {} }, { devices: true })).rejects.toMatchObject({
      code: 'unsupported',
    });
  });

  it('of qpl and uadk are decoded page by page, including uncompressed pages', async () => {
    for (const [flags, deflate] of [
      [8, deflateRawSync],
      [16, deflateSync],
    ] as const) {
      const packed = new Uint8Array(deflate(filled(5)));
      const payload = join(u32(packed.length), u32(KIB4), packed, filled(6));
      for (const length of [payload.length, payload.length - 8]) {
        const bytes = channel(0, [packet({ flags, normal: [KIB4, 0], payload, length })]);
        const file = await open(main(), { channels: named([bytes]) });
        const image = new MemoryFile();
        await extractBlocks(file, () => image);
        const content = new Uint8Array(2 * KIB4);
        image.read(content, 0);
        expect(content).toEqual(join(filled(6), filled(5)));
      }
    }
  });

  it('of qatzip are counted, and refused if their content is needed', async () => {
    const bytes = channel(0, [packet({ flags: 32, normal: [0, KIB4], payload: 'anything' })]);
    expect(await findingsOf(main(), bytes)).toMatchObject([
      { severity: 'warning', code: 'pages-unread', count: 2, message: expect.stringContaining('qatzip') },
    ]);
    await expect(contentOf(main(), bytes)).rejects.toMatchObject({ code: 'pages-unread', place: { channel: 0 } });
  });
});

describe('a set of channels', () => {
  const good = channel(0, [data([0, 1])]);
  const other = channel(1, [data([1, 1])]);
  const zlibPacket = (payload: Uint8Array) => packet({ flags: 2, normal: [0], payload });
  const uuid = 'ab'.repeat(16);
  const stated = join(
    header,
    configuration('none', subsection('configuration/uuid', hex(uuid))),
    start(7, 'ram', 4, list, FLUSH, EOS),
    part(7, FLUSH, EOS),
    ramEnd,
    EOF,
  );
  const withUuid = (id: number) => join(channelHello(id, uuid), syncPacket, syncPacket);

  it.each<[string, Uint8Array, Uint8Array[], string, object]>([
    ['without one of them', main(), [other], 'missing-channels', { source: 'channel 0', offset: 0 }],
    ['with one twice', main(), [good, good], 'bad-channel', { source: 'channel 1', offset: 0 }],
    ['with a file that is none', main(), [main()], 'bad-channel', { source: 'channel 0', offset: 0 }],
    ['of two guests', main(), [good, withUuid(1)], 'bad-channel', { source: 'channel 1', offset: 0 }],
    ['of another guest', stated, [good], 'bad-channel', { source: 'channel 0', offset: 0, channel: 0 }],
    ['beside a mapped-ram file', mappedRamFile(), [good], 'bad-channel', { source: 'channel 0' }],
    [
      'beside a stream with pages of its own',
      join(
        none,
        start(7, 'ram', 4, list, FLUSH, EOS),
        part(7, normalPage(KIB4, filled(3), 'ram'), FLUSH, EOS),
        ramEnd,
        EOF,
      ),
      [good],
      'bad-channel',
      { section: 'ram', block: 'ram' },
    ],
    ['that ends in a hello', main(), [good.subarray(0, 9)], 'truncated', { source: 'channel 0', offset: 9 }],
    ['that ends in a header', main(), [good.subarray(0, 1500)], 'truncated', { offset: 1500, channel: 0 }],
    ['that ends in a page', main(), [good.subarray(0, 5000)], 'truncated', { offset: 5000, channel: 0 }],
    ['with too few SYNCs', main(2), [good], 'sync-missing', { offset: good.length, channel: 0 }],
    ['with too many SYNCs', main(0), [good], 'sync-mismatch', { offset: 64 + 1344, channel: 0 }],
    ['with pages after the last SYNC', main(), [join(good, data([0, 1]))], 'sync-mismatch', { offset: good.length }],
    ['with junk in place of a packet', main(), [channel(0, [filled(1)])], 'bad-packet', { offset: 64 + 1344 }],
    [
      'with an unknown block',
      main(),
      [channel(0, [packet({ block: 'rom', zero: [0] })])],
      'unknown-block',
      { channel: 0 },
    ],
    [
      'with a page beyond its block',
      main(),
      [channel(0, [packet({ zero: [16 * KIB4] })])],
      'page-out-of-range',
      { channel: 0, block: 'ram', page: 16 },
    ],
    [
      'with data beyond its block',
      main(),
      [channel(0, [data([0, 1], [2 ** 40, 1], [1, 1])])],
      'page-out-of-range',
      { channel: 0, page: 2 ** 40 },
    ],
    [
      'that changes its compression',
      main(),
      [channel(0, [data([0, 1]), zlibPacket(deflateSync(filled(1)))])],
      'bad-packet',
      { channel: 0 },
    ],
    [
      'with too much payload',
      main(),
      [channel(0, [packet({ flags: 2, normal: [0], length: 2 ** 20 + 1 })])],
      'bad-packet',
      { channel: 0 },
    ],
    [
      'with data that does not inflate',
      main(),
      [channel(0, [zlibPacket(filled(0xff, 64))])],
      'bad-compressed-data',
      { offset: 64 + 1344, channel: 0 },
    ],
    [
      'with too little in a packet',
      main(),
      [channel(0, [zlibPacket(deflateSync(filled(1, 100)))])],
      'bad-compressed-data',
      { offset: 64 + 1344, channel: 0 },
    ],
    [
      'with too much in a packet',
      main(),
      [channel(0, [zlibPacket(deflateSync(filled(1, 5000)))])],
      'bad-compressed-data',
      { offset: 64 + 1344, channel: 0 },
    ],
    [
      'with no bytes for a page',
      main(),
      [channel(0, [packet({ flags: 4, normal: [0] })])],
      'bad-compressed-data',
      { channel: 0 },
    ],
    [
      'with lengths of pages that do not add up',
      main(),
      [channel(0, [packet({ flags: 8, normal: [0], payload: join(u32(9), 'junk') })])],
      'bad-packet',
      { channel: 0 },
    ],
    [
      'with a compressed page that is too long',
      main(),
      [channel(0, [packet({ flags: 16, normal: [0], payload: join(u32(KIB4 + 1), filled(1, KIB4 + 1)) })])],
      'bad-packet',
      { channel: 0 },
    ],
    [
      'with a page that does not inflate',
      main(),
      [channel(0, [packet({ flags: 16, normal: [0], payload: join(u32(4), 'junk') })])],
      'bad-compressed-data',
      { channel: 0 },
    ],
  ])('%s is refused, with its name and place', async (_, bytes, channels, code, place) => {
    const findings = await findingsOf(bytes, ...channels);
    expect(findings).toMatchObject([{ severity: 'error', code, place }]);
    await expect(contentOf(bytes, ...channels)).rejects.toMatchObject({ code, place });
  });

  it('continues after a page beyond its block', async () => {
    const file = await open(main(), { channels: named([channel(0, [data([0, 1], [99, 1], [1, 1])])]) });
    expect((await inspect(file)).inspection.ram.records.normal.records).toBe(2);
  });

  it('over 255 is misuse', async () => {
    const many = Array.from({ length: 256 }, (_, i) => channelHello(i & 0xff));
    await expect(open(main(), { channels: named(many) })).rejects.toThrow(RangeError);
  });

  it('of 255 is read', async () => {
    const many = Array.from({ length: 255 }, (_, i) => channel(i, [data([i % 16, i + 1])]));
    expect(firstBytes(await contentOf(main(), ...many))[0]).toBe(241);
  });

  it('recognizes a channel in place of the main stream', async () => {
    const file = await open(good, { channels: named([good]) });
    const { inspection } = await inspect(file);
    expect(inspection.error?.message).toMatch(/multifd channel/);
  });

  it('may consist of pipes, and is closed with the file', async () => {
    let cancelled = 0;
    const pipe = (bytes: Uint8Array) => new StreamSource(chunksOf(bytes, 999), 'pipe', () => void cancelled++);
    const file = await open(pipe(main()), { channels: [pipe(other), pipe(good)] });
    expect(file.isSeekable).toBe(false);
    const { inspection } = await inspect(file);
    expect(inspection.error).toBeUndefined();
    expect(inspection.multifd?.channels.map(({ id, bytes }) => [id, bytes])).toEqual([
      [0, good.length],
      [1, other.length],
    ]);
    await file.close();
    expect(cancelled).toBe(3);
  });

  it('is inspected: the content and the compression of each channel', async () => {
    const file = await open(main(), { channels: named([good, other]) });
    const { inspection } = await inspect(file);
    expect(inspection.ram.multifdSyncs).toBe(2);
    expect(inspection.ram.passes).toBeUndefined();
    expect(inspection.findings).toEqual([]);
    expect(inspection.multifd).toEqual({
      compression: 'none',
      channels: [0, 1].map((id) => ({
        id,
        source: `channel ${id}`,
        packets: 3,
        syncs: 2,
        normalPages: 1,
        zeroPages: 0,
        devicePackets: 0,
        bytes: good.length,
        decompressedBytes: 0,
      })),
    });
  });
});

describe('without its last channel', () => {
  it('a set of 7.2 lacks pages that no device explains, and its packets have gaps', async () => {
    const { bytes, channels } = loadFixtures().find(({ name }) => name === 'pc-multifd-zlib-7.2')!;
    const first = channels.filter((each) => each[24] === 0);
    const { findings } = await verify(await open(bytes, { channels: first }));
    expect(findings).toMatchObject([
      { code: 'missing-channels', message: expect.stringMatching(/is a channel of a higher number than 0 missing/) },
      { code: 'pages-absent' },
    ]);
  });

  const whole = loadFixtures().filter(({ name, channels }) => name.endsWith('-10.0') && channels.length > 1);
  it.each(whole)('$name differs from a set without its last channel by the numbers of packets', async (fixture) => {
    const { bytes, channels } = fixture;
    const numberOf = (channel: Uint8Array) => channel[24] as number;
    const left = channels.filter((each) => numberOf(each) < channels.length - 1);
    expect(left).toHaveLength(channels.length - 1);
    const codes = async (given: Uint8Array[]) => {
      const { findings } = await verify(await open(bytes, { channels: given }));
      return findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);
    };
    expect(await codes(channels)).toEqual([]);
    expect(await codes(left)).toEqual(['missing-channels']);
    const image = extractBlocks(await open(bytes, { channels: left }), () => new MemoryFile());
    await expect(image).rejects.toMatchObject({ code: 'missing-channels' });
  });
});

describe('without its channels a main stream', () => {
  it('of the new way is refused', async () => {
    await expect(contentOf(main())).rejects.toMatchObject({ code: 'missing-channels' });
  });

  it('of the old way is recognized, because no page with data was sent', async () => {
    const old = join(none, ramStart, part(7, zeroPage(0, 'ram'), EOS), ramEnd, EOF);
    const { verdict, findings } = await verify(await open(old));
    expect([verdict, findings[0]?.code]).toEqual(['incomplete', 'missing-channels']);
    await expect(contentOf(old)).rejects.toMatchObject({ code: 'missing-channels' });
    const plain = join(none, ramStart, part(7, join(u64(8), [3], 'ram', filled(1)), EOS), ramEnd, EOF);
    expect(await verify(await open(plain))).toMatchObject({ verdict: 'ok' });
  });
});

describe('postcopy after multifd', () => {
  it('sends pages in the main stream after the last mark', async () => {
    const bytes = join(
      none,
      start(7, 'ram', 4, list, FLUSH, EOS),
      part(7, FLUSH, EOS),
      command(4),
      part(7, zeroPage(0, 'ram'), EOS),
      end(7, EOS),
      EOF,
    );
    expect(firstBytes(await contentOf(bytes, channel(0, [data([0, 1], [1, 1])]))).slice(0, 2)).toEqual([0, 1]);
  });
});

const engines = { Node: () => new NodeCodecs(), portable: () => new PortableCodecs() };
const captured = loadFixtures().filter(({ name, channels }) => channels.length > 0 || name.includes('compress'));

describe.each(Object.entries(engines))('what QEMU compressed, with the codecs of %s', (_, makeCodecs) => {
  it.each(captured)('$name has the RAM of the stopped source, even from pipes', async ({ bytes, channels, truth }) => {
    for (const piped of [false, true]) {
      const source = (all: Uint8Array, name: string) =>
        piped ? new StreamSource(chunksOf(all, 9999), name) : new MemoryFile(name, all);
      const file = await open(source(bytes, 'main'), {
        channels: channels.map((channel, i) => source(channel, `channel ${i}`)),
        codecs: makeCodecs(),
      });
      const images = new Map<string, MemoryFile>();
      await extractBlocks(file, ({ idstr }) => {
        images.set(idstr, new MemoryFile(idstr));
        return images.get(idstr);
      });
      const { list: reports } = file.channels;
      expect(reports.map((report) => report.bytes).sort()).toEqual(channels.map(({ length }) => length).sort());
      await file.close();
      for (const { idstr, length, sha256 } of truth) {
        const content = new Uint8Array(length);
        images.get(idstr)?.read(content, 0);
        expect(createHash('sha256').update(content).digest('hex'), idstr).toBe(sha256);
      }
    }
  });
});
