import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteWindow } from '../../src/wire/byte-window.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import {
  decodeHello,
  devicePacketLength,
  encodeDevicePacket,
  encodeMultifdHeader,
  encodeMultifdHello,
  helloLength,
  type MultifdHeader,
  type MultifdHello,
  multifdHeaderLength,
  multifdPacketPages,
  type PacketMethod,
  readDevicePacket,
  readPacketFlags,
  readPacketHeader,
} from '../../src/wire/multifd-packet.ts';
import { channelHello, join, packet, syncPacket } from '../oracle/build.ts';
import { run } from './decoding.ts';

function windowOf(bytes: Uint8Array): ByteWindow {
  const window = new ByteWindow(bytes, 'test.bin');
  window.limit = bytes.length;
  return window;
}

const written = (write: (out: ByteWriter) => void): Uint8Array => {
  const out = new ByteWriter();
  write(out);
  return out.bytes().slice();
};

const encoded = (header: MultifdHeader, pageSize: number, pages: readonly number[]): Uint8Array => {
  // Earlier bytes in the target have no effect.
  const bytes = new Uint8Array(multifdHeaderLength(pageSize)).fill(0xcc);
  encodeMultifdHeader(bytes, header, pageSize, pages);
  return bytes;
};

const helloOf = (bytes: Uint8Array) => run<never, MultifdHello>(bytes, 7, decodeHello);
const names = fc.string({ unit: fc.constantFrom(...'abcz019./@-:'), minLength: 1, maxLength: 255 });

describe('the first bytes of a channel', () => {
  it('decode to what was encoded', () => {
    const uuid = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex'));
    fc.assert(
      fc.property(fc.record({ uuid, id: fc.nat(255) }), (hello) => {
        const bytes = written((out) => encodeMultifdHello(out, hello));
        expect(bytes).toEqual(channelHello(hello.id, hello.uuid));
        expect(bytes).toHaveLength(helloLength);
        expect(helloOf(bytes)).toEqual(hello);
      }),
    );
  });

  it.each([
    ['another magic', 0, /magic 0x11223300/],
    ['another version', 7, /version 0 \[bad-channel/],
  ])('with %s are refused', (_, at, message) => {
    const bytes = channelHello(0);
    bytes[at === 0 ? 3 : at] = 0;
    expect(() => helloOf(bytes)).toThrow(message);
  });

  it('of a main stream are recognized', () => {
    expect(() => helloOf(join('QEVM', new Uint8Array(60)))).toThrow(/got a migration stream \[bad-channel\]/);
  });

  it('are truncated if they end too early', () => {
    expect(() => helloOf(channelHello(0).subarray(0, 63))).toThrow(/\[truncated\]/);
  });
});

describe('a packet header', () => {
  const headers = fc
    .record({
      pageSize: fc.constantFrom(1024, 4096, 8192, 65536),
      sync: fc.boolean(),
      method: fc.constantFrom<PacketMethod>('none', 'zlib', 'zstd', 'qpl', 'uadk', 'qatzip'),
      payloadLength: fc.nat(0xffff_ffff),
      packetNumber: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      block: names,
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      seed: fc.nat(2 ** 20),
      count: fc.nat(512),
    })
    .map(({ pageSize, share, seed, count, ...rest }) => {
      const pages = Array.from(
        { length: Math.min(count, multifdPacketPages(pageSize)) },
        (_, i) => (seed * (i + 1)) % 2 ** 36,
      );
      const normalPages = Math.floor(pages.length * share);
      const header: MultifdHeader = {
        ...rest,
        pagesAllocated: multifdPacketPages(pageSize),
        normalPages,
        zeroPages: pages.length - normalPages,
      };
      return { pageSize, header, pages };
    });

  it('decodes to what was encoded, for every page size', () => {
    fc.assert(
      fc.property(headers, ({ pageSize, header, pages }) => {
        const bytes = encoded(header, pageSize, pages);
        const window = windowOf(bytes);
        const found = new Float64Array(512);
        expect(readPacketHeader(window, readPacketFlags(window), pageSize, found)).toEqual(header);
        expect([...found.subarray(0, pages.length)]).toEqual(pages);
        expect(window.position).toBe(0);
      }),
    );
  });

  it('has the documented bytes', () => {
    const header: MultifdHeader = {
      sync: true,
      method: 'zlib',
      pagesAllocated: 128,
      normalPages: 1,
      payloadLength: 0,
      packetNumber: 0n,
      zeroPages: 2,
      block: 'pc.ram',
    };
    const parts = { flags: 3, block: 'pc.ram', normal: [4096], zero: [0, 8192] };
    expect(encoded(header, 4096, [1, 0, 2])).toEqual(packet(parts));
    const sync = { ...header, method: 'none', pagesAllocated: 0, normalPages: 0, zeroPages: 0, block: '' } as const;
    expect(encoded(sync, 4096, [])).toEqual(syncPacket);
  });

  it('refuses more pages, or a longer name, than fits', () => {
    const header = { sync: false, method: 'none', pagesAllocated: 128, payloadLength: 0, packetNumber: 0n } as const;
    const pages = Array.from({ length: 129 }, (_, i) => i);
    expect(() => encoded({ ...header, normalPages: 128, zeroPages: 1, block: 'ram' }, 4096, pages)).toThrow(RangeError);
    const block = 'n'.repeat(256);
    expect(() => encoded({ ...header, normalPages: 1, zeroPages: 0, block }, 4096, pages)).toThrow(
      /255 bytes, got 256/,
    );
  });

  const readAll = (bytes: Uint8Array) => {
    const window = windowOf(bytes);
    return readPacketHeader(window, readPacketFlags(window), 4096, new Float64Array(512));
  };
  it.each([
    ['another magic', () => packet({}).map((byte, i) => (i === 0 ? 0x12 : byte)), /got magic 0x12223344/],
    ['another version', () => packet({}).map((byte, i) => (i === 7 ? 2 : byte)), /version 2/],
    ['two methods', () => packet({ flags: 0x06 }), /got 0x6/],
    ['unknown flags', () => packet({ flags: 0x80 }), /got 0x80/],
    ['a sync with a device state', () => packet({ flags: 0x41 }), /got 0x41/],
    [
      'more pages allocated than a packet has',
      () => packet({ allocated: 129 }),
      /at most 128 pages allocated, got 129/,
    ],
    ['more pages than room', () => packet({ allocated: 2, normal: [0, 4096], zero: [8192] }), /at most 2 pages, got 3/],
    ['an offset within a page', () => packet({ normal: [4095] }), /got 0xfff/],
  ])('with %s is refused', (_, make, message) => {
    expect(() => readAll(make())).toThrow(message);
    expect(() => readAll(make())).toThrow(/\[bad-packet\]/);
  });
});

describe('a device-state header', () => {
  it('decodes to what was encoded', () => {
    fc.assert(
      fc.property(names, fc.nat(0xffff_ffff), fc.integer({ min: 1, max: 0xffff_ffff }), (name, instanceId, length) => {
        const bytes = written((out) => encodeDevicePacket(out, { name, instanceId, length }));
        expect(bytes).toHaveLength(devicePacketLength);
        expect(readPacketFlags(windowOf(bytes))).toBe(0x40);
        expect(readDevicePacket(windowOf(bytes))).toEqual({ name, instanceId, length });
      }),
    );
  });

  it('with an unterminated name, or without bytes, is refused', () => {
    const make = (length: number) => written((out) => encodeDevicePacket(out, { name: 'vfio', instanceId: 0, length }));
    expect(() => readDevicePacket(windowOf(make(0)))).toThrow(/got 0 bytes \[bad-packet\]/);
    expect(() => readDevicePacket(windowOf(make(1).fill(0x61, 12, 268)))).toThrow(/an unterminated name/);
  });
});
