import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MigrationError } from '../../src/vm/migration-error.ts';
import {
  has,
  need,
  skip,
  takeBytes,
  takeSize,
  takeString,
  takeU8,
  takeU16,
  takeU32,
  takeU64,
} from '../../src/wire/byte-window.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { run } from './decoding.ts';

describe('a byte window', () => {
  it('gives back what a byte writer wrote, in chunks of any size', () => {
    const piece = fc.record({
      u8: fc.nat(0xff),
      u16: fc.nat(0xffff),
      u32: fc.nat(0xffff_ffff),
      u64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      size: fc.nat(Number.MAX_SAFE_INTEGER),
      text: fc.string({ maxLength: 255, unit: 'binary-ascii' }),
      raw: fc.uint8Array({ maxLength: 2000 }),
    });
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 5 }), fc.integer({ min: 1, max: 3000 }), (pieces, chunk) => {
        const out = new ByteWriter();
        for (const { u8, u16, u32, u64, size, text, raw } of pieces) {
          out.u8(u8).u16(u16).u32(u32).u64(u64).u64(size).string(text).raw(raw);
        }
        const read = run(out.bytes(), chunk, function* (window) {
          const values: typeof pieces = [];
          for (const { raw } of pieces) {
            values.push({
              u8: yield* takeU8(window, 'x'),
              u16: yield* takeU16(window, 'x'),
              u32: yield* takeU32(window, 'x'),
              u64: yield* takeU64(window, 'x'),
              size: yield* takeSize(window, 'x'),
              text: yield* takeString(window, 'x'),
              raw: (yield* takeBytes(window, raw.length, 'x')).slice(),
            });
          }
          expect(window.offset).toBe(out.length);
          expect(yield* has(window, 1)).toBe(false);
          return values;
        });
        expect(read).toEqual(pieces);
      }),
    );
  });

  it('skips more bytes than it holds', () => {
    const bytes = new Uint8Array(500_000);
    bytes[499_999] = 42;
    const value = run(bytes, 65536, function* (window) {
      yield* skip(window, 499_999, 'padding');
      return yield* takeU8(window, 'the last byte');
    });
    expect(value).toBe(42);
  });

  it('reports what is missing, how much exists, and where the source ends', () => {
    const attempt = () =>
      run(new Uint8Array(5), 2, function* (window) {
        yield* takeU16(window, 'a word');
        yield* need(window, 4, 'an answer');
      });
    expect(attempt).toThrow(MigrationError);
    expect(attempt).toThrow(
      /expected 4 bytes of an answer, got 3 before the end \[truncated\] in test.bin at 0x5 \(5\)/,
    );
  });

  it('refuses a size beyond the range of a number', () => {
    const take = (value: bigint) => run(new ByteWriter().u64(value).bytes(), 8, (window) => takeSize(window, 'a size'));
    expect(take(2n ** 53n - 1n)).toBe(Number.MAX_SAFE_INTEGER);
    expect(() => take(2n ** 53n)).toThrow(expect.objectContaining({ code: 'limit-exceeded' }));
  });
});

describe('a byte writer', () => {
  it('refuses a name over 255 bytes', () => {
    expect(() => new ByteWriter().string('x'.repeat(256))).toThrow(RangeError);
    expect(new ByteWriter().string('x'.repeat(255)).length).toBe(256);
  });
});
