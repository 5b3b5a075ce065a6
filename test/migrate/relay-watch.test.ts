import { expect, test } from 'vitest';
import { loadKernelFor } from '../../src/kernel/load-kernel.ts';
import { PageBatch, pageBatchArenaBytes } from '../../src/kernel/page-batch.ts';
import { ReturnWatch, StreamWatch } from '../../src/migrate/relay-watch.ts';
import { ByteWriter } from '../../src/wire/byte-writer.ts';
import { encodeReturnMessage, ReturnType } from '../../src/wire/return-path.ts';
import { loadFixtures, loadPartedFixtures } from '../fixture-files.ts';

const room = 72 * 1024;

/** Shows `bytes` to a watch, in pieces of `step` bytes, through a ring of `ring` bytes. */
function show(watch: StreamWatch, bytes: Uint8Array, step: number, ring = 200_000): void {
  const memory = new Uint8Array(room + ring);
  const onlooker = watch.watch(memory);
  onlooker.restart(room);
  let at = room;
  for (let done = 0; done < bytes.length; done += step) {
    const piece = bytes.subarray(done, done + step);
    if (at + piece.length > memory.length) {
      onlooker.restart(room);
      at = room;
    }
    memory.set(piece, at);
    at += piece.length;
    onlooker.see(at - piece.length, at);
  }
}

async function makeWatch(): Promise<StreamWatch> {
  const kernel = await loadKernelFor([pageBatchArenaBytes(4096)]);
  return new StreamWatch(new PageBatch(kernel, 4096));
}

const streams = loadFixtures().filter(({ name, offset }) => offset === 0 && !name.includes('mapped-ram'));

test.each(streams.map((fixture) => [fixture.name, fixture] as const))('knows the end of %s', async (name, fixture) => {
  for (const step of [100_000, 977]) {
    const watch = await makeWatch();
    show(watch, fixture.bytes, step);
    const isPostcopy = name.includes('postcopy') || name.includes('hugepages');
    // A device ends where an item follows. Without a description, only the end of the stream shows that. And the page
    // size of a machine that has several is looked for in the first 72 KiB.
    const hasDescription = fixture.bytes.at(-1) === '}'.charCodeAt(0) && name !== 'none-multifd-uuid-10.0';
    expect(watch.isWhole).toBe(!isPostcopy && hasDescription);
    watch.end();
    expect(watch).toMatchObject({ isLost: false, isWhole: !isPostcopy, hasPostcopy: isPostcopy });
    // Dirty bitmaps are advised, too.
    const mayPreempt = isPostcopy || name.includes('dirty-bitmaps');
    expect(watch).toMatchObject({ hasReturnPath: isPostcopy, mayPreempt });
  }
});

test.each(loadPartedFixtures().map((fixture) => [fixture.name, fixture] as const))(
  'knows that postcopy has begun in %s, not before its first command',
  async (_, { bytes, resumeOf }) => {
    const stream = resumeOf[0] ?? bytes;
    const watch = await makeWatch();
    let before = 0;
    const memory = new Uint8Array(room + stream.length);
    const onlooker = watch.watch(memory);
    onlooker.restart(room);
    memory.set(stream, room);
    for (let at = 0; at < stream.length && !watch.hasPostcopy; at++) {
      onlooker.see(room + at, room + at + 1);
      before = at;
    }
    // The byte is the last one of a command that precopy does not have.
    const discardOrPackage = [6, 7];
    const starts = Array.from({ length: 600 }, (_, back) => before - back).filter(
      (at) => stream[at] === 8 && stream[at + 1] === 0 && discardOrPackage.includes(stream[at + 2] as number),
    );
    expect(starts.length).toBeGreaterThan(0);
    expect(watch).toMatchObject({ hasReturnPath: true, mayPreempt: true, hasPostcopy: true });
  },
);

test('is lost in a stream that it cannot decode, and keeps what it knew', async () => {
  const { bytes } = streams.find(({ name }) => name === 'pc-plain-10.0')!;
  const strange = bytes.slice();
  // An unknown type of section after the configuration.
  const start = bytes.indexOf(1, 8 + 5 + bytes[12]!);
  strange[start] = 0x55;
  const watch = await makeWatch();
  show(watch, strange, 5000);
  watch.end();
  expect(watch).toMatchObject({ isLost: true, isWhole: false, hasPostcopy: false, mayPreempt: true });
  await watch.preempts;
});

function showAnswers(bytes: Uint8Array, step: number): ReturnWatch {
  const watch = new ReturnWatch(bytes);
  for (let at = 0; at < bytes.length; at += step) watch.see(at, Math.min(bytes.length, at + step));
  return watch;
}

test('finds SHUT on every return path, in pieces of any size', () => {
  const paths = loadPartedFixtures().flatMap(({ returnPath }) => returnPath);
  expect(paths.length).toBeGreaterThan(3);
  let shuts = 0;
  for (const bytes of paths) {
    for (const step of [1, 3, 4096]) {
      const watch = showAnswers(bytes, step);
      const tail = Buffer.from(bytes.subarray(-8)).toString('hex');
      const isShut = tail === '0001000400000000';
      shuts += isShut ? 1 : 0;
      expect(watch.shut).toEqual(isShut ? { status: 0, end: bytes.length } : undefined);
      expect(watch.hasPostcopy).toBe(true);
    }
  }
  expect(shuts).toBeGreaterThan(0);
});

test('passes over bitmaps and unknown messages, whatever bytes they contain', () => {
  const out = new ByteWriter();
  encodeReturnMessage(out, { type: ReturnType.pong, value: 1 });
  // Bits that look like SHUT.
  encodeReturnMessage(out, { type: ReturnType.recvBitmap, block: 'pc.ram' }, Uint8Array.from([0, 1, 0, 4, 0, 0, 0, 9]));
  out
    .u16(77)
    .u16(9)
    .raw(Uint8Array.from([0, 1, 0, 4, 0, 0, 0, 9, 0]));
  for (const step of [1, 5, 100]) expect(showAnswers(out.bytes(), step).shut).toBeUndefined();
  encodeReturnMessage(out, { type: ReturnType.shut, value: 1 });
  for (const step of [1, 5, 100]) {
    expect(showAnswers(out.bytes(), step)).toMatchObject({ shut: { status: 1, end: out.length }, hasPostcopy: false });
  }
});
