import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import { encodePageRecords, maxRecord, type RecordBuffer } from '../../src/wire/ram-record-encoder.ts';
import {
  blockList,
  compressedPage,
  configuration,
  deltaPage,
  EOF,
  EOS,
  end,
  filled,
  header,
  hex,
  join,
  KIB4,
  normalPage,
  part,
  start,
  subsection,
  u32,
  zeroPage,
} from '../oracle/build.ts';
import { decodeChunked, type PageRecord } from './decoding.ts';

const kernel = await loadKernel({ arenaBytes: 4 << 20 });
const batch = new PageBatch(kernel, 64);
const payloads = kernel.allocate((64 * 65536) >> 1);
const bufferBytes = 256 * 1024;
const roomStart = kernel.allocate(bufferBytes);

/** A buffer of `bytes`, by default more than enough. */
function makeBuffer(bytes = bufferBytes): RecordBuffer {
  const view = new DataView(kernel.bytes.buffer);
  return { bytes: kernel.bytes, view, position: roomStart, limit: roomStart + bytes, current: undefined };
}

const block = (idstr: string, pages: number, pageSize = KIB4, index = 0): RamBlock => ({
  ...{ index, idstr, pageSize },
  usedLength: pages * pageSize,
});

interface Plain {
  kind: PageKind;
  page: number;
  payload: Uint8Array;
}

function fill(records: readonly Plain[]): PageBatch {
  batch.clear();
  let at = payloads;
  for (const { kind, page, payload } of records) {
    kernel.bytes.set(payload, at);
    batch.push(kind, page, 0, 0, at, payload.length);
    at += payload.length;
  }
  return batch;
}

/** All records, through buffers that are emptied whenever they are full. */
function encode(buffer: RecordBuffer, of: RamBlock, records: readonly Plain[]): Uint8Array {
  const out: Uint8Array[] = [];
  const filledBatch = fill(records);
  for (let done = 0; done < filledBatch.count; ) {
    buffer.position = roomStart;
    const next = encodePageRecords(buffer, of, filledBatch, done);
    expect(next, 'records in a buffer that has buffer for any').toBeGreaterThan(done);
    expect(buffer.position).toBeLessThanOrEqual(buffer.limit);
    out.push(kernel.bytes.slice(roomStart, buffer.position));
    done = next;
  }
  return join(...out);
}

const empty = new Uint8Array();

describe('encoding RAM records', () => {
  it('names a block once, and again when it changes', () => {
    const buffer = makeBuffer();
    const [a, b] = [block('a', 16), block('b', 16, KIB4, 1)];
    const data = filled(7);
    const delta = hex('00 01 0a');
    const packed = hex('789c 0102 03');
    const bytes = join(
      encode(buffer, a, [
        { kind: PageKind.zero, page: 0, payload: empty },
        { kind: PageKind.data, page: 1, payload: data },
        { kind: PageKind.delta, page: 2, payload: delta },
      ]),
      encode(buffer, a, [{ kind: PageKind.compressed, page: 3, payload: packed }]),
      encode(buffer, b, [{ kind: PageKind.data, page: 15, payload: data }]),
      encode(buffer, a, [{ kind: PageKind.zero, page: 4, payload: empty }]),
    );
    const expected = join(
      zeroPage(0, 'a'),
      normalPage(KIB4, data),
      deltaPage(2 * KIB4, delta),
      compressedPage(3 * KIB4, packed),
      normalPage(15 * KIB4, data, 'b'),
      zeroPage(4 * KIB4, 'a'),
    );
    expect(Buffer.compare(bytes, expected)).toBe(0);
  });

  it('writes offsets beyond 4 GiB', () => {
    const huge = block('ram', 2 ** 36 / KIB4);
    const page = 0x9_8765_4000 / KIB4;
    expect(encode(makeBuffer(), huge, [{ kind: PageKind.zero, page, payload: empty }])).toEqual(
      zeroPage(0x9_8765_4000, 'ram'),
    );
  });

  it('decodes to what was encoded, whatever the buffer, the page size and the name', () => {
    const shapes = fc.constantFrom(1024, 4096, 8192, 65536).chain((pageSize) => {
      const most = 24;
      const record = fc.record({
        page: fc.nat(most - 1),
        kind: fc.constantFrom(PageKind.zero, PageKind.data, PageKind.delta, PageKind.compressed),
        length: fc.nat(40),
        seed: fc.nat(255),
      });
      return fc.record({
        pageSize: fc.constant(pageSize),
        name: fc.oneof(fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' }), fc.constant('n'.repeat(255))),
        bufferBytes: fc.constantFrom(maxRecord, maxRecord + 1, bufferBytes),
        records: fc.uniqueArray(record, { minLength: 1, maxLength: most, selector: ({ page }) => page }),
      });
    });
    fc.assert(
      fc.property(shapes, ({ pageSize, name, bufferBytes: bytes, records }) => {
        const of = block(name, 24, pageSize);
        const plain = records
          .sort((a, b) => a.page - b.page)
          .map(({ page, kind, length, seed }) => {
            const size = kind === PageKind.zero ? 0 : kind === PageKind.data ? pageSize : length;
            return { page, kind, payload: new Uint8Array(size).fill(seed) };
          });
        const bits = subsection('configuration/target-page-bits', u32(Math.log2(pageSize)));
        const stream = join(
          header,
          configuration('none', bits),
          start(7, 'ram', 4, blockList([name, of.usedLength]), EOS),
          part(7, encode(makeBuffer(bytes), of, plain), EOS),
          end(7, EOS),
          EOF,
        );
        const { items, error } = decodeChunked(stream, stream.length);
        expect(error).toBeUndefined();
        const names = Object.fromEntries(Object.entries(PageKind).map(([key, kind]) => [kind, key]));
        const decoded = items.filter((item): item is PageRecord => item.kind === 'page');
        expect(decoded.map(({ block: idstr, page, is }) => [idstr, page, is])).toEqual(
          plain.map(({ page, kind }) => [name, page, names[kind]]),
        );
        decoded.forEach(({ payload }, i) => {
          expect(Buffer.compare(payload, plain[i]?.payload ?? empty)).toBe(0);
        });
      }),
      { numRuns: 200 },
    );
  });

  it.each<[string, RamBlock, Plain]>([
    ['an absent page', block('ram', 4), { kind: PageKind.absent, page: 0, payload: empty }],
    ['a page beyond its block', block('ram', 4), { kind: PageKind.zero, page: 4, payload: empty }],
    ['half a page', block('ram', 4), { kind: PageKind.data, page: 0, payload: new Uint8Array(2048) }],
    ['a delta longer than a page', block('ram', 4), { kind: PageKind.delta, page: 0, payload: new Uint8Array(4097) }],
    ['a name of 256 bytes', block('n'.repeat(256), 4), { kind: PageKind.zero, page: 0, payload: empty }],
  ])('refuses %s', (_, of, record) => {
    expect(() => encodePageRecords(makeBuffer(), of, fill([record]))).toThrow(RangeError);
  });
});
