/**
 * Large files: a 64 GiB sparse mapped-ram file, and a stream of random pages, within the design's memory limit: 200
 * MiB, plus one byte per page of the guest. VMFERRY_LARGE_GIB sets the size of the stream.
 */
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, createReadStream, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadKernel, MappedRamStore, NodeFile, PageBatch, PageKind, PageSlots } from '../../src/node.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeBlockEntry, encodeEos, encodeMemSize } from '../../src/wire/ram-section.ts';
import { encodeFooter, encodeSectionHead } from '../../src/wire/section.ts';
import { allCases } from '../limits.ts';
import { type CliResult, expectPeakMemory, runCli } from '../run-cli.ts';

const pageSize = 4096;
const MiB = 2 ** 20;
const GiB = 2 ** 30;
const streamBytes = Number(process.env.VMFERRY_LARGE_GIB ?? (allCases ? 4 : 0.25)) * GiB;

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'vmferry-large-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function expectWithinMemory(result: CliResult, ramBytes: number): void {
  expectPeakMemory(result, 200 * MiB + ramBytes / pageSize);
}

/** Runs the command line and prints its time and memory. */
async function measure(what: string, args: string[]): Promise<CliResult> {
  const started = performance.now();
  const result = await runCli(args, undefined, { alone: true });
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  const peak = result.peakMemory === undefined ? 'unknown' : `${(result.peakMemory / MiB).toFixed(0)} MiB`;
  console.log(`${what}: ${seconds} s, peak memory ${peak}`);
  return result;
}

it('a 64 GiB sparse mapped-ram file is inspected, mapped, verified, searched and read', async () => {
  const usedLength = 64 * GiB;
  const path = join(directory, 'sparse.mapped-ram');
  const kernel = await loadKernel({ arenaBytes: 4 * MiB });
  const batch = new PageBatch(kernel, 1024);
  const output = new NodeFile(openSync(path, 'w+'), path, 0);
  const store = new MappedRamStore(output, new PageSlots(kernel, 1024));
  const block = await store.addBlock({ index: 0, idstr: 'pc.ram', usedLength, pageSize });
  const data = kernel.allocate(pageSize);
  kernel.bytes.fill(0x5a, data, data + pageSize);
  for (let i = 0; i < batch.capacity; i++) {
    batch.kind[i] = PageKind.data;
    batch.page[i] = i * 16384 + (i % 7);
    batch.data[i] = data;
    batch.length[i] = pageSize;
  }
  batch.count = batch.capacity;
  await store.apply(block, batch);
  await store.finish([], undefined);
  await output.close();
  expect(statSync(path).blocks * 512).toBeLessThan(64 * MiB);

  const inspected = await measure('inspect of 64 GiB, sparse', ['inspect', '--json', path]);
  const inspection = JSON.parse(inspected.stdout);
  expect(inspection.complete).toBe(true);
  expect(inspection.ram.blocks[0].pages).toMatchObject({ zero: usedLength / pageSize - 1024, normal: 1024 });
  expectWithinMemory(inspected, usedLength);

  const mapped = await measure('inspect --pages', ['inspect', '--pages', path]);
  expect(mapped.stdout).toMatch(/▒/);
  expectWithinMemory(mapped, usedLength);

  const verified = await measure('verify', ['verify', '--json', path]);
  expect(JSON.parse(verified.stdout)).toMatchObject({ ok: true, ramBytes: usedLength });
  expectWithinMemory(verified, usedLength);

  // The pages with data, and the bytes at their edges, in holes of 64 MiB.
  for (const [pattern, count] of [
    ['5a'.repeat(64), 1024 * 64],
    ['00 00 5a', 1023],
    ['5a 00 00', 1024],
  ] as const) {
    const searched = await measure('search', ['search', path, '--count', '--hex', pattern]);
    expect(searched.stdout).toBe(`${count}\n`);
    expectWithinMemory(searched, usedLength);
  }
  const matched = await measure('search --regex', ['search', path, '--count', '--regex', '\\x00Z+']);
  expect(matched.stdout).toBe('1023\n');
  expectWithinMemory(matched, usedLength);

  // Two lines per page, two per hole, and the end.
  const read = await measure('read', ['read', path, '--length', '64G']);
  expect(read.stdout.match(/ 5a 5a /g)).not.toBeNull();
  expect(read.stdout.trimEnd().split('\n')).toHaveLength(4 * 1024 + 1);
  expectWithinMemory(read, usedLength);
});

/** Writes a stream of random pages, in one pass, and returns the sha256 of its RAM. */
function writeRandomStream(path: string): string {
  const fd = openSync(path, 'w');
  const hash = createHash('sha256');
  const id = 7;
  const head = new ByteWriter().u32(0x5145564d).u32(3).u8(7).u32(4).text('none');
  encodeSectionHead(head, { kind: 'start', id, name: 'ram', instanceId: 0, versionId: 4 });
  encodeMemSize(head, streamBytes);
  encodeBlockEntry(head, 'ram', streamBytes);
  encodeEos(head);
  encodeFooter(head, id);
  encodeSectionHead(head, { kind: 'part', id });
  writeSync(fd, head.bytes());

  // Each page is a piece of a pool of random bytes preceded by the page's number, so no two are equal.
  const pool = randomBytes(32 * MiB);
  const perWrite = 1024;
  const buffer = Buffer.alloc(perWrite * (8 + 4 + pageSize));
  const pages = streamBytes / pageSize;
  for (let first = 0; first < pages; first += perWrite) {
    let at = 0;
    for (let page = first; page < Math.min(pages, first + perWrite); page++) {
      const isFirst = page === 0;
      at = buffer.writeBigUInt64BE(BigInt(page * pageSize) | (isFirst ? 0x08n : 0x28n), at);
      if (isFirst) at += buffer.write('\x03ram', at, 'latin1');
      const from = (page * 4099) % (pool.length - pageSize);
      pool.copy(buffer, at, from, from + pageSize);
      buffer.writeUInt32BE(page, at);
      hash.update(buffer.subarray(at, at + pageSize));
      at += pageSize;
    }
    writeSync(fd, buffer, 0, at);
  }

  const tail = new ByteWriter();
  encodeEos(tail);
  encodeFooter(tail, id);
  encodeSectionHead(tail, { kind: 'end', id });
  encodeEos(tail);
  encodeFooter(tail, id);
  tail.u8(0);
  writeSync(fd, tail.bytes());
  closeSync(fd);
  return hash.digest('hex');
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: MiB })) hash.update(chunk);
  return hash.digest('hex');
}

it(`a ${streamBytes / GiB} GiB stream of random pages is verified, searched and extracted`, async () => {
  const path = join(directory, 'random.stream');
  const expected = writeRandomStream(path);
  const name = `of ${streamBytes / GiB} GiB of random pages`;

  const verified = await measure(`verify ${name}`, ['verify', '--json', path]);
  expect(JSON.parse(verified.stdout)).toMatchObject({ ok: true, pageRecords: streamBytes / pageSize });
  expectWithinMemory(verified, streamBytes);

  // The page numbers at the start of these pages.
  const searched = await measure(`search ${name}`, ['search', path, '--json', '--hex', '00 00 12 34 ?? ??', '-C', '4']);
  const found = searched.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).offset);
  expect(found).toContain(0x1234 * pageSize);
  expectWithinMemory(searched, streamBytes);

  const output = join(directory, 'ram.raw');
  const extracted = await measure(`extract ${name}`, ['extract', path, '--block', 'ram', '-o', output]);
  expect(extracted.code).toBe(0);
  expectWithinMemory(extracted, streamBytes);
  expect(statSync(output).size).toBe(streamBytes);
  expect(await hashFile(output)).toBe(expected);
});
