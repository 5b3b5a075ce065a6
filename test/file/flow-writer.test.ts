import { describe, expect, it } from 'vitest';
import { encodeFlow, FlowWriter } from '../../src/file/flow-writer.ts';
import { StreamWriter, writerArenaBytes } from '../../src/file/stream-writer.ts';
import { MemoryFile, open } from '../../src/node.ts';
import { loadFixtures, loadPartedFixtures } from '../fixture-files.ts';
import { makeCopy } from './copy.ts';

const spareBytes = writerArenaBytes;

/** Where two pieces of bytes differ first; undefined if they are equal. */
function firstDifference(a: Uint8Array, b: Uint8Array): number | undefined {
  if (Buffer.compare(a, b) === 0) return undefined;
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return i;
  return Math.min(a.length, b.length);
}

const isMapped = ({ name }: { name: string }) => name.includes('mapped-ram');

describe('a Flow, written again', () => {
  it.each(loadFixtures().filter((fixture) => !isMapped(fixture)))(
    'is $name, byte for byte',
    async ({ bytes, offset }) => {
      const file = await open(bytes, { offset, spareBytes });
      const copy = makeCopy();
      const { length } = await encodeFlow(file, copy.sink);
      await file.close();
      expect(firstDifference(copy.bytes(), bytes.subarray(offset))).toBeUndefined();
      expect(length).toBe(bytes.length - offset);
    },
  );

  it.each(loadPartedFixtures())('is each of the files of $name, byte for byte', async (fixture) => {
    const sources = { main: [fixture.bytes], resumeOf: fixture.resumeOf, preempt: fixture.preempt };
    const files = Object.entries(sources).flatMap(([role, list]) =>
      list.map((bytes, i) => ({ role, bytes, source: new MemoryFile(`${role} ${i}`, bytes), copy: makeCopy() })),
    );
    const sourcesOf = (wanted: string) => files.filter(({ role }) => role === wanted).map(({ source }) => source);
    const file = await open(sourcesOf('main')[0] as MemoryFile, {
      ...{ resumeOf: sourcesOf('resumeOf'), preempt: sourcesOf('preempt') },
      spareBytes: spareBytes * files.length,
    });
    const outputs = files.map(({ copy, ...rest }) => {
      const writer = new StreamWriter(file.kernel, copy.sink);
      return { ...rest, copy, writer, again: new FlowWriter(writer) };
    });
    let current = outputs[0];
    for await (const item of file.flow()) {
      if (item.kind === 'source') current = outputs.find(({ source }) => source.name === item.origin.source);
      else await current?.again.take(item);
    }
    await file.close();
    for (const { role, bytes, copy, writer, again } of outputs) {
      await writer.flush();
      // The EOS of a preempt channel is not in the Flow.
      if (role === 'preempt' && bytes.length === writer.length + 8) await again.eos();
      await writer.flush();
      // What broke off did so within a record, which is not there.
      const lost = bytes.length - copy.bytes().length;
      const isBroken = role === 'resumeOf' || (role === 'preempt' && fixture.resumeOf.length > 0);
      expect(lost, role).toBeLessThan(isBroken ? 4096 + 8 + 256 : 1);
      expect(firstDifference(copy.bytes(), bytes.subarray(0, copy.bytes().length)), role).toBeUndefined();
    }
  });
});
