/**
 * What tasks fetch from a web server: at most 1.05 times the bytes that they need and 1 MiB, and in sequential work at
 * most one request per 8 MiB. The files are written by this library: 176 MiB of RAM, most of it data in runs with short and
 * long gaps between them.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendTo,
  diff,
  extractBlocks,
  inspect,
  type MigrationFile,
  pageCount,
  type RamBlock,
  type RamReader,
  readRam,
  search,
  verify,
  writeMappedRam,
  writeMultifd,
  writeStream,
} from '../../src/index.ts';
import { OutputFile, open, openScratch } from '../../src/node.ts';
import { CountingServer } from './counting-server.ts';

const MIB = 1 << 20;
const pageSize = 4096;

/** Lengths in pages of the runs of data, and of the gaps after them. The gaps of up to 40 pages are worth reading. */
const runs = [2100, 900, 3000, 4000];
const gaps = [3, 1500, 40, 2300];

const ramPages = 40_960;
const blocks: RamBlock[] = [
  { index: 0, idstr: 'pc.ram', usedLength: ramPages * pageSize, pageSize },
  { index: 1, idstr: 'vga.vram', usedLength: 16 * MIB, pageSize },
  { index: 2, idstr: '/rom@etc/acpi/tables', usedLength: 128 * 1024, pageSize },
];

const isData = pagesOf((page, data) => data.add(page));
const dataPages = isData.size;
const dataBytes = dataPages * pageSize;

function pagesOf(take: (page: number, data: Set<number>) => void): Set<number> {
  const data = new Set<number>();
  for (let page = 0, i = 0; page < ramPages; i++) {
    const end = Math.min(ramPages, page + (runs[i % runs.length] as number));
    for (; page < end; page++) take(page, data);
    page += gaps[i % gaps.length] as number;
  }
  return data;
}

/** The guest: pages of `pc.ram` have their number in each word, all others are zero. `changed` has another number. */
class PatternRam implements RamReader {
  readonly blocks = blocks;
  readonly #changed: number | undefined;

  constructor(changed?: number) {
    this.#changed = changed;
  }

  state(block: RamBlock, page: number): 'data' | 'zero' {
    return block.index === 0 && isData.has(page) ? 'data' : 'zero';
  }

  async read(block: RamBlock, page: number, target: Uint8Array): Promise<void> {
    const words = new Uint32Array(target.length / 4);
    for (let i = 0; i < target.length / pageSize; i++) {
      const word = this.state(block, page + i) === 'data' ? page + i + 1 : 0;
      words.fill(page + i === this.#changed ? ~word : word, i * 1024, (i + 1) * 1024);
    }
    target.set(new Uint8Array(words.buffer));
  }

  async nextData(block: RamBlock, page: number, limit: number): Promise<{ first: number; end: number }> {
    const pages = pageCount(block);
    let first = page;
    while (first < pages && this.state(block, first) === 'zero') first++;
    let end = first;
    while (end < pages && end - first < limit && this.state(block, end) === 'data') end++;
    return { first, end };
  }

  async close(): Promise<void> {}
}

const vm = (changed?: number) => ({
  configuration: { machine: 'none', capabilities: [] },
  ram: new PatternRam(changed),
  devices: [],
  description: { text: '{"page_size":4096,"devices":[]}' },
});

let folder: string;
let server: CountingServer;
const names = ['mapped-ram', 'other.mapped-ram', 'stream', 'multifd', 'multifd.0', 'multifd.1'];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vmferry-http-'));
  const outputs = names.map((name) => new OutputFile(join(folder, name)));
  const [mapped, other, stream, ...set] = outputs.map(({ file }) => file);
  await writeMappedRam(vm(), mapped as typeof mapped & object);
  await writeMappedRam(vm(5000), other as typeof other & object);
  await writeStream(vm(), appendTo(stream as typeof stream & object));
  const [main, ...channels] = set.map((file) => appendTo(file));
  await writeMultifd(vm(), main as typeof main & object, channels);
  for (const output of outputs) await output.commit();
  server = await CountingServer.start(Object.fromEntries(names.map((name) => [name, join(folder, name)])));
});

afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

const makeScratch = () => openScratch(folder);
const channels = ['multifd.0', 'multifd.1'];

async function cost(name: string, task: (file: MigrationFile) => Promise<void>) {
  server.take();
  const file = await open(
    server.url(name),
    name === 'multifd' ? { channels: channels.map((each) => server.url(each)) } : {},
  );
  try {
    await task(file);
  } finally {
    await file.close();
  }
  return server.take();
}

/** Fetched bytes and requests for what is read in order: `needed` bytes. */
function expectCheap({ bytes, requests }: { bytes: number; requests: number }, needed: number): void {
  expect(bytes).toBeLessThanOrEqual(1.05 * needed + MIB);
  expect(requests).toBeLessThanOrEqual(Math.ceil(needed / (8 * MIB)) + 8);
}

const tasks: Record<string, (file: MigrationFile) => Promise<void>> = {
  verify: async (file) => expect(await verify(file)).toMatchObject({ ok: true }),
  inspect: async (file) => {
    const { inspection } = await inspect(file);
    expect(inspection.complete).toBe(true);
    expect(inspection.ram.blocks[0]?.pages.normal).toBe(dataPages);
  },
  extract: async (file) => {
    const outputs: OutputFile[] = [];
    const extracted = await extractBlocks(file, ({ idstr }) => {
      const output = new OutputFile(join(folder, `raw-${idstr.replaceAll('/', '-')}`));
      outputs.push(output);
      return output.file;
    });
    for (const output of outputs) await output.abandon();
    expect(extracted[0]?.dataBytes).toBe(dataBytes);
  },
  search: async (file) => {
    const found: number[] = [];
    const word = new Uint8Array(Uint32Array.of(38_000, 38_000).buffer);
    for await (const { offset } of search(file, word, { makeScratch })) if (found.length < 2) found.push(offset);
    expect(found[0]).toBe(37_999 * pageSize);
  },
};

describe('the cost of a file on a server', () => {
  for (const [name, task] of Object.entries(tasks)) {
    it(`${name} of a mapped-ram file`, async () => {
      const used = await cost('mapped-ram', task);
      if (name === 'inspect') expect(used.bytes).toBeLessThan(MIB / 8);
      else expectCheap(used, dataBytes);
    });
    it(`${name} of a stream`, async () => expectCheap(await cost('stream', task), dataBytes + 8 * 73_760));
    it(`${name} of a multifd set`, async () => expectCheap(await cost('multifd', task), dataBytes + 8 * 73_760));
  }

  it('diff of two mapped-ram files', async () => {
    const other = await open(server.url('other.mapped-ram'));
    const used = await cost('mapped-ram', async (file) => {
      const { ram } = await diff(file, other, { makeScratch });
      expect(ram?.blocks[0]?.same).toBe(ramPages - 1);
    });
    await other.close();
    expectCheap(used, 2 * dataBytes);
  });

  it('a page of a mapped-ram file', async () => {
    const used = await cost('mapped-ram', async (file) => {
      const page = await readRam(file, { block: 'pc.ram', at: 38_000 * pageSize, length: pageSize, makeScratch });
      expect(new Uint32Array(page.buffer)[7]).toBe(38_001);
    });
    expect(used.bytes).toBeLessThan(MIB / 8);
    expect(used.requests).toBeLessThan(10);
  });

  it('a range of a mapped-ram file', async () => {
    const length = 40 * MIB;
    const used = await cost('mapped-ram', async (file) => {
      const range = await readRam(file, { block: 'pc.ram', at: 90 * MIB, length, makeScratch });
      expect(range.length).toBe(length);
    });
    expectCheap(used, length);
  });
});
