import { describe, expect, it } from 'vitest';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { CommandCode, encodeCommand, readAdvise } from '../../src/wire/command.ts';
import {
  blockList,
  command,
  counted,
  EOF,
  EOS,
  hex,
  join,
  none,
  ramEnd,
  ramStart,
  start,
  u16,
  u32,
  u64,
} from '../oracle/build.ts';
import { errorOf, itemsOf, ofKind } from './decoding.ts';

const advice = join(u64(0x201000), u64(0x1000));
const discard = join([0], counted('pc.ram'), [0], u64(0x100000), u64(0x1f00000));

const valid: [code: number, name: string, payload: Uint8Array][] = [
  [1, 'OPEN_RETURN_PATH', new Uint8Array()],
  [2, 'PING', join(u32(0x42))],
  [3, 'POSTCOPY_ADVISE', advice],
  [3, 'POSTCOPY_ADVISE', new Uint8Array()],
  [4, 'POSTCOPY_LISTEN', new Uint8Array()],
  [5, 'POSTCOPY_RUN', new Uint8Array()],
  [6, 'POSTCOPY_RAM_DISCARD', discard],
  [7, 'PACKAGED', join(u32(0))],
  [8, 'ENABLE_COLO', new Uint8Array()],
  [9, 'POSTCOPY_RESUME', new Uint8Array()],
  [10, 'RECV_BITMAP', counted('pc.ram')],
  [11, 'SWITCHOVER_START', new Uint8Array()],
];

/** A guest with a block that DISCARD and RECV_BITMAP can name. */
const guest = (name: string) => join(none, start(7, 'ram', 4, blockList([name, 0x2000000]), EOS));
const pc = guest('pc.ram');

describe('commands', () => {
  it.each(valid)('decodes command %i, %s', (code, name, payload) => {
    const [item] = ofKind(itemsOf(join(pc, command(code, payload), ramEnd, EOF)), 'command');
    expect(item?.command).toEqual({ code, name, offset: pc.length, payload });
  });

  it('decodes the bytes that QEMU wrote', () => {
    const captured = '08 0006 0019 00 06 70632e72616d 00 0000000000100000 0000000001f00000';
    const [item] = ofKind(itemsOf(join(pc, hex(captured), ramEnd, EOF)), 'command');
    expect(item?.command.payload).toEqual(discard);
  });

  it('accepts a payload of 65535 bytes', () => {
    const ranges = Array.from({ length: 4095 }, (_, i) => join(u64(i * 8192), u64(4096)));
    const payload = join([0], counted('twelve bytes'), [0], ...ranges);
    expect(payload.length).toBe(65535);
    const [item] = ofKind(itemsOf(join(guest('twelve bytes'), command(6, payload), EOF)), 'command');
    expect(Buffer.compare(item?.command.payload ?? new Uint8Array(), payload)).toBe(0);
  });

  it.each([0, 12, 0xffff])('refuses command %i', (code) => {
    const error = errorOf(join(none, ramStart, command(code), EOF));
    expect(error).toMatchObject({ code: 'bad-command', place: { offset: none.length + ramStart.length } });
    expect(error.detail).toContain(String(code));
  });

  it.each(valid.filter(([code]) => code !== 6 && code !== 10))(
    'refuses command %i, %s, with a wrong length',
    (code, name, payload) => {
      for (const wrong of [payload.length + 1, 3, 15, 17, 65535]) {
        const error = errorOf(join(none, [8], u16(code), u16(wrong), new Uint8Array(wrong), EOF));
        expect(error).toMatchObject({ code: 'bad-command', place: { offset: none.length } });
        expect(error.detail).toContain(`${name}, got ${wrong}`);
      }
    },
  );

  it('reports every beginning of a command as truncated', () => {
    const bytes = join(none, command(6, discard));
    for (let length = none.length + 1; length < bytes.length; length++) {
      const error = errorOf(bytes.subarray(0, length));
      expect(error, `${length} bytes`).toMatchObject({ code: 'truncated', place: { offset: length } });
    }
  });

  it('encodes what it decodes', () => {
    for (const [code, , payload] of valid) {
      const out = new ByteWriter();
      encodeCommand(out, code, payload.slice());
      expect(out.bytes()).toEqual(command(code, payload));
    }
  });

  it('reads the page sizes from 16 bytes of advice, and none from an empty one', () => {
    expect(readAdvise(advice)).toEqual({ pageSizes: 0x201000n, targetPageSize: 0x1000n });
    expect(readAdvise(new Uint8Array())).toBeUndefined();
    expect(readAdvise(join('prefix', advice).subarray(6))).toEqual(readAdvise(advice));
  });

  it('has a name for every code', () => {
    expect(Object.values(CommandCode).sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });
});
