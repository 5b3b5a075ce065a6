import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { open } from '../../src/index.ts';
import { appendTo, type ByteSource } from '../../src/io/byte-source.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import { releaseRulesOf } from '../../src/schema/release-rules.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { RawRam } from '../../src/store/raw-ram.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import type { WritableVm } from '../../src/vm/saved-vm.ts';
import { StreamWriter, writerArenaBytes } from '../../src/write/stream-writer.ts';
import { type WriteStreamOptions, writeStream } from '../../src/write/write-stream.ts';
import {
  blockList,
  configuration,
  EOF,
  EOS,
  end,
  filled,
  full,
  header,
  join,
  KIB4,
  normalPage,
  part,
  start,
  vmdescription,
  zeroPage,
} from '../oracle/build.ts';
import { slowRead } from '../oracle/slow-reader.ts';
import { RecordingFile } from '../support/recording-file.ts';

const none = { machine: 'none', capabilities: [] };
const image = (...pages: Uint8Array[]): ByteSource => new MemoryFile('image', join(...pages));
const zero = new Uint8Array(KIB4);

async function written(vm: WritableVm, options?: WriteStreamOptions): Promise<Uint8Array> {
  const output = new RecordingFile();
  const { length } = await writeStream(vm, appendTo(output), options);
  expect(length).toBe(output.size);
  return output.content();
}

describe('a stream written from a RAM image', () => {
  it('has, byte for byte, the documented layout', async () => {
    const ram = new RawRam([
      { idstr: 'ram', source: image(zero, filled(1), zero) },
      { idstr: 'more', source: image(filled(2)) },
    ]);
    const devices = [
      { kind: 'full' as const, id: 9, name: 'timer', instanceId: 0, versionId: 1, data: new Uint8Array([1, 2, 3]) },
    ];
    const text = JSON.stringify({ page_size: 4096, devices: [] });
    const bytes = await written({ configuration: none, ram, devices, description: { text } });
    const expected = join(
      header,
      configuration('none'),
      start(1, 'ram', 4, blockList(['ram', 3 * KIB4], ['more', KIB4]), EOS),
      part(
        1,
        zeroPage(0, 'ram'),
        normalPage(KIB4, filled(1)),
        zeroPage(2 * KIB4),
        normalPage(0, filled(2), 'more'),
        EOS,
      ),
      end(1, EOS),
      full(9, 'timer', [1, 2, 3]),
      EOF,
      vmdescription({ page_size: 4096, devices: [] }),
    );
    expect(Buffer.from(bytes).toString('hex')).toBe(Buffer.from(expected).toString('hex'));
  });

  it('has the requested footers, marks and sections', async () => {
    const ram = new RawRam([{ idstr: 'ram', source: image(zero) }]);
    const framing = { ramId: 0x1234, footers: false, switchoverStart: true };
    const iterables = [
      { kind: 'start' as const, bytes: Uint8Array.of(1, 0xaa) },
      { kind: 'part' as const, bytes: Uint8Array.of(2, 0xbb) },
      { kind: 'end' as const, bytes: Uint8Array.of(3, 0xcc) },
    ];
    const bytes = await written({ ram, framing }, { iterables });
    const eos = '0000000000000010';
    expect(Buffer.from(bytes).toString('hex')).toBe(
      [
        `5145564d00000003`,
        `010000123403${Buffer.from('ram').toString('hex')}0000000000000004`,
        `000000000000100403${Buffer.from('ram').toString('hex')}0000000000001000${eos}01aa`,
        `0200001234${`000000000000000203${Buffer.from('ram').toString('hex')}00`}${eos}02bb`,
        `08000b00000300001234${eos}03cc00`,
      ].join(''),
    );
  });

  it('reads back the same with both readers, for any blocks', async () => {
    const shapes = fc.constantFrom(1024, 4096, 8192, 65536).chain((pageSize) => {
      const runs = fc.array(
        fc.record({ pages: fc.integer({ min: 1, max: pageSize > 8192 ? 5 : 150 }), value: fc.nat(2) }),
        { maxLength: 4 },
      );
      const block = fc.record({
        idstr: fc.oneof(
          fc.constantFrom('pc.ram', '/rom@etc/acpi/tables'),
          fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' }),
        ),
        runs,
      });
      return fc.record({
        pageSize: fc.constant(pageSize),
        blocks: fc
          .uniqueArray(block, { minLength: 1, maxLength: 4, selector: ({ idstr }) => idstr })
          .filter((blocks) => (blocks.at(-1)?.runs.length ?? 0) > 0),
      });
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ pageSize, blocks }) => {
        const contents = blocks.map(({ runs }) =>
          join(...runs.map(({ pages, value }) => new Uint8Array(pages * pageSize).fill(value))),
        );
        const ram = new RawRam(
          blocks.map(({ idstr }, i) => ({ idstr, source: new MemoryFile(idstr, contents[i]) })),
          pageSize,
        );
        const targetPageBits = Math.log2(pageSize);
        const bytes = await written({ configuration: { ...none, targetPageBits }, ram });
        const slow = slowRead(bytes);
        expect(slow).toMatchObject({ machine: 'none', complete: true, end: bytes.length });
        expect(slow.blocks.map(({ idstr }) => idstr)).toEqual(blocks.map(({ idstr }) => idstr));
        slow.blocks.forEach(({ content }, i) => {
          expect(Buffer.compare(content, contents[i] as Uint8Array)).toBe(0);
        });
        const { ok, findings } = await verify(await open(bytes));
        expect([ok, findings.map(({ code }) => code)]).toEqual([true, ['description-missing']]);
      }),
      { numRuns: 40 },
    );
  });

  it('contains SWITCHOVER_START for machine types from 10.0 on, or on request', async () => {
    const said = async (machine: string, options?: WriteStreamOptions) => {
      const ram = new RawRam([{ idstr: 'ram', source: image(zero) }]);
      const bytes = await written({ configuration: { machine, capabilities: [] }, ram }, options);
      return Buffer.from(bytes).includes(Buffer.from('08000b0000', 'hex'));
    };
    expect(await said('pc-i440fx-9.2')).toBe(false);
    expect(await said('pc-i440fx-10.0')).toBe(true);
    expect(await said('none')).toBe(false);
    expect(await said('none', { rules: releaseRulesOf('none', '10.0') })).toBe(true);
    expect(await said('pc-i440fx-7.2', { rules: releaseRulesOf('pc-i440fx-7.2', '10.0') })).toBe(false);
  });

  it('leaves out pages that were never sent, and ignored blocks', async () => {
    const bytes = join(
      header,
      configuration('none'),
      start(7, 'ram', 4, blockList(['ram', 4 * KIB4], ['shared', KIB4]), EOS),
      part(7, normalPage(KIB4, filled(3), 'ram'), zeroPage(3 * KIB4), EOS),
      end(7, EOS),
      EOF,
    );
    const vm = await openSavedVm(await open(bytes), { makeScratch: () => new MemoryFile() });
    expect(vm.framing).toEqual({ ramId: 7, footers: true, switchoverStart: false });
    expect(Buffer.compare(await written(vm), bytes)).toBe(0);
    const ignored = [vm.ram.blocks[0] as RamBlock];
    const without = slowRead(await written({ ...vm, ignored }));
    expect(without.blocks.map(({ last }) => [...last])).toEqual([[0, 0, 0, 0], [0]]);
  });

  it('refuses a list of blocks whose end no reader could find', async () => {
    const ram = new RawRam([
      { idstr: 'ram', source: image(zero) },
      { idstr: 'empty', source: image() },
    ]);
    await expect(written({ ram })).rejects.toThrow(/does not end with an empty one \("empty"\)/);
    const named = new RawRam([{ idstr: 'n'.repeat(256), source: image(zero) }]);
    await expect(written({ ram: named })).rejects.toThrow(RangeError);
  });
});

describe('a stream of a base and its changes', () => {
  /** Content with pages generated from seeds: 0 is zero, and close seeds differ in few bytes. */
  const contentOf = (seeds: readonly number[], pageSize: number): Uint8Array =>
    join(
      ...seeds.map((seed) => {
        const page = new Uint8Array(pageSize);
        if (seed === 0) return page;
        for (let i = 0; i < pageSize; i++) page[i] = seed >= 200 ? (i * seed) & 0xff : i & 0x7f;
        return page.fill(seed, seed, seed + 3);
      }),
    );
  const ramOf = (content: Uint8Array, pageSize: number) =>
    new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', content) }], pageSize);

  it('has the content of the new VM for both readers, and each page that differs once', async () => {
    const seed = fc.constantFrom(0, 1, 2, 3, 201, 255);
    const shapes = fc.constantFrom(1024, 4096, 65536).chain((pageSize) => {
      const pages = fc.array(fc.tuple(seed, seed), { minLength: 1, maxLength: pageSize > 4096 ? 20 : 300 });
      return fc.record({ pageSize: fc.constant(pageSize), pages });
    });
    await fc.assert(
      fc.asyncProperty(shapes, async ({ pageSize, pages }) => {
        const [before, after] = [0, 1].map((i) =>
          contentOf(
            pages.map((each) => each[i] as number),
            pageSize,
          ),
        ) as [Uint8Array, Uint8Array];
        const output = new RecordingFile();
        const configured = { ...none, targetPageBits: Math.log2(pageSize) };
        const ram = ramOf(after, pageSize);
        const { blocks } = await writeStream({ configuration: configured, ram }, appendTo(output), {
          base: ramOf(before, pageSize),
        });
        const bytes = output.content();
        expect(Buffer.compare(slowRead(bytes).blocks[0]?.content as Uint8Array, after)).toBe(0);
        const { ok, pageRecords } = await verify(await open(bytes));
        const changed = pages.filter(([a, b]) => a !== b).length;
        expect([ok, pageRecords]).toEqual([true, pages.length + changed]);
        const [counts] = blocks;
        const { deltaPages = 0, dataPages = 0, zeroPages = 0 } = counts?.changes ?? {};
        expect(deltaPages + dataPages + zeroPages).toBe(changed);
        expect(zeroPages).toBe(pages.filter(([a, b]) => a !== 0 && b === 0).length);
        expect(counts).toMatchObject({ records: pages.length + changed, absentPages: 0 });
        // Few bytes differ between small seeds, which gives a delta if the counts of a delta suffice for the page.
        const small = pages.filter(([a, b]) => a !== b && a < 200 && b < 200 && a > 0 && b > 0).length;
        if (pageSize <= 4096) expect(deltaPages).toBeGreaterThanOrEqual(small);
        else expect(deltaPages).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  it('sends pages whole that the base never had, and as zero if they were never sent since', async () => {
    const of = (...records: Uint8Array[]) =>
      open(
        join(
          header,
          configuration('none'),
          start(7, 'ram', 4, blockList(['ram', 4 * KIB4]), EOS),
          part(7, ...records, EOS),
          end(7, EOS),
          EOF,
        ),
      );
    const makeScratch = () => new MemoryFile();
    // The old one has pages 0 and 1, the new one 1 to 3.
    const base = await openSavedVm(await of(normalPage(0, filled(1), 'ram'), normalPage(KIB4, filled(2))), {
      makeScratch,
    });
    const records = [zeroPage(KIB4, 'ram'), zeroPage(2 * KIB4), normalPage(3 * KIB4, filled(3))];
    const vm = await openSavedVm(await of(...records), { makeScratch });
    const bytes = await written(vm, { base: base.ram });
    const [block] = slowRead(bytes).blocks;
    expect(block?.last).toEqual(Uint8Array.of(1, 1, 1, 2));
    expect(Buffer.compare(block?.content as Uint8Array, join(zero, zero, zero, filled(3)))).toBe(0);
  });

  it('requires the same blocks', async () => {
    const output = new RecordingFile();
    const base = ramOf(new Uint8Array(8192), KIB4);
    const writing = writeStream({ ram: ramOf(new Uint8Array(4096), KIB4) }, appendTo(output), { base });
    await expect(writing).rejects.toThrow(
      /a base with the RAM blocks "ram" of 4096 bytes in pages of 4096, got "ram" of 8192/,
    );
    expect(output.size).toBe(0);
  });
});

describe('raw RAM', () => {
  it('consists of whole pages', () => {
    const half = new MemoryFile('half', new Uint8Array(2048));
    expect(() => new RawRam([{ idstr: 'ram', source: half }])).toThrow(
      /whole pages of 4096 bytes in the image of "ram", got 2048/,
    );
    expect(() => new RawRam([], 3000)).toThrow(/power of two/);
    expect(() => new RawRam([{ idstr: 'ram', source: { ...half, size: undefined } as ByteSource }])).toThrow(
      RangeError,
    );
  });
});

const block: RamBlock = { index: 0, idstr: 'ram', usedLength: 4 * KIB4, pageSize: KIB4 };
const other: RamBlock = { ...block, idstr: 'other' };
const timer = { kind: 'full', id: 9, name: 'timer', instanceId: 0, versionId: 1, data: filled(3) } as const;

/**
 * One record of a zero page, or of data at address `from`. A negative address counts from the end of the address space.
 */
async function put(batch: PageBatch, page: number, from?: number): Promise<void> {
  batch.count = 1;
  batch.kind[0] = from === undefined ? PageKind.zero : PageKind.data;
  batch.page[0] = page;
  batch.data[0] = from ?? 0;
  batch.length[0] = from === undefined ? 0 : KIB4;
}

describe('a stream writer', () => {
  it('passes on more bytes than its buffer holds', async () => {
    const output = new RecordingFile();
    const writer = new StreamWriter(await loadKernel({ arenaBytes: writerArenaBytes + 65536 }), appendTo(output));
    const large = new Uint8Array(3 << 20).fill(5);
    await writer.begin(none);
    await writer.raw(large);
    await writer.finish();
    expect(writer.length).toBe(output.size);
    expect(Buffer.compare(output.content(), join(header, configuration('none'), large, EOF))).toBe(0);
  });

  it.each<[string, (writer: StreamWriter, batch: PageBatch) => Promise<void>, RegExp]>([
    ['a second beginning', (writer) => writer.begin(none), /one begin, got another/],
    ['a second list of blocks', (writer) => writer.startRam([block]), /one START of RAM, got another/],
    ['pages of a block that is not listed', (writer, batch) => writer.pages(other, batch), /listed, got "other"/],
    ['pages beyond the block', (writer, batch) => put(batch, 9).then(() => writer.pages(block, batch)), /for page 9/],
    ['pages outside the arena', (writer, batch) => put(batch, 0, -8).then(() => writer.pages(block, batch)), /page 0/],
    ['a device within RAM', (writer) => writer.device(timer), /the end of the PART of RAM before a device/],
    ['a command within RAM', (writer) => writer.command(11), /the end of the PART of RAM before a command/],
    ['an end within RAM', (writer) => writer.finish(), /the end of the PART of RAM before the end of the stream/],
    ['an end before the END of RAM', (writer) => writer.endPart().then(() => writer.finish()), /the END of RAM before/],
    ['pages after the END', (writer, batch) => writer.endRam().then(() => writer.pages(block, batch)), /after its END/],
    [
      'a second END',
      (writer) => writer.endRam().then(() => writer.endRam()),
      /nothing of RAM after its END, got a END/,
    ],
  ])('refuses %s, and can continue', async (_, misuse, message) => {
    const output = new RecordingFile();
    const kernel = await loadKernel({ arenaBytes: writerArenaBytes + 65536 });
    const writer = new StreamWriter(kernel, appendTo(output));
    const batch = new PageBatch(kernel, 1);
    await writer.begin(none);
    await writer.startRam([block]);
    await put(batch, 0);
    await writer.pages(block, batch);
    await expect(misuse(writer, batch)).rejects.toThrow(message);
    // RAM that has already ended cannot end again.
    await writer.endRam().catch(() => {});
    await writer.finish();
    const { findings } = await verify(await open(output));
    // Only one page was written, and it is zero.
    const errors = findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);
    expect(errors).toEqual(['missing-channels']);
  });

  it('refuses calls before the beginning', async () => {
    const writer = new StreamWriter(
      await loadKernel({ arenaBytes: writerArenaBytes + 65536 }),
      appendTo(new MemoryFile()),
    );
    await expect(writer.startRam([block])).rejects.toThrow('expected begin before RAM');
    await expect(writer.beginPart()).rejects.toThrow('expected RAM to be started before its PART');
    await expect(writer.finish()).rejects.toThrow('expected begin before the end of the stream');
    expect(writer.length).toBe(0);
  });

  it('writes nothing after the end of the stream', async () => {
    const output = new RecordingFile();
    const writer = new StreamWriter(await loadKernel({ arenaBytes: writerArenaBytes + 65536 }), appendTo(output));
    await writer.begin(none);
    await writer.finish();
    const { length } = writer;
    const after = [() => writer.raw(filled(1)), () => writer.endRam(), () => writer.flush(), () => writer.finish('{}')];
    for (const write of after) await expect(write()).rejects.toThrow('the stream is finished');
    expect([writer.length, output.size]).toEqual([length, length]);
  });

  it('writes nothing after its output failed, because there would be a gap', async () => {
    const parts: number[] = [];
    const output = {
      write(bytes: Uint8Array) {
        parts.push(bytes.length);
        if (parts.length === 2) throw new Error('once');
      },
    };
    const writer = new StreamWriter(await loadKernel({ arenaBytes: writerArenaBytes + 65536 }), output);
    await writer.begin(none);
    await writer.flush();
    await expect(writer.raw(new Uint8Array(3 << 20))).rejects.toThrow('once');
    for (const write of [() => writer.raw(filled(1)), () => writer.flush(), () => writer.finish()]) {
      await expect(write()).rejects.toThrow('once');
    }
    expect(parts.length).toBe(2);
  });

  it('passes on the error of its output', async () => {
    const full = {
      write() {
        throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      },
    };
    const ram = new RawRam([{ idstr: 'ram', source: image(filled(1)) }]);
    await expect(writeStream({ ram }, full)).rejects.toThrow('no space left');
  });
});
