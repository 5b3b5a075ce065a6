import { describe, expect, it } from 'vitest';
import { type FlowItem, MemoryFile, type MigrationFile, open, StreamSource, verify } from '../../src/index.ts';
import { open as openInNode, parseLocation } from '../../src/node.ts';
import { chunksOf, ScriptedSource } from '../io/sources.ts';
import {
  EOF,
  EOS,
  filled,
  full,
  join,
  KIB4,
  none,
  normalPage,
  part,
  ramEnd,
  ramStart,
  vmdescription,
} from '../oracle/build.ts';

const device = { name: 'timer', instance_id: 0, version: 1, fields: [{ name: 'data', size: 9, type: 'buffer' }] };
const body = join('ab', [0x7e, 0, 0, 0, 1, 0], 'c'); // holds what looks like its footer and EOF
const stream = join(
  none,
  ramStart,
  part(7, normalPage(0, filled(3), 'ram'), EOS),
  ramEnd,
  full(1, 'timer', body),
  EOF,
  vmdescription({ page_size: KIB4, devices: [device] }),
);

async function collect(file: MigrationFile): Promise<FlowItem['kind'][]> {
  const kinds: FlowItem['kind'][] = [];
  for await (const item of file.flow()) kinds.push(item.kind);
  return kinds;
}

describe('opening', () => {
  const whole = ['header', 'configuration', 'section', 'block', 'blocks-end', 'section-end', 'section', 'pages'];

  it.each([
    ['bytes', () => stream],
    ['a Blob', () => new Blob([stream.slice()])],
    ['a File', () => new File([stream.slice()], 'guest.bin')],
    ['a ReadableStream', () => new Blob([stream.slice()]).stream()],
    ['a ByteSource', () => new MemoryFile('m', stream)],
    ['a slow ByteSource of small reads', () => new ScriptedSource(stream, { chunk: 100, isSlow: true })],
    ['a forward-only ByteSource', () => new StreamSource(chunksOf(stream, 10), 'p')],
  ])('takes %s', async (_, make) => {
    const file = await open(make());
    const kinds = await collect(file);
    expect(kinds.slice(0, 8)).toEqual(whole);
    expect(kinds.at(-1)).toBe('end');
    await file.close();
  });

  it.each([[undefined], [null], [7], ['guest.bin'], [{}], [[1, 2]]])('refuses %j', async (input) => {
    await expect(open(input as never)).rejects.toThrow(TypeError);
  });

  it.each([-1, 0.5, Number.NaN, 2 ** 53])('refuses offset %d', async (offset) => {
    await expect(open(stream, { offset })).rejects.toThrow(RangeError);
  });

  it('works with either build of the kernels', async () => {
    for (const variant of ['simd', 'scalar'] as const) {
      const file = await open(stream, { variant });
      expect(file.kernel.variant).toBe(variant);
      expect(await collect(file)).toContain('end');
    }
  });
});

describe('a migration file', () => {
  it('uses the description of a source with random access before it reads', async () => {
    for (const [source, boundary] of [
      [stream, 'description'],
      [join(stream, new Uint8Array(1000)), 'description'],
      [new StreamSource(chunksOf(stream, 100), 'p'), 'footer'],
    ] as const) {
      const file = await open(source);
      const boundaries: string[] = [];
      try {
        for await (const item of file.flow()) if (item.kind === 'device') boundaries.push(item.device.boundary);
      } catch {
        // Without the description the decoy ends the stream.
      }
      expect(boundaries).toEqual([boundary]);
    }
  });

  it('finds a description far from the end of a large one', async () => {
    const note = 'x'.repeat(400_000);
    const large = join(none, full(1, 'timer', body), EOF, vmdescription({ note, devices: [device] }));
    for await (const item of (await open(large)).flow()) {
      if (item.kind === 'device') expect(item.device.boundary).toBe('description');
    }
  });

  it('can be read again if its source can seek backward', async () => {
    const file = await open(stream);
    expect(await collect(file)).toEqual(await collect(file));
    const pipe = await open(new StreamSource(chunksOf(stream, 100), 'the pipe'));
    await collect(pipe);
    await expect(collect(pipe)).rejects.toThrow(/the pipe can be read only once/);
  });

  it('can be read again after an early end, and after an error', async () => {
    const file = await open(stream);
    for await (const _ of file.flow()) break;
    for await (const { kind } of file.flow()) if (kind === 'pages') break;
    expect(await collect(file)).toContain('end');
    const cut = await open(stream.subarray(0, 200));
    await expect(collect(cut)).rejects.toThrow(/truncated/);
    await expect(collect(cut)).rejects.toThrow(/truncated/);
  });

  it('refuses two Flows at a time', async () => {
    const file = await open(stream);
    const first = file.flow();
    await first.next();
    await expect(file.flow().next()).rejects.toThrow(/being read/);
    await first.return();
    expect(await collect(file)).toContain('end');
  });

  it('reports how far it has read, and closes its source', async () => {
    const source = new ScriptedSource(stream, { chunk: 100 });
    const file = await open(source, { offset: 0 });
    expect(file.reached).toBe(0);
    await collect(file);
    expect(file.reached).toBe(stream.length);
    expect(source.isClosed).toBe(false);
    await file.close();
    expect(source.isClosed).toBe(true);
  });

  it('shows progress of content that is read in place, and stays open', async () => {
    const source = new ScriptedSource(stream);
    const file = await open(source);
    await file.content.read(new Uint8Array(4), 123);
    expect([file.content.size, file.reached]).toEqual([stream.length, 123]);
    await file.content.close();
    expect(source.isClosed).toBe(false);
    await collect(file);
    expect(file.reached).toBe(stream.length);
  });

  it('names the place in the source of bytes in the arena that were read from there', async () => {
    const file = await open(stream);
    expect(file.offsetOf(0)).toBeUndefined();
    const offsets: (number | undefined)[] = [];
    for await (const item of file.flow()) {
      if (item.kind !== 'pages') continue;
      const address = item.batch.data[0] as number;
      offsets.push(file.offsetOf(address), file.offsetOf(file.pageSlots.address), file.offsetOf(address + (2 << 20)));
    }
    const page = Buffer.from(stream).indexOf(Buffer.from(filled(3)));
    expect(offsets).toEqual([page, undefined, undefined]);
  });

  it('passes on the errors of its source', async () => {
    const file = await open(new ScriptedSource(stream, { isSeekable: false, chunk: 100, failAt: 300 }));
    await expect(collect(file)).rejects.toThrow('cannot read at 300');
  });

  it('with the header of another format ends at once, even if its source stays silent', async () => {
    async function* silent() {
      yield new TextEncoder().encode('#!/bin/sh and more');
      await new Promise(() => {});
    }
    const file = await open(new StreamSource(silent(), 'p'));
    await expect(collect(file)).rejects.toThrow(/not-a-migration-stream/);
  });
});

describe('a ReadableStream', () => {
  const streamOf = (end: (controller: ReadableStreamDefaultController<Uint8Array>) => void) => {
    const cancelled: unknown[] = [];
    let isFirst = true;
    const readable = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (isFirst) controller.enqueue(stream.slice(0, 100));
        else end(controller);
        isFirst = false;
      },
      cancel: (reason) => void cancelled.push(reason),
    });
    return { readable, cancelled };
  };

  it('gives its error if it fails, and can then be closed', async () => {
    const { readable } = streamOf((controller) => controller.error(new Error('connection reset')));
    const file = await open(readable);
    await expect(collect(file)).rejects.toThrow('connection reset');
    await file.close();
    // An unhandled rejection would end the test run.
    await new Promise((resolve) => setImmediate(resolve));
  });

  it('is cancelled when the file is closed, even if it stays silent', async () => {
    const { readable, cancelled } = streamOf(() => new Promise(() => {}));
    const file = await open(readable);
    for await (const _ of file.flow()) break;
    await file.close();
    expect(cancelled).toHaveLength(1);
  });
});

describe('a location', () => {
  it.each([
    ['guest.bin', 'guest.bin', undefined],
    ['guest.bin,offset=4096', 'guest.bin', 4096],
    ['guest.bin,offset=0x1000', 'guest.bin', 4096],
    ['guest.bin,offset=4K', 'guest.bin', 4096],
    ['guest.bin,offset=1m', 'guest.bin', 2 ** 20],
    ['guest.bin,offset=2G', 'guest.bin', 2 ** 31],
    ['guest.bin,offset=3T', 'guest.bin', 3 * 2 ** 40],
    ['a,b,offset=1', 'a,b', 1],
    ['a,offset=1,offset=2', 'a,offset=1', 2],
    ['a,offset=', 'a,offset=', undefined],
    ['a,offset=-1', 'a,offset=-1', undefined],
    [',offset=1', ',offset=1', undefined],
    ['-', '-', undefined],
  ])('%s is %s at %j', (location, path, offset) => {
    expect(parseLocation(location)).toEqual({ path, offset });
  });

  it('beyond 2^53 is refused', () => {
    expect(() => parseLocation('a,offset=9007199254740993')).toThrow(RangeError);
    expect(() => parseLocation('a,offset=8192T')).toThrow(RangeError);
  });

  it("that does not exist fails with Node's code", async () => {
    await expect(openInNode('/nowhere/guest.bin,offset=4K')).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('a volume', () => {
  const older = join(
    none,
    ramStart,
    ramEnd,
    full(1, 'timer', join('longer ', body)),
    EOF,
    vmdescription({
      page_size: KIB4,
      devices: [{ ...device, fields: [{ name: 'data', size: 16, type: 'buffer' }] }],
    }),
  );

  it.each(['at its end', 'before zeros'])('may have an older state behind the stream, %s', async (where) => {
    const size = 3 * KIB4;
    expect(stream.length + older.length).toBeLessThan(2 * KIB4 + KIB4);
    const volume = new Uint8Array(2 * size);
    volume.set(stream);
    volume.set(older, where === 'at its end' ? volume.length - older.length : size);
    const findings: string[] = [];
    const file = await open(volume);
    for await (const item of file.flow()) {
      if (item.kind === 'finding') findings.push(`${item.finding.severity} ${item.finding.code}`);
      if (item.kind === 'device') expect(item.device.data).toHaveLength(body.length);
    }
    expect(findings).toEqual(['info trailing-data']);
  });
});

it('passes over a device of more than 64 MiB, and reads on', async () => {
  const large = 65 << 20;
  const devices = [{ ...device, fields: [{ name: 'data', size: large, type: 'buffer' }] }];
  for (const described of [true, false]) {
    const end = described ? vmdescription({ page_size: KIB4, devices }) : new Uint8Array();
    const file = await open(join(none, ramStart, ramEnd, full(1, 'timer', new Uint8Array(large)), EOF, end));
    const found = [];
    for await (const item of file.flow()) {
      if (item.kind === 'device') found.push([item.device.data.length, item.device.omitted, item.device.boundary]);
    }
    expect(found).toEqual([[0, large, described ? 'description' : 'footer']]);
    const { findings } = await verify(file);
    expect(findings.map(({ code }) => code)).toEqual(['pages-absent', ...(described ? [] : ['description-missing'])]);
  }
});
