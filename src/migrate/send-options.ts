/** What is sent, through which lines, and how: the options of `source.ts`, and its result. */
import type { Abortable } from '../io/abort.ts';
import type { ByteStore } from '../io/byte-source.ts';
import type { Connection } from '../io/connection.ts';
import type { PageCodecs, StreamFormat } from '../io/page-codec.ts';
import { maxChannels } from '../read/channels.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import type { WrittenBlock } from '../write/passes.ts';
import type { DiscardPages } from '../write/postcopy-passes.ts';
import type { XbzrleCounters, XbzrleStatistics } from '../write/xbzrle-cache.ts';
import type { SendBackground } from './background-snapshot.ts';
import type { ColoPrimaryHost } from './colo-primary.ts';
import type { PeerWatchOptions } from './peer-watch.ts';
import type { PrecopyParameters } from './precopy.ts';
import type { MigrationProgress, ProgressOptions } from './progress.ts';

/** The lines to the destination. Sending closes them, however it ends. */
export interface SendLines {
  main: Connection;
  /** Connects a multifd channel, or the preempt channel. It is called once per channel, one after another. */
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

/** Postcopy: the guest runs at the destination before all of its RAM is there. */
export interface SendPostcopy {
  /** Whether it is to begin. Asked at each turn of the loop. */
  isWanted: () => boolean;
  /** Sends requested pages through a channel of their own (postcopy-preempt). Default false. */
  preempt?: boolean;
  /** The status `postcopy-active` comes before the guest is stopped, as before QEMU 10.0. Default false. */
  announcesFirst?: boolean;
  /** Told of pages `[first, end)` that the destination has (release-ram). They may be given up. Default: nobody is. */
  discard?: DiscardPages | undefined;
  /** Called once, with a function that breaks the lines for a reason (migrate-pause). */
  onStart?: ((breakLines: (reason: Error) => void) => void) | undefined;
  /**
   * The lines broke in postcopy, status `postcopy-paused`. Resolves with other lines to go on through (recovery), and may
   * take forever. What it throws ends the migration. Default: a broken line does.
   */
  onBreak?: ((error: unknown) => Promise<SendLines>) | undefined;
}

/** How a guest is sent while it runs. */
export interface SendRunning {
  /** Read anew for each decision, so they may change while the guest is sent. `max-bandwidth` is the one that counts. */
  parameters: Readonly<PrecopyParameters>;
  /**
   * Sends deltas of pages that are sent again, with a cache of this many bytes. Not with multifd. `counters` go on
   * counting from one migration to the next, as those of a QEMU do. Default: they begin at 0.
   */
  xbzrle?: { cacheSize: number; counters?: XbzrleCounters | undefined } | undefined;
  /** Slows the guest down, by a percentage (auto-converge). Default: it runs at full speed. */
  throttle?: ((percentage: number) => Promise<void> | void) | undefined;
  /** Limits the vCPUs (dirty-limit). Called whenever the guest dirties too much. Default: they are not limited. */
  limitVcpus?: (() => Promise<void> | void) | undefined;
  /** Whether a sync is forced every 5 s with auto-converge, as in QEMU 10.0. Default false. */
  forcesSyncs?: boolean;
  /** Waits for the destination's SWITCHOVER_ACK before the guest is stopped. Default false. */
  switchoverAck?: boolean;
  /** Called when the guest is stopped, with the status `pre-switchover`. The end is sent when it resolves. */
  beforeSwitchover?: (() => Promise<void>) | undefined;
  /** Allows postcopy. It needs a return path. Default: all RAM is sent before the guest runs at the destination. */
  postcopy?: SendPostcopy | undefined;
  /** Announces COLO to the destination (capability x-colo), whether it begins or not. Default false. */
  announcesColo?: boolean | undefined;
  /** Goes on with checkpoints after the end, over the same lines (COLO). Without return path. */
  colo?: ColoPrimaryHost | undefined;
  /** Stops the guest before anything is sent (mode cpr-reboot). Default false. */
  stopsFirst?: boolean;
  /** Whether the guest runs, for `precopy-bytes`. Default: until the migration stops it. */
  isRunning?: (() => boolean) | undefined;
  /** Called once, with a function that returns the present state. */
  onStart?: ((look: () => MigrationProgress) => void) | undefined;
  /** Called after each dirty sync with their number. */
  onSync?: ((count: number) => void) | undefined;
}

/** A mapped-ram file that a guest is sent into. */
export interface SendMappedRam {
  /** It is not closed. */
  file: ByteStore;
  /** Where the stream begins in it, in bytes. Default 0. */
  offset?: number;
}

export interface SendOptions extends Abortable, ProgressOptions, PeerWatchOptions {
  /** Default: all RAM goes through the main line. With `mappedRam` it makes no difference: the pages of the file are the same. */
  multifd?: SendMultifd | undefined;
  /** Bytes per second, over all lines. Default 0: no limit. */
  maxBandwidth?: number | undefined;
  /** Default: the guest stands still, and goes in one pass. */
  running?: SendRunning | undefined;
  /**
   * The parameter of this name. `none`: zero pages go as data. `legacy`: they are records of the main stream. `multifd`:
   * they are listed in packets. Default: `legacy` before machine types of 9.0, and `multifd` from there on. A mapped-ram file
   * has none of them, whatever this says.
   */
  zeroPageDetection?: 'none' | 'legacy' | 'multifd' | undefined;
  /** Writes a mapped-ram file instead (capability mapped-ram). `main` is then `fileLine` of that file. */
  mappedRam?: SendMappedRam | undefined;
  /** Sends the guest as it is at one moment, and lets it run on. Without multifd, return path, bandwidth limit and file. */
  background?: SendBackground | undefined;
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
  /** Of a guest that ran, a page that was sent twice counts twice. */
  blocks: readonly WrittenBlock[];
  /** With deltas: what became of the pages. */
  xbzrle?: XbzrleStatistics;
  /** The final state, with the counts. */
  progress: MigrationProgress;
}

/** @throws RangeError for options out of range. */
export function requireSendOptions(
  { multifd, maxBandwidth = 0, idleTimeoutMs, running, background, mappedRam, returnPath = false }: SendOptions,
  lines: SendLines,
): void {
  const isOtherwise = multifd !== undefined || running !== undefined || returnPath;
  if (background !== undefined && isOtherwise) {
    throw new RangeError('expected a background snapshot without multifd, running and return path');
  }
  if (!(maxBandwidth >= 0)) throw new RangeError(`expected bytes per second, got ${maxBandwidth}`);
  if (idleTimeoutMs !== undefined && !(idleTimeoutMs > 0)) throw new RangeError(`expected ms, got ${idleTimeoutMs}`);
  if (running?.postcopy !== undefined && mappedRam !== undefined) {
    throw new RangeError('Postcopy is not compatible with a file');
  }
  if (running?.postcopy !== undefined) requirePostcopy(running.postcopy, lines, multifd);
  if (multifd === undefined || mappedRam !== undefined) return;
  const { channels } = multifd;
  if (!Number.isInteger(channels) || channels < 1 || channels > maxChannels) {
    throw new RangeError(`expected 1 to ${maxChannels} multifd channels, got ${channels}`);
  }
  if (lines.openChannel === undefined) throw new RangeError('Migration requires multi-channel URIs (e.g. tcp)');
}

function requirePostcopy(
  { preempt }: SendPostcopy,
  { main, openChannel }: SendLines,
  multifd: SendMultifd | undefined,
): void {
  if (multifd !== undefined) throw new RangeError('Postcopy is not yet compatible with multifd');
  if (!main.canRead || !main.canWrite) throw new RangeError('Unable to open return-path for postcopy');
  if (preempt === true && openChannel === undefined) {
    throw new RangeError('Migration requires multi-channel URIs (e.g. tcp)');
  }
}
