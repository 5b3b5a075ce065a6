/** Ids of contents, compared with docs/formats/incremental.md. */
import { describe, expect, it } from 'vitest';
import { loadKernel } from '../../../src/kernel/load-kernel.ts';
import { PagePairs, pagePairsArenaBytes } from '../../../src/store/page-pairs.ts';
import { ContentIds, contentIdsArenaBytes } from '../../../src/tasks/convert/content-id.ts';
import type { RamBlock } from '../../../src/vm/ram-block.ts';
import { pageHash } from '../../kernel/oracle.ts';
import { type ListedBlock, PageListRam } from '../../support/page-list-ram.ts';

const bits32 = 0xffffffffn;

/** The documented formula, word by word. */
async function plainId(ram: PageListRam): Promise<string> {
  const mix = (x: bigint, a: bigint, b: bigint) => {
    const one = ((x ^ (x >> 16n)) * a) & bits32;
    const two = ((one ^ (one >> 13n)) * b) & bits32;
    return two ^ (two >> 16n);
  };
  let [high, low] = [0n, 0n];
  for (const block of ram.blocks) {
    let s = ((0x811c9dc5n ^ BigInt(Math.log2(block.pageSize))) * 0x01000193n) & bits32;
    for (const char of Buffer.from(block.idstr, 'latin1')) s = ((s ^ BigInt(char)) * 0x01000193n) & bits32;
    for (let page = 0; page < block.usedLength / block.pageSize; page++) {
      const bytes = new Uint8Array(block.pageSize);
      await ram.read(block, page, bytes);
      if (bytes.every((byte) => byte === 0)) continue;
      const [l, h] = [pageHash(bytes) & bits32, pageHash(bytes) >> 32n];
      const n = (BigInt(page) & bits32) ^ (((BigInt(page) >> 32n) * 0x9e3779b1n) & bits32);
      const p = (((n ^ s) * 0x85ebca77n) & bits32) ^ s;
      high += mix(l ^ p, 0x85ebca6bn, 0xc2b2ae35n);
      low += mix(((h * 0x27d4eb2fn) & bits32) ^ (p ^ bits32), 0x7feb352dn, 0x846ca68bn);
    }
  }
  return [high, low].map((half) => (half & bits32).toString(16).padStart(8, '0')).join('');
}

async function idsOf(old: readonly ListedBlock[], now: readonly ListedBlock[], pageSize: number) {
  const [olds, news] = [new PageListRam(old, pageSize), new PageListRam(now, pageSize)];
  const kernel = await loadKernel({ arenaBytes: (64 << 10) + pagePairsArenaBytes + contentIdsArenaBytes });
  const ids = new ContentIds(kernel);
  const pairs = new PagePairs(kernel);
  for (const newBlock of news.blocks) {
    const oldBlock = olds.blocks[newBlock.index] as RamBlock;
    for await (const span of pairs.spans(olds, news, { oldBlock, newBlock })) if (!span.isGap) ids.add(newBlock, span);
  }
  return { ids, olds, news };
}

describe('ids of contents', () => {
  it.each([1024, 4096, 65536])('follow the documented formula, for pages of %i bytes', async (pageSize) => {
    const seeds = (shift: number) =>
      Array.from({ length: 300 }, (_, page) => (page < 40 ? 0 : (page * 7 + shift * (page % 3)) % 5));
    const blocks = (shift: number) => [
      { idstr: 'pc.ram', seeds: seeds(shift) },
      { idstr: 'n\xe4me', seeds: [1, 0, 2] },
    ];
    const { ids, olds, news } = await idsOf(blocks(0), blocks(1), pageSize);
    expect([ids.old, ids.new]).toEqual([await plainId(olds), await plainId(news)]);
    expect(ids.old).not.toBe(ids.new);
  });

  it('distinguish contents with the same pages in other places, blocks, or numbers', async () => {
    const one = [
      { idstr: 'a', seeds: [1, 2, 0, 0] },
      { idstr: 'b', seeds: [0] },
    ];
    const others = [
      [
        { idstr: 'a', seeds: [2, 1, 0, 0] },
        { idstr: 'b', seeds: [0] },
      ],
      [
        { idstr: 'a', seeds: [1, 2, 2, 2] },
        { idstr: 'b', seeds: [0] },
      ],
      [
        { idstr: 'a', seeds: [0, 2, 0, 0] },
        { idstr: 'b', seeds: [1] },
      ],
      [
        { idstr: 'c', seeds: [1, 2, 0, 0] },
        { idstr: 'b', seeds: [0] },
      ],
    ];
    const found = [(await idsOf(one, one, 4096)).ids.new];
    for (const other of others) found.push((await idsOf(other, other, 4096)).ids.new);
    expect(new Set(found).size).toBe(5);
    const absent = [
      { idstr: 'b', seeds: ['absent' as const] },
      { idstr: 'a', seeds: [1, 2, 'absent' as const, 0] },
    ];
    expect((await idsOf(absent, absent, 4096)).ids.new).toBe(found[0]);
  });
});
