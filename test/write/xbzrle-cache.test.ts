import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import type { GuestBlock } from '../../src/vm/guest.ts';
import { type PassContext, XbzrleCache, xbzrleArenaBytes } from '../../src/write/xbzrle-cache.ts';
import { applyDelta } from '../oracle/xbzrle.ts';

const PAGE = 1024;
const most = 300;

const block: GuestBlock = { index: 0, idstr: 'ram', usedLength: 64 * PAGE, pageSize: PAGE, ramAddress: 0 };
const other: GuestBlock = { ...block, index: 1, idstr: 'other', ramAddress: 64 * PAGE };

type Page = [page: number, content: Uint8Array];
type Sent = { page: number; kind: keyof typeof PageKind; payload: Uint8Array };

/** A page of one repeated byte, with the given exceptions. */
function filled(fill: number, changes: Record<number, number> = {}): Uint8Array {
  const page = new Uint8Array(PAGE).fill(fill);
  for (const [at, byte] of Object.entries(changes)) page[Number(at)] = byte;
  return page;
}

/** A page that differs too much from those of one byte for a delta. */
const noise = (seed: number) => Uint8Array.from({ length: PAGE }, (_, i) => ((i * 7 + seed) & 0xff) | 1);
const zero = new Uint8Array(PAGE);

async function makeCache(slots: number) {
  const cacheSize = slots * PAGE;
  const kernel = await loadKernel({ arenaBytes: xbzrleArenaBytes(cacheSize) + most * (PAGE + 8) + (1 << 17) });
  const cache = new XbzrleCache(kernel, { cacheSize, pageSize: PAGE });
  const batch = new PageBatch(kernel, most);
  const buffer = kernel.allocate(most * PAGE);
  const names = Object.keys(PageKind) as Sent['kind'][];
  const send = (pages: Page[], generation: number, moment: Partial<PassContext> = {}, of = block): Sent[] => {
    batch.clear();
    for (const [page, content] of pages) {
      const address = buffer + batch.count * PAGE;
      kernel.bytes.set(content, address);
      if (content.every((byte) => byte === 0)) batch.push(PageKind.zero, page, 0, 0, address, 0);
      else batch.push(PageKind.data, page, 0, 0, address, PAGE);
    }
    const sent: Sent[] = [];
    for (const { count, kind, page, data, length } of cache.encode(of, batch, {
      ...{ generation, isNamed: false },
      ...moment,
    })) {
      for (let i = 0; i < count; i++) {
        const payload = kernel.bytes.slice(data[i], (data[i] as number) + (length[i] as number));
        sent.push({ page: page[i] as number, kind: names[kind[i] as number] as Sent['kind'], payload });
      }
    }
    return sent;
  };
  const kinds = (...args: Parameters<typeof send>) => send(...args).map(({ page, kind }) => `${page} ${kind}`);
  return { cache, send, kinds };
}

describe('the page cache', () => {
  it('sends a page whole at first, and then its changes', async () => {
    const { cache, send } = await makeCache(4);
    expect(send([[1, filled(7)]], 2)).toEqual([{ page: 1, kind: 'data', payload: filled(7) }]);
    const delta = Uint8Array.of(100, 1, 9);
    expect(send([[1, filled(7, { 100: 9 })]], 3)).toEqual([{ page: 1, kind: 'delta', payload: delta }]);
    expect(send([[1, filled(7, { 100: 9, 101: 9 })]], 4)[0]?.payload).toEqual(Uint8Array.of(101, 1, 9));
    expect(cache.statistics).toMatchObject({ cacheMiss: 1, pages: 2, bytes: 2 * 6, overflow: 0 });
  });

  it('does not send an unchanged page, but counts it', async () => {
    const { cache, kinds } = await makeCache(4);
    kinds([[1, filled(7)]], 2);
    expect(kinds([[1, filled(7)]], 3)).toEqual([]);
    expect(cache.statistics).toMatchObject({ cacheMiss: 1, pages: 1, bytes: 0 });
  });

  it('sends a page whole if its delta is too long, and remembers it', async () => {
    const { cache, kinds } = await makeCache(4);
    kinds([[1, filled(2)]], 2);
    expect(kinds([[1, noise(0)]], 3)).toEqual(['1 data']);
    const changed = noise(0);
    changed[5] = 0;
    expect(kinds([[1, changed]], 4)).toEqual(['1 delta']);
    expect(cache.statistics).toMatchObject({ pages: 2, overflow: 1, bytes: PAGE + 6 });
  });

  it('remembers zero pages, so the next content is a delta', async () => {
    const { cache, send } = await makeCache(4);
    expect(send([[1, zero]], 2)).toEqual([{ page: 1, kind: 'zero', payload: new Uint8Array() }]);
    expect(send([[1, filled(0, { 3: 1 })]], 3)[0]).toMatchObject({ kind: 'delta', payload: Uint8Array.of(3, 1, 1) });
    expect(cache.statistics).toMatchObject({ pages: 1, cacheMiss: 0 });
  });

  it('keeps a page that was used less than two syncs ago, even against a zero page', async () => {
    const { kinds } = await makeCache(4);
    kinds([[1, filled(7)]], 2);
    expect(kinds([[5, filled(8)]], 3)).toEqual(['5 data']);
    expect(kinds([[9, zero]], 3)).toEqual(['9 zero']);
    // A lookup makes it recent again.
    expect(kinds([[1, filled(7)]], 3)).toEqual([]);
    kinds([[5, filled(8)]], 4);
    expect(kinds([[1, filled(7, { 0: 1 })]], 4)).toEqual(['1 delta']);
    kinds([[5, filled(8)]], 6);
    expect(kinds([[5, filled(8, { 0: 1 })]], 7)).toEqual(['5 delta']);
    expect(kinds([[1, filled(7)]], 7)).toEqual(['1 data']);
  });

  it('distinguishes pages of different blocks by their RAM addresses', async () => {
    const { kinds } = await makeCache(4);
    kinds([[1, filled(7)]], 2);
    expect(kinds([[1, filled(7)]], 2, {}, other)).toEqual(['1 data']);
    expect(kinds([[1, filled(7)]], 3)).toEqual([]);
  });

  it('looks up pages in the last stage, but remembers only zero pages', async () => {
    const { cache, kinds } = await makeCache(4);
    const last = { isLastStage: true };
    kinds([[1, filled(7)]], 2);
    expect(kinds([[1, filled(7, { 0: 1 })]], 4, last)).toEqual(['1 delta']);
    expect(kinds([[1, filled(7, { 0: 1 })]], 4, last)).toEqual(['1 delta']);
    expect(kinds([[2, filled(7)], [2, filled(7)]], 4, last)).toEqual(['2 data', '2 data']); // biome-ignore format: one line
    expect(cache.statistics).toMatchObject({ pages: 2, cacheMiss: 3 });
    expect(kinds([[5, zero]], 6, last)).toEqual(['5 zero']);
    expect(kinds([[1, filled(7)]], 6, last)).toEqual(['1 data']);
  });

  it('counts the name of the block if the first record has it', async () => {
    const { cache, kinds } = await makeCache(8);
    kinds([[1, filled(7)], [2, filled(7)], [3, filled(7)]], 2); // biome-ignore format: one line
    const changed = filled(7, { 0: 1 });
    kinds([[1, filled(7)], [2, changed], [3, changed]], 3, { isNamed: true }); // biome-ignore format: one line
    expect(cache.statistics.bytes).toBe(6 + 1 + 'ram'.length + 6);
  });

  it('gives the rates of the latest period in which anything was sent', async () => {
    const { cache, kinds } = await makeCache(8);
    kinds([[1, filled(7)], [2, filled(7)]], 2); // biome-ignore format: one line
    cache.endPeriod(8);
    expect(cache.statistics).toMatchObject({ cacheMissRate: 2 / 8, encodingRate: 0 });
    kinds([[1, filled(7, { 0: 1 })], [2, filled(7)], [3, filled(7)]], 3); // biome-ignore format: one line
    cache.endPeriod(4);
    const rates = { cacheMissRate: 1 / 4, encodingRate: (2 * PAGE) / 6 };
    expect(cache.statistics).toMatchObject(rates);
    cache.endPeriod(0);
    expect(cache.statistics).toMatchObject(rates);
    // Pages that were in the cache, but took no bytes.
    kinds([[2, filled(7)]], 4);
    cache.endPeriod(1);
    expect(cache.statistics).toMatchObject({ cacheMissRate: 0, encodingRate: 0 });
  });

  it.each([
    [{ cacheSize: 3 * 4096 }, /expected a cache size that is a power of two/],
    [{ cacheSize: 2048 }, /and at least a page, got 2048/],
    [{ cacheSize: 0 }, /got 0/],
    [{ cacheSize: 1 << 20, pageSize: 3000 }, /expected a page size/],
    [{ cacheSize: 1 << 20, pageSize: 32768 }, /from 1024 to 16384, got 32768/],
  ])('refuses %o', async (options, message) => {
    const kernel = await loadKernel({ arenaBytes: 4 << 20 });
    expect(() => new XbzrleCache(kernel, options)).toThrow(RangeError);
    expect(() => new XbzrleCache(kernel, options)).toThrow(message);
  });

  it('fits into the stated part of an arena, for every page size', async () => {
    for (const pageSize of [1024, 4096, 16384]) {
      const cacheSize = 1 << 20;
      const kernel = await loadKernel({ arenaBytes: xbzrleArenaBytes(cacheSize) + (64 << 10) });
      new XbzrleCache(kernel, { cacheSize, pageSize });
    }
  });

  it('refuses records that are not pages, and pages of another size', async () => {
    const { cache } = await makeCache(4);
    const kernel = await loadKernel({ arenaBytes: 1 << 20 });
    const batch = new PageBatch(kernel, 4);
    batch.push(PageKind.delta, 0, 0, 0, 0, 0);
    const moment = { generation: 2, isNamed: false };
    expect(() => [...cache.encode(block, batch, moment)]).toThrow(
      /expected whole pages, got kind 3 for page 0 of "ram"/,
    );
    expect(() => [...cache.encode({ ...block, pageSize: 4096 }, batch, moment)]).toThrow(RangeError);
  });

  it('sends what a reader decodes to the same pages, like a cache that works page by page', async () => {
    const step = fc.record({
      page: fc.nat(11),
      fill: fc.constantFrom(0, 7),
      changes: fc.dictionary(fc.nat(40).map(String), fc.nat(255), { maxKeys: 3 }),
      isNoise: fc.boolean(),
    });
    const rounds = fc.array(fc.record({ steps: fc.array(step, { maxLength: 30 }), isLater: fc.boolean() }), {
      maxLength: 8,
    });
    const [whole, single] = [await makeCache(4), await makeCache(4)];
    const reader = new Map<number, Uint8Array>();
    let generation = 1;
    const say = (sent: Sent[]) =>
      sent.map(({ page, kind, payload }) => `${page} ${kind} ${Buffer.from(payload).toString('latin1')}`).join();
    fc.assert(
      fc.property(rounds, (list) => {
        for (const { steps, isLater } of list) {
          generation += isLater ? 1 : 0;
          const pages = steps.map(({ page, fill, changes, isNoise }): Page => {
            const content = filled(fill, changes);
            return [page, isNoise ? content.map((byte, i) => byte ^ ((i * 31) | 1)) : content];
          });
          const sent = whole.send(pages, generation);
          expect(say(pages.flatMap((page) => single.send([page], generation)))).toBe(say(sent));
          for (const { page, kind, payload } of sent) {
            if (kind === 'delta') applyDelta(reader.get(page) as Uint8Array, payload, 0);
            else reader.set(page, kind === 'zero' ? new Uint8Array(PAGE) : payload);
          }
          for (const [page, content] of new Map(pages)) {
            expect(Buffer.compare(reader.get(page) as Uint8Array, content), `page ${page}`).toBe(0);
          }
        }
        expect(whole.cache.statistics).toEqual(single.cache.statistics);
      }),
      { numRuns: 200 },
    );
  });
});
