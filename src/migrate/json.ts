/** The JSON that the live commands print with `--json`, as types. */
import type { VersionedJson } from '../vm/json-version.ts';
import type { MigrationProgress } from './progress.ts';

/** A RAM block that arrived, or was sent. */
export interface LiveBlockJson {
  idstr: string;
  /** Bytes. */
  length: number;
  dataPages: number;
  zeroPages: number;
  /** Pages that were never sent. */
  absentPages: number;
}

/** `receive --json`. */
export interface ReceiveJson extends VersionedJson {
  output: string;
  /** Machine type; null before 2.4. */
  machine: string | null;
  /** Bytes of the file. */
  length: number;
  blocks: LiveBlockJson[];
  /** The source was told that the guest has arrived. */
  confirmed: boolean;
  /** Blocks that the source left out, if that was accepted. */
  leftOut: string[];
  /** What was found in the stream. */
  found: { channels: number; compression: string | null; postcopy: boolean; xbzrlePages: number };
  /** As `query-migrate` of QEMU has it. */
  progress: MigrationProgress;
}

/** `relay --json`. */
export interface RelayJson extends VersionedJson {
  /** The URI of the target. */
  target: string;
  /** The target has said that it has the guest. Without a return path it says nothing. */
  confirmed: boolean;
  /** The guest was migrated in postcopy. */
  postcopy: boolean;
  /** Connections to the target. */
  connections: number;
  /** Bytes that the source has sent. */
  sourceBytes: number;
  /** Bytes that the target has taken, and bytes that it has sent. */
  forwardBytes: number;
  returnBytes: number;
  /** `forwardBytes` as a share of `sourceBytes`: below 1 if encoding RAM again has saved something. */
  ratio: number;
}

/** `send --json`. */
export interface SendJson extends VersionedJson {
  source: string;
  /** URI of the target. */
  target: string;
  /** Machine type; null before 2.4. */
  machine: string | null;
  /** Bytes of the main stream. */
  length: number;
  /** Bytes of each multifd channel, and how they were compressed. */
  channels: number[];
  compression: 'none' | 'zlib' | 'zstd' | null;
  blocks: LiveBlockJson[];
  /** The target said that it has the guest. */
  confirmed: boolean;
  /** As `query-migrate` of QEMU has it. */
  progress: MigrationProgress;
}

/** A line of `resume --serve --json`. */
export interface ServeEventJson extends VersionedJson {
  /** `running`: the guest runs at the target, or is served again. `progress`: about every second. `complete`: all of it is there. */
  event: 'running' | 'progress' | 'complete';
  source: string;
  /** URI of the target. */
  target: string;
  /** Requests for pages. */
  faults: number;
  /** How long requests waited here, in ms; `histogram` has the number of those below each time, and not below the one before. */
  latency: { p50: number; p99: number; max: number; histogram: { below: number; count: number }[] };
  /** Bytes of pages that were sent, and of those that were asked for. */
  sentBytes: number;
  requestedBytes: number;
  /** Bytes of pages with data that are still to be sent, and the share that is there, from 0 to 1; null until they are counted. */
  remainingBytes: number | null;
  resident: number | null;
  /** When all pages will have been sent, in ms from now. */
  expectedEndMs: number | null;
}
