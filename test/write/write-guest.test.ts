import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  appendTo,
  inspect,
  MappedRamStore,
  MemoryFile,
  open,
  RawRam,
  settle,
  stoppedGuest,
  type WriteGuestOptions,
  writeGuest,
  writeStream,
} from '../../src/node.ts';
import { MemoryGuest } from './memory-guest.ts';

const PAGE = 4096;
const small = { xbzrle: { cacheSize: 4 * PAGE } };

async function write(guest: Parameters<typeof writeGuest>[0], options: WriteGuestOptions = {}) {
  const output = new MemoryFile();
  const written = await writeGuest(guest, appendTo(output), options);
  const bytes = new Uint8Array(output.size);
  await output.read(bytes, 0);
  expect(written.length).toBe(bytes.length);
  return { ...written, bytes };
}

/** A reader's final content of RAM. */
async function contentsOf(bytes: Uint8Array): Promise<Uint8Array[]> {
  const file = await open(bytes);
  const store = new MappedRamStore(new MemoryFile(), file.pageSlots);
  await settle(file, store);
  const contents = [];
  for (const block of store.blocks) {
    const content = new Uint8Array(block.usedLength);
    await store.read(block, 0, content);
    contents.push(content);
  }
  await file.close();
  return contents;
}

async function expectArrives(guest: MemoryGuest, bytes: Uint8Array): Promise<void> {
  const contents = await contentsOf(bytes);
  contents.forEach((content, i) => {
    expect(Buffer.compare(content, guest.contents[i] as Uint8Array), `block ${i}`).toBe(0);
  });
}

/** The sections of RAM in order, with the number of pages of each kind. */
async function ramOf(bytes: Uint8Array) {
  const { inspection } = await inspect(await open(bytes));
  const { ram, sections } = inspection;
  return { ram, kinds: sections.filter(({ name }) => name === 'ram').map(({ kind }) => kind) };
}

describe('a guest, written in passes', () => {
  it('that is stopped gives the same stream as writeStream', async () => {
    const image = new Uint8Array(40 * PAGE).fill(1, 3 * PAGE, 20 * PAGE);
    const vm = {
      configuration: { machine: 'pc-i440fx-10.0', capabilities: [] },
      ram: new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]),
      devices: [{ kind: 'full', id: 9, name: 'timer', instanceId: 0, versionId: 2, data: new Uint8Array(24) } as const],
      description: { text: '{}' },
      framing: { ramId: 4, footers: false, switchoverStart: true },
    };
    const stream = new MemoryFile();
    await writeStream(vm, appendTo(stream));
    const expected = new Uint8Array(stream.size);
    await stream.read(expected, 0);
    const { bytes, normal, duplicate, dirtySyncCount } = await write(stoppedGuest(vm), small);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    expect([normal, duplicate, dirtySyncCount]).toEqual([17, 23, 3]);
  });

  it('sends again what was written in the meantime, and the rest when it is stopped', async () => {
    const guest = new MemoryGuest({ a: 10, b: 300 });
    guest.onSync = (syncs) => {
      if (syncs === 2) for (let page = 0; page < 300; page += 3) guest.write(1, page, 5, 1, 2, 3);
      if (syncs === 3) for (let page = 0; page < 10; page++) guest.write(0, page, 0, page);
    };
    const stop = guest.stop.bind(guest);
    guest.stop = () => {
      guest.write(1, 299, 0, 9);
      stop();
    };
    const { bytes, dirtySyncCount, normal, duplicate } = await write(guest);
    expect(dirtySyncCount).toBe(5);
    expect([normal, duplicate]).toEqual([100 + 9 + 1, 310 + 1]);
    const { ram, kinds } = await ramOf(bytes);
    expect(kinds).toEqual(['start', 'part', 'part', 'part', 'end']);
    expect(ram.passes).toBe(3);
    await expectArrives(guest, bytes);
  });

  it('sends deltas of pages that are still in its cache', async () => {
    const guest = new MemoryGuest({ ram: 16 });
    guest.onSync = (syncs) => {
      if (syncs === 1) for (let page = 0; page < 16; page++) guest.write(0, page, 0, 7, 7, 7);
      // Two pages of one slot: the second finds the slot taken.
      if (syncs > 1 && syncs < 5) for (const page of [1, 5]) guest.write(0, page, 100, syncs);
    };
    const { bytes, xbzrle, normal } = await write(guest, small);
    expect(normal).toBe(16 + 2 + 1 + 1);
    expect(xbzrle).toMatchObject({ cacheSize: 4 * PAGE, pages: 2, cacheMiss: 4, overflow: 0, bytes: 2 * (3 + 3) });
    expect((await ramOf(bytes)).ram.records.xbzrle.records).toBe(2);
    await expectArrives(guest, bytes);
  });

  it('stops the guest when little is left, or after enough passes', async () => {
    const busy = () => {
      const guest = new MemoryGuest({ ram: 16 });
      guest.onSync = (syncs) => {
        if (!guest.isStopped) for (let page = syncs; page < 16; page++) guest.write(0, page, 0, syncs);
      };
      return guest;
    };
    expect(await write(busy(), { threshold: 8 * PAGE })).toMatchObject({ dirtySyncCount: 9 });
    expect(await write(busy(), { maxPasses: 3 })).toMatchObject({ dirtySyncCount: 5 });
    expect(await write(busy(), { maxPasses: 1 })).toMatchObject({ dirtySyncCount: 3 });
  });

  it('ends a PART after the given number of bytes', async () => {
    const guest = new MemoryGuest({ ram: 64 });
    for (let page = 0; page < 64; page++) guest.write(0, page, 0, 1);
    const { bytes } = await write(guest, { partBytes: 10 * PAGE, maxPasses: 1 });
    const { kinds } = await ramOf(bytes);
    expect(kinds).toEqual(['start', ...Array.from({ length: 7 }, () => 'part'), 'end']);
    await expectArrives(guest, bytes);
  });

  it('leaves out ignored blocks', async () => {
    const guest = Object.assign(new MemoryGuest({ a: 4, b: 4 }), { ignored: [] as MemoryGuest['blocks'] });
    guest.ignored = [guest.blocks[1] as MemoryGuest['blocks'][0]];
    guest.write(1, 2, 0, 1);
    const { bytes, duplicate } = await write(guest);
    expect(duplicate).toBe(4);
    expect((await ramOf(bytes)).ram.blocks.map(({ pages }) => pages.zero)).toEqual([4, 0]);
  });

  it('gives the rates of the last period over a second', async () => {
    const guest = new MemoryGuest({ ram: 4 });
    // Syncs at 0, 600, 1200 and so on: periods end at 1200, 2400 and 3600.
    let time = -600;
    const now = () => {
      time += 600;
      return time;
    };
    guest.onSync = (syncs) => {
      if (syncs < 7) for (const page of [0, 1]) guest.write(0, page, 0, syncs);
    };
    const { xbzrle } = await write(guest, { ...small, now });
    // Between the syncs at 2400 and 3600 two passes were sent, each with two deltas of 3 + 3 bytes and no miss.
    expect(xbzrle).toMatchObject({ cacheMissRate: 0, encodingRate: (4 * PAGE) / (4 * 6) });
  });

  it('arrives in the state in which it was stopped, whatever it wrote and when', async () => {
    const touch = fc.record({
      ...{ block: fc.nat(1), page: fc.nat(39), at: fc.nat(PAGE - 3) },
      bytes: fc.array(fc.constantFrom(0, 0, 1, 255), { minLength: 1, maxLength: 3 }),
      isWhole: fc.boolean(),
    });
    const moments = fc.array(fc.array(touch, { maxLength: 40 }), { maxLength: 12 });
    const options = fc.record({
      ...{ xbzrle: fc.constantFrom(false, { cacheSize: 4 * PAGE }, { cacheSize: 64 * PAGE }) },
      ...{ partBytes: fc.constantFrom(3 * PAGE, 1 << 20), maxPasses: fc.integer({ min: 1, max: 6 }) },
    });
    await fc.assert(
      fc.asyncProperty(moments, moments, options, async (atReads, atSyncs, given) => {
        const guest = new MemoryGuest({ a: 40, b: 40 });
        const writeAll = (touches: typeof atReads extends (infer T)[] ? T | undefined : never) => {
          for (const { block, page, at, bytes, isWhole } of guest.isStopped ? [] : (touches ?? [])) {
            if (isWhole) guest.write(block, page, 0, ...new Uint8Array(PAGE).map((_, i) => (i * at) & 0xff));
            else guest.write(block, page, at, ...bytes);
          }
        };
        let reads = 0;
        guest.onRead = () => writeAll(atReads[reads++]);
        guest.onSync = (syncs) => writeAll(atSyncs[syncs - 1]);
        const { bytes } = await write(guest, given);
        await expectArrives(guest, bytes);
      }),
      { numRuns: 30 },
    );
  });

  it.each<[WriteGuestOptions, RegExp]>([
    [{ threshold: -1 }, /expected a threshold in bytes, got -1/],
    [{ maxPasses: 0 }, /expected passes, got 0/],
    [{ partBytes: 0 }, /expected bytes of a PART, got 0/],
    [{ xbzrle: { cacheSize: 3 * PAGE } }, /power of two/],
    [{ xbzrle: { cacheSize: 2 ** 32 } }, /arena/],
  ])('refuses %o', async (options, message) => {
    await expect(write(new MemoryGuest({ ram: 4 }), options)).rejects.toThrow(message);
    await expect(write(new MemoryGuest({ ram: 4 }), options)).rejects.toThrow(RangeError);
  });
});

describe('a guest that cannot be written', () => {
  const none = { write() {} };

  it('has other blocks than its RAM, or impossible RAM addresses', async () => {
    const place = (...addresses: number[]) => {
      const guest = new MemoryGuest({ a: 4, b: 4 });
      const blocks = guest.blocks.map((block, i) => ({ ...block, ramAddress: addresses[i] as number }));
      return writeGuest(Object.assign(guest, { blocks }), none, small);
    };
    await place(0, 4 * PAGE);
    await place(8 * PAGE, 0);
    await expect(place(0, 3 * PAGE)).rejects.toThrow('RAM addresses that do not overlap, got those of "a" and "b"');
    await expect(place(5, 16 * PAGE)).rejects.toThrow('"a" that is a multiple of the page size, 4096, got 5');
    await expect(place(0)).rejects.toThrow('"b" that is a multiple of the page size, 4096, got undefined');
    const other = Object.assign(new MemoryGuest({ a: 4 }), { ram: new MemoryGuest({ a: 5 }).ram });
    await expect(writeGuest(other, none)).rejects.toThrow(
      'expected a guest with the RAM blocks "a" of 20480 bytes in pages of 4096, got "a" of 16384 bytes',
    );
  });

  it.each(['syncDirty', 'stop', 'saveDevices'] as const)('throws in %s, which ends the writing', async (method) => {
    const output = new MemoryFile();
    const guest = new MemoryGuest({ a: 4 });
    Object.assign(guest, {
      [method]() {
        throw new Error('mine');
      },
    });
    await expect(writeGuest(guest, appendTo(output))).rejects.toThrow('mine');
    const bytes = new Uint8Array(output.size);
    output.read(bytes, 0);
    const { inspection } = await inspect(await open(bytes)).catch(() => ({ inspection: { complete: false } }));
    expect(inspection.complete).toBe(false);
  });

  it('has devices that no stream can contain, which it reports when they arrive', async () => {
    const guest = new MemoryGuest({ a: 4 });
    guest.saved = {
      devices: [{ kind: 'full', id: 1, name: 'timer', instanceId: 0, versionId: 1, data: new Uint8Array(1) }],
    };
    await expect(writeGuest(guest, none)).rejects.toThrow('a unique section id for timer#0');
  });
});
