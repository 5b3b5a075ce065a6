/**
 * Mapped-ram files of real QEMU, read and written again. The format fixes every byte but two kinds, which are not compared:
 * the place of a page without a bit in the bitmap, where QEMU leaves a hole or an earlier content of the page, and the
 * gaps before the pages, which it leaves alone.
 *
 * Up to the last page it is a `MappedRamStore` that writes. What comes then is compared as a Flow written again, since
 * QEMU leaves a PART without records for each time that it sent some, and a store has no passes.
 */
import { describe, expect, it } from 'vitest';
import { FlowWriter } from '../../src/file/flow-writer.ts';
import { StreamWriter, writerArenaBytes } from '../../src/file/stream-writer.ts';
import { convertToMappedRam, MemoryFile, open, type RamBlock } from '../../src/node.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeEos } from '../../src/wire/ram-section.ts';
import { encodeFooter } from '../../src/wire/section.ts';
import { loadFixtures } from '../fixture-files.ts';
import { makeCopy } from './copy.ts';

const PAGE = 4096;

/** The blocks of a file, and what comes after RAM as it is written again. */
async function writeTail(bytes: Uint8Array, offset: number): Promise<{ blocks: RamBlock[]; tail: Uint8Array }> {
  const file = await open(bytes, { offset, spareBytes: writerArenaBytes });
  const copy = makeCopy();
  const writer = new StreamWriter(file.kernel, copy.sink);
  const again = new FlowWriter(writer);
  const blocks: RamBlock[] = [];
  let isTail = false;
  for await (const item of file.flow({ read: 'bitmaps' })) {
    if (item.kind === 'block') blocks.push(item.block);
    if (isTail) await again.take(item);
    else if (item.kind === 'section-end') {
      isTail = true;
      const end = new ByteWriter();
      encodeEos(end);
      encodeFooter(end, item.section.id);
      await writer.raw(end.bytes());
    }
  }
  await writer.flush();
  await file.close();
  return { blocks, tail: copy.bytes() };
}

/** What is compared up to the last page, as [from, to): headers, bitmaps, and pages with a bit. */
function fixedRanges(bytes: Uint8Array, offset: number, blocks: readonly RamBlock[]): [number, number][] {
  const ranges: [number, number][] = [];
  let end = offset;
  for (const { mapped, usedLength } of blocks) {
    const { bitmapOffset, bitmapLength, pagesOffset } = mapped as NonNullable<typeof mapped>;
    ranges.push([end, bitmapOffset + bitmapLength]);
    for (let page = 0; page < usedLength / PAGE; page++) {
      const byte = bytes[bitmapOffset + (page >> 3)] as number;
      if (((byte >> (page & 7)) & 1) === 0) continue;
      ranges.push([pagesOffset + page * PAGE, pagesOffset + (page + 1) * PAGE]);
    }
    end = pagesOffset + usedLength;
  }
  return ranges;
}

describe('mapped-ram files, written again', () => {
  const files = loadFixtures().filter(({ name }) => name.includes('mapped-ram'));

  it.each(files)('$name: headers, bitmaps, pages and tail are what QEMU wrote', async ({ bytes, offset }) => {
    const { blocks, tail } = await writeTail(bytes, offset);
    const { mapped, usedLength } = blocks.at(-1) as RamBlock;
    const ramEnd = (mapped as NonNullable<typeof mapped>).pagesOffset + usedLength;
    expect(Buffer.compare(tail, bytes.subarray(ramEnd))).toBe(0);

    const output = new MemoryFile();
    const conversion = await convertToMappedRam(await open(bytes, { offset }), output, { offset });
    const again = new Uint8Array(ramEnd);
    await output.read(again, 0);
    await conversion.close();
    const ranges = fixedRanges(bytes, offset, blocks);
    expect(ranges.length).toBeGreaterThan(30);
    for (const [from, to] of ranges) {
      const isSame = Buffer.compare(again.subarray(from, to), bytes.subarray(from, to)) === 0;
      if (!isSame) throw new Error(`other bytes between ${from} and ${to}`);
    }
  });
});
