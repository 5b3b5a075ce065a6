import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadKernel } from '../../src/kernel/load-kernel.ts';
import { PageBatch, PageKind } from '../../src/kernel/page-batch.ts';
import type { FlowItem } from '../../src/vm/flow.ts';
import { MigrationError } from '../../src/vm/migration-error.ts';
import type { RamBlock } from '../../src/vm/ram-block.ts';
import { encodeDiscard, encodeRecvBitmap, readDiscard, readRecvBitmap, spansOf } from '../../src/wire/postcopy.ts';
import { decodePreemptChannel } from '../../src/wire/preempt.ts';
import { makeRamState } from '../../src/wire/ram-record.ts';
import { decodeRecovery, decodeStream, makeStreamState, type StreamState } from '../../src/wire/stream.ts';
import {
  command,
  compressedPage,
  counted,
  deltaPage,
  EOF,
  EOS,
  end,
  filled,
  hex,
  join,
  KIB4,
  none,
  normalPage,
  packaged,
  part,
  ramEnd,
  ramStart,
  u16,
  u64,
  zeroPage,
} from '../oracle/build.ts';
import { errorOf, itemsOf, ofKind, run } from './decoding.ts';

const block: RamBlock = { index: 0, idstr: 'ram', usedLength: 16 * KIB4, pageSize: KIB4 };
const discard = (...ranges: [number, number][]) =>
  command(6, [0], counted('ram'), [0], ...ranges.flatMap(([start, length]) => [u64(start), u64(length)]));

describe('POSTCOPY_RAM_DISCARD', () => {
  it('is what QEMU 10.0 wrote', () => {
    const payload = hex('00 06 70632e72616d 00 0000000000100000 0000000001f00000');
    const expected = { idstr: 'pc.ram', ranges: [{ start: 0x100000n, length: 0x1f00000n }] };
    expect(readDiscard(payload)).toEqual(expected);
    expect(encodeDiscard(expected)).toEqual(payload);
  });

  it('decodes to what was encoded', () => {
    const range = fc.record({
      start: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      length: fc.bigInt(0n, 2n ** 64n - 1n),
    });
    const name = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) });
    fc.assert(
      fc.property(name, fc.array(range, { maxLength: 12 }), (idstr, ranges) => {
        expect(readDiscard(encodeDiscard({ idstr, ranges }))).toEqual({ idstr, ranges });
      }),
    );
  });

  it.each([
    ['', 'version'],
    ['01 03 72616d 00', 'version'],
    ['00', 'name'],
    ['00 04 72616d', 'name'],
    ['00 03 72616d 01', 'name'],
    ['00 03 72616d', 'name'],
    ['00 03 72616d 00 0000000000000000 00000000000010', 'ranges'],
  ])('refuses the payload "%s": no %s', (payload, what) => {
    expect(readDiscard(hex(payload))).toContain(what);
    expect(errorOf(join(none, ramStart, command(6, hex(payload)), EOF))).toMatchObject({
      code: 'bad-command',
      place: { offset: none.length + ramStart.length },
    });
  });

  it('names pages of a listed block, whole and in ascending order', () => {
    const spans = spansOf(
      {
        idstr: 'ram',
        ranges: [
          { start: 4096n, length: 8192n },
          { start: 61440n, length: 4096n },
        ],
      },
      block,
      0,
    );
    expect(spans).toEqual([
      { firstPage: 1, pages: 2 },
      { firstPage: 15, pages: 1 },
    ]);
  });

  it.each<[string, [number, number][]]>([
    ['beyond the block', [[15 * KIB4, 2 * KIB4]]],
    ['far beyond it', [[2 ** 50, KIB4]]],
    ['of half a page', [[0, 2048]]],
    ['that begins in a page', [[2048, KIB4]]],
    ['of nothing', [[0, 0]]],
    [
      'before the one before',
      [
        [KIB4, KIB4],
        [0, KIB4],
      ],
    ],
    [
      'that overlaps the one before',
      [
        [0, 2 * KIB4],
        [KIB4, KIB4],
      ],
    ],
  ])('refuses a range %s', (_, ranges) => {
    expect(errorOf(join(none, ramStart, discard(...ranges), EOF)).code).toBe('bad-command');
  });

  it('refuses ranges that an earlier discard has passed', () => {
    expect(errorOf(join(none, ramStart, discard([KIB4, KIB4]), discard([KIB4, KIB4]), EOF)).code).toBe('bad-command');
    const items = itemsOf(join(none, ramStart, discard([0, KIB4]), discard([KIB4, KIB4], [8192, KIB4]), ramEnd, EOF));
    expect(ofKind(items, 'discard').map(({ firstPage, pages }) => [firstPage, pages])).toEqual([
      [0, 1],
      [1, 1],
      [2, 1],
    ]);
  });

  it('refuses a block that was not listed', () => {
    const other = command(6, [0], counted('rom'), [0], u64(0), u64(KIB4));
    expect(errorOf(join(none, ramStart, other, EOF))).toMatchObject({ code: 'bad-command' });
  });
});

describe('RECV_BITMAP', () => {
  it('contains a name and nothing else', () => {
    expect(encodeRecvBitmap('pc.ram')).toEqual(counted('pc.ram'));
    expect(readRecvBitmap(counted('pc.ram'))).toBe('pc.ram');
    expect(readRecvBitmap(hex('03 72616d 00'))).toBeUndefined();
    expect(readRecvBitmap(hex('04 72616d'))).toBeUndefined();
    expect(readRecvBitmap(new Uint8Array())).toBeUndefined();
  });
});

const kernel = await loadKernel({ arenaBytes: 1 << 20 });
const batch = new PageBatch(kernel, 8);
const kinds = Object.fromEntries(Object.entries(PageKind).map(([name, kind]) => [kind, name]));

/** The pages of a decoder as `block:page kind`, and its error. */
function pages(
  bytes: Uint8Array,
  chunk: number,
  decoder: (...args: Parameters<typeof decodePreemptChannel>) => ReturnType<typeof decodePreemptChannel>,
): { found: string[]; error: MigrationError | undefined } {
  const found: string[] = [];
  const ram = makeRamState(KIB4);
  ram.blocks.push(block);
  ram.byName.set('ram', block);
  try {
    run<FlowItem, void>(
      bytes,
      chunk,
      (window) => decoder(window, ram, batch),
      (item) => {
        if (item.kind !== 'pages') return;
        for (let i = 0; i < item.batch.count; i++) {
          found.push(`${item.block.idstr}:${item.batch.page[i]} ${kinds[item.batch.kind[i] as number]}`);
        }
      },
    );
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return { found, error };
  }
  return { found, error: undefined };
}

describe('the preempt channel', () => {
  const records = join(normalPage(9 * KIB4, filled(1), 'ram'), normalPage(3 * KIB4, filled(2)), zeroPage(4 * KIB4));
  const all = ['ram:9 data', 'ram:3 data', 'ram:4 zero'];

  it.each([1, 7, 4099, 100_000])('is page records, closed or ended by EOS, in chunks of %i', (chunk) => {
    expect(pages(records, chunk, decodePreemptChannel)).toEqual({ found: all, error: undefined });
    expect(pages(join(records, EOS), chunk, decodePreemptChannel)).toEqual({ found: all, error: undefined });
  });

  it('may be empty', () => {
    expect(pages(new Uint8Array(), 10, decodePreemptChannel)).toEqual({ found: [], error: undefined });
    expect(pages(join(EOS), 10, decodePreemptChannel)).toEqual({ found: [], error: undefined });
  });

  it('is truncated if it is cut inside a record', () => {
    const ends = [0, 12 + KIB4, 12 + KIB4 + 8 + KIB4, records.length];
    for (let length = 1; length < records.length; length += 97) {
      if (ends.includes(length)) continue;
      const { error } = pages(records.subarray(0, length), 1000, decodePreemptChannel);
      expect(error, `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: length } });
    }
  });

  it.each([
    ['a delta', deltaPage(0, hex('000101'), 'ram'), 'bad-ram-record'],
    ['a compressed page', compressedPage(0, hex('789c'), 'ram'), 'bad-ram-record'],
    ['a section', hex('02 00000007 00'.padEnd(24, '0')), 'bad-ram-record'],
    ['a page after EOS', join(EOS, zeroPage(0, 'ram')), 'bad-ram-record'],
    ['a page that continues nothing', zeroPage(0), 'bad-ram-record'],
    ['a page of another block', zeroPage(0, 'rom'), 'unknown-block'],
  ])('refuses %s', (_, bytes, code) => {
    expect(pages(bytes, 1000, decodePreemptChannel).error?.code).toBe(code);
  });
});

describe('a package', () => {
  it('ends with POSTCOPY_RUN', () => {
    const stream = join(none, ramStart, packaged(command(4), command(5), command(9)), part(7, EOS), ramEnd, EOF);
    expect(errorOf(stream).message).toMatch(/POSTCOPY_RUN, got 5 bytes after it \[bad-package\]/);
  });
});

describe('a recovery stream', () => {
  const first = join(
    none,
    ramStart,
    part(7, normalPage(0, filled(1), 'ram'), normalPage(KIB4, filled(2)), EOS),
    discard([KIB4, 2 * KIB4]),
    packaged(command(4), command(5)),
    part(7, normalPage(KIB4, filled(3), 'ram'), EOS),
  );
  const second = join(
    command(10, counted('ram')),
    command(9),
    part(7, normalPage(2 * KIB4, filled(4), 'ram'), EOS),
    ramEnd,
    EOF,
  );

  /** Reads a broken stream and then a recovery, and returns the recovery's items. */
  function recover(broken: Uint8Array, recovery: Uint8Array, chunk = 1000): FlowItem['kind'][] {
    const state = makeStreamState(batch);
    const kindsSeen: FlowItem['kind'][] = [];
    const read = (
      decode: (window: Parameters<typeof decodeRecovery>[0], state: StreamState) => ReturnType<typeof decodeRecovery>,
      bytes: Uint8Array,
      seen: FlowItem['kind'][],
    ) =>
      run<FlowItem, void>(
        bytes,
        chunk,
        (window) => decode(window, state),
        (item) => void seen.push(item.kind),
      );
    expect(() => read((window) => decodeStream(window, batch, {}, state), broken, [])).toThrow(/truncated/);
    read(decodeRecovery, recovery, kindsSeen);
    return kindsSeen;
  }

  it.each([1, 7, 1000])('continues with the sections and blocks of the broken stream, in chunks of %i', (chunk) => {
    expect(recover(first, second, chunk)).toEqual([
      'command',
      'command',
      'section',
      'pages',
      'section-end',
      'section',
      'section-end',
      'eof',
      'end',
    ]);
  });

  it('continues after an END that broke off', () => {
    const broken = join(first, end(7, EOS).subarray(0, 9));
    expect(recover(broken, second).at(-1)).toBe('end');
  });

  it('names its block again', () => {
    const continued = join(command(9), part(7, zeroPage(2 * KIB4), EOS), ramEnd, EOF);
    expect(() => recover(first, continued)).toThrow(/bad-ram-record/);
  });

  it('asks only for existing blocks', () => {
    expect(() => recover(first, join(command(10, counted('rom')), EOF))).toThrow(/"rom".*mismatched-source/);
  });

  it('is refused if it has a header, or anything else', () => {
    expect(() => recover(first, first)).toThrow(/mismatched-source/);
    expect(() => recover(first, new Uint8Array())).toThrow(/truncated/);
  });

  it('is refused by itself, with the reason', () => {
    expect(errorOf(second)).toMatchObject({
      code: 'not-a-migration-stream',
      message: expect.stringMatching(/which starts a recovery stream/),
      reason: 'recovery-stream',
    });
    expect(errorOf(join([8], u16(1), u16(0), EOF)).reason).toBeUndefined();
  });
});
