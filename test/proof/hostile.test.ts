/**
 * The built command line reads malicious files: each run takes little CPU time, ends with exit code 1 or 0, stays
 * within the design's memory limit, and leaves no partial output.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeLibvirtHead } from '../../src/read/container/libvirt-header.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize } from '../../src/wire/ram-section.ts';
import { encodeFooter, encodeSectionHead } from '../../src/wire/section.ts';
import { loadFixtures } from '../fixture-files.ts';
import { allCases, moreCases, someOf } from '../limits.ts';
import {
  blockList,
  channelHello,
  EOF,
  EOS,
  end,
  FLUSH,
  hex,
  join as joinParts,
  none,
  packet,
  start,
  syncPacket,
} from '../oracle/build.ts';
import { recordBoundaries } from '../oracle/slow-reader.ts';
import { type CliResult, expectPeakMemory, runCli } from '../run-cli.ts';
import { mutate } from './mutate.ts';
import { hangMs, seededRandom } from './read-fast.ts';

const MiB = 2 ** 20;
const TiB = 2 ** 40;
const memoryLimit = 200 * MiB;
/** CPU time for starting Node. */
const startMs = 5000;

/** CPU time rather than clock time, so that a busy machine does not look like a hang. */
function expectBounded(result: CliResult): void {
  expect(result.cpuMs).toBeLessThan(hangMs + startMs);
  expectPeakMemory(result, memoryLimit);
}

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-hostile-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The beginning of a stream, up to the head of the `ram` START. */
function begin(capability?: string): ByteWriter {
  const out = new ByteWriter().u32(0x5145564d).u32(3).u8(7).u32(4).text('none');
  if (capability !== undefined) out.u8(5).string('configuration/capabilities').u32(1).u32(1).string(capability);
  encodeSectionHead(out, { kind: 'start', id: 1, name: 'ram', instanceId: 0, versionId: 4 });
  return out;
}

/** A stream with one RAM block, up to the head of the first PART. */
function beginPages(usedLength: number): ByteWriter {
  const out = begin();
  encodeMemSize(out, usedLength);
  encodeBlockEntry(out, 'ram', usedLength);
  encodeEos(out);
  encodeFooter(out, 1);
  encodeSectionHead(out, { kind: 'part', id: 1 });
  return out;
}

function endRam(out: ByteWriter): ByteWriter {
  encodeEos(out);
  encodeFooter(out, 1);
  encodeSectionHead(out, { kind: 'end', id: 1 });
  encodeEos(out);
  encodeFooter(out, 1);
  return out;
}

function device(out: ByteWriter, id: number, name: string, body: Uint8Array): void {
  encodeSectionHead(out, { kind: 'full', id, name, instanceId: 0, versionId: 1 });
  out.raw(body);
  encodeFooter(out, id);
}

const repeat = (text: string, times: number) => new TextEncoder().encode(text.repeat(times));

/** `parts`, followed by this many MiB of zeros, as gzip members. */
function gzipZeros(mebibytes: number, parts: Uint8Array[]): Buffer {
  const zeros = gzipSync(new Uint8Array(MiB), { level: 9 });
  return Buffer.concat([...parts.map((part) => gzipSync(part)), ...new Array<Buffer>(mebibytes).fill(zeros)]);
}

interface Hostile {
  name: string;
  write: (path: string) => void;
  /** The finding that verify must report; undefined: the file is valid. */
  code?: string;
}

const plain = (make: () => ByteWriter) => (path: string) => writeFileSync(path, make().bytes());

const hostile: Hostile[] = [
  {
    name: 'a guest of 2^63 bytes',
    write: plain(() =>
      begin()
        .u64((2n ** 63n) | 4n)
        .string('ram')
        .u64(2n ** 63n),
    ),
    code: 'limit-exceeded',
  },
  {
    name: 'a page in every corner of a guest of 64 TiB',
    write: plain(() => {
      const out = beginPages(64 * TiB);
      for (let i = 0; i < 20_000; i++) {
        out.u64((BigInt(i) * BigInt((64 * TiB) / 32768)) | (i === 0 ? 2n : 0x22n));
        if (i === 0) out.string('ram');
        out.u8(0);
      }
      return endRam(out).u8(0);
    }),
    code: 'missing-channels',
  },
  {
    name: 'pages in descending order, one pass each',
    write: plain(() => {
      const out = beginPages(4096 * 100_000);
      for (let i = 100_000 - 1; i >= 0; i--) {
        out.u64((BigInt(i) << 12n) | (i === 99_999 ? 2n : 0x22n));
        if (i === 99_999) out.string('ram');
        out.u8(0);
      }
      return endRam(out).u8(0);
    }),
  },
  {
    name: '8,193 RAM blocks',
    write: plain(() => {
      const out = begin();
      encodeMemSize(out, 8_193 * 4096);
      for (let i = 0; i < 8_193; i++) encodeBlockEntry(out, `block${i}`, 4096);
      return out;
    }),
    code: 'bad-block-list',
  },
  {
    name: 'endless empty RAM blocks',
    write: plain(() => {
      const out = begin();
      encodeMemSize(out, 4096);
      for (let i = 0; i < 200_000; i++) encodeBlockEntry(out, `b${i}`, 0);
      return out;
    }),
    code: 'bad-block-list',
  },
  {
    name: 'a mapped-ram block of 32 TiB in a small file',
    write: plain(() => {
      const out = begin('mapped-ram');
      encodeMemSize(out, 32 * TiB);
      encodeBlockEntry(out, 'ram', 32 * TiB);
      const header = out.length;
      return out
        .u32(1)
        .u64(4096)
        .u64(header + 28)
        .u64(2 ** 30 * 8);
    }),
    code: 'truncated',
  },
  {
    name: 'an endless device of 96 MiB',
    write: (path) => {
      const out = endRam(beginPages(4096).u64(2n).string('ram').u8(0));
      encodeSectionHead(out, { kind: 'full', id: 5, name: 'endless', instanceId: 0, versionId: 1 });
      const fd = openSync(path, 'w');
      writeSync(fd, out.bytes());
      ftruncateSync(fd, 96 * MiB);
      closeSync(fd);
    },
    code: 'truncated',
  },
  {
    name: '32 MiB of bytes that could each begin a footer',
    write: plain(() => {
      const out = endRam(beginPages(4096).u64(2n).string('ram').u8(0));
      encodeSectionHead(out, { kind: 'full', id: 0x7e7e7e7e, name: 'tilde', instanceId: 0, versionId: 1 });
      return out.raw(repeat('~', 32 * MiB));
    }),
    code: 'truncated',
  },
  {
    name: '200,000 devices',
    write: plain(() => {
      const out = endRam(beginPages(4096).u64(2n).string('ram').u8(0));
      for (let i = 0; i < 200_000; i++) device(out, 2 + i, `d${i}`, new Uint8Array(1));
      return out.u8(0);
    }),
    code: 'limit-exceeded',
  },
  {
    name: 'a description of 4 GiB',
    write: plain(() => endRam(beginPages(4096).u64(2n).string('ram').u8(0)).u8(0).u8(6).u32(0xffff_ffff).text('{')),
    code: 'limit-exceeded',
  },
  {
    name: 'a description nested a million deep',
    write: plain(() => {
      const out = endRam(beginPages(4096).u64(2n).string('ram').u8(0)).u8(0).u8(6);
      return out.u32(2_000_000).raw(repeat('[', 1_000_000)).raw(repeat(']', 1_000_000));
    }),
  },
  {
    name: 'a file of descriptions inside each other',
    write: plain(() => {
      const out = endRam(beginPages(4096).u64(2n).string('ram').u8(0)).u8(0);
      const count = 40_000;
      for (let i = count; i > 0; i--)
        out
          .u8(6)
          .u32(i * 6 - 5)
          .u8(0x7b);
      return out;
    }),
  },
  {
    name: 'a gigabyte of zeros, compressed',
    write: (path) => writeFileSync(path, gzipZeros(1024, [])),
    code: 'not-a-migration-stream',
  },
  {
    name: 'a compressed stream followed by a gigabyte of zeros',
    write: (path) =>
      writeFileSync(path, gzipZeros(1024, [endRam(beginPages(4096).u64(2n).string('ram').u8(0)).u8(0).bytes()])),
  },
  {
    name: 'a libvirt image that claims 4 GiB of XML',
    write: (path) => {
      const head = encodeLibvirtHead({ xml: '<domain/>', cookie: undefined, format: 'raw', wasRunning: false });
      head.fill(0xff, 20, 24);
      writeFileSync(path, head);
    },
    code: 'limit-exceeded',
  },
  {
    name: '300,000 findings',
    write: plain(() => {
      const out = beginPages(4096);
      out.u64(2n).string('ram').u8(1);
      for (let i = 0; i < 300_000; i++) out.u64(0x22n).u8(1);
      return endRam(out).u8(0);
    }),
    code: 'bad-zero-page',
  },
];

describe.each(hostile)('$name', ({ write, code }) => {
  it('is refused or read in bounded time and memory', async () => {
    const path = join(directory, 'hostile.bin');
    write(path);
    const { createReadStream } = await import('node:fs');
    const commands = [
      ['verify', '--json', path],
      ['verify', '--json', '-'],
      ['inspect', '--json', path],
    ];
    for (const args of someOf(commands, 3, 1)) {
      const input = args.includes('-') ? createReadStream(path) : undefined;
      const result = await runCli(args, input, { alone: true });
      expect(result.stderr).toBe('');
      expectBounded(result);
      const { findings, ok } = JSON.parse(result.stdout);
      expect(result.code).toBe(code === undefined ? 0 : 1);
      if (args[0] !== 'verify') continue;
      expect(ok).toBe(code === undefined);
      if (code !== undefined) expect(findings[0].code).toBe(code);
    }
    if (!moreCases) return;
    const mapped = await runCli(['inspect', '--pages', path], undefined, { alone: true });
    expectBounded(mapped);
    expect(mapped.code).toBe(code === undefined ? 0 : 1);
  });
});

/** Malicious channels; each is one packet with a page between two SYNCs. */
const hostileChannels: { name: string; flags: number; payload: Uint8Array; count: number }[] = [
  { name: 'a zlib stream that decompresses to a GiB', flags: 2, payload: deflateSync(Buffer.alloc(2 ** 30)), count: 1 },
  {
    name: 'a zstd frame that decompresses to a GiB',
    flags: 4,
    payload: joinParts(
      hex('28b52ffd 0048'),
      // Blocks of 128 KiB of one repeated byte.
      ...Array.from({ length: 8192 }, () => hex('020010 00')),
    ),
    count: 1,
  },
  { name: 'a zstd window of 2 TiB', flags: 4, payload: hex('28b52ffd 00ff 0100 00'), count: 1 },
  { name: '255 zstd windows of 32 MiB', flags: 4, payload: hex('28b52ffd 0078 020010 00'), count: 255 },
  { name: '255 streams of zlib', flags: 2, payload: deflateSync(Buffer.alloc(8192)), count: 255 },
];

describe.each(hostileChannels)('channels with $name', ({ flags, payload, count }) => {
  it('are refused in bounded time and memory', async () => {
    const main = joinParts(none, start(7, 'ram', 4, blockList(['ram', 4096]), FLUSH, EOS), end(7, FLUSH, EOS), EOF);
    const path = join(directory, 'main');
    writeFileSync(path, main);
    const channels = Array.from({ length: count }, (_, id) => {
      const file = join(directory, `channel-${id}`);
      const data = packet({ flags, normal: [0], payload });
      writeFileSync(file, joinParts(channelHello(id), syncPacket, data, syncPacket));
      return ['--channel', file];
    });
    const result = await runCli(['verify', '--json', path, ...channels.flat()], undefined, { alone: true });
    expectBounded(result);
    const { findings } = JSON.parse(result.stdout);
    expect(findings[0]).toMatchObject({ code: 'bad-compressed-data', place: { channel: 0 } });
    expect(result.code).toBe(1);
  });
});

describe('mutated fixtures', () => {
  const fixtures = loadFixtures();
  // Each fixture three times, or a few of every form.
  const damaged = allCases ? [...fixtures, ...fixtures, ...fixtures] : someOf(fixtures, 12, 6);
  it('leave complete output or none, within the memory limit', async () => {
    const random = seededRandom(4711);
    for (const [i, { bytes, offset, channels }] of damaged.entries()) {
      const mutated = mutate(bytes, recordBoundaries(bytes, offset), random);
      const path = join(directory, 'mutated.bin');
      writeFileSync(path, mutated.bytes);
      const folder = join(directory, `out-${i}`);
      mkdirSync(folder);
      const location = offset === 0 ? path : `${path},offset=${offset}`;
      const ofChannels = channels.flatMap((channel, j) => {
        const file = join(directory, `mutated-channel-${j}`);
        writeFileSync(file, channel);
        return ['--channel', file];
      });
      const result = await runCli(
        ['extract', location, ...ofChannels, '--all', join(folder, 'all'), '--json'],
        undefined,
        { alone: true },
      );
      const { code, stdout, stderr } = result;
      expectPeakMemory(result, memoryLimit, mutated.what);
      if (code === 0) {
        const { blocks } = JSON.parse(stdout);
        expect(readdirSync(join(folder, 'all')), mutated.what).toHaveLength(blocks.length);
      } else {
        expect(code, mutated.what).toBe(1);
        expect(stderr, mutated.what).toMatch(/\[[a-z-]+\] in .* at 0x/);
        expect(readdirSync(folder), mutated.what).toEqual([]);
      }
    }
  });
});
