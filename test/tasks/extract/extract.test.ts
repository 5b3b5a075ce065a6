import { describe, expect, it } from 'vitest';
import { extractBlocks } from '../../../src/tasks/extract/extract.ts';
import {
  blockList,
  compressedPage,
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
  ramEnd,
  ramStart,
  start,
  zeroPage,
} from '../../oracle/build.ts';
import { slowRead } from '../../oracle/slow-reader.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { RecordingFile } from '../../support/recording-file.ts';
import { mappedRamFile } from '../../wire/mapped-ram-file.ts';

/** Extracts all blocks into memory. */
async function extractAll(stream: Uint8Array, kind: (typeof kindsOfSource)[number] = 'file') {
  const files = new Map<string, RecordingFile>();
  const blocks = await extractBlocks(await opened(stream, kind), ({ idstr }) => {
    const file = new RecordingFile(idstr);
    files.set(idstr, file);
    return file;
  });
  return { blocks, files };
}

const blocks = start(
  7,
  'ram',
  4,
  blockList(['pc.ram', 6 * KIB4], ['rom', 2 * KIB4], ['empty', 0], ['never', KIB4]),
  EOS,
);
const stream = join(
  none,
  blocks,
  part(
    7,
    normalPage(0, filled(1), 'pc.ram'),
    normalPage(KIB4, filled(2)),
    zeroPage(2 * KIB4),
    normalPage(4 * KIB4, filled(5)),
    EOS,
  ),
  part(7, zeroPage(0, 'rom'), normalPage(KIB4, filled(9)), EOS),
  part(7, zeroPage(KIB4, 'pc.ram'), deltaPage(2 * KIB4, hex('0501ee')), deltaPage(4 * KIB4, hex('000107')), EOS),
  end(7, normalPage(0, filled(3)), EOS),
  EOF,
);

describe.each(kindsOfSource)('extracting from a %s', (kind) => {
  it('gives the content of the slow reader, each page at its own offset', async () => {
    const { blocks: extracted, files } = await extractAll(stream, kind);
    const slow = slowRead(stream);
    for (const { idstr, content } of slow.blocks) expect(files.get(idstr)?.content()).toEqual(content);
    expect(extracted).toEqual([
      { idstr: 'pc.ram', length: 6 * KIB4, dataBytes: 3 * KIB4, absentPages: 2 },
      { idstr: 'rom', length: 2 * KIB4, dataBytes: KIB4, absentPages: 0 },
      { idstr: 'empty', length: 0, dataBytes: 0, absentPages: 0 },
      { idstr: 'never', length: KIB4, dataBytes: 0, absentPages: 1 },
    ]);
  });

  it('gives the content of the slow reader for a mapped-ram file', async () => {
    const mapped = mappedRamFile({ offset: 0 });
    const { blocks: extracted, files } = await extractAll(mapped, kind);
    for (const { idstr, content } of slowRead(mapped).blocks) expect(files.get(idstr)?.content()).toEqual(content);
    expect(extracted).toEqual([
      { idstr: 'a', length: 3 * KIB4, dataBytes: 2 * KIB4, absentPages: 0 },
      { idstr: 'b', length: 3 * KIB4, dataBytes: KIB4, absentPages: 0 },
    ]);
  });
});

describe('extracting', () => {
  it('writes nothing for zero pages and pages never sent, and erases pages that became zero', async () => {
    const { files } = await extractAll(stream);
    const written = files.get('pc.ram')?.writes.map(({ position, length }) => [position / KIB4, length / KIB4]);
    // Page 1 was data and became zero, so it is written twice. Pages 3 and 5 are never written.
    expect(
      written?.flatMap(([page = 0, count = 0]) => Array.from({ length: count }, (_, i) => page + i)).sort(),
    ).toEqual([0, 0, 1, 1, 2, 4, 4]);
    expect(files.get('rom')?.writes.map(({ position }) => position)).toContain(KIB4);
    expect(files.get('never')?.size).toBe(KIB4);
    expect(files.get('never')?.writes.filter(({ length }) => length > 0)).toEqual([]);
  });

  it('leaves out blocks without a store', async () => {
    const asked: string[] = [];
    const rom = new RecordingFile();
    const extracted = await extractBlocks(await opened(stream), async ({ idstr }) => {
      asked.push(idstr);
      return idstr === 'rom' ? rom : undefined;
    });
    expect(asked).toEqual(['pc.ram', 'rom', 'empty', 'never']);
    expect(extracted.map(({ idstr }) => idstr)).toEqual(['rom']);
    expect(rom.content().subarray(KIB4)).toEqual(filled(9));
  });

  it('does not close the stores', async () => {
    const { files } = await extractAll(stream);
    expect([...files.values()].map(({ closed }) => closed)).toEqual([0, 0, 0, 0]);
  });

  it.each([
    ['is cut', stream.subarray(0, stream.length - 1), 'truncated'],
    [
      'has a delta that does not decode',
      join(none, ramStart, part(7, deltaPage(0, hex('00'), 'ram'), EOS), ramEnd, EOF),
      'bad-delta',
    ],
    [
      'has a compressed page that does not decompress',
      join(none, ramStart, part(7, compressedPage(0, hex('789c'), 'ram'), EOS), ramEnd, EOF),
      'bad-compressed-data',
    ],
    ['has bitmaps that were never written', mappedRamFile({ hasEnd: false }), 'untrusted-bitmap'],
  ])('fails if the file %s', async (_, bytes, code) => {
    await expect(extractAll(bytes)).rejects.toMatchObject({ code });
  });

  it('gives nothing for a stream without RAM', async () => {
    expect((await extractAll(join(none, EOF))).blocks).toEqual([]);
  });
});
