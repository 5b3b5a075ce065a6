/** What a source writes with: a stream, perhaps with multifd channels and a cache for deltas, or a mapped-ram file. */
import { PortableCodecs } from '../io/portable-codecs.ts';
import { loadKernelFor } from '../kernel/load-kernel.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { Guest } from '../vm/guest.ts';
import { MappedRamWriter, mappedRamArenaBytes } from '../write/mapped-ram-writer.ts';
import { MultifdWriter, multifdArenaBytes } from '../write/multifd-writer.ts';
import type { RamWriter, VmWriter } from '../write/passes.ts';
import { preemptArenaBytes } from '../write/preempt-writer.ts';
import { ramScanArenaBytes } from '../write/ram-scan.ts';
import { StreamWriter, writerArenaBytes } from '../write/stream-writer.ts';
import { XbzrleCache, xbzrleArenaBytes } from '../write/xbzrle-cache.ts';
import { channelSinks, type Outgoing } from './outgoing.ts';
import type { SendMultifd, SendOptions } from './send-options.ts';
import type { SourceLines } from './source-lines.ts';

export type SourceWriter = VmWriter & RamWriter;

/** Who writes what, and where to. */
export interface SourceWriterOptions {
  options: SendOptions;
  lines: SourceLines;
  outgoing: Outgoing;
  guest: Guest;
  rules: ReleaseRules;
  pageSize: number;
}

/** The writers of a migration. */
export interface OpenedWriter {
  writer: SourceWriter;
  cache?: XbzrleCache | undefined;
  multifd?: MultifdWriter | undefined;
}

/** Makes the writers, and opens the channels. */
export async function openSourceWriter(source: SourceWriterOptions): Promise<OpenedWriter> {
  const { options, lines, outgoing, guest, pageSize } = source;
  const { multifd, running, mappedRam } = options;
  const { cacheSize, counters } = running?.xbzrle ?? {};
  const kernel = await loadKernelFor([
    ...[writerArenaBytes, ramScanArenaBytes],
    cacheSize === undefined ? 0 : xbzrleArenaBytes(cacheSize),
    multifd === undefined ? 0 : multifdArenaBytes,
    running?.postcopy?.preempt === true ? preemptArenaBytes : 0,
    mappedRam === undefined ? 0 : mappedRamArenaBytes,
  ]);
  const { framing } = guest;
  if (mappedRam !== undefined) {
    return { writer: new MappedRamWriter(kernel, outgoing.store(mappedRam.file), { ...mappedRam, framing }) };
  }
  const writer = new StreamWriter(kernel, lines.mainSink(), framing);
  const cache = cacheSize === undefined ? undefined : new XbzrleCache(kernel, { cacheSize, counters, pageSize });
  return { writer, cache, multifd: multifd && (await openChannels(source, writer, multifd)) };
}

function openChannels(
  { options, lines, guest, rules, pageSize }: SourceWriterOptions,
  writer: StreamWriter,
  multifd: SendMultifd,
): Promise<MultifdWriter> {
  const { channels, compression = 'none', level = 1, codecs = new PortableCodecs() } = multifd;
  const { zeroPageDetection } = options;
  const uuid = multifd.uuid ?? guest.configuration?.uuid;
  const sinks = channelSinks(channels, () => lines.openChannel());
  return MultifdWriter.open(writer, sinks, {
    ...{ compression, level, codecs, pageSize },
    rules: {
      ...rules,
      ...(zeroPageDetection === 'legacy' ? { zeroPages: 'records' as const } : {}),
      ...(zeroPageDetection === 'multifd' ? { zeroPages: 'packets' as const } : {}),
    },
    ...(uuid === undefined ? {} : { uuid }),
  });
}
