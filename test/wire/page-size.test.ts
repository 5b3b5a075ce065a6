import { describe, expect, it } from 'vitest';
import { pageSizeOfMachine } from '../../src/wire/page-size.ts';
import {
  bare,
  blockList,
  capabilities,
  command,
  configuration,
  EOF,
  EOS,
  FLUSH,
  filled,
  header,
  join,
  normalPage,
  part,
  ramEnd,
  start,
  u64,
  zeroPage,
} from '../oracle/build.ts';
import { itemsOf, ofKind } from './decoding.ts';

const sizes = [1024, 2048, 4096, 8192, 16384, 65536];
const RAM = 1 << 20;

/** A stream of machine `none` that states no page size, with these records in its first PART. */
const unstated = (...records: Uint8Array[]) =>
  join(
    header,
    configuration('none'),
    start(7, 'ram', 4, blockList(['ram', RAM]), EOS),
    part(7, ...records, EOS),
    ramEnd,
    EOF,
  );

/** The page size with which a stream is read, and how it is known. */
function known(bytes: Uint8Array): [number | undefined, string | undefined] {
  const items = itemsOf(bytes);
  return [ofKind(items, 'block')[0]?.block.pageSize, ofKind(items, 'blocks-end')[0]?.pageSizeFrom];
}

const zeros = (pageSize: number, count: number) =>
  Array.from({ length: count }, (_, page) => zeroPage(page * pageSize, page === 0 ? 'ram' : undefined));

describe('the target page size of a stream that does not state it', () => {
  it.each(sizes)('%i is found from a page and what follows it', (size) => {
    expect(known(unstated(normalPage(0, filled(0x5a, size), 'ram'), zeroPage(size)))).toEqual([size, 'pages']);
    expect(
      known(unstated(zeroPage(0, 'ram'), normalPage(size, filled(0, size)), normalPage(2 * size, filled(9, size)))),
    ).toEqual([size, 'pages']);
  });

  it.each(sizes)('%i is found from the distances of many zero pages', (size) => {
    const count = Math.min(100, RAM / size);
    const expected = count >= 64 ? [size, 'pages'] : [4096, 'assumed'];
    if (size > 4096 && count < 64) return expect(known(unstated(...zeros(4096, 3)))).toEqual([4096, 'assumed']);
    expect(known(unstated(...zeros(size, count)))).toEqual(expected);
  });

  it('is not found from bytes inside a page that look like a record of an unlisted block', () => {
    const page = filled(0, 4096);
    // 2 KiB into the page: a compressed page, offset 0, of a block without a name.
    page.set([0, 0, 1], 2052);
    expect(known(unstated(normalPage(0, page, 'ram'), zeroPage(4096)))).toEqual([4096, 'pages']);
    page.set([0, 0, 0, 0, 0, 0, 0, 8, 2, 0x72, 0x6f], 2048);
    expect(known(unstated(normalPage(0, page, 'ram'), zeroPage(4096)))).toEqual([4096, 'pages']);
  });

  it('is assumed to be 4 KiB if a few zero pages are not enough', () => {
    expect(known(unstated(...zeros(4096, 10)))).toEqual([4096, 'assumed']);
    expect(known(unstated())).toEqual([4096, 'assumed']);
  });

  it('is not found from zero pages at irregular distances', () => {
    const pages = Array.from({ length: 100 }, (_, i) =>
      zeroPage(i * 8192 + (i % 7 === 3 ? 4096 : 0), i === 0 ? 'ram' : undefined),
    );
    expect(known(unstated(...pages))).toEqual([4096, 'assumed']);
  });

  it('is found with guest addresses and without footers, but not after unknown records', () => {
    const pages = [normalPage(0, filled(1, 8192), 'ram'), zeroPage(8192), EOS];
    const shared = join(
      header,
      configuration('none', capabilities('x-ignore-shared')),
      start(7, 'ram', 4, blockList(['ram', RAM, u64(0)]), EOS),
      part(7, ...pages),
      ramEnd,
      EOF,
    );
    expect(known(shared)).toEqual([8192, 'pages']);
    const noFooters = join(
      header,
      configuration('none'),
      bare.start(7, 'ram', 4, blockList(['ram', RAM]), EOS),
      bare.part(7, ...pages),
      bare.end(7, EOS),
      EOF,
    );
    expect(known(noFooters)).toEqual([8192, 'pages']);
    const multifd = join(
      header,
      configuration('none'),
      start(7, 'ram', 4, blockList(['ram', RAM]), FLUSH, EOS),
      part(7, ...zeros(8192, 100), EOS),
      ramEnd,
      EOF,
    );
    expect(known(multifd)).toEqual([4096, 'assumed']);
  });

  it('follows from the advice in postcopy', () => {
    const stream = join(
      header,
      configuration('none'),
      command(3, u64(8192), u64(8192)),
      start(7, 'ram', 4, blockList(['ram', RAM]), EOS),
      ramEnd,
      EOF,
    );
    expect(known(stream)).toEqual([8192, 'stream']);
  });

  it('follows from machines of only one target', () => {
    const sparc = join(header, configuration('sun4u'), start(7, 'ram', 4, blockList(['ram', RAM]), EOS), ramEnd, EOF);
    expect(known(sparc)).toEqual([8192, 'machine']);
    expect(
      [
        'pc-i440fx-7.2',
        'pc-q35-10.0',
        'pseries-7.2',
        's390-ccw-virtio-10.0',
        'clipper',
        'virt-10.0',
        'none',
        'pcx',
      ].map(pageSizeOfMachine),
    ).toEqual([4096, 4096, 4096, 4096, 8192, undefined, undefined, undefined]);
  });
});
