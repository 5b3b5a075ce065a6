/**
 * Writes a VM as a multifd set: a main stream and one stream per channel, as a QEMU with the capability `multifd` sends
 * them (docs/formats/multifd.md, "Writing them"). All of RAM goes through the channels in one round. The rest is the
 * same as in a plain stream (`write-stream.ts`).
 */

import { abortableSink } from '../io/abort.ts';
import type { ByteSink } from '../io/byte-source.ts';
import type { PageCodecs, StreamFormat } from '../io/page-codec.ts';
import { PortableCodecs } from '../io/portable-codecs.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import { abortableVm } from '../store/abortable-ram.ts';
import { stoppedGuest } from '../vm/guest.ts';
import type { WritableVm } from '../vm/saved-vm.ts';
import { requireVm } from '../wire/require-vm.ts';
import type { WrittenChannel } from './channel-writer.ts';
import { MultifdWriter, multifdArenaBytes } from './multifd-writer.ts';
import { defaultRules, Passes } from './passes.ts';
import { ramScanArenaBytes } from './ram-scan.ts';
import { StreamWriter, writerArenaBytes } from './stream-writer.ts';
import type { WriteStreamOptions, WrittenStream } from './write-stream.ts';

/** How a multifd set is written. */
export interface WriteMultifdOptions extends Omit<WriteStreamOptions, 'base'> {
  /** How the channels compress: the value of the parameter multifd-compression. Default `none`. */
  compression?: 'none' | StreamFormat;
  /** From 0 to 9 for zlib, from 0 to 20 for zstd. Default 1, as in QEMU. */
  level?: number;
  /**
   * The guest's UUID as 32 hex digits. A destination refuses any UUID but its own. Default: that of the configuration,
   * or none.
   */
  uuid?: string;
  /** The compression engines. Default: the portable codecs. Those of Node are faster. */
  codecs?: PageCodecs;
}

/** What was written to a multifd set. */
export interface WrittenMultifd extends WrittenStream {
  /** The channels, by number. */
  channels: readonly WrittenChannel[];
}

/**
 * Writes a multifd set: the main stream to `main`, each channel to one of `channels` (1 to 255). The bytes of each
 * channel are written in order; several channels are written at the same time.
 * @example
 * const [main, ...channels] = [new MemoryFile('main'), new MemoryFile('0'), new MemoryFile('1')];
 * await writeMultifd(vm, appendTo(main), channels.map((file) => appendTo(file)), { compression: 'zlib' });
 *
 * @throws RangeError for a number of channels, a level or a UUID out of range, and for a VM that no stream can contain
 *   (see {@link writeStream}). An error of a sink is thrown at once, even while other sinks are still writing.
 */
export async function writeMultifd(
  vm: WritableVm,
  main: ByteSink,
  channels: readonly ByteSink[],
  options: WriteMultifdOptions = {},
): Promise<WrittenMultifd> {
  const { signal } = options;
  signal?.throwIfAborted();
  const sinks = channels.map((sink) => abortableSink(sink, signal));
  return writeSet(abortableVm(vm, options), abortableSink(main, signal), sinks, options);
}

async function writeSet(
  vm: WritableVm,
  main: ByteSink,
  channels: readonly ByteSink[],
  options: WriteMultifdOptions,
): Promise<WrittenMultifd> {
  const { rules = defaultRules(vm), uuid = vm.configuration?.uuid, codecs = new PortableCodecs(), ...rest } = options;
  requireVm(vm);
  const kernel = await loadKernelFor([writerArenaBytes, ramScanArenaBytes, multifdArenaBytes]);
  const writer = new StreamWriter(kernel, main, vm.framing);
  const pageSize = vm.ram.blocks[0]?.pageSize ?? 4096;
  const ofGuest = uuid === undefined ? {} : { uuid };
  const multifd = await MultifdWriter.open(writer, channels, { ...rest, ...ofGuest, codecs, rules, pageSize });
  try {
    const passes = new Passes(stoppedGuest(vm), writer, { ...rest, rules, ramWriter: multifd });
    await passes.begin();
    const blocks = await passes.sendAll();
    await passes.finish();
    await multifd.close();
    return { length: writer.length, blocks, channels: multifd.channels };
  } catch (error) {
    multifd.abandon();
    throw error;
  }
}
