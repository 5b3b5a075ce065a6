/** How a live migration is read (live-flow.ts). */
import type { PageCodecs } from '../io/page-codec.ts';
import type { PacketMethod } from '../wire/multifd-packet.ts';

/** How a live migration is read. */
export interface LiveFlowOptions {
  codecs: PageCodecs;
  /** The most multifd channels. Default 255. Memory that no channel uses is not touched. */
  mostChannels?: number;
  /** The only compression of channels that is accepted. Default: any. */
  compression?: PacketMethod;
  /** Resolves when all channels that the source has opened so far were added. It is called when RAM begins. */
  channelsKnown?: () => Promise<void>;
  /**
   * Called at a mark when the stream shows that a channel is missing, and with `isCertain` false if one may be missing,
   * because a source before 9.0 does not show it. Resolves with true when another one was added, and with false if none
   * will come. Default: none will.
   */
  anotherChannel?: (isCertain: boolean) => Promise<boolean>;
  /** Whether the Flow ends only after the preempt channel did: nobody answers the source before. Default false. */
  drainsPreempt?: boolean;
}
