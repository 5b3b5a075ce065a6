/** What is sent, through which lines, and how: the options of `source.ts`, and its result. */
import type { Abortable } from '../io/abort.ts';
import type { Connection } from '../io/connection.ts';
import type { PageCodecs, StreamFormat } from '../io/page-codec.ts';
import { maxChannels } from '../read/channels.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import type { WrittenBlock } from '../write/passes.ts';
import type { XbzrleStatistics } from '../write/xbzrle-cache.ts';
import type { PeerWatchOptions } from './peer-watch.ts';
import type { PrecopyParameters } from './precopy.ts';
import type { MigrationProgress, ProgressOptions } from './progress.ts';

/** The lines to the destination. Sending closes them, however it ends. */
export interface SendLines {
  main: Connection;
  /** Connects a multifd channel. It is called once per channel, one after another. */
  openChannel?: () => Promise<Connection>;
}

/** The multifd channels of a migration. */
export interface SendMultifd {
  /** How many: 1 to 255, and as many as the destination has. */
  channels: number;
  /** The value of multifd-compression. Default `none`. */
  compression?: 'none' | StreamFormat;
  /** From 0 to 9 for zlib, from 0 to 20 for zstd. Default 1, as in QEMU. */
  level?: number;
  /** The guest's UUID as 32 hex digits. Default: that of the configuration, or none. */
  uuid?: string;
  /** The compression engines. Default: the portable codecs. Those of Node are faster. */
  codecs?: PageCodecs;
}

/** How a guest is sent while it runs. */
export interface SendRunning {
  /** Read anew for each decision, so they may change while the guest is sent. `max-bandwidth` is the one that counts. */
  parameters: Readonly<PrecopyParameters>;
  /** Sends deltas of pages that are sent again, with a cache of this many bytes. Not with multifd. */
  xbzrle?: { cacheSize: number } | undefined;
  /** Slows the guest down, by a percentage (auto-converge). Default: it runs at full speed. */
  throttle?: ((percentage: number) => Promise<void> | void) | undefined;
  /** Whether a sync is forced every 5 s with auto-converge, as in QEMU 10.0. Default false. */
  forcesSyncs?: boolean;
  /** Waits for the destination's SWITCHOVER_ACK before the guest is stopped. Default false. */
  switchoverAck?: boolean;
  /** Called when the guest is stopped, with the status `pre-switchover`. The end is sent when it resolves. */
  beforeSwitchover?: (() => Promise<void>) | undefined;
  /** Called once, with a function that returns the present state. */
  onStart?: ((look: () => MigrationProgress) => void) | undefined;
  /** Called after each dirty sync with their number. */
  onSync?: ((count: number) => void) | undefined;
}

export interface SendOptions extends Abortable, ProgressOptions, PeerWatchOptions {
  /** Default: all RAM goes through the main line. */
  multifd?: SendMultifd | undefined;
  /** Bytes per second, over all lines. Default 0: no limit. */
  maxBandwidth?: number | undefined;
  /** Default: the guest stands still, and goes in one pass. */
  running?: SendRunning | undefined;
  /** Whether the destination is asked to confirm. Default: if `main` can be read. */
  returnPath?: boolean | undefined;
  /** Sections of iterables other than RAM, in stream order. */
  iterables?: readonly RawSection[];
  /** What the QEMU release that loads the stream expects. Default: by the machine type, and by `framing`. */
  rules?: ReleaseRules;
}

/** A guest that was sent. */
export interface SentGuest {
  /** The destination said that it has the guest. Without a return path it cannot. */
  isConfirmed: boolean;
  /** Bytes of the main line, and of each channel. */
  length: number;
  channels: readonly number[];
  blocks: readonly WrittenBlock[];
  /** With deltas: what became of the pages. */
  xbzrle?: XbzrleStatistics;
  /** The final state, with the counts. */
  progress: MigrationProgress;
}

/** @throws RangeError for options out of range. */
export function requireSendOptions(
  { multifd, maxBandwidth = 0, idleTimeoutMs }: SendOptions,
  { openChannel }: SendLines,
): void {
  if (!(maxBandwidth >= 0)) throw new RangeError(`expected bytes per second, got ${maxBandwidth}`);
  if (idleTimeoutMs !== undefined && !(idleTimeoutMs > 0)) throw new RangeError(`expected ms, got ${idleTimeoutMs}`);
  if (multifd === undefined) return;
  const { channels } = multifd;
  if (!Number.isInteger(channels) || channels < 1 || channels > maxChannels) {
    throw new RangeError(`expected 1 to ${maxChannels} multifd channels, got ${channels}`);
  }
  if (openChannel === undefined) throw new RangeError('Migration requires multi-channel URIs (e.g. tcp)');
}
