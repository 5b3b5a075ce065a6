/**
 * The page cache against the one of a real QEMU: for the same pages, the same records, byte for byte, and the same counters.
 */
import { describe, expect, test } from 'vitest';
import { XbzrleCache, xbzrleArenaBytes } from '../../src/file/xbzrle-cache.ts';
import { loadKernel } from '../../src/kernel/kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import type { GuestBlock } from '../../src/vm/guest.ts';
import { PAGE } from './machine.ts';
import { qemuVersions } from './qemu.ts';
import { lacksQemu } from './require.ts';
import { type SentOptions, type SentPage, type SentRun, sendWithXbzrle } from './sent-pages.ts';

const batchPages = 512;

/** Sends the pages again through a cache of ours, in the largest batches that there can be. */
async function sendAgain({ pages, blocks, statistics }: SentRun) {
  const cacheSize = statistics['cache-size']!;
  const kernel = await loadKernel({ arenaBytes: xbzrleArenaBytes(cacheSize) + batchPages * (PAGE + 8) + (1 << 20) });
  const cache = new XbzrleCache(kernel, { cacheSize });
  const batch = new PageBatch(kernel, batchPages);
  const room = kernel.allocate(batchPages * PAGE);
  const records: { block: number; page: number; kind: number; payload: Uint8Array }[] = [];
  const ofQemu = blocks.map(
    ({ idstr, length, ramAddress }, index): GuestBlock => ({ index, idstr, ramAddress, usedLength: length, pageSize: PAGE }),
  );
  let current = -1;
  const take = (block: number, from: PageBatch) => {
    for (let i = 0; i < from.count; i++) {
      const [data, length] = [from.data[i]!, from.length[i]!];
      const payload = kernel.bytes.slice(data, data + length);
      records.push({ block, page: from.page[i]!, kind: from.kind[i]!, payload });
      current = block;
    }
  };
  const belongs = (a: SentPage, b: SentPage) =>
    a.block === b.block && a.page < b.page && a.section === b.section && a.isFirstRound === b.isFirstRound;
  for (let i = 0; i < pages.length; ) {
    const first = pages[i]!;
    batch.clear();
    do {
      const { page, content } = pages[i]!;
      const at = batch.count++;
      const isZero = content.every((byte) => byte === 0);
      batch.kind[at] = isZero ? PageKind.zero : PageKind.data;
      batch.page[at] = page;
      batch.data[at] = room + at * PAGE;
      batch.length[at] = isZero ? 0 : PAGE;
      kernel.bytes.set(content, room + at * PAGE);
      i++;
    } while (i < pages.length && batch.count < batchPages && belongs(pages[i - 1]!, pages[i]!));
    const { block, generation, isLastStage } = first;
    if (first.isFirstRound) take(block, batch);
    else {
      const moment = { generation, isLastStage, isNamed: block !== current };
      for (const sent of cache.encode(ofQemu[block]!, batch, moment)) take(block, sent);
    }
  }
  return { records, statistics: cache.statistics };
}

interface Case {
  name: string;
  options: Omit<SentOptions, 'version'>;
  telling?: boolean;
}

const cases: Case[] = [
  { name: 'a bare pc', telling: true, options: { machine: 'bare', workload: { passes: 6 } } },
  { name: 'a small cache', telling: true, options: { machine: 'bare', ramMiB: 4, cacheSize: 256 << 10, workload: { passes: 8 } } },
  { name: 'many devices', options: { machine: 'q35', cacheSize: 1 << 20, workload: { passes: 5 } } },
];

const isFull = process.env.VMFERRY_QEMU === 'full';

describe.each(qemuVersions)('QEMU %s', (version) => {
  describe.skipIf(lacksQemu(version))('sends the same with its page cache', () => {
    test.for(cases.filter(({ telling }) => isFull || telling))('$name', async ({ options }) => {
      const run = await sendWithXbzrle({ ...options, version });
      const sent = run.pages.filter(({ record }) => record !== undefined);
      console.log(run.statistics, run.pages.length, sent.length, run.syncs.length, new Set(run.pages.map((p) => p.block)).size);
      const { records, statistics } = await sendAgain(run);
      const say = (page: { block: number; page: number; kind: number }) => `${page.block}:${page.page} ${page.kind}`;
      expect(records.map(say)).toEqual(sent.map((page) => say({ ...page, kind: page.record!.kind })));
      records.forEach(({ payload }, i) => {
        if (Buffer.compare(payload, sent[i]!.record!.payload) !== 0) throw new Error(`record ${i} has other bytes`);
      });
      const { pages, bytes, overflow, cacheMiss } = statistics;
      const { pages: theirs, bytes: b, overflow: o, 'cache-miss': m } = run.statistics;
      expect({ pages, bytes, overflow, cacheMiss }).toEqual({ pages: theirs, bytes: b, overflow: o, cacheMiss: m });
    });
  });
});
