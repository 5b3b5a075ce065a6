/** Records that the kernel goes over, and the same ones without it: in memory that the kernel does not have. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Kernel, PageBatch } from '../../src/kernel/index.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import { ByteWindow } from '../../src/wire/byte-window.ts';
import { decodePageRecords, makeRamState, Stop } from '../../src/wire/ram-record.ts';
import { loadSmall, variants } from '../kernel/arena.ts';
import { join, u64 } from '../oracle/build.ts';

const pageSize = 1024;
const flags = { zero: 0x02, page: 0x08, eos: 0x10, continue: 0x20, xbzrle: 0x40, flush: 0x200 };

/** Mostly pages that follow each other; sometimes a page that does not, is of another kind, or has a fault. */
const record = fc.record({
  step: fc.constantFrom(1, 1, 1, 1, 1, 1, 3, 0, -2, 30, 2 ** 33),
  flags: fc.constantFrom(
    ...Array.from({ length: 8 }, () => flags.page | flags.continue),
    ...Array.from({ length: 4 }, () => flags.zero | flags.continue),
    ...[flags.page, flags.eos, flags.xbzrle | flags.continue, flags.flush, flags.page | flags.zero, 0],
  ),
  fill: fc.constantFrom(0, 0, 0, 0, 7),
});
const records = fc.array(record, { minLength: 1, maxLength: 40 });

function encode(list: readonly { step: number; flags: number; fill: number }[]): Uint8Array {
  let page = 0;
  const pieces = [u64(flags.page), Uint8Array.of(1, 97), new Uint8Array(pageSize)];
  for (const { step, flags: of, fill } of list) {
    page = Math.max(0, page + step);
    pieces.push(u64(page * pageSize + of));
    if ((of & flags.continue) === 0) pieces.push(Uint8Array.of(1, 97));
    if ((of & flags.page) !== 0) pieces.push(new Uint8Array(pageSize).fill(fill));
    else if ((of & flags.xbzrle) !== 0) pieces.push(Uint8Array.of(1, 0, 2, 5, 6));
    else pieces.push(Uint8Array.of(fill));
  }
  return join(...pieces);
}

/** What comes of the bytes at `at`: all batches, stops and findings, and the error that ends it. */
function read(bytes: Uint8Array, at: number, length: number, batch: PageBatch): unknown[] {
  const window = new ByteWindow(bytes as Uint8Array<ArrayBuffer>, 'records');
  window.position = at;
  window.limit = at + length;
  window.base = 5000 - at;
  const block: RamBlock = { index: 0, idstr: 'a', usedLength: 60 * pageSize, pageSize };
  const ram = makeRamState(pageSize);
  ram.blocks.push(block);
  ram.byName.set('a', block);
  const seen: unknown[] = [];
  for (let stops = 0; stops < 100; stops++) {
    batch.clear();
    try {
      const stop = decodePageRecords(window, ram, batch);
      const { count } = batch;
      const tables = [batch.kind, batch.page, batch.offset, batch.size, batch.length];
      const data = [...batch.data.subarray(0, count)].map((address) => address - at);
      const { scan, wanted, finding } = ram;
      seen.push([stop, count, ...tables.map((table) => [...table.subarray(0, count)]), data, window.offset]);
      seen.push({ ...scan, wanted, finding });
      if (stop === Stop.more || stop === Stop.other) break;
    } catch (error) {
      seen.push(String(error));
      break;
    }
  }
  return seen;
}

describe.each(variants)('page records (%s)', (variant) => {
  let kernel: Kernel;

  it('are the same with the kernel, wherever the bytes end', async () => {
    kernel = await loadSmall(variant);
    const heap = kernel.allocate(64 * 1024);
    // A small one, so that it is full in the middle of a run.
    const batch = new PageBatch(kernel, 11);
    fc.assert(
      fc.property(records, fc.nat(9), fc.nat(2048), (list, misalignment, cut) => {
        const bytes = encode(list);
        const length = Math.max(0, bytes.length - (cut < 1500 ? 0 : cut));
        const at = heap + misalignment;
        kernel.bytes.fill(0x5a, heap, heap + 64 * 1024);
        kernel.bytes.set(bytes, at);
        const elsewhere = kernel.bytes.slice();
        expect(read(kernel.bytes, at, length, batch)).toEqual(read(elsewhere, at, length, batch));
      }),
    );
  });
});
