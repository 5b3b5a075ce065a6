import { deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { FlowSink } from '../../src/store/flow-sink.ts';
import { onlyPages, refusing } from '../../src/store/flow-sink.ts';
import { settle } from '../../src/store/settle.ts';
import type { FlowItem } from '../../src/vm/flow.ts';
import {
  blockList,
  compressedPage,
  EOF,
  EOS,
  end,
  FLUSH,
  filled,
  full,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  part,
  ramEnd,
  ramStart,
  start,
  vmdescription,
  zeroPage,
} from '../oracle/build.ts';
import { kindsOfSource, opened } from '../support/opened.ts';
import { mappedRamFile } from '../wire/mapped-ram-file.ts';

/** A sink that records its items. */
class Notes implements FlowSink {
  readonly lines: string[] = [];

  async take(item: FlowItem): Promise<void> {
    if (item.kind === 'configuration') this.lines.push(`machine ${item.configuration.machine}`);
    else if (item.kind === 'block') this.lines.push(`block ${item.block.idstr}`);
    else if (item.kind === 'pages') {
      const { block, batch } = item;
      for (const page of batch.page.slice(0, batch.count)) this.lines.push(`${block.idstr}:${page}`);
    } else if (item.kind === 'bitmap') {
      this.lines.push(`${item.block.idstr} ${item.firstPage} ${item.bits[0]?.toString(2)}`);
    }
  }
}

const pages = (...records: Uint8Array[]) =>
  join(none, ramStart, part(7, ...records, EOS), ramEnd, full(1, 'timer', 'body'), EOF);

describe.each(kindsOfSource)('settling a %s', (kind) => {
  it('gives a sink the configuration, the blocks and the pages in order', async () => {
    const notes = new Notes();
    const stream = join(
      pages(zeroPage(0, 'ram'), normalPage(KIB4, filled(1)), zeroPage(0)),
      vmdescription({ devices: [] }),
    );
    const settled = await settle(await opened(stream, kind), notes);
    expect(notes.lines).toEqual(['machine none', 'block ram', 'ram:0', 'ram:1', 'ram:0']);
    expect(settled).toMatchObject({
      configuration: { machine: 'none' },
      devices: [],
      description: { value: { devices: [] } },
    });
  });

  it('gives the pages of a mapped-ram file', async () => {
    const notes = new Notes();
    await settle(await opened(mappedRamFile(), kind), notes);
    expect(notes.lines).toEqual(['machine none', 'block a', 'a:0', 'a:1', 'a:2', 'block b', 'b:0', 'b:1', 'b:2']);
  });

  it('keeps the devices on request', async () => {
    const { devices } = await settle(await opened(pages(), kind), new Notes(), { devices: true });
    expect(devices.map(({ name, data }) => [name, Buffer.from(data).toString()])).toEqual([['timer', 'body']]);
  });

  it.each([
    ['a page beyond its block', pages(zeroPage(0, 'ram'), zeroPage(99 * KIB4)), 'page-out-of-range'],
    ['a zero page that is not', pages(zeroPage(0, 'ram'), hex('0000000000001022 01')), 'bad-zero-page'],
    ['a cut', join(none, ramStart, part(7, zeroPage(0, 'ram'), EOS)), 'truncated'],
    ['a mapped-ram file without an end', mappedRamFile({ hasEnd: false }), 'untrusted-bitmap'],
    ['a multifd stream', join(none, ramStart, part(7, FLUSH, EOS), end(7, EOS), EOF), 'missing-channels'],
  ])('refuses %s', async (_, stream, code) => {
    await expect(settle(await opened(stream, kind), new Notes())).rejects.toMatchObject({
      name: 'MigrationError',
      code,
    });
  });

  it('tolerates warnings', async () => {
    const notes = new Notes();
    await settle(await opened(join(pages(), vmdescription({ devices: [] }), 'junk'), kind), notes);
    expect(notes.lines).toEqual(['machine none', 'block ram']);
  });

  it('ends if a wrapper refuses an item, which the sink does not get', async () => {
    const notes = new Notes();
    const sink = refusing(notes, (item) => (item.kind === 'pages' ? new Error('no pages, please') : undefined));
    await expect(settle(await opened(pages(zeroPage(0, 'ram')), kind), sink)).rejects.toThrow('no pages, please');
    expect(notes.lines).toEqual(['machine none', 'block ram']);
  });

  it('gives a sink only the pages of some blocks, if a wrapper selects them', async () => {
    const notes = new Notes();
    await settle(
      await opened(mappedRamFile(), kind),
      onlyPages(notes, ({ idstr }) => idstr === 'b'),
    );
    expect(notes.lines).toEqual(['block a', 'block b', 'b:0', 'b:1', 'b:2']);
  });

  it('asks for lost pages through wrappers, too', async () => {
    const block = { index: 0, idstr: 'ram', usedLength: KIB4, pageSize: KIB4 };
    const sink: FlowSink = { take() {}, lostPage: () => ({ block, page: 0 }) };
    for (const wrapped of [sink, onlyPages(sink), refusing(sink, () => undefined)]) {
      await expect(settle(await opened(pages(), kind), wrapped)).rejects.toMatchObject({ code: 'pages-lost' });
    }
  });

  it('passes on errors of the sink', async () => {
    const sink: FlowSink = {
      take({ kind }) {
        if (kind === 'pages') throw new Error('no space left');
      },
    };
    await expect(settle(await opened(pages(zeroPage(0, 'ram')), kind), sink)).rejects.toThrow('no space left');
  });
});

describe('settling', () => {
  it('gives the bitmaps of a mapped-ram file instead of its pages on request', async () => {
    const notes = new Notes();
    await settle(await opened(mappedRamFile()), notes, { read: 'bitmaps' });
    expect(notes.lines).toEqual(['machine none', 'block a', 'a 0 101', 'block b', 'b 0 10']);
  });

  it('keeps at most 128 MiB of devices', async () => {
    const large = new Uint8Array(45 << 20);
    const devices = [1, 2, 3].map((id) => full(id, `device ${id}`, large));
    const file = await opened(join(none, ...devices, EOF));
    await expect(settle(file, new Notes(), { devices: true })).rejects.toMatchObject({
      code: 'limit-exceeded',
      place: { section: 'device 3' },
    });
    await settle(file, new Notes());
  });

  it('gives compressed pages decompressed, in order among the others', async () => {
    const lines: unknown[] = [];
    const file = await opened(
      pages(
        zeroPage(0, 'ram'),
        compressedPage(KIB4, deflateSync(filled(7))),
        normalPage(2 * KIB4, filled(8)),
        compressedPage(3 * KIB4, deflateSync(filled(9))),
      ),
    );
    await settle(file, {
      take(item) {
        if (item.kind !== 'pages') return;
        const { batch } = item;
        for (let i = 0; i < batch.count; i++) {
          const at = batch.data[i] as number;
          const bytes = file.kernel.bytes.subarray(at, at + (batch.length[i] as number));
          lines.push([batch.page[i], bytes.length, bytes.at(-1)]);
        }
      },
    });
    expect(lines).toEqual([
      [0, 0, undefined],
      [1, KIB4, 7],
      [2, KIB4, 8],
      [3, KIB4, 9],
    ]);
  });

  it('gives more compressed pages than fit at a time', async () => {
    const packed = Array.from({ length: 300 }, (_, page) =>
      compressedPage(page * KIB4, deflateSync(filled(page & 0xff)), page === 0 ? 'ram' : undefined),
    );
    const stream = join(
      none,
      start(7, 'ram', 4, blockList(['ram', 300 * KIB4]), EOS),
      part(7, ...packed, EOS),
      ramEnd,
      EOF,
    );
    const seen: (number | undefined)[] = [];
    const file = await opened(stream);
    await settle(file, {
      take(item) {
        if (item.kind !== 'pages') return;
        const { batch } = item;
        for (let i = 0; i < batch.count; i++) seen.push(file.kernel.bytes[batch.data[i] as number]);
      },
    });
    expect(seen).toEqual(packed.map((_, page) => page & 0xff));
  });
});
