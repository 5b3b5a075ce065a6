import fc from 'fast-check';
import { expect, it } from 'vitest';
import { open, PageBatch, PageKind } from '../../src/index.ts';
import { NotIndexable, StreamIndex } from '../../src/store/stream-index.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';

const pageSize = 1024;
const pages = 40;
/** Bytes of a record in front of its page. */
const room = 8;
const block: RamBlock = { index: 0, idstr: 'ram', usedLength: pages * pageSize, pageSize };

/** A record of a page: data, directly after the previous record or further on, or zero. */
const record = fc.record({
  page: fc.nat(pages - 1),
  kind: fc.constantFrom('data', 'data', 'data', 'zero'),
  gap: fc.constantFrom(0, 0, 9, 20_000),
});
const pass = fc.array(record, { maxLength: 60 }).map((list) => list.sort((a, b) => a.page - b.page));
const run = fc
  .record({ from: fc.nat(pages - 1), count: fc.integer({ min: 1, max: pages }) })
  .map(({ from, count }) =>
    Array.from({ length: Math.min(count, pages - from) }, (_, i) => ({ page: from + i, kind: 'data', gap: 0 })),
  );

it('gives the last content of each page, after any passes of whole pages', async () => {
  const passes = fc.array(fc.oneof(pass, run), { maxLength: 6 });
  const lookUps = fc.array(fc.tuple(fc.nat(pages - 1), fc.integer({ min: 1, max: pages })), {
    minLength: 5,
    maxLength: 5,
  });
  await fc.assert(
    fc.asyncProperty(passes, lookUps, async (all, ranges) => {
      const content = new Uint8Array(block.usedLength);
      const states: string[] = new Array(pages).fill('absent');
      const bytes: number[] = [];
      const records = all.flat().map(({ page, kind, gap }, i) => {
        states[page] = kind;
        const own = content.subarray(page * pageSize, (page + 1) * pageSize).fill(0);
        if (kind === 'zero') return { page, offset: -1 };
        own.fill(1 + (i % 250));
        for (let k = 0; k < gap + 8; k++) bytes.push(0xee);
        const offset = bytes.length;
        for (const byte of own) bytes.push(byte);
        return { page, offset };
      });
      const file = await open(Uint8Array.from(bytes));
      // The index asks for the place of a page. In this file an address is a place.
      file.offsetOf = (address) => address;
      const index = new StreamIndex(file, () => true);
      index.addBlock(block);
      const batch = new PageBatch(file.kernel, 400);
      for (const { page, offset } of records) {
        if (offset === -1) batch.push(PageKind.zero, page, 0, 0, 0, 0);
        else batch.push(PageKind.data, page, 0, 0, offset, pageSize);
      }
      index.apply(block, batch);
      index.finish();
      for (const [page, count] of ranges) {
        const target = new Uint8Array(Math.min(count, pages - page) * pageSize).fill(0xaa);
        await index.read(block, page, target);
        expect(Buffer.compare(target, content.subarray(page * pageSize, page * pageSize + target.length))).toBe(0);
        const spaced = new Uint8Array(Math.min(count, pages - page) * (pageSize + room)).fill(0xaa);
        const whole = await index.readSpaced(block, page, spaced, room);
        expect(whole === 0 || states.slice(page, page + whole).every((state) => state === 'data')).toBe(true);
        for (let i = 0; i < whole; i++) {
          const at = i * (pageSize + room) + room;
          const own = content.subarray((page + i) * pageSize, (page + i + 1) * pageSize);
          expect(Buffer.compare(spaced.subarray(at, at + pageSize), own)).toBe(0);
        }
        const { first, end } = await index.nextData(block, page, count);
        const found = states.findIndex((state, i) => i >= page && state === 'data');
        expect(first).toBe(found === -1 ? pages : found);
        expect(states.slice(first, end).every((state) => state === 'data') && end - first <= count).toBe(true);
        expect(end > first || found === -1).toBe(true);
      }
      expect(states.map((_, page) => index.state(block, page))).toEqual(states);
    }),
    { seed: 1, numRuns: 150 },
  );
});

it('reads a long run of pages with their headers, as it lies in the stream', async () => {
  const bytes = Uint8Array.from({ length: pages * (pageSize + room) }, (_, i) => i % 251);
  const file = await open(bytes);
  file.offsetOf = (address) => address;
  const index = new StreamIndex(file, () => true);
  index.addBlock(block);
  const batch = new PageBatch(file.kernel, pages);
  for (let i = 0; i < pages; i++) batch.push(PageKind.data, i, 0, 0, i * (pageSize + room) + room, pageSize);
  index.apply(block, batch);
  index.finish();
  const target = new Uint8Array(35 * (pageSize + room));
  const stride = pageSize + room;
  expect(await index.readSpaced(block, 1, target, room)).toBe(35);
  expect(Buffer.compare(target.subarray(room), bytes.subarray(stride + room, 36 * stride))).toBe(0);
  // The end of the block, another distance, and a run that is too short.
  expect(await index.readSpaced(block, 8, target, room)).toBe(32);
  expect(await index.readSpaced(block, 1, target, 16)).toBe(0);
  expect(await index.readSpaced(block, 9, target, room)).toBe(0);
  await file.close();
});

it.each([
  ['a delta', PageKind.delta],
  ['a compressed page', PageKind.compressed],
  ['a page that is not in the window of the stream', PageKind.data],
])('refuses %s, except in a block that is not needed', async (_, kind) => {
  const file = await open(new Uint8Array(10));
  const batch = new PageBatch(file.kernel, 4);
  batch.kind[0] = kind;
  batch.count = 1;
  const apply = (only: () => boolean) => {
    const index = new StreamIndex(file, only);
    index.addBlock(block);
    index.apply(block, batch);
  };
  expect(() => apply(() => true)).toThrow(NotIndexable);
  expect(() => apply(() => false)).not.toThrow();
});
