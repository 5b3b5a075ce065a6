/** Migrations in several files: the streams that broke off, preempt channels, return paths. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  extractBlocks,
  inspect,
  MappedRamStore,
  MemoryFile,
  MigrationError,
  open,
  openRamContent,
  readBytes,
  readRam,
  settle,
  verify,
} from '../../src/index.ts';
import { loadPartedFixtures, type PartedFixture } from '../fixture-files.ts';
import {
  blockList,
  capabilities,
  command,
  configuration,
  counted,
  EOF,
  EOS,
  filled,
  header,
  join,
  KIB4,
  none,
  normalPage,
  packaged,
  part,
  ramEnd,
  ramStart,
  start,
  u64,
  zeroPage,
} from '../oracle/build.ts';
import { kindsOfSource, opened } from '../support/opened.ts';

const fixtures = loadPartedFixtures();

const openFixture = ({ bytes, resumeOf, preempt, returnPath }: PartedFixture) =>
  open(new MemoryFile('main', bytes), {
    resumeOf: resumeOf.map((file, i) => new MemoryFile(`broken ${i}`, file)),
    preempt: preempt.map((file, i) => new MemoryFile(`preempt ${i}`, file)),
    returnPath: returnPath.map((file, i) => new MemoryFile(`return ${i}`, file)),
  });

describe.each(fixtures)('$name', (fixture) => {
  const { truth, resumeOf, returnPath } = fixture;

  it('has the RAM of the source', async () => {
    const file = await openFixture(fixture);
    const stores = new Map<string, MemoryFile>();
    await extractBlocks(file, ({ idstr }) => {
      const store = new MemoryFile(idstr);
      stores.set(idstr, store);
      return store;
    });
    for (const { idstr, length, sha256 } of truth) {
      const content = new Uint8Array(length);
      stores.get(idstr)?.read(content, 0);
      expect(createHash('sha256').update(content).digest('hex'), idstr).toBe(sha256);
    }
    await file.close();
  });

  it('has it with random access, too', async () => {
    const file = await openFixture(fixture);
    const ram = await openRamContent(file, { makeScratch: () => new MemoryFile('scratch') });
    for (const block of ram.blocks) {
      const hash = createHash('sha256');
      for await (const bytes of readBytes(ram, block)) hash.update(bytes);
      expect(hash.digest('hex')).toBe(truth.find(({ idstr }) => idstr === block.idstr)?.sha256);
    }
  });

  it('is sound, and its breaks are reported', async () => {
    const { ok, findings } = await verify(await openFixture(fixture));
    expect(findings.filter(({ severity }) => severity !== 'info')).toEqual([]);
    expect(ok).toBe(true);
    const breaks = findings.filter(({ code }) => code === 'broken-off').reduce((sum, { count }) => sum + count, 0);
    expect(breaks).toBeGreaterThanOrEqual(resumeOf.length);
  });

  it("is inspected with the destination's answers", async () => {
    const { inspection } = await inspect(await openFixture(fixture));
    expect(inspection.complete).toBe(true);
    expect(inspection.returnPaths.map(({ source }) => source)).toEqual(returnPath.map((_, i) => `return ${i}`));
    expect(inspection.returnPaths.map(({ length }) => length)).toEqual(returnPath.map(({ length }) => length));
    expect(inspection.returnPaths.map(({ error }) => error)).toEqual(returnPath.map(() => undefined));
    expect(inspection.returnPaths.map(({ shut }) => shut)).toEqual([...resumeOf.map(() => undefined), 0]);
    const { counts = {}, requestedBytes } = inspection.returnPaths[0] ?? {};
    expect(counts.PONG).toBe(4);
    expect(requestedBytes).toBe(((counts.REQ_PAGES_ID ?? 0) + (counts.REQ_PAGES ?? 0)) * KIB4);
    if (resumeOf.length > 0) {
      expect(inspection.returnPaths[1]?.counts).toMatchObject({ RECV_BITMAP: 3, RESUME_ACK: 1, SHUT: 1 });
    }
  });

  it('gives the source of each section', async () => {
    const { inspection } = await inspect(await openFixture(fixture));
    const sources = inspection.sections.map(({ source }) => source ?? 'main');
    expect([...new Set(sources)]).toEqual([...resumeOf.map((_, i) => `broken ${i}`), 'main']);
  });

  it('can be read twice', async () => {
    const file = await openFixture(fixture);
    const first = await verify(file);
    expect(await verify(file)).toEqual(first);
    expect(file.reached).toBe(file.size);
  });
});

const stream = (...after: Uint8Array[]) =>
  join(
    ...[none, ramStart, part(7, normalPage(0, filled(1), 'ram'), normalPage(KIB4, filled(2)), EOS)],
    ...[command(6, [0], counted('ram'), [0], u64(0), u64(3 * KIB4)), packaged(command(4), command(5)), ...after],
  );
const eof = join(EOF);
const complete = stream(ramEnd, eof);
const missing = join(normalPage(KIB4, filled(3), 'ram'), zeroPage(0), zeroPage(2 * KIB4));

/** The first byte of each page of the extracted block `ram`. */
async function firstBytes(file: Awaited<ReturnType<typeof open>>, pages: number): Promise<number[]> {
  const store = new MemoryFile('ram');
  await extractBlocks(file, () => store);
  return Array.from({ length: pages }, (_, page) => {
    const byte = new Uint8Array(1);
    store.read(byte, page * KIB4);
    return byte[0] as number;
  });
}

describe.each(kindsOfSource)('discarded pages of a %s', (kind) => {
  it('are lost without the preempt channel, and do not keep their old content', async () => {
    const { ok, findings } = await verify(await opened(complete, kind));
    expect(ok).toBe(false);
    expect(findings.find(({ code }) => code === 'pages-lost')).toMatchObject({
      count: 3,
      place: { block: 'ram', page: 0 },
    });
    const { inspection } = await inspect(await opened(complete, kind));
    expect(inspection.complete).toBe(false);
    expect(inspection.ram.blocks[0]?.pages).toMatchObject({ normal: 0, absent: 16 });
    await expect(firstBytes(await opened(complete, kind), 3)).rejects.toThrow(/pages-lost/);
    const content = openRamContent(await opened(complete, kind), { makeScratch: () => new MemoryFile('scratch') });
    await expect(content).rejects.toThrow(/pages-lost/);
    const read = (at: number) =>
      opened(complete, kind).then((file) =>
        readRam(file, { block: 'ram', at, length: 8, makeScratch: () => new MemoryFile() }),
      );
    await expect(read(2 * KIB4)).rejects.toThrow(/pages-lost/);
    expect(await read(5 * KIB4)).toEqual(new Uint8Array(8));
  });

  it('come from the preempt channel', async () => {
    expect(await firstBytes(await opened(complete, kind, { preempt: missing }), 3)).toEqual([0, 3, 0]);
    const { inspection } = await inspect(await opened(complete, kind, { preempt: missing }));
    expect(inspection.ram.blocks[0]?.pages).toMatchObject({ normal: 1, zero: 2, absent: 13 });
  });

  it('are erased from a mapped-ram file', async () => {
    const file = await opened(complete, kind, { preempt: missing });
    const store = new MappedRamStore(new MemoryFile('out'), file.pageSlots);
    const { description } = await settle(file, store);
    await store.finish([], description);
    const block = store.blocks[0];
    if (block === undefined) throw new Error('a block is missing');
    expect([0, 1, 2, 3].map((page) => store.state(block, page))).toEqual(['zero', 'data', 'zero', 'absent']);
  });
});

describe('files that do not belong together', () => {
  const codeOf = async (bytes: Uint8Array, parts: Parameters<typeof open>[1]) => {
    const file = await open(bytes, parts);
    try {
      await settle(file, { take() {} });
      return 'read';
    } catch (error) {
      if (error instanceof MigrationError) return error.code;
      throw error;
    }
  };
  const recovery = join(command(9), part(7, missing, EOS), ramEnd, EOF);
  const broken = stream().subarray(0, -1);

  it('are recognized', async () => {
    const whole = join(none, ramStart, ramEnd, EOF);
    expect(await codeOf(recovery, { resumeOf: stream() })).toBe('read');
    expect(await codeOf(recovery, { resumeOf: stream(ramEnd, eof) })).toBe('mismatched-source');
    expect(await codeOf(whole, { resumeOf: stream() })).toBe('mismatched-source');
    expect(await codeOf(whole, { preempt: missing })).toBe('mismatched-source');
    // A break before the switchover cannot be recovered.
    expect(await codeOf(recovery, { resumeOf: join(none, ramStart) })).toBe('truncated');
    expect(await codeOf(recovery, { resumeOf: broken })).toBe('truncated');
    expect(await codeOf(recovery, {})).toBe('not-a-migration-stream');
  });

  it('are reported with the name of the wrong one', async () => {
    const preempt = new MemoryFile('preempt', missing.subarray(0, -1));
    const { findings } = await verify(await open(new MemoryFile('main', complete), { preempt }));
    expect(findings[0]).toMatchObject({ code: 'truncated', place: { source: 'preempt', offset: missing.length - 1 } });
  });

  it('may have a preempt channel that broke with its stream', async () => {
    const parts = { resumeOf: stream(), preempt: [join(zeroPage(0, 'ram'), [0, 0]), new Uint8Array()] };
    expect(await codeOf(recovery, parts)).toBe('read');
    expect(await codeOf(recovery, { ...parts, preempt: [new Uint8Array(), join(zeroPage(0, 'ram'), [0, 0])] })).toBe(
      'truncated',
    );
  });
});

describe('a return path', () => {
  const request = (block: string, at: number, bytes: number) =>
    join([0, 3], [0, 13 + block.length], u64(at), [0, 0, bytes >> 8, bytes & 255], counted(block));

  it('is compared with the blocks of the stream', async () => {
    const path = join(
      request('ram', 0, KIB4),
      request('rom', 0, KIB4),
      request('ram', 16 * KIB4, KIB4),
      request('ram', 100, 200),
    );
    const { inspection } = await inspect(await open(complete, { preempt: missing, returnPath: path }));
    expect(inspection.returnPaths[0]).toMatchObject({
      counts: { REQ_PAGES_ID: 4 },
      shut: undefined,
      messagesOmitted: 0,
    });
    const bad = inspection.findings.filter(({ code }) => code === 'bad-return-path');
    expect(bad.map(({ count, message }) => [count, message])).toEqual([[3, expect.stringContaining('"rom"')]]);
  });

  it('does not prevent reading the stream', async () => {
    const file = await open(complete, { preempt: missing, returnPath: new Uint8Array([9, 9, 9, 9]) });
    const { inspection } = await inspect(file);
    expect(inspection).toMatchObject({ complete: true, error: undefined });
    expect(inspection.returnPaths[0]?.error?.code).toBe('bad-return-path');
    expect(await firstBytes(await open(complete, { preempt: missing, returnPath: new Uint8Array([9]) }), 2)).toEqual([
      0, 3,
    ]);
  });
});

describe('shared memory that the migration left out', () => {
  const shared = join(
    header,
    configuration('none', capabilities('x-ignore-shared')),
    start(7, 'ram', 4, blockList(['ram', KIB4, u64(0)], ['shm', KIB4, u64(0x1000)]), EOS),
    part(7, normalPage(0, filled(5), 'ram'), EOS),
    ramEnd,
    EOF,
  );

  it('is recognized by having no pages', async () => {
    const { inspection } = await inspect(await open(shared));
    expect(inspection.ram.blocks.map(({ idstr, ignored }) => [idstr, ignored])).toEqual([
      ['ram', undefined],
      ['shm', true],
    ]);
    const { verdict, findings } = await verify(await open(shared));
    expect(verdict).toBe('incomplete');
    expect(findings.map(({ code }) => code)).toEqual(['block-ignored', 'description-missing']);
    const extract = async (partial: boolean) =>
      extractBlocks(await open(shared), ({ idstr }) => new MemoryFile(idstr), undefined, { partial });
    await expect(extract(false)).rejects.toMatchObject({ code: 'block-ignored', place: { block: 'shm' } });
    expect((await extract(true)).map(({ idstr, missing }) => [idstr, missing?.pages])).toEqual([
      ['ram', undefined],
      ['shm', 1],
    ]);
  });

  it('is not assumed in a truncated stream', async () => {
    const { inspection } = await inspect(await open(shared.subarray(0, -1)));
    expect(inspection.ram.blocks.some(({ ignored }) => ignored)).toBe(false);
  });
});
