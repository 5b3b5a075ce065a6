/**
 * Reads a file with vmferry and with the slow, obvious reader of test/oracle. The proofs claim that vmferry's result is
 * a MigrationError with its place, or equals the slow reader's on the same bytes.
 */
import { expect } from 'vitest';
import {
  type Finding,
  type Inspection,
  inspect,
  MemoryFile,
  NodeCodecs,
  open,
  type PageCodecs,
  PageKind,
} from '../../src/node.ts';
import { MappedRamStore } from '../../src/store/mapped-ram-store.ts';
import { type SlowResult, slowRead, slowReadParts } from '../oracle/slow-reader.ts';

/** CPU time after which a file counts as a hang. */
export const hangMs = 5000;

/** The other files of a migration. */
export interface Beside {
  channels?: readonly Uint8Array[];
  resumeOf?: Uint8Array[];
  preempt?: Uint8Array[];
}

interface FastResult {
  inspection: Inspection;
  /** Final content and the kind of each page's last record, block by block. */
  blocks: { idstr: string; content: Uint8Array; last: Uint8Array }[];
}

/** vmferry's complete result for a file: an error, or all of its content. */
async function readFast(
  bytes: Uint8Array,
  offset = 0,
  beside: Beside = {},
  codecs: PageCodecs = new NodeCodecs(),
): Promise<{ error: Finding } | { result: FastResult }> {
  const { channels = [], ...parts } = beside;
  const named = channels.map((channel, i) => new MemoryFile(channelName(i), channel));
  const file = await open(bytes, { offset, channels: named, codecs, ...parts });
  const store = new MappedRamStore(new MemoryFile(), file.pageSlots);
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

/** The name of the i-th channel in places. */
const channelName = (i: number) => `channel ${i}`;

/** The slow reader's numbers for the kind of a page's last record. */
const slowKinds: Record<number, number> = {
  [PageKind.absent]: 0,
  [PageKind.zero]: 1,
  [PageKind.data]: 2,
  [PageKind.delta]: 3,
  // The slow reader counts it as a normal page.
  [PageKind.compressed]: 2,
};

/** Everything except the content of RAM. */
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

/** Compares vmferry with the slow reader. Returns vmferry's error code, or `equal`, perhaps without the description. */
export async function compareReaders(
  bytes: Uint8Array,
  offset = 0,
  beside: Beside = {},
  codecs?: PageCodecs,
): Promise<string> {
  const { channels = [], resumeOf = [], preempt = [] } = beside;
  // CPU time, so that a busy machine does not look like a hang; the test's own limit bounds the waiting.
  const before = process.cpuUsage();
  const fast = await readFast(bytes, offset, beside, codecs);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1000).toBeLessThan(hangMs);
  if ('error' in fast) {
    const { place } = fast.error;
    const names = ['memory', ...channels.map((_, i) => channelName(i))];
    const source = [bytes, ...channels][names.indexOf(place.source)];
    expect(source, place.source).toBeDefined();
    expect(Number.isSafeInteger(place.offset)).toBe(true);
    expect(place.offset).toBeGreaterThanOrEqual(0);
    const sizes = [source, ...resumeOf, ...preempt].map((each) => each?.length ?? 0);
    if (place.coordinate === 'file') expect(place.offset).toBeLessThanOrEqual(Math.max(...sizes));
    return fast.error.code;
  }
  const { inspection, blocks } = fast.result;
  const isWhole = resumeOf.length + preempt.length === 0;
  const pageSize = inspection.ram.blocks[0]?.pageSize;
  // QEMU loads a stream that breaks off in its description. The slow reader refuses it, so it gets the stream without.
  const isCut = inspection.findings.some(
    ({ code, message }) => code === 'bad-description' && /breaks off/.test(message),
  );
  const eof = Math.max(...inspection.sections.map((section) => section.offset + section.length)) + 1;
  const main = isCut ? bytes.slice(0, eof) : bytes;
  const slow = isWhole ? slowRead(main, offset, channels, pageSize) : slowReadParts(main, { resumeOf, preempt });
  compareStructure(isCut ? { ...inspection, length: eof - offset } : inspection, slow, offset);
  expect(blocks.map(({ idstr }) => idstr)).toEqual(slow.blocks.map(({ idstr }) => idstr));
  for (const [i, { content, last }] of blocks.entries()) {
    const expected = slow.blocks[i];
    if (expected === undefined) throw new Error('vmferry found fewer blocks than the slow reader');
    if (Buffer.compare(content, expected.content) !== 0) {
      throw new Error(`the content of ${expected.idstr} differs from that of the slow reader`);
    }
    if (inspection.format === 'mapped-ram') continue;
    const kinds = last.map((kind) => slowKinds[kind] as number);
    if (Buffer.compare(kinds, expected.last) !== 0) {
      throw new Error(`the page kinds of ${expected.idstr} differ from those of the slow reader`);
    }
  }
  return isCut ? 'equal, without the description' : 'equal';
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
