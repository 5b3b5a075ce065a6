import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PageKind } from '../../src/kernel/page-batch.ts';
import { MappedRamStore } from '../../src/store/mapped-ram-store.ts';
import { digestContent, openRamContent, openSavedVm, readContent } from '../../src/store/ram-content.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import {
  blockList,
  deltaPage,
  EOF,
  EOS,
  end,
  filled,
  full,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  part,
  start,
  vmdescription,
  zeroPage,
} from '../oracle/build.ts';
import { slowRead } from '../oracle/slow-reader.ts';
import { kindsOfSource, opened } from '../support/opened.ts';
import { Feeder } from '../support/pages.ts';
import { RecordingFile } from '../support/recording-file.ts';
import { mappedRamFile } from '../wire/mapped-ram-file.ts';

const MIB = 1 << 20;
// Runs of data and of zeros that are longer than the pieces of content.
const large = 1200;
const blocks = start(
  7,
  'ram',
  4,
  blockList(['pc.ram', large * KIB4], ['rom', 3 * KIB4], ['empty', 0], ['never', 600 * KIB4]),
  EOS,
);
const stream = join(
  none,
  blocks,
  part(
    7,
    ...Array.from({ length: 300 }, (_, i) =>
      normalPage((100 + i) * KIB4, filled((i % 255) + 1), i === 0 ? 'pc.ram' : undefined),
    ),
    EOS,
  ),
  part(7, normalPage((large - 1) * KIB4, filled(8)), zeroPage(0, 'rom'), normalPage(2 * KIB4, filled(9)), EOS),
  end(7, zeroPage(150 * KIB4, 'pc.ram'), deltaPage(151 * KIB4, hex('050111')), EOS),
  EOF,
);

const gather = async (ram: RamReader, block: RamBlock) => {
  const pieces: { length: number; bytes: Uint8Array | undefined }[] = [];
  for await (const { length, bytes } of readContent(ram, block)) pieces.push({ length, bytes: bytes?.slice() });
  return pieces;
};

describe.each(kindsOfSource)('the RAM content of a %s', (kind) => {
  it.each([
    ['stream', stream],
    ['mapped-ram file', mappedRamFile()],
  ])('that is a %s equals what the slow reader reads, piece by piece and as a digest', async (_, bytes) => {
    const ram = await openRamContent(await opened(bytes, kind), { makeScratch: () => new RecordingFile() });
    const slow = slowRead(bytes);
    expect(ram.blocks.map(({ idstr }) => idstr)).toEqual(slow.blocks.map(({ idstr }) => idstr));
    for (const [i, block] of ram.blocks.entries()) {
      const pieces = await gather(ram, block);
      for (const { length, bytes: piece } of pieces) {
        expect(length).toBeGreaterThan(0);
        if (piece !== undefined) expect(piece.length).toBeLessThanOrEqual(MIB);
      }
      const whole = Buffer.concat(pieces.map(({ length, bytes: piece }) => piece ?? new Uint8Array(length)));
      const expected = slow.blocks[i]?.content ?? new Uint8Array();
      expect(Buffer.compare(whole, expected), block.idstr).toBe(0);
      const digest = createHash('sha256');
      await digestContent(ram, block, digest);
      expect(digest.digest('hex')).toBe(createHash('sha256').update(expected).digest('hex'));
    }
    await ram.close();
  });
});

describe('a saved VM', () => {
  it.each([
    ['stream', join(stream.subarray(0, -1), full(1, 'timer', 'body'), EOF, vmdescription({ devices: [] }))],
    ['mapped-ram file', mappedRamFile({ tail: join(full(9, 'timer', 'body'), EOF, vmdescription({ devices: [] })) })],
  ])('of a %s has everything besides RAM, too', async (_, bytes) => {
    const makeScratch = () => new RecordingFile();
    const vm = await openSavedVm(await opened(bytes), { makeScratch, devices: true });
    expect(vm.configuration?.machine).toBe('none');
    expect(vm.devices.map(({ name, data }) => [name, Buffer.from(data).toString()])).toEqual([['timer', 'body']]);
    expect(vm.description?.value).toEqual({ devices: [] });
    expect(vm.ram.blocks.map(({ idstr }) => idstr)).toEqual(slowRead(bytes).blocks.map(({ idstr }) => idstr));
    const without = await openSavedVm(await opened(bytes), { makeScratch });
    expect(without.devices).toEqual([]);
  });
});

describe('the RAM content', () => {
  it('of a mapped-ram file is read in place, without a scratch file', async () => {
    const makeScratch = () => {
      throw new Error('no scratch file is needed');
    };
    const file = await opened(mappedRamFile());
    const ram = await openRamContent(file, { makeScratch });
    await ram.close();
    // The source is still open, because the content does not own it.
    expect((await openRamContent(file, { makeScratch })).blocks).toHaveLength(2);
  });

  it('of a stream that can be read only once needs a scratch file, which is closed with it', async () => {
    const scratch = new RecordingFile();
    const ram = await openRamContent(await opened(stream, 'pipe'), { makeScratch: async () => scratch });
    expect(scratch.closed).toBe(0);
    await ram.close();
    expect(scratch.closed).toBe(1);
  });

  it('of a stream of whole pages is read in place, even with several passes, without a scratch file', async () => {
    const whole = join(
      none,
      blocks,
      part(
        7,
        ...[4, 5, 6, 9].map((page, i) => normalPage(page * KIB4, filled(page), i === 0 ? 'pc.ram' : undefined)),
        EOS,
      ),
      part(7, normalPage(5 * KIB4, filled(55)), zeroPage(6 * KIB4), zeroPage(20 * KIB4), EOS),
      end(7, normalPage(20 * KIB4, filled(20)), normalPage(2 * KIB4, filled(9), 'rom'), EOS),
      EOF,
    );
    const makeScratch = () => {
      throw new Error('no scratch file is needed');
    };
    const ram = await openRamContent(await opened(whole), { makeScratch });
    const slow = slowRead(whole);
    for (const [i, block] of ram.blocks.entries()) {
      const pieces = await gather(ram, block);
      const content = Buffer.concat(pieces.map(({ length, bytes }) => bytes ?? new Uint8Array(length)));
      expect(Buffer.compare(content, slow.blocks[i]?.content ?? new Uint8Array()), block.idstr).toBe(0);
    }
    const [pcRam] = ram.blocks as [RamBlock];
    expect([4, 6, 7].map((page) => ram.state(pcRam, page))).toEqual(['data', 'zero', 'absent']);
    await expect(ram.read(pcRam, large, new Uint8Array(KIB4))).rejects.toThrow(RangeError);
  });

  it('closes the scratch file if the stream is bad', async () => {
    const scratch = new RecordingFile();
    const opening = openRamContent(await opened(stream.subarray(0, -1), 'pipe'), { makeScratch: () => scratch });
    await expect(opening).rejects.toMatchObject({ code: 'truncated' });
    expect(scratch.closed).toBe(1);
  });

  it('of unneeded blocks is not kept', async () => {
    const scratch = new RecordingFile();
    const ram = await openRamContent(await opened(stream, 'pipe'), {
      makeScratch: () => scratch,
      only: ({ idstr }) => idstr === 'rom',
    });
    const [first, rom] = ram.blocks as [RamBlock, RamBlock];
    expect((await gather(ram, first)).every(({ bytes }) => bytes === undefined)).toBe(true);
    expect(await ram.state(rom, 2)).toBe('data');
    expect(scratch.writes.filter(({ length }) => length >= KIB4)).toHaveLength(1);
  });

  it.each([
    ['pages beyond its end', mappedRamFile().subarray(0, 0x8000), 'truncated'],
    ['bitmaps that were never written', mappedRamFile({ hasEnd: false }), 'untrusted-bitmap'],
    ['bits beyond a block', mappedRamFile({ bitmap: [0xff] }), 'bad-bitmap'],
    ['a cut tail', mappedRamFile().subarray(0, -1), 'truncated'],
  ])('of a mapped-ram file with %s is refused', async (_, bytes, code) => {
    const opening = openRamContent(await opened(bytes), { makeScratch: () => new RecordingFile() });
    await expect(opening).rejects.toMatchObject({ code });
  });

  it('names the page whose bytes are missing', async () => {
    // The last set page is beyond the end of the file, the earlier ones are not.
    const opening = openRamContent(await opened(mappedRamFile().subarray(0, 0x7800)), {
      makeScratch: () => new RecordingFile(),
    });
    await expect(opening).rejects.toMatchObject({ place: { block: 'b', page: 1, offset: 0x7800 } });
  });

  it('names the page whose bytes are missing, even of many', async () => {
    const feeder = await Feeder.make();
    const file = new RecordingFile();
    const store = new MappedRamStore(file, feeder.pageSlots);
    const block = await store.addBlock({ index: 0, idstr: 'ram', usedLength: 100 * KIB4, pageSize: KIB4 });
    for (const page of [3, 77])
      await store.apply(block, feeder.batch([{ page, kind: PageKind.data, payload: filled(1) }], 0));
    await store.finish([], undefined);
    const size = (block.mapped?.pagesOffset ?? 0) + 78 * KIB4 - 1;
    const opening = openRamContent(await opened(file.content().subarray(0, size)), {
      makeScratch: () => new RecordingFile(),
    });
    await expect(opening).rejects.toMatchObject({ code: 'truncated', place: { block: 'ram', page: 77, offset: size } });
  });

  it('of zeros is digested without storing them', async () => {
    let bytes = 0;
    const digest = {
      update(piece: Uint8Array) {
        bytes += piece.length;
      },
    };
    const empty = join(none, start(7, 'ram', 4, blockList(['ram', 2 ** 33]), EOS), end(7, EOS), EOF);
    const ram = await openRamContent(await opened(empty), { makeScratch: () => new RecordingFile() });
    await digestContent(ram, ram.blocks[0] as RamBlock, digest);
    expect(bytes).toBe(2 ** 33);
  });
});
