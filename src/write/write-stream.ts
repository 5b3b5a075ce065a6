/**
 * Writes a VM as a plain migration stream: header, configuration, RAM in one pass, device states as they were, and the
 * description. It is what QEMU writes for a stopped guest (docs/formats/stream.md, "Writing one"), so any QEMU that
 * loads the machine loads it; and a VM that never was one, a RAM image with a machine's name, can be written, too.
 */

import type { ByteSink } from '../io/byte-source.ts';
import { loadKernel } from '../kernel/kernel.ts';
import type { PageBatch } from '../kernel/page-batch.ts';
import { type ReleaseRules, releaseRulesOf } from '../schema/release-rules.ts';
import type { SectionKind } from '../vm/flow.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { Framing, RawSection, SavedDevices, WritableVm } from '../vm/saved-vm.ts';
import { CommandCode } from '../wire/command.ts';
import { requireDevices, requireVm } from '../wire/require-vm.ts';
import { type BlockChanges, changesArenaBytes, DeltaScan } from './delta-scan.ts';
import { RamScan, ramScanArenaBytes, type ScannedBlock } from './ram-scan.ts';
import { StreamWriter, writerArenaBytes } from './stream-writer.ts';

export interface WriteStreamOptions {
  /** Sections of other iterables, in stream order. */
  iterables?: readonly RawSection[];
  /**
   * RAM to send first: what differs from it comes in a second pass, as XBZRLE deltas where they are shorter. It has the
   * same blocks.
   */
  base?: RamReader;
  /**
   * What the version of QEMU that is to load it expects. Default: by the machine type, and with the marks that `framing`
   * says the stream had.
   */
  rules?: ReleaseRules;
}

export interface WrittenStream {
  /** Bytes of the stream. */
  length: number;
  blocks: WrittenBlock[];
}

export interface WrittenBlock extends ScannedBlock {
  /** With a base: the records of the second pass. */
  changes?: BlockChanges;
}

const defaultFraming: Framing = { ramId: 1, footers: true, switchoverStart: false };

/** What takes RAM: a {@link StreamWriter}, or channels beside it. */
export interface RamWriter {
  startRam(blocks: readonly RamBlock[], options: { guestAddresses?: boolean }): Promise<void>;
  pages(block: RamBlock, batch: PageBatch): Promise<void>;
  /** Ends a pass. */
  endPart(): Promise<void>;
  endRam(): Promise<void>;
}

/**
 * Writes a stream, in order.
 * @example
 * const stream = new MemoryFile();
 * const ram = new RawRam([{ idstr: 'ram', source: new MemoryFile('ram', image) }]);
 * await writeStream({ configuration: { machine: 'none', capabilities: [] }, ram }, appendTo(stream));
 *
 * @throws RangeError, before anything is written, for a VM that no stream can hold: blocks without names of their own of 1 to
 *   255 bytes, pages of two sizes or of another than the configuration says, an empty block as the last, two devices with one
 *   section id; later for a `ram` that does not keep to what it says.
 */
export async function writeStream(
  vm: WritableVm,
  output: ByteSink,
  options: WriteStreamOptions = {},
): Promise<WrittenStream> {
  requireVm(vm);
  if (options.base !== undefined) requireSameBlocks(options.base.blocks, vm.ram.blocks);
  const kernel = await loadKernel({ arenaBytes: arenaBytesFor(options) });
  const writer = new StreamWriter(kernel, output, vm.framing);
  const blocks = await writeAll(vm, writer, writer, options);
  return { length: writer.length, blocks };
}

/** Arena for the main stream's writer and the replay. */
export function arenaBytesFor({ base }: Pick<WriteStreamOptions, 'base'>): number {
  return (64 << 10) + writerArenaBytes + ramScanArenaBytes + (base === undefined ? 0 : changesArenaBytes);
}

/** The rules for a VM if none are given: by its machine type, and with the marks that its stream had. */
export function defaultRules({ configuration, framing = defaultFraming }: WritableVm): ReleaseRules {
  const rules = releaseRulesOf(configuration?.machine);
  return { ...rules, switchoverStart: rules.switchoverStart || framing.switchoverStart };
}

/** Writes all of a VM through `writer`, its RAM through `ramWriter`. */
export async function writeAll(
  vm: WritableVm,
  writer: StreamWriter,
  ramWriter: RamWriter,
  { iterables = [], base, rules = defaultRules(vm) }: WriteStreamOptions,
): Promise<WrittenBlock[]> {
  const { ram, ignored = [] } = vm;
  const parts = (kind: SectionKind) => iterables.filter((section) => section.kind === kind);
  const hasRam = await startStream(writer, ramWriter, vm);
  for (const { bytes } of parts('start')) await writer.raw(bytes);
  const sent = ram.blocks.filter(({ index }) => !ignored.some((each) => each.index === index));
  const replay = new RamScan(writer.kernel);
  const blocks: WrittenBlock[] = ram.blocks.map(makeCounts);
  if (base === undefined) {
    for (const block of sent) {
      const counts = blocks[block.index] as WrittenBlock;
      for await (const batch of replay.pages(ram, counts)) await ramWriter.pages(block, batch);
    }
  } else await writePasses(writer, replay, new DeltaScan(writer.kernel), base, ram, sent, blocks);
  await ramWriter.endPart();
  for (const { bytes } of parts('part')) await writer.raw(bytes);
  if (rules.switchoverStart) await writer.command(CommandCode.switchoverStart);
  if (hasRam) await ramWriter.endRam();
  for (const { bytes } of parts('end')) await writer.raw(bytes);
  await endStream(writer, vm);
  return blocks;
}

/** Writes what comes before the first page. Returns whether there is a section of RAM. */
export async function startStream(
  writer: StreamWriter,
  ramWriter: RamWriter,
  { configuration, ram, framing = defaultFraming }: WritableVm,
): Promise<boolean> {
  const capabilities = (configuration?.capabilities ?? []).filter((name) => name !== 'mapped-ram');
  await writer.begin(configuration === undefined ? undefined : { ...configuration, capabilities });
  const hasRam = framing.ramId !== undefined || ram.blocks.length > 0;
  if (hasRam) await ramWriter.startRam(ram.blocks, { guestAddresses: capabilities.includes('x-ignore-shared') });
  return hasRam;
}

/** Writes what comes after the END of RAM. @throws RangeError for devices that no stream can hold. */
export async function endStream(
  writer: StreamWriter,
  { devices = [], description }: Partial<SavedDevices>,
): Promise<void> {
  requireDevices(devices, writer.ramId);
  for (const device of devices) await writer.device(device);
  await writer.finish(description?.text);
}

const makeCounts = (block: RamBlock): ScannedBlock => ({
  ...{ block, dataPages: 0, zeroPages: 0, absentPages: 0 },
  records: 0,
});

/** The base, and then what changed since, each a PART of its own. */
async function writePasses(
  writer: StreamWriter,
  replay: RamScan,
  replayChanges: DeltaScan,
  base: RamReader,
  ram: RamReader,
  sent: readonly RamBlock[],
  blocks: WrittenBlock[],
): Promise<void> {
  const before = sent.map(({ index }) => makeCounts(base.blocks[index] as RamBlock));
  for (const counts of before) {
    for await (const batch of replay.pages(base, counts)) await writer.pages(counts.block, batch);
  }
  await writer.endPart();
  for (const [i, block] of sent.entries()) {
    const counts = blocks[block.index] as WrittenBlock;
    counts.changes = { deltaPages: 0, deltaBytes: 0, dataPages: 0, zeroPages: 0 };
    const changed = replayChanges.pages(base, ram, counts, counts.changes);
    for await (const batch of changed) await writer.pages(block, batch);
    counts.records += before[i]?.records ?? 0;
  }
}

/** @throws RangeError */
function requireSameBlocks(base: readonly RamBlock[], blocks: readonly RamBlock[]): void {
  const list = (of: readonly RamBlock[]) =>
    of.map(({ idstr, usedLength, pageSize }) => `${idstr} of ${usedLength} bytes in pages of ${pageSize}`).join(', ');
  if (list(base) === list(blocks)) return;
  throw new RangeError(`expected a base with the same RAM blocks (${list(blocks)}), got ${list(base)}`);
}
