/** The options of a page server (`page-server.ts`), and its result. */
import type { Abortable } from '../io/abort.ts';
import type { ReleaseRules } from '../schema/release-rules.ts';
import type { RawSection } from '../vm/saved-vm.ts';
import type { OrderLine } from './page-order.ts';
import type { PeerWatchOptions } from './peer-watch.ts';
import type { ProgressOptions } from './progress.ts';
import type { PageRange } from './push-order.ts';
import type { SentGuest } from './send-options.ts';
import type { ServeStatistics } from './serve-statistics.ts';

export interface ServeOptions extends Abortable, ProgressOptions, PeerWatchOptions {
  /** Sends what is asked for through a channel of its own (postcopy-preempt), as the destination expects. Default false. */
  preempt?: boolean | undefined;
  /** Bytes per second of pages that nobody asked for. Default 0: no limit. */
  maxPostcopyBandwidth?: number | undefined;
  /** Pages to push before all others, see `parseOrder`. Default: none. */
  order?: readonly OrderLine[] | undefined;
  /** The destination is in postcopy-paused, because an earlier server of this VM is gone. Default false. */
  recover?: boolean | undefined;
  /** Called once when the guest runs at the destination. With `recover`: when it is served again. */
  onRunning?: ((statistics: ServeStatistics) => void) | undefined;
  /** Called once, with a function that returns the statistics of the moment, and the pages that were asked for so far. */
  onStart?: ((look: () => ServeStatistics, recorded: () => readonly PageRange[]) => void) | undefined;
  /** Sections of iterables other than RAM, in stream order. */
  iterables?: readonly RawSection[];
  /** What the QEMU release that loads the stream expects. Default: by the machine type, and by `framing`. */
  rules?: ReleaseRules;
}

/** A guest that was served. */
export interface ServedGuest extends SentGuest {
  statistics: ServeStatistics;
  /** What was asked for, in that order, each page once. */
  recorded: readonly PageRange[];
  /** False: the guest was paused when it was saved, so all of RAM was sent before it arrived. */
  isPostcopy: boolean;
}
