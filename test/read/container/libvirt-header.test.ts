import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeLibvirtData,
  decodeLibvirtHeader,
  encodeLibvirtHead,
  findDomain,
  isLibvirtMagic,
  libvirtFormats,
  libvirtHeaderLength,
} from '../../../src/read/container/libvirt-header.ts';
import type { Place } from '../../../src/vm/migration-error.ts';
import { loadContainerFixture } from '../../container-fixtures.ts';

const place: Place = { source: 'guest.save', offset: 1000, coordinate: 'file' };
const head = (change: Partial<Parameters<typeof encodeLibvirtHead>[0]> = {}) =>
  encodeLibvirtHead({ xml: '<domain/>', cookie: '<cookie/>', format: 'raw', wasRunning: true, padding: 8, ...change });
const patched = (at: number, value: number, bytes = head()) => {
  new DataView(bytes.buffer).setUint32(at, value, true);
  return bytes;
};
const decode = (bytes: Uint8Array) => decodeLibvirtHeader(bytes, place);
const decodeData = (bytes: Uint8Array) => decodeLibvirtData(bytes.subarray(libvirtHeaderLength), decode(bytes), place);

describe('the head of a libvirt save image', () => {
  it('decodes to what was encoded, in both byte orders', () => {
    const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 }).filter((each) => !each.includes('\0'));
    fc.assert(
      fc.property(
        fc.record({
          xml: text,
          cookie: fc.option(text, { nil: undefined }),
          format: fc.constantFrom(...libvirtFormats),
          wasRunning: fc.boolean(),
          padding: fc.integer({ min: 0, max: 100 }),
          byteOrder: fc.constantFrom('little' as const, 'big' as const),
          isFinished: fc.boolean(),
        }),
        (image) => {
          const bytes = encodeLibvirtHead(image);
          const { format, wasRunning, byteOrder, isFinished } = image;
          const header = decode(bytes);
          expect(header).toMatchObject({ version: 2, format, wasRunning, byteOrder, isFinished });
          expect(header.dataLength).toBe(bytes.length - libvirtHeaderLength);
          const encoded = new TextDecoder().decode(new TextEncoder().encode(image.xml));
          expect(decodeData(bytes).xml).toBe(encoded);
          expect(decodeData(bytes).cookie === undefined).toBe(image.cookie === undefined);
        },
      ),
    );
  });

  it("is encoded like libvirt's", () => {
    const { bytes } = loadContainerFixture('libvirt-raw');
    const header = decode(bytes);
    const data = decodeLibvirtData(
      bytes.subarray(libvirtHeaderLength, libvirtHeaderLength + header.dataLength),
      header,
      place,
    );
    const again = encodeLibvirtHead({ ...data, format: header.format, wasRunning: header.wasRunning });
    expect(Buffer.compare(again, bytes.subarray(0, again.length))).toBe(0);
    expect(new TextDecoder().decode(bytes.subarray(again.length, again.length + 4))).toBe('QEVM');
  });

  it('of version 1 has an uncompressed stream', () => {
    expect(decode(patched(16, 1, head({ format: 'zstd' })))).toMatchObject({ version: 1, format: 'raw' });
  });

  it('is recognized by its magic, finished or not', () => {
    expect(isLibvirtMagic(head())).toBe(true);
    expect(isLibvirtMagic(head({ isFinished: false }))).toBe(true);
    expect(isLibvirtMagic(new TextEncoder().encode('LibvirtQemudSavf'))).toBe(false);
    expect(isLibvirtMagic(new TextEncoder().encode('Libvirt'))).toBe(false);
  });

  it.each([
    ['a version of 3', 16, 3, 'unsupported'],
    ['a version of 0', 16, 0, 'unsupported'],
    ['no data', 20, 0, 'bad-libvirt-header'],
    ['more data than libvirt writes', 20, 0x1000001, 'limit-exceeded'],
    ['format 7', 28, 7, 'unsupported'],
    ['a cookie behind the data', 32, head().length - libvirtHeaderLength, 'bad-libvirt-header'],
  ])('is refused with %s, with its place', (_, at, value, code) => {
    expect(() => decode(patched(at, value))).toThrow(
      expect.objectContaining({ code, place: { ...place, offset: 1000 + at } }),
    );
  });

  it('is refused without an end of its XML, or without XML', () => {
    const endless = head({ cookie: undefined, padding: 0 });
    endless[endless.length - 1] = 0x20;
    expect(() => decodeData(endless)).toThrow(/no end/);
    const empty = head();
    empty[libvirtHeaderLength] = 0;
    expect(() => decodeData(empty)).toThrow(/an empty one/);
    // The XML ends where the cookie begins.
    expect(() => decodeData(patched(32, 3))).toThrow(/within 3 bytes/);
  });

  it('is not encoded with an unknown format', () => {
    expect(() => head({ format: 'lz4' as 'gzip' })).toThrow(/raw, gzip, .*, got lz4/);
  });

  it('is not encoded with too much XML', () => {
    expect(() => head({ xml: 'x'.repeat(1 << 24) })).toThrow(RangeError);
  });
});

describe("a domain's name", () => {
  it("is found in libvirt's XML", () => {
    const xml = `<domain type='kvm' id='7'>\n  <name>a &amp; b</name>\n  <uuid>9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1</uuid>`;
    expect(findDomain(xml)).toEqual({ type: 'kvm', name: 'a & b', uuid: '9f4e1c55-7d4f-4c57-9c7f-0d7a30fbb9a1' });
    expect(findDomain('no XML')).toEqual({ type: undefined, name: undefined, uuid: undefined });
  });

  it('is searched for only near the beginning', () => {
    const nothing = { type: undefined, name: undefined, uuid: undefined };
    expect(findDomain('<domain '.repeat(1 << 20))).toEqual(nothing);
    expect(findDomain(`${' '.repeat(1 << 20)}<name>late</name>`)).toEqual(nothing);
  });
});
