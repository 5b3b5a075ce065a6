/** What could be written, but not be read again, is refused, by every writer and before anything is written. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  appendTo,
  type ByteSink,
  type Configuration,
  MemoryFile,
  open,
  type RamBlock,
  type RamReader,
  stoppedGuest,
  verify,
  type WritableDevice,
  type WritableVm,
  writeGuest,
  writeMappedRam,
  writeMultifd,
  writeStream,
} from '../../src/index.ts';

const PAGE = 4096;
const none: Configuration = { machine: 'none', capabilities: [] };
const block: RamBlock = { index: 0, idstr: 'ram', usedLength: 8 * PAGE, pageSize: PAGE };
const device: WritableDevice = {
  ...{ kind: 'full', id: 7, name: 'timer', instanceId: 0, versionId: 1 },
  data: new Uint8Array(3),
};

const framing = { ramId: 1, footers: true, switchoverStart: false };

function ramOf(...blocks: RamBlock[]): RamReader {
  return {
    blocks,
    state: () => 'data',
    read: async ({ index }, _page, target) => void target.fill(index + 1),
    nextData: async ({ usedLength, pageSize }, page, limit) => {
      return { first: page, end: Math.min(usedLength / pageSize, page + limit) };
    },
    close: async () => {},
  };
}

/** Each writes a VM, and opens what it wrote. */
const writers: Record<string, (vm: WritableVm, sink: (file: MemoryFile) => ByteSink) => ReturnType<typeof open>> = {
  async writeStream(vm, sink) {
    const file = new MemoryFile();
    await writeStream(vm, sink(file));
    return open(file);
  },
  async writeGuest(vm, sink) {
    const file = new MemoryFile();
    await writeGuest(stoppedGuest(vm), sink(file));
    return open(file);
  },
  async writeMultifd(vm, sink) {
    const [main, channel] = [new MemoryFile(), new MemoryFile()];
    await writeMultifd(vm, sink(main), [sink(channel)]);
    return open(main, { channels: [channel] });
  },
  async writeMappedRam(vm, sink) {
    const file = new MemoryFile();
    const write = file.write.bind(file);
    file.write = (bytes, position) => {
      void sink(new MemoryFile()).write(bytes);
      write(bytes, position);
    };
    await writeMappedRam(vm, file);
    return open(file);
  },
};

const refused: [what: string, vm: Partial<WritableVm>, message: RegExp][] = [
  ['a block without a name', { ram: ramOf({ ...block, idstr: '' }) }, /expected a name, got none/],
  ['a name of 256 bytes', { ram: ramOf({ ...block, idstr: 'x'.repeat(256) }) }, /at most 255 bytes, got 256/],
  ['a name that is not a bytes', { ram: ramOf({ ...block, idstr: '日' }) }, /up to U\+00FF, .* got "日"/],
  ['two blocks of one name', { ram: ramOf(block, { ...block, index: 1 }) }, /different names, got "ram" twice/],
  ['an index that is not the place', { ram: ramOf({ ...block, index: 1 }) }, /"ram" to have index 0, got 1/],
  ['half a page', { ram: ramOf({ ...block, usedLength: 6000 }) }, /"ram" of whole pages of 4096 bytes, got 6000/],
  ['less than nothing', { ram: ramOf({ ...block, usedLength: -PAGE }) }, /whole pages of 4096 bytes, got -4096/],
  ['no length', { ram: ramOf({ ...block, usedLength: Number.NaN }) }, /whole pages of 4096 bytes, got NaN/],
  ['more RAM than there is', { ram: ramOf({ ...block, usedLength: 2 ** 47 }) }, /at most 70368744177664 bytes of RAM/],
  [
    'pages of 5000 bytes',
    { ram: ramOf({ ...block, pageSize: 5000, usedLength: 10_000 }) },
    /a power of two .* got 5000/,
  ],
  ['huge pages', { ram: ramOf({ ...block, pageSize: 2 << 20, usedLength: 4 << 20 }) }, /1024 to 65536, got 2097152/],
  [
    'pages of two sizes',
    { ram: ramOf(block, { ...block, index: 1, idstr: 'b', pageSize: 8192 }) },
    /pages of one size, got 4096 bytes in "ram" and 8192 in "b"/,
  ],
  [
    'pages of another size than is said',
    { configuration: { ...none, targetPageBits: 14 } },
    /pages of 16384 bytes, as 14 target page bits has it, got 4096/,
  ],
  [
    'pages of another size than the machine has',
    {
      configuration: { ...none, machine: 'pc-q35-10.0' },
      ram: ramOf({ ...block, pageSize: 16384, usedLength: 65536 }),
    },
    /pages of 4096 bytes, as the machine type pc-q35-10.0 has it, got 16384/,
  ],
  [
    'an empty block as the last',
    { ram: ramOf(block, { ...block, index: 1, idstr: 'b', usedLength: 0 }) },
    /does not end with an empty one \("b"\)/,
  ],
  ['a machine name that is not a bytes', { configuration: { ...none, machine: '日' } }, /up to U\+00FF/],
  ['a long machine name', { configuration: { ...none, machine: 'm'.repeat(1025) } }, /at most 1024 bytes, got 1025/],
  ['a UUID with dashes', { configuration: { ...none, uuid: '550e8400-e29b-41d4-a716-446655440000' } }, /32 hex digits/],
  ['a UUID of other digits', { configuration: { ...none, uuid: 'x'.repeat(32) } }, /32 hex digits, got "?x/],
  ['a device without a name', { devices: [{ ...device, name: '' }] }, /expected a name, got none/],
  ['a device of a long name', { devices: [{ ...device, name: 'd'.repeat(256) }] }, /at most 255 bytes, got 256/],
  [
    'a device that is a part',
    { devices: [{ ...device, kind: 'part' }] },
    /"timer" as a section of kind full, got part/,
  ],
  [
    'a device with the id of RAM',
    { devices: [{ ...device, id: 1 }], framing },
    /for timer#0, got 1, which ram#0 already has/,
  ],
  [
    'two devices with one id',
    { devices: [device, { ...device, instanceId: 1 }] },
    /for timer#1, got 7, which timer#0 already has/,
  ],
  ['a section id of five bytes', { devices: [{ ...device, id: 2 ** 32 }] }, /an integer of 4 bytes, got 4294967296/],
  ['a negative version', { devices: [{ ...device, versionId: -1 }] }, /an integer of 4 bytes, got -1/],
];

describe.each(Object.keys(writers))('%s', (name) => {
  const write = writers[name]!;

  it.each(refused)('refuses %s', async (_, parts, message) => {
    const error = await write({ configuration: none, ram: ramOf(block), ...parts }, appendTo).catch((error) => error);
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toMatch(message);
  });

  it('writes nothing of what it refuses', async () => {
    let writes = 0;
    const sink = () => ({ write: () => void writes++ });
    const blocks = [block, { ...block, index: 1 }];
    await expect(write({ configuration: none, ram: ramOf(...blocks) }, sink)).rejects.toThrow(RangeError);
    expect(writes).toBe(0);
  });

  it('refuses RAM that finds data before the page it is asked for, which would never end', async () => {
    const large = { ...block, usedLength: 1000 * PAGE };
    const ram = { ...ramOf(large), nextData: async () => ({ first: 0, end: 1 }) };
    await expect(write({ configuration: none, ram }, appendTo)).rejects.toThrow(
      'expected nextData of "ram" to find a page from 256 on, or 1000 for none, got 0',
    );
  });

  it('refuses RAM that finds data beyond the block', async () => {
    const ram = { ...ramOf(block), nextData: async () => ({ first: 100, end: 101 }) };
    await expect(write({ configuration: none, ram }, appendTo)).rejects.toThrow('8 for none, got 100');
  });

  it('writes what it does not refuse so that it is sound', async () => {
    const pageSize = fc.constantFrom(1024, 4096, 65536);
    const names = fc.oneof(
      fc.constantFrom('pc.ram', '', '日', 'x'.repeat(255), 'x'.repeat(256), '\u00ff'),
      fc.string({ maxLength: 4 }),
    );
    const length = fc.oneof(
      fc.nat(3).map((pages) => pages * 4096),
      fc.constantFrom(1024, 65536, 6000, -4096, 1.5),
    );
    const shape = fc.record({
      blocks: fc.array(fc.record({ idstr: names, usedLength: length, pageSize }), { minLength: 1, maxLength: 3 }),
      targetPageBits: fc.option(fc.constantFrom(10, 12, 16), { nil: undefined }),
      ids: fc.array(fc.record({ id: fc.constantFrom(1, 2, 3, -1), name: names }), { maxLength: 3 }),
    });
    const simple = {
      blocks: [{ idstr: 'ram', usedLength: 8192, pageSize: 4096 as const }],
      targetPageBits: 12 as const,
      ids: [],
    };
    let sound = 0;
    await fc.assert(
      fc.asyncProperty(shape, async ({ blocks, targetPageBits, ids }) => {
        const vm: WritableVm = {
          // A page size that nothing states is known to none but the reader of a single stream.
          configuration: { ...none, targetPageBits: targetPageBits ?? Math.log2(blocks[0]!.pageSize) },
          ram: ramOf(...blocks.map((each, index) => ({ ...each, index }))),
          devices: ids.map((each) => ({ ...device, ...each, data: new TextEncoder().encode('a state that is text') })),
          framing,
        };
        let file: Awaited<ReturnType<typeof open>>;
        try {
          file = await write(vm, appendTo);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
          return;
        }
        const { ok, findings } = await verify(file);
        await file.close();
        expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
        expect(ok).toBe(true);
        sound++;
      }),
      { numRuns: 500, seed: 1, examples: [[simple]] },
    );
    expect(sound).toBeGreaterThan(0);
  });
});
