import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { widen } from '../../../src/tasks/search/finder.ts';
import { hexPattern, type SearchPattern, textPattern } from '../../../src/tasks/search/pattern.ts';
import { countMatches, type Match, type MatchOptions, Searcher, search } from '../../../src/tasks/search/search.ts';
import { variants } from '../../kernel/arena.ts';
import {
  blockList,
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
  part,
  start,
  zeroPage,
} from '../../oracle/build.ts';
import { kindsOfSource, opened } from '../../support/opened.ts';
import { PlainRam, plainSearch } from '../../support/plain-ram.ts';
import { mappedRamFile } from '../../wire/mapped-ram-file.ts';

const makeScratch = () => new MemoryFile('scratch');
const bytesOf = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'));

async function searchRam(
  ram: PlainRam,
  patterns: SearchPattern | SearchPattern[],
  options: MatchOptions = {},
): Promise<Match[]> {
  const searcher = await Searcher.make(patterns, options);
  const found: Match[] = [];
  for await (const matches of searcher.search(ram, ram.block)) found.push(...matches);
  expect(await searcher.count(ram, ram.block)).toBe(found.length);
  return found;
}

const places = (matches: Match[]) => matches.map(({ offset, bytes }) => ({ offset, length: bytes.length }));

/** Content of small pages: holes of any length, and pages with few different bytes. */
const content = (pageSize: number, maxPages: number) =>
  fc
    .array(
      fc.oneof(
        fc.integer({ min: 1, max: maxPages }).map((pages) => new Uint8Array(pages * pageSize)),
        fc.array(fc.constantFrom(0, 0, 1, 0x41, 0x61, 0x62, 0x0a), { minLength: pageSize, maxLength: pageSize }),
      ),
      { minLength: 1, maxLength: 20 },
    )
    .map((pages) => Uint8Array.from(pages.flatMap((page) => [...page])));

describe.each(variants)('searching (%s)', (variant) => {
  it('finds what the plainest search finds, for any pages, pieces and patterns', async () => {
    const symbol = fc.constantFrom(0, 1, 0x41, 0x61, 0x62);
    const pattern = fc
      .array(fc.record({ value: symbol, mask: fc.constantFrom(0xff, 0xff, 0xff, 0xdf, 0) }), {
        minLength: 1,
        maxLength: 40,
      })
      .filter((list) => list.some(({ mask }) => mask !== 0))
      .map((list) => ({
        values: Uint8Array.from(list, ({ value }) => value),
        masks: Uint8Array.from(list, ({ mask }) => mask),
      }));
    const cutOut = fc.record({ at: fc.nat(), length: fc.integer({ min: 1, max: 40 }) });
    await fc.assert(
      fc.asyncProperty(
        content(16, 30),
        fc.oneof(pattern, cutOut),
        fc.constantFrom(16, 48, 64, 1024),
        async (bytes, wanted, bodyBytes) => {
          const pieceOf = ({ at, length }: { at: number; length: number }) =>
            bytes.slice(at % bytes.length, (at % bytes.length) + length);
          const actual = 'at' in wanted ? pieceOf(wanted) : wanted;
          const found = await searchRam(new PlainRam(bytes, 16), actual, { bodyBytes, variant });
          expect(places(found)).toEqual(plainSearch(bytes, actual));
        },
      ),
      { seed: 3, numRuns: 300 },
    );
  });

  it('finds what the plainest search finds for expressions, with and without a common beginning', async () => {
    const pages = fc.array(
      fc.record({
        page: fc.nat(59),
        text: fc.constantFrom('abab', 'aAb\na', 'a'.repeat(20), '\x80ab\xff', 'b\na'),
        at: fc.nat(2000),
      }),
      { maxLength: 12 },
    );
    const regexes = [
      /ab/,
      /ab\d*/i,
      /^a/m,
      /a$/m,
      /\bab/,
      /(?<=a)b/,
      /[^\0]{5}/,
      /\x80.*/,
      /^\0{3}a/,
      /\0$/,
      /a.*b/s,
      /a*/,
      /aa|b/,
      /\xff\0/,
    ];
    await fc.assert(
      fc.asyncProperty(
        pages,
        fc.constantFrom(...regexes),
        fc.constantFrom(2048, 6144, 65536),
        async (list, regex, bodyBytes) => {
          const bytes = new Uint8Array(60 * 2048);
          for (const { page, text, at } of list) bytes.set(bytesOf(text).subarray(0, 2048 - at), page * 2048 + at);
          const found = await searchRam(new PlainRam(bytes, 2048), regex, { bodyBytes, variant });
          expect(places(found)).toEqual(plainSearch(bytes, regex));
        },
      ),
      { seed: 4, numRuns: 40 },
    );
  });
});

describe('a search', () => {
  const needle = bytesOf('needle');

  it('finds a pattern at every position around the boundaries of pages, pieces and holes', async () => {
    for (let at = 3 * 1024 - 8; at <= 3 * 1024 + 2; at++) {
      for (const around of [0, 0x2e]) {
        const bytes = new Uint8Array(64 * 1024);
        bytes.fill(around, 2048, 4096);
        bytes.set(needle, at);
        const ram = new PlainRam(bytes, 1024);
        expect(places(await searchRam(ram, needle, { bodyBytes: 1024 }))).toEqual([{ offset: at, length: 6 }]);
      }
    }
  });

  it('treats the zeros of holes as content, at their edges and inside', async () => {
    const bytes = new Uint8Array(300 * 1024);
    bytes.set(needle, 100 * 1024);
    bytes.set(needle, 200 * 1024 - 6);
    const ram = new PlainRam(bytes, 1024);
    expect(places(await searchRam(ram, hexPattern('00 00 6e 65')))).toEqual([
      { offset: 100 * 1024 - 2, length: 4 },
      { offset: 200 * 1024 - 8, length: 4 },
    ]);
    expect(places(await searchRam(ram, hexPattern('6c 65 00 00 00')))).toHaveLength(2);
    expect(await searchRam(ram, new Uint8Array(1024))).toHaveLength(100 + 99 + 100);
  });

  it('skips holes that cannot match', async () => {
    const bytes = new Uint8Array(8 << 20);
    bytes.set(needle, 4 << 20);
    const ram = new PlainRam(bytes, 4096);
    expect(await searchRam(ram, ['needle', /needles?/], { bodyBytes: 65536 })).toHaveLength(2);
    expect(ram.pagesRead).toBeLessThan(50);
  });

  it('finds matches without overlaps', async () => {
    const bytes = new Uint8Array(1024).fill(0x61, 0, 7);
    expect(places(await searchRam(new PlainRam(bytes, 1024), 'aaa'))).toEqual([
      { offset: 0, length: 3 },
      { offset: 3, length: 3 },
    ]);
  });

  it('for several patterns finds each independently, in order', async () => {
    const bytes = new Uint8Array(4096);
    bytes.set(bytesOf('xabcab'), 1000);
    const found = await searchRam(new PlainRam(bytes, 1024), ['bc', 'abc', /ab/]);
    expect(found.map(({ offset, pattern }) => [offset, pattern])).toEqual([
      [1001, 1],
      [1001, 2],
      [1002, 0],
      [1004, 2],
    ]);
  });

  it('ignores case, and finds UTF-16', async () => {
    const bytes = new Uint8Array(4096);
    bytes.set(bytesOf('PassWord'), 10);
    bytes.set(Buffer.from('PassWord', 'utf16le'), 1020);
    const ram = new PlainRam(bytes, 1024);
    expect(await searchRam(ram, textPattern('password'))).toEqual([]);
    expect(places(await searchRam(ram, textPattern('password', { ignoreCase: true })))).toEqual([
      { offset: 10, length: 8 },
    ]);
    const wide = textPattern('password', { ignoreCase: true, encoding: 'utf-16le' });
    expect(places(await searchRam(ram, wide))).toEqual([{ offset: 1020, length: 16 }]);
  });

  it('returns bytes and context, with less context at the ends of a block', async () => {
    const bytes = new Uint8Array(2048).fill(0x2e);
    bytes.set(needle, 2);
    bytes.set(needle, 2048 - 9);
    const found = await searchRam(new PlainRam(bytes, 1024), needle, { before: 5, after: 4, bodyBytes: 1024 });
    expect(
      found.map(({ before, bytes: own, after }) => [before, own, after].map((each) => Buffer.from(each).toString())),
    ).toEqual([
      ['..', 'needle', '....'],
      ['.....', 'needle', '...'],
    ]);
  });

  it('cuts the match of an expression at 4,096 bytes', async () => {
    const bytes = new Uint8Array(200 * 1024).fill(0x61);
    const found = await searchRam(new PlainRam(bytes, 1024), /a+/);
    expect(found).toHaveLength(50);
    expect(found.every(({ bytes: own }) => own.length === 4096)).toBe(true);
  });

  it('for text in bytes treats each byte as a character', () => {
    const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    expect(widen()(all)).toBe(Buffer.from(all).toString('latin1'));
  });

  it('refuses invalid patterns, too many patterns, and impossible contexts', async () => {
    await expect(Searcher.make([])).rejects.toThrow(/expected 1 to 1000 patterns, got 0/);
    await expect(Searcher.make(new Array(1001).fill('a'))).rejects.toThrow(/got 1001/);
    await expect(Searcher.make('')).rejects.toThrow(RangeError);
    await expect(Searcher.make('a', { before: 4097 })).rejects.toThrow(/before: expected 0 to 4096/);
    await expect(Searcher.make('a', { after: -1 })).rejects.toThrow(/after: /);
    await expect(Searcher.make('a', { bodyBytes: 0 })).rejects.toThrow(/bodyBytes: /);
    await expect(searchRam(new PlainRam(new Uint8Array(4096), 4096), 'a', { bodyBytes: 4095 })).rejects.toThrow(
      /at least a page of 4096 bytes/,
    );
  });
});

describe.each(kindsOfSource)('searching a %s', (kind) => {
  const edge = filled(0x2e);
  edge.set(bytesOf('need'), KIB4 - 4);
  const next = filled(0x2e);
  next.set(bytesOf('le'));
  const stream = join(
    none,
    start(7, 'ram', 4, blockList(['pc.ram', 64 * KIB4], ['rom', 2 * KIB4]), EOS),
    part(
      7,
      normalPage(5 * KIB4, edge, 'pc.ram'),
      normalPage(6 * KIB4, edge),
      normalPage(63 * KIB4, edge),
      normalPage(0, next, 'rom'),
      EOS,
    ),
    part(7, normalPage(6 * KIB4, next, 'pc.ram'), zeroPage(7 * KIB4), EOS),
    end(7, EOS),
    EOF,
  );
  const withDelta = join(
    stream.subarray(0, -(end(7, EOS).length + 1)),
    end(7, deltaPage(20 * KIB4, hex('0a066e6565646c65'), 'pc.ram'), EOS),
    EOF,
  );

  const found = async (bytes: Uint8Array, pattern: SearchPattern, only?: string) => {
    const options = {
      makeScratch,
      ...(only === undefined ? {} : { only: ({ idstr }: { idstr: string }) => idstr === only }),
    };
    const all: [string, number][] = [];
    for await (const { block, offset } of search(await opened(bytes, kind), pattern, options))
      all.push([block.idstr, offset]);
    expect(await countMatches(await opened(bytes, kind), pattern, options)).toBe(all.length);
    return all;
  };

  it('finds the last content, across pages but not across blocks', async () => {
    expect(await found(stream, 'needle')).toEqual([['pc.ram', 6 * KIB4 - 4]]);
    expect(await found(stream, 'need')).toEqual([
      ['pc.ram', 6 * KIB4 - 4],
      ['pc.ram', 64 * KIB4 - 4],
    ]);
    expect(await found(stream, 'le', 'rom')).toEqual([['rom', 0]]);
  });

  it('finds content from a delta', async () => {
    expect(await found(withDelta, 'needle')).toEqual([
      ['pc.ram', 6 * KIB4 - 4],
      ['pc.ram', 20 * KIB4 + 10],
    ]);
  });

  it('in a mapped-ram file finds the pages whose bits are set', async () => {
    const file = mappedRamFile();
    expect(await found(file, Uint8Array.of(1, 1, 0))).toEqual([['a', KIB4 - 2]]);
    expect(await found(file, Uint8Array.of(0, 3))).toEqual([['a', 2 * KIB4 - 1]]);
  });

  it('reports a bad file', async () => {
    await expect(found(stream.subarray(0, -1), 'needle')).rejects.toMatchObject({ code: 'truncated' });
  });
});
