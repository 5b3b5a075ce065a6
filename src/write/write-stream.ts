/**
 * Writes a VM as a plain migration stream: header, configuration, RAM in one pass, device states as they were, and the
 * description. It is what QEMU writes for a stopped guest (docs/formats/stream.md, "Writing one"), so any QEMU that
 * loads the machine loads it; and a VM that never was one, a RAM image with a machine's name, can be written, too.
 */

import { type Abortable, abortableSink } from '../io/abort.ts';
import type { ByteSink } from '../io/byte-source.ts';
import { loadKernelFor } from '../kernel/kernel.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import { abortableVm } from '../store/abortable-ram.ts';
import { stoppedGuest } from '../vm/guest.ts';
import { requireSameBlocks } from '../vm/ram-block.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { RawSection, WritableVm } from '../vm/saved-vm.ts';
import { requireVm } from '../wire/require-vm.ts';
import { deltaScanArenaBytes } from './delta-scan.ts';
import { Passes, type WrittenBlock } from './passes.ts';
import { ramScanArenaBytes } from './ram-scan.ts';
import { StreamWriter, writerArenaBytes } from './stream-writer.ts';

/** How a stream is written. */
export interface WriteStreamOptions extends Abortable {
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

/** What was written to a stream. */
export interface WrittenStream {
  /** Bytes of the stream. */
  length: number;
  blocks: WrittenBlock[];
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
  const { signal } = options;
  signal?.throwIfAborted();
  return writeWhole(abortableVm(vm, options), abortableSink(output, signal), options);
}

async function writeWhole(vm: WritableVm, output: ByteSink, options: WriteStreamOptions): Promise<WrittenStream> {
  requireVm(vm);
  if (options.base !== undefined) requireSameBlocks(vm.ram.blocks, options.base.blocks, 'a base');
  const kernel = await loadKernelFor([
    writerArenaBytes,
    ramScanArenaBytes,
    options.base === undefined ? 0 : deltaScanArenaBytes,
  ]);
  const writer = new StreamWriter(kernel, output, vm.framing);
  const passes = new Passes(stoppedGuest(vm), writer, options);
  await passes.begin();
  const blocks = await (options.base === undefined ? passes.sendAll() : sendOnBase(passes, options.base));
  await passes.finish();
  return { length: writer.length, blocks };
}

/** The base, and then what changed since: two passes, whose records count together. */
async function sendOnBase(passes: Passes, base: RamReader): Promise<WrittenBlock[]> {
  const before = await passes.sendAll(base);
  const blocks = await passes.sendChanges(base);
  for (const [i, block] of blocks.entries()) block.records += before[i]?.records ?? 0;
  return blocks;
}
