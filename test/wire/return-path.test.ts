import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MigrationError } from '../../src/vm/migration-error.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { decodeReturnPath, encodeReturnMessage, type ReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { hex, join, u16, u32, u64 } from '../oracle/build.ts';
import { run } from './decoding.ts';

/** The messages of a return path, and the decoder's error. */
function decode(bytes: Uint8Array, chunk = 1000): { messages: ReturnMessage[]; error: MigrationError | undefined } {
  const messages: ReturnMessage[] = [];
  try {
    run<ReturnMessage, void>(bytes, chunk, decodeReturnPath, (message) => void messages.push(message));
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return { messages, error };
  }
  return { messages, error: undefined };
}

const bitsOf = (text: string) => Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
const bitmap = (name: string, bits: Uint8Array) =>
  join([0, 5], u16(1 + name.length), [name.length], name, u64(bits.length), bits, hex('0123456789abcdef'));

describe('the return path', () => {
  it('is what QEMU 10.0 wrote', () => {
    const captured = hex(`
      0002 0004 00000001
      0003 0014 0000000000000000 00001000 07 70632e62696f73
      0004 000c 0000000000903000 00001000
      0001 0004 00000000`);
    expect(decode(captured)).toEqual({
      error: undefined,
      messages: [
        { type: 2, name: 'PONG', offset: 0, length: 8, value: 1 },
        { type: 3, name: 'REQ_PAGES_ID', offset: 8, length: 24, start: 0, bytes: 4096, block: 'pc.bios' },
        { type: 4, name: 'REQ_PAGES', offset: 32, length: 16, start: 0x903000, bytes: 4096, block: 'pc.bios' },
        { type: 1, name: 'SHUT', offset: 48, length: 8, value: 0 },
      ],
    });
  });

  it('counts the pages of received bitmaps, which may be longer than any buffer', () => {
    const bits = new Uint8Array(200_000).fill(0x81);
    const { messages } = decode(join(bitmap('pc.ram', bits), hex('0006 0004 00000001')), 4096);
    expect(messages.map(({ name, received, bitmapBytes, value }) => [name, received, bitmapBytes, value])).toEqual([
      ['RECV_BITMAP', 400_000, 200_000, undefined],
      ['RESUME_ACK', undefined, undefined, 1],
    ]);
  });

  it('decodes to what was encoded, in chunks of any size', () => {
    const name = fc.string({
      minLength: 1,
      maxLength: 255,
      unit: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)),
    });
    const number = fc.nat(2 ** 32 - 1);
    const request = { start: fc.nat(2 ** 46), bytes: number };
    const message = fc.oneof(
      fc.record({ type: fc.constantFrom(ReturnType.pong, ReturnType.resumeAck), value: number }),
      fc.record({ type: fc.constant(ReturnType.reqPagesId), ...request, block: name }),
      fc.record({ type: fc.constant(ReturnType.switchoverAck) }),
      fc.record({
        type: fc.constant(ReturnType.recvBitmap),
        block: name,
        words: fc.array(fc.bigInt(0n, 2n ** 64n - 1n), { maxLength: 5 }),
      }),
    );
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 8 }),
        fc.nat(2 ** 32 - 1),
        fc.integer({ min: 1, max: 64 }),
        (list, status, chunk) => {
          const out = new ByteWriter();
          const all = [...list, { type: ReturnType.shut, value: status }];
          for (const each of all) {
            const words = 'words' in each ? each.words : [];
            encodeReturnMessage(out, each, join(...words.map((word) => u64(word))));
          }
          const { messages, error } = decode(out.bytes().slice(), chunk);
          expect(error).toBeUndefined();
          expect(messages.map(({ name: _, offset: __, length: ___, ...fields }) => fields)).toEqual(
            all.map((each) => {
              if (!('words' in each)) return each;
              const { words, ...rest } = each;
              const received = words.reduce((sum, word) => sum + word.toString(2).replaceAll('0', '').length, 0);
              return { ...rest, bitmapBytes: words.length * 8, received };
            }),
          );
          expect(messages.reduce((sum, { length }) => sum + length, 0)).toBe(out.length);
        },
      ),
    );
  });

  it('is truncated if it is cut inside a message', () => {
    const parts = [hex('0002 0004 00000001'), bitmap('ram', bitsOf('ff00ff00ff00ff00')), hex('0001 0004 00000000')];
    const whole = join(...parts);
    const ends = [0, 8, whole.length - 8];
    for (let length = 1; length < whole.length; length++) {
      const { error } = decode(whole.subarray(0, length), 5);
      if (ends.includes(length)) expect(error).toBeUndefined();
      else expect(error, `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: length } });
    }
  });

  it.each([
    ['type 0', '0000 0000'],
    ['an unknown type', '0008 0000'],
    ['a PONG of 8 bytes', '0002 0008 0000000000000001'],
    ['a REQ_PAGES_ID without a name', '0003 000c 0000000000000000 00001000'],
    ['a name longer than its message', '0003 000e 0000000000000000 00001000 02 41'],
    ['a name shorter than its message', '0003 0010 0000000000000000 00001000 01 4142 43'],
    ['a REQ_PAGES before any name', '0004 000c 0000000000000000 00001000'],
    ['a request beyond all RAM', '0003 000e 0000400000000001 00001000 01 41'],
    ['a message after SHUT', '0001 0004 00000000 0002 0004 00000001'],
    ['a bitmap of odd bytes', '0005 0002 01 41 0000000000000007'],
    ['a bitmap of 2^63 bytes', '0005 0002 01 41 8000000000000000'],
    ['a bitmap with another end', '0005 0002 01 41 0000000000000000 0123456789abcdee'],
  ])('refuses %s', (_, bytes) => {
    expect(decode(hex(bytes)).error).toMatchObject({ code: 'bad-return-path' });
  });

  it('allocates no memory for a bitmap that does not exist', () => {
    const claimed = join(hex('0005 0002 01 41'), u64(2 ** 32), u32(0));
    expect(decode(claimed).error?.code).toBe('truncated');
  });

  it('does not encode an unknown type', () => {
    expect(() => encodeReturnMessage(new ByteWriter(), { type: 9 })).toThrow(RangeError);
  });
});
