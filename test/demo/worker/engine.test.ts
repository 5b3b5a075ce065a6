/** The page's engine in Node, with files that count how often each byte is read. */
import { describe, expect, it } from 'vitest';
import type { CellMap, FileInput, OpenedFile, OpeningFile, Progress } from '../../../src/demo/protocol.ts';
import type { CallContext } from '../../../src/demo/worker/calls.ts';
import { Engine } from '../../../src/demo/worker/engine.ts';
import { makeMeasurer } from '../../../src/demo/worker/page-measurer.ts';
import { open } from '../../../src/index.ts';
import { appendTo, readFully } from '../../../src/io/byte-source.ts';
import { MemoryFile } from '../../../src/io/memory-file.ts';
import { MemoryScratch } from '../../../src/io/scratch.ts';
import { verify } from '../../../src/tasks/inspect/verify.ts';
import { writeStream } from '../../../src/write/write-stream.ts';
import { configuration, SparseRam } from '../../browser/viewer-files.ts';
import { type Fixture, loadFixtures } from '../../fixture-files.ts';
import { CountedBlob, type CountedBlobOptions } from '../../io/counted-blob.ts';

const fixtureNamed = (name: string) => loadFixtures().find((each) => each.name === name) as Fixture;

function engineWith(limit = 64 << 20) {
  const scratch = new MemoryScratch(limit);
  const engine = new Engine(
    scratch,
    makeMeasurer(0, () => new Worker('')),
  );
  return { engine, handlers: engine.handlers };
}

function contextOf(more: Partial<CallContext> = {}): CallContext {
  return { signal: new AbortController().signal, progress: () => {}, part: () => {}, ...more };
}

const filesOf = ({ name, bytes, channels }: Fixture, options?: CountedBlobOptions) => [
  new CountedBlob(bytes, { name, ...options }),
  ...channels.map((channel, i) => new CountedBlob(channel, { name: `${name}.${i}`, ...options })),
];
const inputOf = (blobs: readonly CountedBlob[]): FileInput => ({ files: blobs.map(({ file }) => file) });

/** A stream of a guest with several MiB, so that it is read through a byte stream. */
async function largeStream(pages = 3000): Promise<Uint8Array> {
  const output = new MemoryFile('guest');
  const ram = new SparseRam(pages, (page) => page % 10 !== 0);
  await writeStream({ configuration, ram }, appendTo(output));
  const bytes = new Uint8Array(output.size);
  await readFully(output, bytes, 0);
  return bytes;
}

/** Everything that the page shows of a file at once. */
async function show(handlers: Engine['handlers'], file: OpenedFile) {
  const verification = await handlers.verify({ file: file.id }, contextOf());
  const devices = await handlers.devices({ file: file.id, path: [] }, contextOf());
  const facts = await handlers.page({ file: file.id, block: 0, page: 0 }, contextOf());
  const map = await handlers.map(
    { file: file.id, block: 0, layer: 'state', first: 0, pagesPerCell: 1, cells: 8 },
    contextOf(),
  );
  return { verification, devices, facts, map };
}

describe('opening', () => {
  it.each([
    'pc-plain-10.0',
    'pc-xbzrle-10.0',
    'pc-compress-7.2',
    'pc-mapped-ram-multifd-10.0',
    'none-multifd-uuid-10.0',
    'pc-multifd-zlib-7.2',
    'pc-multifd-none-zero-multifd-10.0',
  ])('%s reads each byte at most once, and knows what the page shows', async (name) => {
    const fixture = fixtureNamed(name);
    const { handlers } = engineWith();
    const blobs = filesOf(fixture);
    const file = await handlers.open(inputOf(blobs), contextOf());
    expect(file.isVerified).toBe(true);
    const shown = await show(handlers, file);
    expect(blobs.map(({ most }) => most)).toEqual(blobs.map(() => 1));
    const reopened = await open(fixture.bytes, { channels: fixture.channels, offset: fixture.offset });
    expect(shown.verification).toEqual({ ...(await verify(reopened)), source: fixture.name });
    expect(shown.devices.total).toBe(file.inspection.sections.filter(({ kind }) => kind === 'full').length);
    await handlers.close(file.id, contextOf());
    expect(blobs.map(({ openStreams }) => openStreams)).toEqual(blobs.map(() => 0));
  });

  it.each(['byob', 'default', 'none'] as const)('a stream of some MiB reads all of it once (%s)', async (stream) => {
    const blob = new CountedBlob(await largeStream(), { stream });
    const { handlers } = engineWith();
    const file = await handlers.open(inputOf([blob]), contextOf());
    await show(handlers, file);
    expect({ most: blob.most, unread: blob.unread }).toEqual({ most: 1, unread: 0 });
    // What is looked at later is read in place, and it alone.
    const before = blob.counts.reduce((sum, count) => sum + count, 0);
    const { bytes } = await handlers.read({ file: file.id, block: 0, offset: 4096, length: 16 }, contextOf());
    expect([...bytes.subarray(0, 4)]).not.toEqual([0, 0, 0, 0]);
    expect(blob.counts.reduce((sum, count) => sum + count, 0) - before).toBeLessThanOrEqual(64 << 10);
    await handlers.close(file.id, contextOf());
    expect(blob.openStreams).toBe(0);
  });

  it('a stream that breaks off reads each byte once, and shows the part before', async () => {
    const bytes = await largeStream();
    const blob = new CountedBlob(bytes.subarray(0, 5_000_000));
    const { handlers } = engineWith();
    const file = await handlers.open(inputOf([blob]), contextOf());
    expect(file.inspection.error?.code).toBe('truncated');
    const { verification, map } = await show(handlers, file);
    expect(verification.ok).toBe(false);
    expect((map as CellMap & { kind: 'classes' }).counts.length).toBeGreaterThan(0);
    expect({ most: blob.most, unread: blob.unread }).toEqual({ most: 1, unread: 0 });
    const read = handlers.read({ file: file.id, block: 0, offset: 0, length: 16 }, contextOf());
    await expect(read).rejects.toMatchObject({ code: 'truncated' });
    expect(blob.openStreams).toBe(0);
  });

  it('shows the map while the file is read', async () => {
    const blob = new CountedBlob(await largeStream(6000));
    const { handlers } = engineWith();
    const parts: OpeningFile[] = [];
    const data: Promise<number>[] = [];
    const look = async ({ id, blocks: [block] }: OpeningFile) => {
      const query = {
        file: id,
        block: 0,
        layer: 'state',
        first: 0,
        pagesPerCell: block?.pages ?? 1,
        cells: 1,
      } as const;
      const map = await handlers.map(query, contextOf());
      return (map as CellMap & { kind: 'classes' }).counts[2] ?? 0;
    };
    // The first progress comes after a tenth of a second.
    const progress = (_: Progress) => {
      const [file] = parts;
      if (file !== undefined) data.push(look(file));
    };
    const part = (known: unknown) => {
      parts.push(known as OpeningFile);
      data.push(look(known as OpeningFile));
    };
    const file = await handlers.open(inputOf([blob]), contextOf({ progress, part }));
    expect(parts).toHaveLength(1);
    expect(parts[0]).toMatchObject({ id: file.id, blocks: [{ idstr: 'ram', pages: 6000 }] });
    const seen = await Promise.all(data);
    expect(seen[0]).toBe(0);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(await look({ id: file.id, name: '', blocks: file.blocks })).toBe(5400);
  });

  it('that is cancelled ends, closes its streams and leaves nothing', async () => {
    const controller = new AbortController();
    // Without a description, 16 MiB at the end are searched for one.
    const blob = new CountedBlob(await largeStream(8000));
    const { handlers } = engineWith();
    const part = () => controller.abort(new DOMException('cancelled', 'AbortError'));
    const opening = handlers.open(inputOf([blob]), contextOf({ signal: controller.signal, part }));
    await expect(opening).rejects.toThrow('cancelled');
    expect(blob.openStreams).toBe(0);
    expect(blob.unread).toBeGreaterThan(0);
    const map = { file: 1, block: 0, layer: 'state', first: 0, pagesPerCell: 1, cells: 1 } as const;
    await expect(handlers.map(map, contextOf())).rejects.toThrow(RangeError);
  });

  it('a file that changes meanwhile fails with the reason', async () => {
    let failure: Error | undefined;
    const blob = new CountedBlob(await largeStream(8000), { failure: () => failure });
    const { handlers } = engineWith();
    const part = () => {
      failure = new DOMException('the file was changed', 'NotReadableError');
    };
    await expect(handlers.open(inputOf([blob]), contextOf({ part }))).rejects.toThrow('the file was changed');
  });

  it('of compressed pages without space for them shows all but the content', async () => {
    const { handlers } = engineWith(1 << 16);
    const [blob] = filesOf(fixtureNamed('pc-compress-7.2')) as [CountedBlob];
    const file = await handlers.open(inputOf([blob]), contextOf());
    expect((await handlers.verify({ file: file.id }, contextOf())).ok).toBe(true);
    const read = handlers.read({ file: file.id, block: 0, offset: 0, length: 16 }, contextOf());
    await expect(read).rejects.toMatchObject({ code: 'ERR_NO_ROOM' });
  });
});
