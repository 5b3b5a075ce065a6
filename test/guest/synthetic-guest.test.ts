import { describe, expect, it } from 'vitest';
import { GuestRam } from '../../src/guest/guest-ram.ts';
import { SyntheticGuest } from '../../src/guest/synthetic-guest.ts';
import type { WorkloadOptions } from '../../src/guest/workload.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { PageBitmap } from '../../src/vm/page-bitmap.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { RamReader } from '../../src/vm/ram-store.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { PageListRam } from '../support/page-list-ram.ts';

const MiB = 1 << 20;
const page = 4096;
/** 256 pages a second, in a working set of 64 pages from page 256 on. */
const slow: WorkloadOptions = { rate: MiB, workingSet: 64 * page };

function makeGuest(workload: WorkloadOptions | undefined, { size = 4 * MiB, isPaused = false } = {}) {
  const clock = new ManualClock();
  const ram = new GuestRam(new MemoryFile(), [{ idstr: 'ram', size }]);
  const guest = new SyntheticGuest({ ram, workload, clock, isPaused });
  const block = ram.blocks[0]!;
  const read = async (number: number) => {
    const bytes = new Uint8Array(page);
    await guest.read(block, number, bytes);
    return bytes;
  };
  const sync = async () => {
    const dirty = new PageBitmap(block);
    await guest.syncDirty([dirty]);
    return Array.from({ length: dirty.pages }, (_, i) => i).filter((i) => dirty.has(i));
  };
  return { clock, ram, guest, block, read, sync };
}

const round = (bytes: Uint8Array) => new DataView(bytes.buffer).getBigUint64(0, true);
const pages = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

describe('a workload', () => {
  it('writes its working set round and round, at its rate', async () => {
    const { clock, guest, sync, read } = makeGuest(slow);
    expect(await sync()).toEqual([]);
    await clock.advance(125);
    expect(await sync()).toEqual(pages(256, 32));
    await clock.advance(125 + 62.5);
    expect(await sync()).toEqual(pages(256, 16).concat(pages(288, 32)));
    expect(guest.pagesWritten).toBe(80);
    expect(round(await read(256))).toBe(2n);
    expect(round(await read(300))).toBe(1n);
    expect(round(await read(255))).toBe(0n);
  });

  it('leaves after a long time what it would have left with many looks', async () => {
    for (const pattern of ['counter', 'random', 'text', 'zero'] as const) {
      const [once, often] = [makeGuest({ ...slow, pattern }), makeGuest({ ...slow, pattern })];
      await once.clock.advance(3_210);
      for (let i = 0; i < 321; i++) {
        await often.clock.advance(10);
        await often.guest.look();
      }
      for (const number of pages(250, 80)) {
        expect(Buffer.compare(await once.read(number), await often.read(number))).toBe(0);
      }
      expect(once.guest.pagesWritten).toBe(often.guest.pagesWritten);
    }
  });

  it('is divided between vCPUs', async () => {
    const { clock, guest, sync } = makeGuest({ ...slow, vcpus: 4 });
    await clock.advance(125);
    expect(await sync()).toEqual([0, 1, 2, 3].flatMap((vcpu) => pages(256 + 16 * vcpu, 8)));
    await guest.limitVcpu(1, MiB / 8);
    await guest.limitVcpu(2, 0);
    await clock.advance(62.5);
    expect(await sync()).toEqual([...pages(264, 4), ...pages(280, 2), ...pages(312, 4)]);
  });

  it.each([
    ['random', (bytes: Uint8Array) => new Set(bytes).size > 200],
    ['text', (bytes: Uint8Array) => /^[a-z ]{4096}$/.test(Buffer.from(bytes).toString('latin1'))],
    ['zero', (bytes: Uint8Array) => bytes.every((byte) => byte === 0)],
  ] as const)('fills pages with the pattern %s, by its seed', async (pattern, isRight) => {
    const [one, same, other] = [1, 1, 2].map((seed) => makeGuest({ ...slow, pattern, seed }));
    for (const each of [one, same, other]) await each!.clock.advance(250);
    const bytes = await one!.read(260);
    expect(isRight(bytes)).toBe(true);
    expect(await same!.read(260)).toEqual(bytes);
    expect(Buffer.compare(await other!.read(260), bytes) === 0).toBe(pattern === 'zero');
  });

  it.each([
    [{ rate: -1, workingSet: MiB }, 'expected bytes per second, got -1'],
    [{ rate: 1, workingSet: 4 * MiB }, 'expected a working set of 4096 to 3145728 bytes in "ram", got 4194304'],
    [
      { rate: 1, workingSet: 2 * page, vcpus: 3 },
      'expected a working set of 12288 to 3145728 bytes in "ram", got 8192',
    ],
    [{ rate: 1, workingSet: MiB, vcpus: 0 }, 'expected a number of vCPUs, got 0'],
    [
      { rate: 1, workingSet: MiB, pattern: 'odd' as 'text' },
      'expected the pattern counter, random, text, zero, got odd',
    ],
  ])('refuses %j', (workload, message) => {
    expect(() => makeGuest(workload)).toThrow(new RangeError(message));
  });
});

describe('a guest', () => {
  it('stands still while it is stopped, to the last byte', async () => {
    const { clock, guest, sync, read } = makeGuest({ ...slow, pattern: 'random' });
    await clock.advance(100);
    await guest.stop();
    expect(guest.isRunning).toBe(false);
    await sync();
    const before = await read(260);
    await clock.advance(10_000);
    expect(await sync()).toEqual([]);
    expect(await read(260)).toEqual(before);
    guest.cont();
    expect(guest.isRunning).toBe(true);
    await clock.advance(125);
    expect(await sync()).toHaveLength(32);
  });

  it('begins stopped if that is asked for', async () => {
    const { clock, guest, sync } = makeGuest(slow, { isPaused: true });
    await clock.advance(1_000);
    expect(await sync()).toEqual([]);
    guest.cont();
    await clock.advance(125);
    expect(await sync()).toHaveLength(32);
  });

  it('is slowed down by throttling, from that moment on', async () => {
    const { clock, guest } = makeGuest(slow);
    await clock.advance(1_000);
    await guest.throttle(75);
    await clock.advance(1_000);
    await guest.look();
    expect(guest.pagesWritten).toBe(256 + 64);
    await expect(guest.throttle(100)).rejects.toThrow(new RangeError('expected 0 to 99 per cent, got 100'));
  });

  it('is tracked by several at a time, each since its own last look', async () => {
    const { clock, guest, sync, block } = makeGuest(slow);
    await clock.advance(125);
    await guest.look();
    const tracking = guest.trackDirty();
    await clock.advance(62.5);
    const dirty = new PageBitmap(block);
    await tracking.sync([dirty]);
    expect(dirty.count).toBe(16);
    expect(await sync()).toHaveLength(48);
    tracking.close();
    await clock.advance(62.5);
    await tracking.sync([dirty]);
    expect(dirty.count).toBe(16);
  });
});

describe('the RAM of a guest over that of another VM', () => {
  const seeds = [7, 0, 'absent', 'absent', 'absent', 9, 0, 'absent'] as const;
  const makeOver = () => {
    const base = new PageListRam(
      [
        { idstr: 'rom', seeds: [1, 2] },
        { idstr: 'pc.ram', seeds },
      ],
      page,
    );
    const ram = new GuestRam(new MemoryFile(), base);
    return { base, ram, block: ram.blocks[1]! };
  };
  const readAll = async (ram: RamReader, block: RamBlock) => {
    const bytes = new Uint8Array(block.usedLength);
    await ram.read(block, 0, bytes);
    return Buffer.from(bytes).toString('base64');
  };

  it('has its blocks, one after another in RAM addresses, and its content until it is written', async () => {
    const { base, ram, block } = makeOver();
    expect(ram.blocks.map(({ idstr, ramAddress }) => [idstr, ramAddress])).toEqual([
      ['rom', 0],
      ['pc.ram', 2 * page],
    ]);
    const before = await readAll(base, base.blocks[1]!);
    expect(await readAll(ram, block)).toBe(before);
    const after = Buffer.from(before, 'base64');
    for (const [first, count] of [
      [1, 1],
      [3, 3],
    ] as const) {
      const bytes = new Uint8Array(count * page).fill(first);
      after.set(bytes, first * page);
      await ram.write(block, first, bytes);
    }
    expect(await readAll(ram, block)).toBe(after.toString('base64'));
    expect(await readAll(ram, ram.blocks[0]!)).toBe(await readAll(base, base.blocks[0]!));
    expect(await readAll(base, base.blocks[1]!)).toBe(before);
  });

  it('knows which of its pages have data, and which it never had', async () => {
    const { ram, block } = makeOver();
    await ram.write(block, 3, new Uint8Array(page));
    const pages = Array.from(seeds, (_, i) => i);
    expect(pages.map((i) => ram.state(block, i))).toEqual([
      ...['data', 'zero', 'absent', 'data', 'absent', 'data', 'zero', 'absent'],
    ]);
    expect(pages.filter((i) => ram.isAbsent(block, i))).toEqual([2, 4, 7]);
    // PageListRam lists no runs of absent pages: runs are those of MappedRamStore and others.
    const runs = [{ first: 2, end: 5 }];
    const listed = new GuestRam(new MemoryFile(), Object.assign(makeOver().base, { absentRuns: () => runs }));
    await listed.write(block, 3, new Uint8Array(page));
    const got = [];
    for await (const run of listed.absentRuns(block)) got.push(run);
    expect(got).toEqual([
      { first: 2, end: 3 },
      { first: 4, end: 5 },
    ]);
    const found = [];
    for (let at = 0; at < 8; at = (found.at(-1) ?? { end: 8 }).end) found.push(await ram.nextData(block, at, 8));
    expect(found).toEqual([
      { first: 0, end: 1 },
      { first: 3, end: 4 },
      { first: 5, end: 6 },
      { first: 8, end: 8 },
    ]);
  });

  it('takes a workload, in its largest block that migrates', async () => {
    const blocks = [1, 3, 2].map((MiBs, i) => ({
      idstr: `block${i}`,
      seeds: new Array<number>((MiBs * MiB) / page).fill(3),
    }));
    const make = (ignored: RamBlock[]) => {
      const clock = new ManualClock();
      const ram = new GuestRam(new MemoryFile(), new PageListRam(blocks, page));
      const framing = { ramId: 2, footers: true, switchoverStart: true };
      const devices = { devices: [], description: { text: '{}' } };
      const guest = new SyntheticGuest({
        ...{ ram, workload: slow, clock, ignored, framing, devices, configuration: 'absent' },
      });
      const dirty = ram.blocks.map((block) => new PageBitmap(block));
      return { clock, guest, dirty, framing, devices };
    };
    const { clock, guest, dirty, framing, devices } = make([]);
    expect(guest).toMatchObject({ framing, configuration: undefined, ignored: [] });
    expect(guest.saveDevices()).toEqual(devices);
    await clock.advance(125);
    await guest.syncDirty(dirty);
    expect(dirty.map(({ count }) => count)).toEqual([0, 32, 0]);
    const other = make([guest.ram.blocks[1]!]);
    await other.clock.advance(125);
    await other.guest.syncDirty(other.dirty);
    expect(other.dirty.map(({ count }) => count)).toEqual([0, 0, 32]);
  });
});

describe('the RAM of a guest', () => {
  it('loads an image, and keeps its zero pages as holes', async () => {
    const { ram, block, read } = makeGuest(undefined);
    const image = new Uint8Array(2 * MiB + 100);
    image[5 * page + 7] = 1;
    image[2 * MiB + 99] = 2;
    await ram.load(block, new MemoryFile('image', image));
    expect((await read(5))[7]).toBe(1);
    expect((await read(512))[99]).toBe(2);
    expect(await ram.nextData(block, 0, 10)).toEqual({ first: 5, end: 6 });
    expect(await ram.nextData(block, 6, 10)).toEqual({ first: 512, end: 513 });
    expect(await ram.nextData(block, 513, 10)).toEqual({ first: 1024, end: 1024 });
    expect([ram.state(block, 5), ram.state(block, 6)]).toEqual(['data', 'zero']);
  });

  it('refuses an image that is too long, and sizes that are not whole pages', async () => {
    const { ram, block } = makeGuest(undefined);
    const long = new MemoryFile('image', new Uint8Array(4 * MiB + 1));
    await expect(ram.load(block, long)).rejects.toThrow(
      new RangeError('expected at most 4194304 bytes for RAM block "ram", got 4194305'),
    );
    expect(() => new GuestRam(new MemoryFile(), [{ idstr: 'ram', size: 4097 }])).toThrow(
      new RangeError('expected whole pages of 4096 bytes for RAM block "ram", got 4097 bytes'),
    );
  });
});
