import { describe, expect, it } from 'vitest';
import { DirtyBitmapEncoder, type SentBitmap } from '../../src/wire/dirty-bitmap.ts';
import { EOF, end, hex, join, none, part, start } from '../oracle/build.ts';
import { errorOf, itemsOf, ofKind } from './decoding.ts';

const started = hex('1c 02 6e30 03 626d31 00010000 00 14 03 626d30 00010000 03 01');
const section = (...bodies: Uint8Array[]) =>
  join(none, start(3, 'dirty-bitmap', 1, started), ...bodies.map((body) => part(3, body)), end(3, [1]), EOF);
const known = (bytes: Uint8Array) => ofKind(itemsOf(bytes), 'dirty-bitmap').map(({ bitmap }) => bitmap);

describe('dirty bitmaps', () => {
  it('are reported with their names, granularity and state', () => {
    expect(known(section())).toEqual([
      {
        ...{ node: 'n0', name: 'bm1', granularity: 65536, enabled: false, persistent: false },
        ...{ coveredBytes: 0, dirtyBits: 0, complete: false },
      },
      {
        ...{ node: 'n0', name: 'bm0', granularity: 65536, enabled: true, persistent: true },
        ...{ coveredBytes: 0, dirtyBits: 0, complete: false },
      },
    ]);
  });

  it('have their dirty bits counted, with names that persist across sections', () => {
    const items = known(
      section(
        // bm0 is still the latest: 16 MiB in 256 bits, then 16 MiB of zeroes.
        hex(`40 0000000000000000 00008000 0000000000000020 ff${'00'.repeat(30)}80 01`),
        hex('42 0000000000008000 00008000 20 01'),
        hex('44 03 626d31 0000000000000000 00000080 0000000000000008 0100000000000000 24 03 626d31 01'),
      ),
    );
    expect(
      items.slice(2).map(({ name, coveredBytes, dirtyBits, complete }) => [name, coveredBytes, dirtyBits, complete]),
    ).toEqual([
      ['bm0', 16 << 20, 9, false],
      ['bm0', 32 << 20, 9, true],
      ['bm1', 65536, 1, true],
    ]);
  });

  it.each([
    [
      'bits of a bitmap that was not started',
      '44 03 626d32 0000000000000000 00000080 0000000000000008 0100000000000000 01',
    ],
    ['a second start', '14 03 626d30 00010000 00 01'],
    ['a granularity that is not a power of two', '14 03 626d33 00011000 00 01'],
    ['a granularity below a sector', '14 03 626d33 00000100 00 01'],
    ['unknown start flags', '14 03 626d33 00010000 04 01'],
    ['bits that begin within a bit', '42 0000000000000001 00000080 01'],
    ['bits beyond any disk', '42 8000000000000000 00000080 01'],
    ['too few bytes of bits', '40 0000000000000000 00100000 0000000000000008 0000000000000000 01'],
    ['too many bytes of bits', `40 0000000000000000 00000080 0000000000000028 ${'00'.repeat(40)} 01`],
    ['two kinds at once', '30 01'],
    ['zeroes of nothing', '22 01'],
  ])('refuse %s', (_, body) => {
    const error = errorOf(section(hex(body)));
    expect(error).toMatchObject({ code: 'bad-iterable', place: { section: 'dirty-bitmap' } });
  });

  it('refuse a chunk before any names', () => {
    const bytes = join(none, start(3, 'dirty-bitmap', 1, hex('10 00010000 00 01')), EOF);
    expect(errorOf(bytes)).toMatchObject({ code: 'bad-iterable' });
  });
});

describe('encoded dirty bitmaps', () => {
  // What QEMU sent of a disk of 64 MiB, whose 256 KiB from 1 MiB on were written.
  const one = { node: 'disk0', granularity: 65536, persistent: false, diskSize: 64 << 20 };
  const bm1: SentBitmap = { ...one, name: 'bm1', enabled: false, persistent: true, bits: new Uint8Array(128) };
  const bm0: SentBitmap = { ...one, name: 'bm0', enabled: true, bits: new Uint8Array(128).fill(0x0f, 2, 3) };

  it('are the bytes that QEMU sends', () => {
    const encoder = new DirtyBitmapEncoder();
    expect(encoder.start([bm1, bm0])).toEqual(
      hex('1c 05 6469736b30 03 626d31 00010000 02 14 03 626d30 00010000 01 01'),
    );
    const bits = `00000f${'00'.repeat(125)}`;
    expect(encoder.end([bm1, bm0])).toEqual(
      hex(
        `46 03 626d31 0000000000000000 00020000 44 03 626d30 0000000000000000 00020000 0000000000000080 ${bits}
         24 03 626d31 24 03 626d30 01`.replace(/\s+/g, ' '),
      ),
    );
  });

  it('fill a short chunk up to 32 bytes, as QEMU does', () => {
    const small: SentBitmap = { ...bm0, diskSize: 640 << 10, bits: Uint8Array.of(1, 2) };
    const encoder = new DirtyBitmapEncoder();
    const items = known(
      join(none, start(3, 'dirty-bitmap', 1, encoder.start([small])), end(3, [...encoder.end([small])]), EOF),
    );
    expect(items.at(-1)).toMatchObject({ coveredBytes: 640 << 10, dirtyBits: 2, complete: true });
  });
});
