/** Core files with virtual addresses: each address that the QEMU's CPU saw has its bytes (test/qemu/paging.test.ts). */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { MemoryFile } from '../../../../src/io/memory-file.ts';
import { extractElf, type MappedOptions } from '../../../../src/tasks/extract/physical.ts';
import { fixturePath } from '../../../fixture-files.ts';
import { opened } from '../../../support/opened.ts';
import { type DecodedCore, decodeCore } from './decode-core.ts';

const nameOf = (name: string) => fixturePath(`paging/${name}`);

async function coreOf(name: string, paging?: MappedOptions): Promise<{ bytes: Uint8Array; core: DecodedCore }> {
  const file = await opened(gunzipSync(readFileSync(nameOf(`${name}.bin.gz`))), 'file');
  const output = new MemoryFile('core');
  const makeScratch = () => new MemoryFile('scratch');
  const { length } = await extractElf(file, output, { makeScratch, ...(paging === undefined ? {} : { paging }) });
  const bytes = new Uint8Array(length);
  output.read(bytes, 0);
  return { bytes, core: decodeCore(bytes) };
}

describe.each([
  'x86-32',
  'x86-pae',
  'x86-64-7.2',
  'x86-64-10.0',
  'x86-64-la57',
  'aarch64-4k',
  'aarch64-64k',
  'riscv64-sv48',
])('%s', (name) => {
  it('has the memory of each virtual address', async () => {
    const { bytes, core } = await coreOf(name, {});
    const loads = core.segments.filter(({ type }) => type === 1);
    const { runs } = JSON.parse(readFileSync(nameOf(`${name}.json`), 'utf8')) as { runs: [string, number, string][] };
    for (const [from, length, sha256] of runs) {
      const digest = createHash('sha256');
      let at = BigInt(from);
      const end = at + BigInt(length);
      while (at < end) {
        const load = loads.find((each) => each.virtual <= at && at < each.virtual + BigInt(each.length));
        if (load === undefined) throw new Error(`nothing at 0x${at.toString(16)}`);
        const skipped = Number(at - load.virtual);
        const count = Math.min(load.length - skipped, Number(end - at));
        digest.update(bytes.subarray(load.offset + skipped, load.offset + skipped + count));
        at += BigInt(count);
      }
      expect(digest.digest('hex'), from).toBe(sha256);
    }
    const total = runs.reduce((sum, [, length]) => sum + length, 0);
    expect(loads.reduce((sum, { length }) => sum + length, 0)).toBe(total);
    const physical = loads.map((each) => each.physical);
    expect(physical).toEqual([...physical].sort((a, b) => a - b));
  });

  it('has the same memory and notes as the file without', async () => {
    const [paged, plain] = await Promise.all([coreOf(name, {}), coreOf(name)]);
    const [notes, first] = [paged, plain].map(({ core }) => core.segments[0]) as [Segment, Segment];
    expect(Buffer.from(paged.bytes.subarray(notes.offset)).equals(plain.bytes.subarray(first.offset))).toBe(true);
    expect(paged.core.notes).toEqual(plain.core.notes);
  });
});

type Segment = DecodedCore['segments'][number];

it('page tables of the caller replace those of the CPU, and a CPU must exist', async () => {
  const { core } = await coreOf('x86-64-10.0', { cr3: 0x40_0000n });
  expect(core.segments.filter(({ type }) => type === 1)).toEqual([]);
  await expect(coreOf('x86-64-10.0', { cpu: 2 })).rejects.toThrow('expected a CPU from 0 to 0, got 2');
});
