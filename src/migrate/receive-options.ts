/** What `receive` takes and returns (destination.ts). */
import type { ByteStore } from '../io/byte-source.ts';
import type { Clock } from '../io/clock.ts';
import type { PageCodecs } from '../io/page-codec.ts';
import type { MissingRam } from '../store/missing-ram.ts';
import type { Settled } from '../store/settle.ts';
import type { RamBlock } from '../vm/ram-block.ts';
import type { PacketMethod } from '../wire/multifd-packet.ts';
import type { ColoLine } from './colo-line.ts';
import type { Incoming } from './incoming.ts';
import type { MigrationProgress } from './progress.ts';

/** Where the guest goes. */
export interface ReceiveTarget {
  /** Takes the mapped-ram file from its first byte on. */
  file: ByteStore;
  /**
   * Makes the file durable, and visible under its name. The source is told only afterwards. `confirm` throws if the
   * migration was given up in the meantime: call it before an older file is replaced.
   */
  commit: (confirm: () => void) => Promise<void>;
  /**
   * Keeps an incomplete file after a failure in postcopy: makes it durable under another name, and returns that. It may be
   * called again, and the file still be written to: a recovery adds what was missing.
   */
  keep?: () => Promise<string>;
}

/** How a migration is received. */
export interface ReceiveOptions {
  signal?: AbortSignal;
  clock?: Clock;
  codecs: PageCodecs;
  /** The most multifd channels. Default 255. */
  mostChannels?: number;
  /** The only compression of multifd channels that is accepted. Default: any that vmferry can read. */
  compression?: PacketMethod;
  /**
   * Answer a source that waits for the word to switch over. Default: if it is of QEMU 8.1 or later by its machine type,
   * or visibly waits. An earlier source fails if it is told without having asked. A function is asked when the return path
   * is opened, and later.
   */
  switchoverAck?: boolean | (() => boolean);
  /** Accept blocks that the source left out (x-ignore-shared), and mark the file. Default false. */
  allowIncomplete?: boolean;
  /** A source that sends no byte for this long, in ms, has failed. Default: no limit. */
  idleTimeoutMs?: number;
  /** Called while the source is silent, every 10 s, with the time since its last byte in ms, and what is waited for. */
  onWaiting?: (silentMs: number, what: string) => void;
  /** Called with each change of the status, and at most every 100 ms in between. */
  onProgress?: (progress: MigrationProgress) => void;
  /** Called once, when it is known whether the source has a return path: before any page. */
  onReturnPath?: (has: boolean) => void;
  /** Called when the source was told that it has arrived. */
  onTold?: () => void;
  /** The source has announced COLO. It throws if that is not wanted. Default: it is ignored. */
  onEnableColo?: () => void;
  /** With COLO: takes the line when the guest was committed. Resolves when COLO has ended. */
  onColo?: (line: ColoLine) => Promise<void>;
  /** Called once, before any page, with what the source is. It throws if that does not fit here. */
  onSource?: (source: IncomingSource) => void;
  /** How postcopy goes on if its lines break. Default: the migration has failed then. */
  recovery?: Recovery;
}

/** What a destination needs to go on after a break in postcopy. */
export interface Recovery {
  /** Called when postcopy has begun, and again with other lines, with what breaks the present lines. */
  onLines?: (breakLines: (error: Error) => void) => void;
  /**
   * The lines broke, status `postcopy-paused`, and what has come is kept. Resolves with where the source connects next. A
   * rejection ends the migration with what broke the lines.
   */
  onBreak: (error: unknown) => Promise<Incoming>;
  /**
   * A source that could not be told that its guest has arrived is waited for, too. Default false: it stays in
   * `postcopy-paused`, as with QEMU.
   */
  tellsLate?: boolean;
}

/** What is known of a source before its first page. */
export interface IncomingSource {
  configuration: Settled['configuration'];
  blocks: readonly RamBlock[];
  /** It has announced postcopy of RAM. */
  hasAdvice: boolean;
  /** Multifd channels that have come; 0 without multifd. */
  channels: number;
}

/** A guest that arrived. */
export interface Received {
  configuration: Settled['configuration'];
  blocks: { idstr: string; length: number; dataPages: number; zeroPages: number; absentPages: number }[];
  /** Bytes of the file. */
  length: number;
  /** What the source left out, if that was accepted. */
  missing: MissingRam | undefined;
  /** The source was told that the guest has arrived. False without a return path, and if its line broke just before. */
  confirmed: boolean;
  /** What was found in the stream. */
  found: { channels: number; compression: string | undefined; postcopy: boolean; xbzrlePages: number };
  progress: MigrationProgress;
}
