import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { open } from '../../src/index.ts';
import { MemoryFile } from '../../src/io/memory-file.ts';
import { openSavedVm } from '../../src/store/ram-content.ts';
import { RawRam } from '../../src/store/raw-ram.ts';
import { verify } from '../../src/tasks/inspect/verify.ts';
import { writeMappedRam } from '../../src/write/write-mapped-ram.ts';
import { slowRead } from '../oracle/slow-reader.ts';
import { RecordingFile } from '../support/recording-file.ts';

const machine = { machine: 'none', capabilities: [] };
const timer = {
  kind: 'full' as const,
  id: 9,
  name: 'timer',
  instanceId: 0,
  versionId: 1,
  data: Uint8Array.of(1, 2, 3),
};

/** Blocks with pages of one repeated byte, many of them zero. */
const guests = fc.constantFrom(1024, 4096, 16384).chain((pageSize) =>
  fc.record({
    pageSize: fc.constant(pageSize),
    offset: fc.constantFrom(0, 1, 12345),
    blocks: fc
      .uniqueArray(
        fc.record({
          idstr: fc.oneof(fc.constant('pc.ram'), fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' })),
          pages: fc.array(fc.constantFrom(0, 0, 1, 2, 255), { maxLength: 150 }),
        }),
        { minLength: 1, maxLength: 3, selector: ({ idstr }) => idstr },
      )
      .filter((blocks) => blocks.at(-1)?.pages.length !== 0),
  }),
);

const imageOf = (pages: readonly number[], pageSize: number) =>
  Uint8Array.from({ length: pages.length * pageSize }, (_, i) => pages[Math.floor(i / pageSize)] as number);

const ramOf = (bytes: number) => new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', new Uint8Array(bytes)) }]);

describe('a mapped-ram file written from a VM', () => {
  it('has the same blocks, pages and devices for two readers, and holes for zeros', async () => {
    await fc.assert(
      fc.asyncProperty(guests, async ({ pageSize, offset, blocks }) => {
        const ram = new RawRam(
          blocks.map(({ idstr, pages }) => ({ idstr, source: new MemoryFile(idstr, imageOf(pages, pageSize)) })),
          pageSize,
        );
        const configuration = { ...machine, targetPageBits: Math.log2(pageSize) };
        const output = new RecordingFile();
        const front = new Uint8Array(offset).fill(0x5a);
        if (offset > 0) output.write(front, 0);
        const written = await writeMappedRam({ configuration, ram, devices: [timer] }, output, { offset });
        const bytes = output.content();
        expect(bytes.subarray(0, offset)).toEqual(front);
        expect(written.blocks.map(({ dataPages, zeroPages }) => [dataPages, zeroPages])).toEqual(
          blocks.map(({ pages }) => [
            pages.filter((page) => page > 0).length,
            pages.filter((page) => page === 0).length,
          ]),
        );
        for (const [i, { pages }] of blocks.entries()) {
          const origin = written.store.blocks[i]?.mapped?.pagesOffset as number;
          expect(origin % (1 << 20)).toBe(0);
          const isWritten = (page: number) =>
            output.writes.some(({ position, length }) => {
              const at = origin + page * pageSize;
              return position < at + pageSize && position + length > at;
            });
          expect(pages.map((_, page) => isWritten(page))).toEqual(pages.map((byte) => byte > 0));
        }
        const verification = await verify(await open(bytes, { offset }));
        expect([verification.ok, verification.findings.filter(({ code }) => code !== 'description-missing')]).toEqual([
          true,
          [],
        ]);
        const slow = slowRead(bytes, offset);
        expect(slow.sections.at(-1)).toMatchObject({ name: 'timer', sectionId: 9 });
        expect(slow.blocks.map(({ idstr }) => idstr)).toEqual(blocks.map(({ idstr }) => idstr));
        for (const [i, { content }] of slow.blocks.entries()) {
          const expected = imageOf(blocks[i]?.pages ?? [], pageSize);
          expect(Buffer.compare(content, expected), `content of block ${i}`).toBe(0);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('has any number of consecutive zero pages', async () => {
    const pages = 10_000;
    const image = new Uint8Array(pages * 1024);
    image[image.length - 1] = 7;
    const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }], 1024);
    const output = new MemoryFile();
    const configuration = { ...machine, targetPageBits: 10 };
    const { blocks } = await writeMappedRam({ configuration, ram }, output);
    expect(blocks[0]).toMatchObject({ dataPages: 1, zeroPages: pages - 1 });
    // A content that knows where its data is gives zero pages by the thousand.
    const vm = await openSavedVm(await open(output), { makeScratch: () => new MemoryFile() });
    const again = new MemoryFile();
    expect((await writeMappedRam(vm, again)).blocks[0]).toMatchObject({ dataPages: 1, zeroPages: pages - 1 });
    expect((await verify(await open(again))).ok).toBe(true);
  });

  it('is not complete before it is finished, even in place of a complete file', async () => {
    const write = (value: number, file: MemoryFile) => {
      const source = new MemoryFile('ram', new Uint8Array(3 << 20).fill(value, 1 << 20));
      const ram = new RawRam([{ idstr: 'ram', source }]);
      return writeMappedRam({ configuration: machine, ram, devices: [timer] }, file, { offset: 4096 });
    };
    let unfinished = 0;
    for (let most = 1; ; most++) {
      const file = new RecordingFile();
      await write(1, file);
      const before = file.content();
      const all = file.write.bind(file);
      let writes = 0;
      file.write = (bytes, position) => {
        if (++writes < most) return all(bytes, position);
        all(bytes.subarray(0, bytes.length >> 1), position);
        throw new Error('no room');
      };
      const written = await write(2, file).catch((error: Error) => error.message);
      if (written !== 'no room') break;
      const isOld = Buffer.compare(file.content(), before) === 0;
      const { ok } = await verify(await open(file, { offset: 4096 }));
      expect(ok, `after write ${most}`).toBe(isOld);
      unfinished++;
    }
    expect(unfinished).toBeGreaterThanOrEqual(5);
  });

  it('refuses an impossible offset', async () => {
    for (const offset of [-1, 1.5, Number.NaN]) {
      const writing = writeMappedRam({ configuration: machine, ram: ramOf(4096) }, new MemoryFile(), { offset });
      await expect(writing).rejects.toThrow(`expected an offset in bytes, got ${offset}`);
    }
  });

  it.each<[string, object, RegExp]>([
    ['a VM without a configuration', { configuration: undefined }, /expected a VM with a configuration/],
    [
      'a block whose content was left out',
      { ignored: [{ index: 0, idstr: 'ram', usedLength: 4096, pageSize: 4096 }] },
      /content of RAM block "ram", which was left out/,
    ],
    ['an empty block as the last', { ram: ramOf(0) }, /does not end with an empty one \("ram"\)/],
  ])('is refused for %s', async (_, change, message) => {
    const ram = ramOf(4096);
    const vm = { configuration: machine, ram, ...change };
    await expect(writeMappedRam(vm, new MemoryFile())).rejects.toThrow(message);
  });
});
