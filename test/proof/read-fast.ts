/**
 * Reads a file both ways: with vmferry, and with the slow, obvious reader of test/oracle. What the proofs claim:
 * vmferry's answer is a MigrationError with its place, or equals that of the slow reader on the same bytes.
 */
import { expect } from 'vitest';
import { MappedRamStore } from '../../src/file/mapped-ram-store.ts';
import { type Finding, type Inspection, inspect, MemoryFile, open, PageKind } from '../../src/index.ts';
import { type SlowParts, SlowReaderError, type SlowResult, slowRead, slowReadParts } from '../oracle/slow-reader.ts';

/** How long a file may take before it counts as a hang. */
export const hangMs = 5000;

const noParts: SlowParts = { resumeOf: [], preempt: [] };

export interface FastResult {
  inspection: Inspection;
  /** Final content and the kind of each page's last record, block by block. */
  blocks: { idstr: string; content: Uint8Array; last: Uint8Array }[];
}

/** Everything vmferry has to say about a file: an error, or all of its content. */
export async function readFast(
  bytes: Uint8Array,
  offset = 0,
  parts: SlowParts = noParts,
): Promise<{ error: Finding } | { result: FastResult }> {
  const file = await open(bytes, { offset, ...parts });
  const store = new MappedRamStore(new MemoryFile(), file.staging);
  const { inspection, states } = await inspect(file, { sink: store });
  const error = inspection.error ?? inspection.findings.find(({ severity }) => severity === 'error');
  if (error !== undefined) return { error };
  const blocks = [];
  for (const [i, block] of store.blocks.entries()) {
    const content = new Uint8Array(block.usedLength);
    await store.read(block, 0, content);
    const last = new Uint8Array(block.usedLength / block.pageSize);
    last.forEach((_, page) => {
      last[page] = states[i]?.states.get(page) ?? 0;
    });
    blocks.push({ idstr: block.idstr, content, last });
  }
  return { result: { inspection, blocks } };
}

/** The slow reader's numbers for what a page's last record was. */
const slowKinds: Record<number, number> = {
  [PageKind.absent]: 0,
  [PageKind.zero]: 1,
  [PageKind.data]: 2,
  [PageKind.delta]: 3,
};

/** Everything but the content of RAM. */
function compareStructure(inspection: Inspection, slow: SlowResult, offset: number): void {
  expect(inspection.format).toBe(slow.format);
  expect(inspection.machine ?? undefined).toBe(slow.machine);
  expect(inspection.capabilities).toEqual(slow.capabilities);
  expect(inspection.dirtyBitmaps).toEqual(slow.dirtyBitmaps);
  expect(inspection.complete).toBe(slow.complete);
  expect((inspection.length as number) + offset).toBe(slow.end);
  expect(inspection.sections.map(({ kind, name, id, ...rest }) => [kind, name, id, rest.offset, rest.length])).toEqual(
    slow.sections.map(({ kind, name, sectionId, ...rest }) => [kind, name, sectionId, rest.offset, rest.length]),
  );
}

/** Holds vmferry against the slow reader. Returns vmferry's error code, or `equal`. */
export async function compareReaders(bytes: Uint8Array, offset = 0, parts: SlowParts = noParts): Promise<string> {
  // Time of the processor, so that a busy machine does not look like a hang; waiting is bounded by the test's own limit.
  const before = process.cpuUsage();
  const fast = await readFast(bytes, offset, parts);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1000).toBeLessThan(hangMs);
  if ('error' in fast) {
    const { place } = fast.error;
    expect(place.source).toBe('memory');
    expect(Number.isSafeInteger(place.offset)).toBe(true);
    expect(place.offset).toBeGreaterThanOrEqual(0);
    const sizes = [bytes, ...parts.resumeOf, ...parts.preempt].map(({ length }) => length);
    expect(place.offset).toBeLessThanOrEqual(Math.max(...sizes));
    return fast.error.code === 'unsupported' ? compareUnsupported(bytes, offset) : fast.error.code;
  }
  const { inspection, blocks } = fast.result;
  const isWhole = parts.resumeOf.length + parts.preempt.length === 0;
  const slow = isWhole ? slowRead(bytes, offset, inspection.ram.blocks[0]?.pageSize) : slowReadParts(bytes, parts);
  compareStructure(inspection, slow, offset);
  expect(blocks.map(({ idstr }) => idstr)).toEqual(slow.blocks.map(({ idstr }) => idstr));
  for (const [i, { content, last }] of blocks.entries()) {
    const expected = slow.blocks[i];
    if (expected === undefined) throw new Error('a block is missing');
    if (Buffer.compare(content, expected.content) !== 0) {
      throw new Error(`the content of ${expected.idstr} differs from that of the slow reader`);
    }
    if (inspection.format === 'mapped-ram') continue;
    const kinds = last.map((kind) => slowKinds[kind] as number);
    if (Buffer.compare(kinds, expected.last) !== 0) {
      throw new Error(`the page kinds of ${expected.idstr} differ from those of the slow reader`);
    }
  }
  return 'equal';
}

/** A small seeded generator (mulberry32): numbers in [0, 1). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Where the content cannot be decoded yet: the structure is read all the same. Returns the error code, or `unsupported`. */
async function compareUnsupported(bytes: Uint8Array, offset: number): Promise<string> {
  const { inspection } = await inspect(await open(bytes, { offset }));
  const error = inspection.error ?? inspection.findings.find(({ severity }) => severity === 'error');
  if (error !== undefined) return error.code;
  let slow: SlowResult;
  try {
    slow = slowRead(bytes, offset, inspection.ram.blocks[0]?.pageSize);
  } catch (caught) {
    // The slow reader inflates compressed pages, and may find them broken.
    if (caught instanceof SlowReaderError) return 'unsupported and broken';
    throw caught;
  }
  compareStructure(inspection, slow, offset);
  return 'unsupported';
}
