/**
 * Encodes a decoded capture again by the public encoders, with the capture's own passes and parts. The result must
 * equal the capture byte for byte, so captures from a real QEMU prove the encoders.
 */
import { expect } from 'vitest';
import {
  type ByteSink,
  ByteWriter,
  convertToMappedRam,
  encodeEos,
  encodeFlow,
  encodeFooter,
  encodeMultifdHeader,
  encodeMultifdHello,
  FlowWriter,
  MemoryFile,
  type MultifdHello,
  multifdHeaderLength,
  multifdPacketPages,
  open,
  type RamBlock,
  StreamWriter,
  writerArenaBytes,
} from '../src/node.ts';
import { ByteWindow } from '../src/wire/byte-window.ts';
import {
  decodeHello,
  helloLength,
  pageOffsetAt,
  readPacketFlags,
  readPacketHeader,
} from '../src/wire/multifd-packet.ts';
import { run } from './wire/decoding.ts';

const PAGE = 4096;

/** A sink that keeps its bytes. */
function makeCopy(): { sink: ByteSink; bytes: () => Uint8Array } {
  const parts: Uint8Array[] = [];
  return { sink: { write: (bytes) => void parts.push(bytes.slice()) }, bytes: () => Buffer.concat(parts) };
}

function expectSame(a: Uint8Array, b: Uint8Array, what: string): void {
  const length = Math.min(a.length, b.length);
  if (Buffer.compare(a, b) === 0) return;
  let at = 0;
  while (at < length && a[at] === b[at]) at++;
  throw new Error(`${what}: ${a.length} bytes, expected ${b.length}; different from offset ${at} on`);
}

/** A stream: plain, the main channel of a multifd migration, or one that switches to postcopy. */
export async function expectStreamAgain(bytes: Uint8Array, offset = 0): Promise<void> {
  const file = await open(bytes, { offset, spareBytes: writerArenaBytes });
  const copy = makeCopy();
  const { length } = await encodeFlow(file, copy.sink);
  await file.close();
  expectSame(copy.bytes(), bytes.subarray(offset), 'the stream');
  expect(length).toBe(bytes.length - offset);
}

/** The streams of a migration in several files. Truncated ones lose the record in which they end. */
export async function expectStreamsAgain(streams: {
  main: Uint8Array;
  resumeOf: readonly Uint8Array[];
  preempt: readonly Uint8Array[];
}): Promise<void> {
  const files = Object.entries({ ...streams, main: [streams.main] }).flatMap(([role, list]) =>
    list.map((bytes, i) => ({ role, bytes, source: new MemoryFile(`${role} ${i}`, bytes), copy: makeCopy() })),
  );
  const sourcesOf = (wanted: string) => files.filter(({ role }) => role === wanted).map(({ source }) => source);
  const file = await open(sourcesOf('main')[0] as MemoryFile, {
    ...{ resumeOf: sourcesOf('resumeOf'), preempt: sourcesOf('preempt') },
    spareBytes: writerArenaBytes * files.length,
  });
  const outputs = files.map((each) => {
    const writer = new StreamWriter(file.kernel, each.copy.sink);
    return { ...each, writer, again: new FlowWriter(writer) };
  });
  let current = outputs.find(({ role }) => role === 'main');
  for await (const item of file.flow()) {
    if (item.kind === 'source') current = outputs.find(({ source }) => source.name === item.origin.source);
    else await current?.again.take(item);
  }
  await file.close();
  for (const { role, bytes, copy, writer, again, source } of outputs) {
    // The Flow lacks the EOS of a preempt channel.
    if (role === 'preempt' && bytes.length === writer.length + 8) await again.eos();
    await writer.flush();
    const isBroken = role === 'resumeOf' || (role === 'preempt' && streams.resumeOf.length > 0);
    const lost = bytes.length - writer.length;
    expect(lost, source.name).toBeLessThan(isBroken ? PAGE + 8 + 256 : 1);
    expectSame(copy.bytes(), bytes.subarray(0, bytes.length - lost), source.name);
  }
}

/**
 * A multifd channel, packet by packet; payloads pass unchanged. QEMU 7.2 leaves the offsets of earlier packets behind
 * those of a packet: with `isUnusedZero`, these bytes are compared too.
 */
export function expectChannelAgain(bytes: Uint8Array, isUnusedZero: boolean): void {
  const window = new ByteWindow(bytes, 'channel.bin');
  window.limit = bytes.length;
  const hello = run<never, MultifdHello>(bytes.subarray(0, helloLength), helloLength, decodeHello);
  const first = new ByteWriter();
  encodeMultifdHello(first, hello);
  expectSame(first.bytes(), bytes.subarray(0, helloLength), 'the first bytes');
  const pages = new Float64Array(multifdPacketPages(PAGE));
  const headerLength = multifdHeaderLength(PAGE);
  for (window.position = helloLength; window.position < bytes.length; ) {
    const header = readPacketHeader(window, readPacketFlags(window), PAGE, pages);
    const { normalPages, zeroPages, payloadLength, method } = header;
    const count = normalPages + zeroPages;
    const out = new Uint8Array(headerLength);
    encodeMultifdHeader(out, header, PAGE, pages.subarray(0, count));
    const compared = isUnusedZero ? headerLength : pageOffsetAt(count);
    const original = bytes.subarray(window.position, window.position + compared);
    expectSame(out.subarray(0, compared), original, `the packet at ${window.position}`);
    const plain = method === 'none' ? normalPages * PAGE : payloadLength;
    window.position += headerLength + (normalPages === 0 ? 0 : plain);
  }
  expect(window.position).toBe(bytes.length);
}

/** The blocks of a mapped-ram file, and its data after RAM, written again. */
async function writeTail(bytes: Uint8Array, offset: number): Promise<{ blocks: RamBlock[]; tail: Uint8Array }> {
  const file = await open(bytes, { offset, spareBytes: writerArenaBytes });
  const copy = makeCopy();
  const writer = new StreamWriter(file.kernel, copy.sink);
  const again = new FlowWriter(writer);
  const blocks: RamBlock[] = [];
  let isTail = false;
  for await (const item of file.flow({ read: 'bitmaps' })) {
    if (item.kind === 'block') blocks.push(item.block);
    if (isTail) await again.take(item);
    else if (item.kind === 'section-end') {
      isTail = true;
      const end = new ByteWriter();
      encodeEos(end);
      encodeFooter(end, item.section.id);
      await writer.raw(end.bytes());
    }
  }
  await writer.flush();
  await file.close();
  return { blocks, tail: copy.bytes() };
}

/**
 * A mapped-ram file. The format fixes all bytes except two kinds, which are not compared: the place of a page without a
 * bit in the bitmap, where QEMU leaves a hole or an earlier content of the page, and the gaps before the pages, which
 * it does not write. A `MappedRamStore` writes everything up to the last page. The rest is a Flow written again, since
 * QEMU leaves a PART without records each time that it sent some, and a store has no passes.
 *
 * `hasZeroPages`: QEMU did not detect zero pages (zero-page-detection none), so they have bits. The store does detect
 * them and writes no bits: the bitmap is compared except for zero pages.
 *
 * Returns the number of pages compared.
 */
export async function expectMappedAgain(bytes: Uint8Array, offset = 0, hasZeroPages = false): Promise<number> {
  const { blocks, tail } = await writeTail(bytes, offset);
  const output = new MemoryFile();
  const conversion = await convertToMappedRam(await open(bytes, { offset }), output, { offset });
  const again = new Uint8Array(output.size);
  await output.read(again, 0);
  await conversion.close();
  const expectRange = (from: number, to: number) =>
    expectSame(again.subarray(from, to), bytes.subarray(from, to), `bytes from ${from} on`);
  let [end, pages] = [offset, 0];
  for (const { mapped, usedLength } of blocks) {
    const { bitmapOffset, bitmapLength, pagesOffset } = mapped as NonNullable<typeof mapped>;
    expectRange(end, bitmapOffset);
    const isSet = (of: Uint8Array, page: number) =>
      (((of[bitmapOffset + (page >> 3)] as number) >> (page & 7)) & 1) === 1;
    if (!hasZeroPages) expectRange(bitmapOffset, bitmapOffset + bitmapLength);
    for (let page = 0; page < usedLength / PAGE; page++) {
      if (isSet(again, page)) expect(isSet(bytes, page), `the bit of page ${page}`).toBe(true);
      if (!isSet(bytes, page)) continue;
      expectRange(pagesOffset + page * PAGE, pagesOffset + (page + 1) * PAGE);
      pages++;
    }
    end = pagesOffset + usedLength;
  }
  expectSame(tail, bytes.subarray(end), 'the data after RAM');
  return pages;
}
