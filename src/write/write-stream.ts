/**
 * Writes a VM as a plain migration stream: header, configuration, RAM in one pass, unchanged device states, and the
 * description. QEMU writes the same for a stopped guest (docs/formats/stream.md, "Writing one"), so any QEMU with that
 * machine loads it. The VM need not come from QEMU: a RAM image with a machine's name is enough.
 */

import { type Abortable, abortableSink } from '../io/abort.ts';
import type { ByteSink } from '../io/byte-source.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
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
  /** Sections of iterables other than RAM, in stream order. */
  iterables?: readonly RawSection[];
  /**
   * RAM to send first. What differs from it is sent in a second pass, as XBZRLE deltas if these are shorter. It must
   * have the same blocks.
   */
  base?: RamReader;
  /**
   * What the QEMU version that loads the stream expects. Default: by the machine type, with the marks that the VM's own
   * stream had according to `framing`.
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
 * @throws RangeError, before anything is written, for a VM that no stream can contain: block names that are not unique
 *   or not 1 to 255 bytes long, pages of two sizes or of another size than the configuration states, an empty last
 *   block, two devices with one section id. Later, for a `ram` that contradicts itself.
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

/** Sends the base, then what changed since: two passes whose records count together. */
async function sendOnBase(passes: Passes, base: RamReader): Promise<WrittenBlock[]> {
  const before = await passes.sendAll(base);
  const blocks = await passes.sendChanges(base);
  for (const [i, block] of blocks.entries()) block.records += before[i]?.records ?? 0;
  return blocks;
}
