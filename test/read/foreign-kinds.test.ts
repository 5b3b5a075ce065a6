import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { inspect, verify } from '../../src/index.ts';
import { findForeignKind } from '../../src/read/foreign-kinds.ts';
import { configuration, EOF, hex, join, none, ramEnd, ramStart } from '../oracle/build.ts';
import { kindsOfSource, opened } from '../support/opened.ts';

/** 4 KiB with the given bytes at an offset. The other bytes are of no text. */
function file(magic: Uint8Array | string, offset = 0, length = 4096): Uint8Array {
  const bytes = new Uint8Array(length).fill(0xa5);
  bytes.set(typeof magic === 'string' ? Uint8Array.from(magic, (c) => c.charCodeAt(0)) : magic, offset);
  return bytes;
}
const elf = (type: number, order = 1) => {
  const head = file(hex('7f454c46 02'));
  head[5] = order;
  head.set(order === 2 ? [0, type] : [type, 0], 16);
  return head;
};
const text = (said: string) => new TextEncoder().encode(said);
/** Interrupt vectors of a BIOS: offsets in the segment 0xf000. */
const memory = () => {
  const bytes = new Uint8Array(4096);
  for (let i = 0; i < 256; i++) bytes.set([0x53, 0xff, 0x00, 0xf0], i * 4);
  return bytes;
};

const kinds: [string, Uint8Array, RegExp][] = [
  ['an ELF core', elf(4), /ELF core.*gdb/],
  ['an ELF core of a big-endian machine', elf(4, 2), /ELF core/],
  ['a program', elf(3), /program or a library/],
  ['an object file', elf(1), /program or a library/],
  ['kdump', file('KDUMP   '), /kdump-compressed.*crash/],
  ['flattened kdump', file('makedumpfile\0'), /flattened.*makedumpfile -R/],
  ['LiME', file('EMiL'), /LiME/],
  ['a Windows dump', file('PAGEDU64'), /Windows crash dump/],
  ['a Windows dump of 32 bits', file('PAGEDUMP'), /Windows crash dump/],
  ['VMA', file('VMA\0'), /Proxmox.*vma extract FILE DIRECTORY.*vmstate\.bin/],
  ['CPR', file('QCPR\0\0\0\x01'), /CPR channel/],
  ['libxc', file(hex('ffffffffffffffff 58454e46')), /libxc/],
  ['xl save', file('Xen saved domain, xl format\n \0 \r'), /saved Xen domain.*xl restore/],
  ['vmss', file(hex('d2bed2be 08000000')), /VMware/],
  ['VirtualBox', file('\x7fVirtualBox SavedState V2.0\n'), /VirtualBox/],
  ['Hyper-V', file(hex('14202801')), /Hyper-V/],
  ['tar', file('ustar', 257), /tar archive.*tar -xf/],
  ['a boot sector', file(hex('55aa'), 510), /boot sector/],
  ['a GPT', join(file(hex('55aa'), 510, 512), file('EFI PART')), /GPT/],
  ['an ext file system', file(hex('53ef 0100'), 1080), /file system/],
  ['a CD', file('CD001', 0x8001, 0x8800), /CD image/],
  ['raw memory', memory(), /raw memory of a PC/],
  ['zeros', new Uint8Array(4096), /begins with zeros/],
  ['a script', text('#!/bin/sh\nexit 0\n'), /a script/],
  ['a domain', text("<?xml version='1.0'?>\n<!-- x -->\n<domain type='kvm'>"), /libvirt domain.*virsh save/],
  ['JSON', text('{ "a": 1 }'), /JSON/],
  ['a dump of vmstate', text('{\n "vmschkmachine": { "Name": "pc" } }'), /-dump-vmstate/],
  ['text', text('hello\n'), /text/],
  ['7z', file(hex('377abcaf271c')), /7z x -so/],
  ['lrzip', file('LRZI'), /lrzip -d/],
  ['lzip', file('LZIP\x01'), /lzip -dc/],
  ['framed snappy', file(hex('ff060000 734e61507059')), /snzip -dc/],
  ['lz4', file(hex('04224d18 60')), /lz4 -dc/],
  ['lzma', file(hex('5d00008000 ffffffffffffffff')), /lzma -dc/],
  ['compress', file(hex('1f9d90')), /gzip -dc/],
  ['zlib', file(hex('789c')), /zlib-flate/],
  ['openssl', file('Salted__'), /openssl enc -d/],
  ['a stream behind a header', join(file(hex('01020304'), 0, 64), none, ramStart, ramEnd, EOF), /begins at offset 64/],
];

describe('a file of another kind', () => {
  it.each(kinds)('is named, with what to do: %s', async (_, bytes, expected) => {
    const { findings } = await verify(await opened(bytes));
    expect(findings).toMatchObject([{ code: 'not-a-migration-stream', reason: 'another-kind', place: { offset: 0 } }]);
    expect(findings[0]?.message).toMatch(expected);
    const { inspection } = await inspect(await opened(bytes));
    expect(inspection.error).toMatchObject({ message: findings[0]?.message });
  });

  it('is named inside compressed data, too', async () => {
    const { findings } = await verify(await opened(new Uint8Array(gzipSync(elf(2)))));
    expect(findings[0]?.message).toMatch(/in the compressed data, got a program/);
    expect(findings[0]?.place.coordinate).toBe('decompressed');
  });

  it('is named by its name, if nothing else shows it', () => {
    const head = file(hex('01020304'));
    const whatOf = (name: string) => findForeignKind({ head, name, size: 4096 })?.what;
    expect(whatOf('/vms/guest.vmem')).toMatch(/VMware/);
    expect(whatOf('snapshots/default_boot/ram.bin')).toMatch(/Android emulator/);
    expect(whatOf('stream.br')).toMatch(/brotli/);
    expect(whatOf('guest.migration')).toBeUndefined();
  });

  it.each([
    ['a stream that breaks off in its magic', text('QEV')],
    ['a multifd channel', hex('11223344 00000001 00')],
    ['a recovery stream', hex('08000a 0000')],
    ['another version', hex('5145564d 00000002')],
  ])('is not %s', async (_, bytes) => {
    const { findings } = await verify(await opened(bytes));
    expect(findings[0]?.reason).not.toBe('another-kind');
  });

  it('is not an empty one, of which it is said that it is empty', async () => {
    const { findings } = await verify(await opened(new Uint8Array()));
    expect(findings).toMatchObject([{ code: 'truncated', message: expect.stringContaining('is empty') }]);
  });
});

it('opens zstd data that begins with a frame to skip, and has several frames', async () => {
  const stream = join(none, ramStart, ramEnd, EOF);
  const skipped = hex('502a4d18 04000000 01020304');
  /** A frame of one raw block. */
  const frame = (bytes: Uint8Array) => {
    const head = (bytes.length << 3) | 1;
    return join(hex('28b52ffd 0000'), [head & 0xff, (head >> 8) & 0xff, head >> 16], bytes);
  };
  const packed = join(skipped, frame(stream.subarray(0, 20)), skipped, frame(stream.subarray(20)), skipped);
  for (const kind of kindsOfSource) {
    const { findings } = await verify(await opened(packed, kind));
    expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
  }
});

it('refuses pages of 256 bytes, as of AVR, and says so', async () => {
  const head = join(hex('5145564d 00000003'), configuration('arduino-uno'));
  const { findings } = await verify(await opened(join(head, ramStart, ramEnd, EOF)));
  expect(findings).toMatchObject([{ code: 'unsupported', message: expect.stringContaining('256 bytes') }]);
});
