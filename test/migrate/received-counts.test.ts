import { describe, expect, it } from 'vitest';
import { loadKernelFor } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind, pageBatchArenaBytes } from '../../src/kernel/page-batch.ts';
import { ReceivedCounts } from '../../src/migrate/received-counts.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import { PacketNumbers } from '../../src/wire/packet-numbers.ts';
import { ManualClock } from '../support/manual-clock.ts';

const noChannels = { list: [], compression: undefined, uuid: undefined, numbers: new PacketNumbers() };
const block = { idstr: 'pc.ram', index: 0, pageSize: 4096, usedLength: 4096 * 1000 } as RamBlock;

async function counting() {
  const clock = new ManualClock();
  const counts = new ReceivedCounts(clock);
  const kernel = await loadKernelFor([pageBatchArenaBytes(1000)]);
  const batch = new PageBatch(kernel, 1000);
  const pages = (count: number, kind: number = PageKind.data) => {
    batch.count = count;
    batch.kind.fill(kind, 0, count);
    counts.take({ kind: 'pages', block, batch, origin: 'window' } as never);
  };
  counts.take({ kind: 'block', block } as never);
  counts.take({ kind: 'blocks-end', totalBytes: block.usedLength } as never);
  const endPass = () => counts.take({ kind: 'pass-end', offset: 0 });
  const now = () => counts.now(0, noChannels);
  return { clock, counts, pages, endPass, now };
}

describe('ReceivedCounts', () => {
  it('knows what is left of the first pass, and nothing of the second before its end', async () => {
    const { clock, pages, endPass, now } = await counting();
    pages(300, PageKind.zero);
    pages(100);
    expect(now()).toMatchObject({ remaining: 600 * 4096, total: 1000 * 4096, duplicate: 300, normal: 100 });
    await clock.advance(1000);
    pages(600);
    endPass();
    expect(now()).toMatchObject({ remaining: 0, 'dirty-sync-count': 2 });
    expect(now()).not.toHaveProperty('dirty-pages-rate');
  });

  it('estimates the dirty rate from a pass and the time of the one before, and what is left from both', async () => {
    const { clock, pages, endPass, now } = await counting();
    pages(1000);
    await clock.advance(2000);
    endPass();
    // 400 pages were dirtied in the 2 s of the first pass.
    pages(400);
    await clock.advance(500);
    endPass();
    expect(now()).toMatchObject({ 'dirty-sync-count': 3, 'dirty-pages-rate': 200, remaining: 100 * 4096 });
    pages(60);
    expect(now()).toMatchObject({ remaining: 40 * 4096 });
    pages(60);
    expect(now()).toMatchObject({ remaining: 0 });
    await clock.advance(100);
    endPass();
    expect(now()).toMatchObject({ 'dirty-sync-count': 4, 'dirty-pages-rate': 240, remaining: 24 * 4096 });
  });

  it('expects no more than all of RAM, and nothing after its end', async () => {
    const { clock, counts, pages, endPass, now } = await counting();
    pages(1000);
    await clock.advance(100);
    endPass();
    pages(1000);
    await clock.advance(5000);
    endPass();
    expect(now()).toMatchObject({ 'dirty-pages-rate': 10_000, remaining: 1000 * 4096 });
    counts.take({ kind: 'section-end', section: { name: 'ram', kind: 'end' } } as never);
    expect(now()).toMatchObject({ remaining: 0 });
  });

  it('takes the marks of multifd for ends of passes, if they are, and if pages came in between', async () => {
    const { counts, pages, now } = await counting();
    const mark = (isEnd: boolean) => counts.take({ kind: 'sync', offset: 0, channels: 2 }, isEnd);
    mark(true);
    pages(1000);
    mark(false);
    expect(now()).toMatchObject({ 'dirty-sync-count': 1 });
    mark(true);
    mark(true);
    expect(now()).toMatchObject({ 'dirty-sync-count': 2 });
  });
});
