/**
 * Compares guest-physical layouts with those of real QEMU: the ranges that `dump-guest-memory` writes, and the blocks
 * that `info mtree` shows there. VMFERRY_QEMU=full runs all machines of layouts.ts.
 */
import { execFileSync } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  type LayoutOptions,
  type MemoryDevice,
  open,
  openPhysical,
  openScratch,
  type PhysicalLayout,
} from '../../src/node.ts';
import { type LayoutCase, layoutCases } from './layouts.ts';
import { readMap, save, startPhysical } from './physical-guest.ts';
import type { Qemu } from './qemu.ts';
import { lacksQemu } from './require.ts';

const isFull = process.env.VMFERRY_QEMU === 'full';

interface Place {
  start: number;
  length: number;
}

/** What QEMU says: memory, and where each block is. */
interface Truth {
  dumped: Place[];
  map: (Place & { name: string; offset: number })[];
}

type Outcome = 'decided' | 'assumed' | 'left out' | 'assumed, and different' | 'silently different';

/** The addresses of memory in QEMU's dump. Only its head is read, so that large guests take no space. */
async function readDump(qemu: Qemu): Promise<Place[]> {
  const path = join(qemu.dir, 'dump');
  execFileSync('mkfifo', [path]);
  const head = readSegments(path);
  // QEMU fails when the pipe closes.
  const dumping = qemu.execute('dump-guest-memory', { paging: false, protocol: `file:${path}` }).catch(() => {});
  const dumped = await head;
  await dumping;
  return dumped;
}

async function readSegments(path: string): Promise<Place[]> {
  let head = Buffer.alloc(0);
  for await (const chunk of createReadStream(path)) {
    head = Buffer.concat([head, chunk as Buffer]);
    if (head.length >= 65536) break;
  }
  const is64 = head[4] === 2;
  const word = (at: number) => (is64 ? Number(head.readBigUInt64LE(at)) : head.readUInt32LE(at));
  const table = is64 ? word(32) : word(28);
  const size = is64 ? 56 : 32;
  return Array.from({ length: head.readUInt16LE(is64 ? 56 : 44) }, (_, i) => table + size * i)
    .filter((at) => head.readUInt32LE(at) === 1)
    .map((at) => ({ start: word(at + (is64 ? 24 : 12)), length: word(at + (is64 ? 40 : 20)) }));
}

/** The name of a memory region, without the device that it belongs to. */
const regionOf = (idstr: string) => idstr.replace(/^[0-9a-f:.]+\//, '');

/** Whether the map shows all of these bytes of the block. */
function isShown({ map }: Truth, { start, length, block, offset }: PhysicalLayout['ranges'][number]): boolean {
  let at = start;
  while (at < start + length) {
    const region = map.find((each) => each.start <= at && at < each.start + each.length);
    const isSame = region?.name === regionOf(block.idstr) && region.offset - region.start === offset - start;
    if (region === undefined || !isSame) return false;
    at = region.start + region.length;
  }
  return true;
}

const isEqual = (layout: PhysicalLayout, segments: readonly { address: number; length: number }[], truth: Truth) =>
  JSON.stringify(segments.map(({ address, length }) => [address, length])) ===
    JSON.stringify(truth.dumped.map(({ start, length }) => [start, length])) &&
  layout.ranges.every((range) => isShown(truth, range));

function judge(
  layout: PhysicalLayout,
  segments: readonly { address: number; length: number }[],
  truth: Truth,
): Outcome {
  if (isEqual(layout, segments, truth)) return layout.assumed.length === 0 ? 'decided' : 'assumed';
  if (layout.assumed.length > 0) return 'assumed, and different';
  const rest = truth.dumped.filter(({ start }) => !segments.some(({ address }) => address === start));
  const isSaid = ({ start, length }: Place) =>
    layout.leftOut.some(({ base, length: all }) => start >= base && start + length <= base + all);
  return rest.every(isSaid) && rest.length === truth.dumped.length - segments.length
    ? 'left out'
    : 'silently different';
}

async function layOut(saved: string, options: LayoutOptions = {}) {
  const file = await open(saved);
  try {
    const memory = await openPhysical(file, { makeScratch: () => openScratch(tmpdir()), ...options });
    try {
      return { layout: memory.layout, segments: memory.core().segments };
    } finally {
      await memory.close();
    }
  } finally {
    await file.close();
  }
}

const placesOf = (devices: readonly MemoryDevice[]) =>
  devices.map(({ block, address, from }) => `${block.idstr} at 0x${address.toString(16)} (${from})`).join(', ');

async function compare({ known = 'decided', stated, ...machine }: LayoutCase): Promise<Outcome> {
  await using qemu = await startPhysical({ ...machine, neverRuns: true });
  await machine.change?.(qemu);
  const truth = { dumped: await readDump(qemu), map: await readMap(qemu) };
  const saved = await save(qemu);
  const { layout, segments } = await layOut(saved);
  const outcome = judge(layout, segments, truth);
  const found = `${placesOf(layout.memoryDevices)}; ${layout.notes.join('; ')}`;
  expect(outcome, found).toBe(stated === undefined ? known : 'assumed, and different');
  if (stated !== undefined) {
    const right = await layOut(saved, stated);
    expect(judge(right.layout, right.segments, truth)).toBe('decided');
  }
  return outcome;
}

describe.skipIf(lacksQemu('7.2', '10.0'))("guest-physical layouts are QEMU's", () => {
  const outcomes = new Map<string, Outcome>();
  const tried = layoutCases.filter(({ essential }) => isFull || essential);

  test.each(tried)('$name', async (machine) => {
    outcomes.set(machine.name, 'silently different');
    outcomes.set(machine.name, await compare(machine));
  });

  test('in nearly all machines, and nowhere silently different', () => {
    const named = (outcome: Outcome) => [...outcomes].filter(([, each]) => each === outcome).map(([name]) => name);
    const all = ['decided', 'assumed', 'left out', 'assumed, and different', 'silently different'] as const;
    const counts = all.map((outcome) => `${named(outcome).length} ${outcome}`);
    const different = named('assumed, and different');
    console.log(`layouts of ${outcomes.size} machines: ${counts.join(', ')}\n  different: ${different.join('\n    ')}`);
    expect(outcomes.size).toBe(tried.length);
    if (isFull) expect(outcomes.size).toBeGreaterThanOrEqual(60);
    expect(named('silently different')).toEqual([]);
    expect(different.length).toBeLessThanOrEqual(5);
  });
});
