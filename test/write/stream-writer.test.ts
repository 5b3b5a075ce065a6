import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { appendTo, type Kernel, loadKernel, MemoryFile, PageBatch, PageKind, StreamWriter } from '../../src/node.ts';

const pageSize = 1024;
const pages = 600;
const block = { index: 0, idstr: 'ram', usedLength: pages * pageSize, pageSize };

/** Each record: a page, and the one after how many it is. */
const records = fc.array(
  fc.record({ kind: fc.constantFrom('zero', ...new Array(40).fill('data')), gap: fc.constantFrom(0, 0, 0, 3) }),
  { maxLength: 120 },
);

/** Fills a batch whose pages lie `stride` bytes apart from `address` on. */
function fill(
  kernel: Kernel,
  batch: PageBatch,
  list: { kind: string; gap: number }[],
  address: number,
  stride: number,
) {
  batch.clear();
  let page = -1;
  for (const [i, { kind, gap }] of list.entries()) {
    page += 1 + gap;
    const at = address + i * stride;
    if (kind === 'zero') batch.push(PageKind.zero, page, 0, 0, 0, 0);
    else {
      kernel.bytes.fill(1 + (i % 250), at, at + pageSize);
      batch.push(PageKind.data, page, 0, 0, at, pageSize);
    }
  }
}

/** Writes batches with `room` bytes in front of each page. */
async function written(lists: { kind: string; gap: number }[][], room: number): Promise<Uint8Array> {
  const kernel = await loadKernel();
  const file = new MemoryFile();
  const writer = new StreamWriter(kernel, appendTo(file));
  await writer.begin(undefined);
  await writer.startRam([block]);
  const batch = new PageBatch(kernel, 200);
  const address = kernel.allocate(200 * (pageSize + room)) + room;
  for (const list of lists) {
    fill(kernel, batch, list, address, pageSize + room);
    batch.room = room;
    await writer.pages(block, batch);
  }
  await writer.endRam();
  await writer.finish();
  const bytes = new Uint8Array(file.size);
  await file.read(bytes, 0);
  expect(writer.length).toBe(bytes.length);
  return bytes;
}

describe('a stream writer', () => {
  it('writes the same bytes from where the pages are as from its buffer', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(records, { maxLength: 4 }), async (lists) => {
        const copied = await written(lists, 0);
        expect(Buffer.compare(await written(lists, 8), copied)).toBe(0);
        // There is room, but not the distance of records.
        expect(Buffer.compare(await written(lists, 64), copied)).toBe(0);
      }),
      { seed: 1, numRuns: 60 },
    );
  });

  it('refuses a page beyond the block, wherever it is', async () => {
    const kernel = await loadKernel();
    const writer = new StreamWriter(kernel, appendTo(new MemoryFile()));
    await writer.begin(undefined);
    await writer.startRam([block]);
    const batch = new PageBatch(kernel, 200);
    const address = kernel.allocate(200 * (pageSize + 8)) + 8;
    batch.room = 8;
    for (let i = 0; i < 100; i++) {
      batch.push(PageKind.data, pages - 99 + i, 0, 0, address + i * (pageSize + 8), pageSize);
    }
    await expect(writer.pages(block, batch)).rejects.toThrow(RangeError);
  });
});
