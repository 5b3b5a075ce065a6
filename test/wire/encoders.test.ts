/** Streams and files built from single structures, with the encoders that the package exports. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ByteWriter,
  encodeBlockEntry,
  encodeConfiguration,
  encodeEos,
  encodeFooter,
  encodeMappedHeader,
  encodeMemSize,
  encodeMultifdHeader,
  encodeMultifdHello,
  encodePageRecord,
  encodeSectionHead,
  encodeStreamHeader,
  type MultifdHeader,
  multifdHeaderLength,
  multifdPacketPages,
  open,
  PageKind,
  placeMapped,
  type RamBlock,
  ramVersion,
  SectionType,
  verify,
} from '../../src/index.ts';
import { compressedPage, deltaPage, filled, join, KIB4, normalPage, zeroPage } from '../oracle/build.ts';
import { slowRead } from '../oracle/slow-reader.ts';

const block: RamBlock = { index: 0, idstr: 'ram', usedLength: 4 * KIB4, pageSize: KIB4 };
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const made = (write: (out: ByteWriter) => void) => {
  const out = new ByteWriter();
  write(out);
  return out.bytes();
};

/** A stream of one block, up to the first page. */
function begin(out: ByteWriter, capabilities: string[] = []): void {
  encodeStreamHeader(out);
  encodeConfiguration(out, { machine: 'none', capabilities });
  encodeSectionHead(out, { kind: 'start', id: 1, name: 'ram', instanceId: 0, versionId: ramVersion });
  encodeMemSize(out, block.usedLength);
  encodeBlockEntry(out, block.idstr, block.usedLength);
}

function finish(out: ByteWriter): void {
  encodeSectionHead(out, { kind: 'end', id: 1 });
  encodeEos(out);
  encodeFooter(out, 1);
  out.u8(SectionType.eof);
}

describe('a single page record', () => {
  it('has, byte for byte, the documented layout', () => {
    const record = (kind: PageKind, payload?: Uint8Array, continues = false) =>
      hex(made((out) => encodePageRecord(out, { block, page: 3, kind, continues, ...(payload && { payload }) })));
    const [at, delta] = [3 * KIB4, Uint8Array.of(1, 2, 3)];
    expect(record(PageKind.zero)).toBe(hex(zeroPage(at, 'ram')));
    expect(record(PageKind.zero, undefined, true)).toBe(hex(zeroPage(at)));
    expect(record(PageKind.data, filled(7))).toBe(hex(normalPage(at, filled(7), 'ram')));
    expect(record(PageKind.data, filled(7), true)).toBe(hex(normalPage(at, filled(7))));
    expect(record(PageKind.delta, delta, true)).toBe(hex(deltaPage(at, delta)));
    expect(record(PageKind.compressed, delta, true)).toBe(hex(compressedPage(at, delta)));
  });

  it.each<[string, Parameters<typeof encodePageRecord>[1]]>([
    ['a page beyond the block', { block, page: 4, kind: PageKind.zero }],
    ['half a page number', { block, page: 0.5, kind: PageKind.zero }],
    ['a page before the block', { block, page: -1, kind: PageKind.zero }],
    ['data of another length', { block, page: 0, kind: PageKind.data, payload: new Uint8Array(100) }],
    ['data without bytes', { block, page: 0, kind: PageKind.data }],
    ['zero with bytes', { block, page: 0, kind: PageKind.zero, payload: filled(1) }],
    ['a delta longer than the page', { block, page: 0, kind: PageKind.delta, payload: new Uint8Array(KIB4 + 1) }],
    ['an absent page', { block, page: 0, kind: PageKind.absent }],
    ['a name that is not a bytes', { block: { ...block, idstr: '日' }, page: 0, kind: PageKind.zero }],
  ])('is refused: %s', (_, record) => {
    const out = new ByteWriter();
    expect(() => encodePageRecord(out, record)).toThrow(RangeError);
    expect(out.length).toBe(0);
  });
});

describe('single structures, combined', () => {
  it('form a stream that reads back, for any records', async () => {
    const records = fc.array(fc.record({ page: fc.nat(3), value: fc.nat(3), isNamed: fc.boolean() }), {
      maxLength: 20,
    });
    await fc.assert(
      fc.asyncProperty(records, async (list) => {
        const content = new Uint8Array(block.usedLength);
        const bytes = made((out) => {
          begin(out);
          encodeEos(out);
          encodeFooter(out, 1);
          encodeSectionHead(out, { kind: 'part', id: 1 });
          for (const [i, { page, value, isNamed }] of list.entries()) {
            content.fill(value, page * KIB4, (page + 1) * KIB4);
            const kind = value === 0 ? PageKind.zero : PageKind.data;
            const payload = value === 0 ? new Uint8Array() : filled(value);
            encodePageRecord(out, { block, page, kind, payload, continues: i > 0 && !isNamed });
          }
          encodeEos(out);
          encodeFooter(out, 1);
          finish(out);
        });
        const { findings, pageRecords } = await verify(await open(bytes));
        // Without data it looks like the main stream of a multifd migration.
        const errors = findings.filter(({ severity, code }) => severity === 'error' && code !== 'missing-channels');
        expect([errors, pageRecords]).toEqual([[], list.length]);
        expect(Buffer.compare(slowRead(bytes).blocks[0]!.content, content)).toBe(0);
      }),
    );
  });

  it('form a mapped-ram file', async () => {
    const head = new ByteWriter();
    begin(head, ['mapped-ram']);
    const place = placeMapped(head.length, block.usedLength / block.pageSize);
    encodeMappedHeader(head, block.pageSize, place);
    const bytes = new Uint8Array(place.pagesOffset + block.usedLength);
    bytes.set(head.bytes());
    bytes[place.bitmapOffset] = 0b0100;
    bytes.fill(9, place.pagesOffset + 2 * KIB4, place.pagesOffset + 3 * KIB4);
    const tail = made((out) => {
      encodeEos(out);
      encodeFooter(out, 1);
      finish(out);
    });
    const file = join(bytes, tail);
    expect((await verify(await open(file))).ok).toBe(true);
    const { content } = slowRead(file).blocks[0]!;
    expect(Buffer.compare(content, join(filled(0), filled(0), filled(9), filled(0)))).toBe(0);
  });

  it('form a multifd channel', async () => {
    const most = multifdPacketPages(KIB4);
    const length = multifdHeaderLength(KIB4);
    const packet = (header: Partial<MultifdHeader>, pages: number[], payload: Uint8Array = new Uint8Array()) => {
      const bytes = new Uint8Array(length);
      const defaults = { normalPages: 0, zeroPages: 0, sync: false, method: 'none', packetNumber: 0n } as const;
      const all = { ...defaults, pagesAllocated: most, block: 'ram', payloadLength: payload.length, ...header };
      encodeMultifdHeader(bytes, all, KIB4, pages);
      return join(bytes, payload);
    };
    const hello = made((out) => encodeMultifdHello(out, { uuid: '0'.repeat(32), id: 0 }));
    const sync = packet({ sync: true, block: '' }, []);
    const pages = packet({ normalPages: 2, zeroPages: 2 }, [3, 0, 1, 2], join(filled(3), filled(1)));
    const channel = join(hello, sync, pages, sync, sync);
    const main = made((out) => {
      begin(out);
      encodeEos(out);
      encodeFooter(out, 1);
      encodeSectionHead(out, { kind: 'part', id: 1 });
      encodeEos(out);
      encodeFooter(out, 1);
      finish(out);
    });
    const { ok, pageRecords, findings } = await verify(await open(main, { channels: [channel] }));
    expect([ok, pageRecords, findings.map(({ code }) => code)]).toEqual([true, 4, ['description-missing']]);
  });

  it('of a multifd packet stay within their buffer', () => {
    const header: MultifdHeader = {
      ...{ sync: false, method: 'none', pagesAllocated: 128, normalPages: 1, zeroPages: 0 },
      ...{ payloadLength: KIB4, packetNumber: 0n, block: 'ram' },
    };
    const room = new Uint8Array(4000);
    const encode = (target: Uint8Array, more: Partial<MultifdHeader> = {}, pages = [0]) => {
      return () => encodeMultifdHeader(target, { ...header, ...more }, KIB4, pages);
    };
    encode(room)();
    const used = room.slice();
    expect(encode(room.subarray(0, 100))).toThrow('expected a target of at least 1344 bytes, got 100');
    expect(encode(room, { normalPages: 129 })).toThrow('at most 128 pages in a packet, got 129');
    expect(encode(room, { block: 'a\0b' })).toThrow(RangeError);
    expect(encode(room, {}, [-1])).toThrow('expected a page, got -1');
    expect(encode(room, {}, [])).toThrow('expected a page, got undefined');
    expect(used.subarray(1344).every((byte) => byte === 0)).toBe(true);
  });
});

describe('a byte writer', () => {
  it.each<[string, (out: ByteWriter) => void]>([
    ['a byte of 256', (out) => out.u8(256)],
    ['a negative number', (out) => out.u16(-1)],
    ['a number of five bytes', (out) => out.u32(2 ** 32)],
    ['a number that is not safe', (out) => out.u64(2 ** 53)],
    ['a bigint of nine bytes', (out) => out.u64(2n ** 64n)],
    ['a fraction', (out) => out.u32(1.5)],
    ['a name of 256 bytes', (out) => out.string('x'.repeat(256))],
    ['text beyond Latin1', (out) => out.text('\u0100')],
    ['hex of another length', (out) => out.hex('abc', 2)],
    ['hex of other digits', (out) => out.hex('xx', 1)],
  ])('refuses %s, and writes none of it', (_, write) => {
    const out = new ByteWriter();
    expect(() => write(out)).toThrow(RangeError);
    expect(out.length).toBe(0);
  });
});
