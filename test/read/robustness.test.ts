/** Files that are unusual, or change while they are read. */
import { ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { extractBlocks, MemoryFile, NodeFile, open, openRamContent, readBytes, verify } from '../../src/node.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize } from '../../src/wire/ram-section.ts';
import { encodeFooter, encodeSectionHead } from '../../src/wire/section.ts';
import { loadFixtures } from '../fixture-files.ts';
import { slowRead } from '../oracle/slow-reader.ts';

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-robust-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const ramHead = { id: 1, name: 'ram', instanceId: 0, versionId: 4 };

/** A stream whose RAM is in one FULL section, or in none at all. */
function streamWith(ram: 'full' | 'none'): Uint8Array {
  const out = new ByteWriter().u32(0x5145564d).u32(3);
  if (ram === 'full') {
    encodeSectionHead(out, { kind: 'full', ...ramHead });
    encodeMemSize(out, 8192);
    encodeBlockEntry(out, 'ram', 8192);
    out.u64(0x1008n).string('ram').raw(new Uint8Array(4096).fill(0x42));
    encodeEos(out);
    encodeFooter(out, 1);
  }
  return out.u8(0).bytes().slice();
}

it('reads a FULL section of RAM as QEMU does', async () => {
  const bytes = streamWith('full');
  const output = new MemoryFile();
  const blocks = await extractBlocks(await open(bytes), () => output);
  expect(blocks).toEqual([{ idstr: 'ram', length: 8192, dataBytes: 4096, absentPages: 1 }]);
  const content = new Uint8Array(8192);
  output.read(content, 0);
  expect(content).toEqual(slowRead(bytes).blocks[0]?.content);
});

it('finds no blocks in a stream without RAM', async () => {
  expect(await extractBlocks(await open(streamWith('none')), () => new MemoryFile())).toEqual([]);
});

it('gives the list of blocks before it reads their pages', async () => {
  const file = await open(streamWith('full'));
  const stop = new Error('enough');
  let names: string[] = [];
  const extracting = extractBlocks(
    file,
    () => undefined,
    (blocks) => {
      names = blocks.map(({ idstr }) => idstr);
      throw stop;
    },
  );
  await expect(extracting).rejects.toBe(stop);
  expect(names).toEqual(['ram']);
});

const mappedBytes = loadFixtures().find(({ name }) => name === 'pc-mapped-ram-multifd-10.0')?.bytes ?? new Uint8Array();

it('refuses pages beyond the block', async () => {
  for (const bytes of [mappedBytes, streamWith('full')]) {
    const ram = await openRamContent(await open(bytes), { makeScratch: () => new MemoryFile() });
    const [block] = ram.blocks;
    if (block === undefined) throw new Error('there is no block');
    const pages = block.usedLength / 4096;
    for (const [page, length] of [
      [pages, 4096],
      [pages - 1, 8192],
      [-1, 4096],
      [0, 100],
      [0.5, 4096],
    ] as const) {
      const reading = (async () => ram.read(block, page, new Uint8Array(length)))();
      await expect(reading).rejects.toThrow(RangeError);
    }
  }
});

it('reports a file that became shorter, instead of zeros', async () => {
  const path = join(directory, 'shrinks');
  writeFileSync(path, mappedBytes);
  const fd = openSync(path, 'r+');
  const source = new NodeFile(fd, path, mappedBytes.length);
  const ram = await openRamContent(await open(source), { makeScratch: () => new MemoryFile() });
  ftruncateSync(fd, 1 << 20);
  const reading = (async () => {
    for (const block of ram.blocks) for await (const _ of readBytes(ram, block));
  })();
  await expect(reading).rejects.toMatchObject({ code: 'truncated', place: { source: path } });
  await source.close();
});

it('counts bytes appended after opening as trailing data', async () => {
  const path = join(directory, 'grows');
  const bytes = streamWith('full');
  writeFileSync(path, bytes);
  const source = new NodeFile(openSync(path, 'r+'), path, bytes.length - 1);
  source.write(new Uint8Array(100).fill(1), bytes.length);
  const { ok, findings } = await verify(await open(source));
  expect(ok).toBe(true);
  expect(findings.find(({ code }) => code === 'trailing-data')?.message).toMatch(/^100 bytes follow/);
  await source.close();
});
