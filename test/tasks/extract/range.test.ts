import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mainBlock, openRange, readRam } from '../../../src/tasks/extract/range.ts';
import type { RamBlock } from '../../../src/vm/ram-block.ts';
import {
  blockList,
  deltaPage,
  EOF,
  EOS,
  end,
  filled,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  part,
  start,
  zeroPage,
} from '../../oracle/build.ts';
import { slowRead } from '../../oracle/slow-reader.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { RecordingFile } from '../../support/recording-file.ts';
import { mappedRamFile } from '../../wire/mapped-ram-file.ts';

const noScratch = () => {
  throw new Error('no scratch file is needed');
};
const pages = 5000;
const stream = join(
  none,
  start(7, 'ram', 4, blockList(['pc.ram', pages * KIB4], ['rom', 2 * KIB4]), EOS),
  part(
    7,
    ...[3, 4, 5, 9, 4999].map((page, i) =>
      normalPage(page * KIB4, filled(page & 0xff), i === 0 ? 'pc.ram' : undefined),
    ),
    EOS,
  ),
  part(7, zeroPage(4 * KIB4, 'pc.ram'), deltaPage(5 * KIB4, hex('0a03aabbcc')), EOS),
  end(7, normalPage(0, filled(7), 'rom'), EOS),
  EOF,
);
const content = (bytes: Uint8Array, idstr: string) => {
  const block = slowRead(bytes).blocks.find((each) => each.idstr === idstr);
  if (block === undefined) throw new Error(`there is no ${idstr}`);
  return block.content;
};

describe.each(kindsOfSource)('a range of a %s', (kind) => {
  it.each([
    ['stream', stream, 'pc.ram'],
    ['mapped-ram file', mappedRamFile(), 'a'],
  ])('that is a %s equals what the slow reader has there', async (_, bytes, block) => {
    const whole = content(bytes, block);
    const range = fc.record({
      at: fc.oneof(fc.nat(12 * KIB4), fc.nat(whole.length - 1)).map((at) => Math.min(at, whole.length - 1)),
      length: fc.oneof(fc.nat(100), fc.nat(5 * KIB4)),
    });
    await fc.assert(
      fc.asyncProperty(range, async ({ at, length: most }) => {
        const length = Math.min(most, whole.length - at);
        const read = await readRam(await opened(bytes, kind), { block, at, length, makeScratch: noScratch });
        expect(Buffer.compare(read, whole.subarray(at, at + length))).toBe(0);
      }),
      { seed: 5, numRuns: 60 },
    );
  });

  it('is the first 256 bytes of the main block by default, fewer if the block is shorter', async () => {
    const options = { makeScratch: noScratch };
    const range = await openRange(await opened(stream, kind), options);
    expect(range).toMatchObject({ block: { idstr: 'pc.ram' }, at: 0, length: 256, absentPages: 1 });
    const rest = await readRam(await opened(stream, kind), { ...options, at: pages * KIB4 - 3 });
    expect(rest).toEqual(filled(4999 & 0xff, 3));
  });

  it('reports how many of its pages were never sent', async () => {
    const options = { makeScratch: noScratch, at: 3 * KIB4 + 1, length: 5 * KIB4 };
    expect((await openRange(await opened(stream, kind), options)).absentPages).toBe(3);
    const mapped = await openRange(await opened(mappedRamFile(), kind), { block: 'b', makeScratch: noScratch });
    expect(mapped.absentPages).toBeUndefined();
  });

  it.each([
    [{ at: pages * KIB4 }, /within pc\.ram, which has 20480000 \(0x1388000\) bytes, got offset 20480000/],
    [{ at: 1, length: pages * KIB4 }, /got 20480000 \(0x1388000\) bytes at 1 \(0x1\)/],
    [{ at: -1, length: 5 }, RangeError],
    [{ at: 0.5, length: 5 }, RangeError],
    [{ block: 'rem' }, /\(pc\.ram of 20480000 \(0x1388000\) bytes, rom of 8192 \(0x2000\) bytes\), got "rem"/],
  ])('refuses %j', async (options, message) => {
    await expect(openRange(await opened(stream, kind), { ...options, makeScratch: noScratch })).rejects.toThrow(
      message,
    );
  });

  it('requires a block name if there is no obvious main block', async () => {
    const reading = openRange(await opened(mappedRamFile(), kind), { makeScratch: noScratch });
    await expect(reading).rejects.toThrow(/got none, and no block that is clearly the main one/);
  });

  it('is refused if the file is bad', async () => {
    const reading = openRange(await opened(stream.subarray(0, -1), kind), { makeScratch: noScratch });
    await expect(reading).rejects.toMatchObject({ code: 'truncated' });
    const bad = join(
      none,
      start(7, 'ram', 4, blockList(['ram', 2 * KIB4]), EOS),
      end(7, deltaPage(0, hex('0000'), 'ram'), EOS),
      EOF,
    );
    await expect(openRange(await opened(bad, kind), { makeScratch: noScratch })).rejects.toMatchObject({
      code: 'bad-delta',
    });
    const empty = openRange(await opened(join(none, EOF), kind), { makeScratch: noScratch });
    await expect(empty).rejects.toThrow(/it has none/);
  });
});

describe('a range', () => {
  it('over 16 MiB is kept in a scratch file, which has only its pages and is closed with it', async () => {
    const scratch = new RecordingFile();
    const options = { at: 5 * KIB4, length: (pages - 6) * KIB4, makeScratch: () => scratch };
    const range = await openRange(await opened(stream, 'pipe'), options);
    expect(scratch.writes.map(({ position }) => position)).toEqual([0, 4 * KIB4, 0]);
    expect(scratch.closed).toBe(0);
    await range.close();
    expect(scratch.closed).toBe(1);
  });

  it('closes its scratch file if the stream is bad', async () => {
    const scratch = new RecordingFile();
    const options = { length: pages * KIB4, makeScratch: () => scratch };
    await expect(openRange(await opened(stream.subarray(0, -1)), options)).rejects.toMatchObject({ code: 'truncated' });
    expect(scratch.closed).toBe(1);
  });

  it('of zeros consists of pieces without bytes', async () => {
    const range = await openRange(await opened(stream), { at: 10 * KIB4 + 5, length: 1 << 20, makeScratch: noScratch });
    const pieces: unknown[] = [];
    for await (const piece of range.pieces()) pieces.push(piece);
    expect(pieces).toEqual([{ length: 1 << 20, bytes: undefined }]);
  });
});

it.each([
  [['x'], 'x'],
  [['ram', 'big'], 'ram'],
  [['mach-virt.ram', 'vga.vram', 'big'], 'mach-virt.ram'],
  [['a', 'big', 'b'], 'big'],
  [['a', 'b'], undefined],
  [[], undefined],
])('the main block of %j is %s', (names, expected) => {
  const blocks = names.map(
    (idstr, index): RamBlock => ({ index, idstr, usedLength: idstr === 'big' ? 1 << 30 : 4096, pageSize: 4096 }),
  );
  expect(mainBlock(blocks)?.idstr).toBe(expected);
});
