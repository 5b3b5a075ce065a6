import { describe, expect, it } from 'vitest';
import { loadKernel, MemoryFile, PortableCodecs, StreamSource } from '../../src/index.ts';
import { FlowBuffers, FlowReader } from '../../src/read/flow-reader.ts';
import type { FlowItem } from '../../src/vm/flow.ts';
import { chunksOf } from '../io/sources.ts';
import {
  configuration,
  EOF,
  EOS,
  filled,
  header,
  join,
  KIB4,
  normalPage,
  part,
  ramEnd,
  ramStart,
} from '../oracle/build.ts';

// The machine's page size is known. To guess it, the decoder would look far ahead.
const stream = join(
  header,
  configuration('pc-i440fx-10.0'),
  ramStart,
  part(7, normalPage(KIB4, filled(1), 'ram'), EOS),
  ramEnd,
  EOF,
);

async function makeBuffers(): Promise<FlowBuffers> {
  const kernel = await loadKernel({ arenaBytes: 8 << 20 });
  return new FlowBuffers(kernel, new PortableCodecs(), { channels: 0, hasSide: false });
}

async function kindsOf(items: AsyncIterable<FlowItem>): Promise<string[]> {
  const kinds: string[] = [];
  for await (const { kind } of items) kinds.push(kind);
  return kinds;
}

describe('a flow reader', () => {
  it('reads a connection that stays open to the end of the stream, without waiting for more', async () => {
    async function* connection() {
      yield* chunksOf(stream, 7);
      // Decoders look ahead, because a description may follow EOF, and sections may have footers.
      yield new Uint8Array(64);
      await new Promise(() => {});
    }
    const flow = new FlowReader(await makeBuffers(), { read: 'pages', channels: [] });
    const kinds = await kindsOf(flow.stream(new StreamSource(connection(), 'connection')));
    expect(kinds.filter((kind) => !kind.startsWith('section'))).toEqual([
      ...['header', 'configuration', 'block', 'blocks-end', 'pages', 'eof', 'end'],
    ]);
    await flow.close();
  });

  it('yields what the caller adds before the end', async () => {
    const flow = new FlowReader(await makeBuffers(), { read: 'pages', channels: [] });
    const seen: number[] = [];
    const source = new MemoryFile('memory', join(new Uint8Array(5), stream));
    const kinds = await kindsOf(
      flow.stream(source, {
        offset: 5,
        async *atEnd(_, end) {
          seen.push(end);
          yield { kind: 'source', origin: { source: 'added', coordinate: 'file' } };
        },
      }),
    );
    expect(kinds.slice(-3)).toEqual(['eof', 'source', 'end']);
    expect(seen).toEqual([5 + stream.length]);
    expect(flow.reached).toBe(stream.length);
  });

  it('finds the place of a page in its source, and in no other source', async () => {
    const flow = new FlowReader(await makeBuffers(), { read: 'pages', channels: [] });
    const source = new MemoryFile('memory', stream);
    for await (const item of flow.stream(source)) {
      if (item.kind !== 'pages') continue;
      const address = item.batch.data[0] as number;
      const offset = flow.offsetIn(source, address) as number;
      expect(stream.subarray(offset, offset + KIB4)).toEqual(filled(1));
      expect(flow.offsetIn(new MemoryFile('other', stream), address)).toBeUndefined();
    }
  });
});
